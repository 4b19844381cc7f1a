//! What a pod knows of itself, for people and health checks.

use super::copy::META;
use super::group::Group;
use super::pod::Node;
use super::{Cost, Held, Locks, PeerStatus, ShardStatus, Status};
use crate::modules::keys;
use kassa_protocols::ids::{PodId, Shard};
use kassa_protocols::tables::Disk;
use std::collections::BTreeSet;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

impl Node {
    /// What this pod knows of itself.
    #[must_use]
    pub fn status(&self) -> Status {
        let mut shards = vec![shard_status(&self.cluster.group, 0)];
        let mut not_ready = Vec::new();
        let leaderless = |shard: Shard| format!("{shard} has no leader that this pod knows of");
        if self.cluster.group.leader().is_none() {
            not_ready.push(leaderless(Shard::CLUSTER));
        }
        for stock in self.stock.values() {
            if stock.group.leader().is_none() {
                not_ready.push(leaderless(stock.group.shard()));
            }
            // On read/write quorums only the coordinator evaluates, and so knows what is reserved.
            let open = if stock.group.is_leading() { stock.group.machine.open() } else { 0 };
            shards.push(shard_status(&stock.group, open as u64));
        }
        for payment in self.payment.values() {
            if payment.group.leader().is_none() || (payment.group.is_leading() && !payment.is_serving()) {
                not_ready.push(leaderless(payment.group.shard()));
            }
            let payments = &payment.group.machine;
            let open = payments.unfinished().len() + payments.prepared().len();
            let open = if payment.group.is_leading() { open } else { 0 };
            shards.push(shard_status(&payment.group, open as u64));
        }
        if self.pace.lagging().contains(&self.config.me) {
            not_ready
                .push("this pod cannot keep up with the others: its disk or its links are slow".to_owned());
        }
        if let Some(refill) = self.refill().filter(|refill| !refill.is_whole()) {
            let (whole, all) = refill.shards();
            not_ready.push(format!("this pod is being refilled: {whole} of {all} shards are whole"));
        }
        let peers = self.config.pods.iter().filter(|&&pod| pod != self.config.me);
        Status {
            pod: self.config.me.0,
            aside: self.pace.lagging().contains(&self.config.me),
            lagging: self.pace.lagging().iter().map(|pod| pod.0).collect(),
            not_ready,
            peers: peers.map(|&pod| PeerStatus { pod: pod.0, up: self.out.is_up(pod) }).collect(),
            shards,
            requests: self.ingress.len() as u64,
            checkouts: self.payment.values().map(|payment| payment.checkouts.active() as u64).sum(),
            unfinished: self.payment.values().map(|payment| payment.checkouts.open() as u64).sum(),
            committed: self.payment.values().map(|payment| payment.committed).sum(),
            locks: self.locks(),
            reads_settled: self.reads_settled,
            cost: Cost::default(),
            disks: self.disk_status(),
        }
    }
}

impl Node {
    fn locks(&self) -> Locks {
        let led = self.payment.values().filter(|payment| payment.group.is_leading());
        let waits_for: BTreeSet<PodId> = led.clone().flat_map(|p| p.blocking.doubts.waited_for()).collect();
        Locks {
            items: self.stock.values().map(|stock| stock.locked_items() as u64).sum(),
            users: led.clone().map(|payment| payment.group.machine.prepared().len() as u64).sum(),
            in_doubt: led.map(|payment| payment.blocking.doubts.len() as u64).sum(),
            waits_for: waits_for.into_iter().map(|pod| pod.0).collect(),
            decisions: self.payment.values().map(|payment| payment.blocking.decisions.len() as u64).sum(),
        }
    }

    /// What this pod holds of the shards that have positions, to be compared with other pods. Between two
    /// rounds only: in the middle of one the disk may not have what memory has let go.
    #[must_use]
    pub fn held(&self, disk: &dyn Disk) -> Vec<Held> {
        let stock = self.stock.values().map(|stock| held(&stock.group, disk));
        let payment = self.payment.values().map(|payment| held(&payment.group, disk));
        stock.chain(payment).chain([held(&self.cluster.group, disk)]).collect()
    }
}

fn held<M: crate::modules::machine::Machine, T>(group: &Group<M, T>, disk: &dyn Disk) -> Held {
    let mut digest = 0_u64;
    for (key, value) in group.state.scan_committed(disk) {
        // Each replica drops expired keys when it likes; its own place in the log is not a record.
        if key != META && key.first() != Some(&keys::TABLE) {
            digest = digest.wrapping_add(xxh3_64_with_seed(&value, xxh3_64(&key)));
        }
    }
    Held { shard: group.shard(), position: group.position(), digest }
}

fn shard_status<M: crate::modules::machine::Machine, T>(group: &Group<M, T>, open: u64) -> ShardStatus {
    let (applied, committed) = group.positions();
    ShardStatus {
        module: group.shard().module.to_string(),
        shard: group.shard().no.0,
        replicas: group.replicas().iter().map(|pod| pod.0).collect(),
        leader: group.leader().map(|pod| pod.0),
        ballot: group.ballot().to_string(),
        applied,
        committed,
        open,
    }
}
