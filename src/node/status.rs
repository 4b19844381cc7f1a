//! What a pod knows of itself, for people and health checks.

use super::group::Group;
use super::pod::Node;
use super::{PeerStatus, ShardStatus, Status};
use kassa_protocols::ids::Shard;

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
            let open = if payment.group.is_leading() { payment.group.machine.unfinished().len() } else { 0 };
            shards.push(shard_status(&payment.group, open as u64));
        }
        let peers = self.config.pods.iter().filter(|&&pod| pod != self.config.me);
        Status {
            pod: self.config.me.0,
            not_ready,
            peers: peers.map(|&pod| PeerStatus { pod: pod.0, up: self.out.is_up(pod) }).collect(),
            shards,
            requests: self.ingress.len() as u64,
            checkouts: self.payment.values().map(|payment| payment.checkouts.active() as u64).sum(),
            unfinished: self.payment.values().map(|payment| payment.checkouts.open() as u64).sum(),
            committed: self.payment.values().map(|payment| payment.committed).sum(),
        }
    }
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
