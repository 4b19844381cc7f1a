//! Crashes, starts, and disks that are lost and replaced.

use super::*;

impl World {
    pub fn crash(&mut self, pod: PodId) {
        let state = self.pods.get_mut(&pod).expect("a pod of the world");
        state.replica = None;
        state.unsynced.clear();
        state.held.clear();
        state.reads.clear();
        let stored = state.stored;
        state.edits.retain(|seq, _| *seq <= stored);
        for other in self.ids() {
            self.up.remove(&(pod, other));
            self.links.remove(&(pod, other));
            self.link(other, pod, false);
        }
    }

    /// The disk is gone with the process; the pod waits for a new one to be agreed on.
    pub fn lose_disk(&mut self, pod: PodId) {
        self.crash(pod);
        let state = self.pods.get_mut(&pod).expect("a pod of the world");
        state.on_lost_disks.append(&mut state.on_disk);
        state.checkpoint = Default::default();
        state.sets = Union::default();
        state.log.clear();
        state.edits.clear();
        (state.stored, state.promised, state.waits) = (0, Ballot::ZERO, true);
        self.note(|| format!("{pod} has lost its disk"));
    }

    /// A new disk takes the place of a lost one, and its pod starts. The others have yet to be told.
    pub fn replace(&mut self, pod: PodId) {
        self.epoch += 1;
        let epoch = self.epoch;
        let state = self.pods.get_mut(&pod).expect("a pod of the world");
        (state.disk, state.waits, state.joined) = (state.disk + 1, false, epoch);
        self.tell(pod);
        self.start(pod);
    }

    /// The pod learns which disks were replaced.
    pub fn tell(&mut self, pod: PodId) {
        if self.pods[&pod].waits {
            return;
        }
        let epoch = self.epoch;
        let disks: BTreeMap<PodId, u32> = self.pods.iter().map(|(&id, pod)| (id, pod.disk)).collect();
        let state = self.pods.get_mut(&pod).expect("a pod of the world");
        if state.epoch == epoch && state.told == disks {
            return;
        }
        let known = std::mem::replace(&mut state.told, disks.clone());
        state.epoch = epoch;
        self.promise(pod, Ballot { epoch, round: 0, pod: 0 });
        self.step(pod, |replica, _, _, _, fx| {
            replica.disown(fx);
            for (other, disk) in disks {
                replica.replaced(other, disk);
            }
            None
        });
        for other in self.ids() {
            let disk = |told: &BTreeMap<PodId, u32>| told.get(&other).copied().unwrap_or_default();
            if disk(&self.pods[&pod].told) != disk(&known) {
                self.link(pod, other, true);
                self.link(other, pod, true);
            }
        }
    }

    pub fn waits(&self, pod: PodId) -> bool {
        self.pods[&pod].waits
    }
    /// Whether some pod counts for nothing: its disk is lost, or new and not whole on disk.
    pub fn lacks_a_disk(&self) -> bool {
        let whole = |pod: &Pod| {
            let logged = pod.log.iter().any(|record| matches!(record, Record::Whole { .. }));
            pod.joined == 0 || logged || pod.checkpoint.0.whole >= pod.joined
        };
        self.pods.values().any(|pod| pod.waits || !whole(pod))
    }
    /// Whether its part in the other shard, whose leader owns, is whole.
    pub fn may_elect(&self, pod: PodId) -> bool {
        self.pods[&pod].joined <= self.owned
    }
    pub fn joins(&self, pod: PodId) -> bool {
        self.pods[&pod].replica.as_ref().is_some_and(Replica::is_joining)
    }

    pub fn start(&mut self, pod: PodId) {
        if self.runs(pod) || self.waits(pod) {
            return;
        }
        let replicas = self.ids();
        let config = Config {
            shard: Shard::new(Module::Order, 0),
            me: pod,
            replicas: replicas.clone(),
            disks: self.pods[&pod].told.clone(),
            joined: self.pods[&pod].joined,
            timing: Timing::default(),
        };
        let state = self.pods.get_mut(&pod).expect("a pod of the world");
        let (durable, sets) = state.checkpoint.clone();
        state.sets = sets;
        let mut replica = Replica::new(config, durable, self.now);
        for record in state.log.clone() {
            replica.recover(record, &mut state.sets);
        }
        state.replica = Some(replica);
        self.step(pod, |replica, _, _, _, fx| {
            replica.recovered(fx);
            None
        });
        for other in replicas.into_iter().filter(|&other| other != pod) {
            self.link(pod, other, true);
            self.link(other, pod, true);
        }
    }
}
