//! Crashes, starts, and disks that are lost and replaced.

use super::*;

impl Cluster {
    /// The process ends. Of what was not synced, the first `survive` batches are on disk all the same.
    pub fn crash(&mut self, id: PodId, survive: usize) {
        let pod = self.pod(id);
        pod.replica = None;
        pod.leading = None;
        pod.tickets.clear();
        let pending = std::mem::take(&mut pod.pending);
        for batch in pending.into_iter().take(survive) {
            self.write(id, batch.persist, batch.tables, batch.checkpoint);
        }
        for peer in self.ids() {
            if peer != id {
                for ends in [(id, peer), (peer, id)] {
                    self.links.get_mut(&ends).expect("a link").queue.clear();
                }
                let _ = self.step(peer, |replica, now, fx| replica.link(now, id, false, fx));
            }
        }
    }

    pub fn start(&mut self, id: PodId) {
        if self.waits(id) {
            return;
        }
        let now = self.now;
        let pod = self.pod(id);
        let mut replica = Replica::new(pod.config.clone(), pod.disk.checkpoint, now);
        for record in pod.disk.log.clone() {
            replica.recover(record);
        }
        pod.state.clone_from(&pod.disk.tables);
        let mut fx = Fx::new();
        replica.recovered(now, &mut fx);
        let told = self.oracle.told.get(&id).copied().unwrap_or_default();
        assert!(replica.ballot() >= told, "{id} promised {told} and came back with {}", replica.ballot());
        self.pod(id).replica = Some(replica);
        self.absorb(id, fx, None);
        for peer in self.ids() {
            if peer != id && self.is_up(peer) {
                let _ = self.step(id, |replica, now, fx| replica.link(now, peer, true, fx));
                let _ = self.step(peer, |replica, now, fx| replica.link(now, id, true, fx));
            }
        }
    }

    // --- Lost disks --------------------------------------------------------------------------

    /// The process ends, its disk is gone, and it waits: what the others agree on then is `replace`.
    pub fn lose_disk(&mut self, id: PodId) {
        if self.is_up(id) {
            self.crash(id, 0);
        }
        let pod = self.pod(id);
        pod.disk = Disk::default();
        pod.state.clear();
        pod.disks.clear();
        pod.config.joined = u32::MAX;
        self.oracle.disk_lost(id);
    }
    /// A new disk takes the place of the lost one: known to `id`, and to others once they are told.
    pub fn replace(&mut self, id: PodId) {
        *self.disks.entry(id).or_default() += 1;
        let epoch = self.epoch();
        let disks = self.disks.clone();
        let pod = self.pod(id);
        (pod.config.epoch, pod.config.joined, pod.disks) = (epoch, epoch, disks);
    }
    fn epoch(&self) -> u32 {
        1 + self.disks.values().sum::<u32>()
    }
    /// What the others agreed on reaches `id`. From then on nothing of a lost disk does: in this harness they
    /// never come back.
    pub fn tell(&mut self, id: PodId) {
        let (epoch, disks) = (self.epoch(), self.disks.clone());
        if self.waits(id) {
            return;
        }
        let pod = self.pod(id);
        (pod.config.epoch, pod.disks) = (epoch, disks);
        let _ = self.step(id, |replica, now, fx| replica.raise_epoch(now, epoch, fx));
    }
    /// Whether its disk is lost and not replaced.
    pub fn waits(&self, id: PodId) -> bool {
        self.pods[&id].config.joined == u32::MAX
    }
    /// Whether some pod counts for nothing: its disk is lost, or new and not whole.
    pub fn lacks_a_disk(&self) -> bool {
        self.pods.values().any(|pod| match &pod.replica {
            Some(replica) => replica.is_joining(),
            None => pod.disk.checkpoint.lead.epoch < pod.config.joined,
        })
    }
}
