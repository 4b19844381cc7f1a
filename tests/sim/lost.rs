//! Lost disks: a pod comes back empty, waits, and is refilled from the others once an operator says so.
//!
//! What the binary's fabric and `kassa replace` do around the node is played here: who introduces itself under
//! which disk, whom an empty pod believes, and who is asked to replace it.

use crate::adapter::{ClientId, Input, Replace, Request, first_disks};
use crate::pod::State;
use crate::world::{Event, World, pod_id};
use kassa_protocols::ids::{DiskId, OpId, PodId};
use kassa_protocols::time::Span;
use rand::RngExt;

/// How soon an operator types it after the empty pod has started, at the most.
const NOTICED_US: u64 = 2_000_000;
/// And again, if it was not done.
const AGAIN_US: u64 = 700_000;
/// What the operator's command waits for an answer.
const PATIENCE: Span = Span::from_millis(5_000);
/// How often an empty pod asks the others who it is.
const ASKS_EVERY_US: u64 = 50_000;
/// The operator's requests are numbered from here on: no client's number is as high.
const OPERATOR: u64 = 1 << 60;
/// New disks are numbered from here on.
const NEW_DISKS: u128 = 1_000;

impl World {
    /// A pod's disk is gone with its process. It starts again, empty, a while later.
    pub fn lose_disk(&mut self, pod: usize, down_us: u64) {
        let other_is_lost = (0..self.pods.len()).any(|other| other != pod && !self.is_whole(other));
        if other_is_lost || self.pods[pod].state == State::Dead || self.pods[pod].is_lost() {
            return;
        }
        self.say(|| format!("p{pod} loses its disk"));
        self.kill(pod, true, down_us);
        self.counts.lost_disks += 1;
        self.clients.shop.disk_lost = true;
        let disk = DiskId(NEW_DISKS + u128::from(self.counts.lost_disks));
        self.pods[pod].lose_disk(disk);
    }

    /// Whether the cluster knows the pod's disk as whole, as far as any pod does.
    fn is_whole(&self, pod: usize) -> bool {
        let it = &self.pods[pod];
        if it.is_lost() || it.state == State::Dead {
            return false;
        }
        it.joined.is_empty()
            || self.pods.iter().filter_map(|pod| pod.status()).any(|status| {
                let known = status.disks.iter().find(|disk| usize::from(disk.pod) == pod);
                known.is_some_and(|known| known.whole && known.disk == it.disk_id.to_string())
            })
    }

    /// An empty pod has started: it asks around, and somebody will notice.
    pub fn waits(&mut self, pod: usize) {
        let life = self.pods[pod].life;
        self.at(self.now_us, Event::AsksWho { pod, life });
        let noticed = self.rng.random_range(0..NOTICED_US);
        self.at(self.now_us + noticed, Event::Operator { pod, life });
    }

    /// An operator asks some pod, now and then two at once, to replace the disk of `pod`.
    pub fn operator(&mut self, pod: usize, life: u32) {
        let it = &self.pods[pod];
        if it.state != State::Waiting || it.life != life {
            return;
        }
        let (waiting, times) = (it.disk_id, if self.rng.random_ratio(1, 5) { 2 } else { 1 });
        for _ in 0..times {
            let asked = self.rng.random_range(0..self.pods.len());
            let Some(replace) = self.pods[asked].replace(pod_id(pod), waiting) else { continue };
            self.say(|| format!("p{asked} is told to replace the disk of p{pod}: {replace:?}"));
            if let Ok(Replace::Ask(op)) = replace {
                self.operators += 1;
                let client = ClientId(OPERATOR + self.operators);
                let deadline = self.pods[asked].clock.read(self.now_us) + PATIENCE;
                let request = Request { op, key: OpId(u128::from(client.0)) };
                self.input(asked, Input::Request { client, request, deadline });
            }
        }
        self.at(self.now_us + AGAIN_US, Event::Operator { pod, life });
    }

    /// An empty pod asks the others who it is; one that knows its disk tells it which were replaced.
    pub fn asks_who(&mut self, pod: usize, life: u32) {
        let it = &self.pods[pod];
        if it.state != State::Waiting || it.life != life {
            return;
        }
        let (me, disk) = (pod_id(pod), it.disk_id);
        let told = (0..self.pods.len()).filter(|&other| self.answers(pod, other)).find_map(|other| {
            let replaced = self.pods[other].replaced_disks();
            replaced.get(&me).is_some_and(|known| known.disk == disk).then_some(replaced)
        });
        match told {
            Some(replaced) => {
                self.say(|| format!("p{pod} joins with a new disk: {replaced:?}"));
                self.counts.replaced_disks += 1;
                self.pods[pod].join(replaced);
                self.start(pod);
            }
            None => self.at(self.now_us + ASKS_EVERY_US, Event::AsksWho { pod, life }),
        }
    }

    fn answers(&self, pod: usize, other: usize) -> bool {
        let paused = self.pods[other].paused_until_us > self.now_us;
        pod != other && self.is_up(other) && !paused && self.net.is_open(pod, other)
    }

    /// Whether two pods know each other's disks.
    pub fn know_each_other(&self, one: usize, other: usize) -> bool {
        let knows = |one: usize, other: usize| {
            let replaced = self.pods[one].replaced_disks();
            let id: PodId = pod_id(other);
            let known = replaced.get(&id).map(|known| known.disk);
            known.or_else(|| first_disks(self.pods.len()).get(&id).copied()) == Some(self.pods[other].disk_id)
        };
        knows(one, other) && knows(other, one)
    }
}
