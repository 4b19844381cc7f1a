//! Replicas of a shard that stand at one position hold the same records, whichever way they came there: by
//! the log, by a restart, by a copy.

use crate::world::World;
use kassa_protocols::ids::{Ballot, PodId, Shard};
use std::collections::BTreeMap;

/// Events between two comparisons: often enough to meet every state that lasts, and no more work than the
/// rest of a run.
const COMPARE_EVERY: u64 = 2_000;

/// What was found at each position so far, and where.
#[derive(Default)]
pub struct Replicas {
    seen: BTreeMap<(Shard, (Ballot, u64)), (u64, PodId)>,
    compared_at: u64,
    /// A copy has left a pod or was taken in: its two ends are compared now, while they are level.
    pub copied: bool,
}

impl World {
    /// Compares what the pods hold, if that is due.
    ///
    /// # Panics
    /// If two replicas differ: a finding of the seed.
    pub fn compare_replicas(&mut self) {
        let replicas = &mut self.replicas;
        if !replicas.copied && self.counts.events - replicas.compared_at < COMPARE_EVERY {
            return;
        }
        (replicas.copied, replicas.compared_at) = (false, self.counts.events);
        for pod in &self.pods {
            for held in pod.held() {
                let at = (held.shard, held.position);
                let (digest, by) = *replicas.seen.entry(at).or_insert((held.digest, pod.id));
                let (id, shard) = (pod.id, held.shard);
                assert!(
                    digest == held.digest,
                    "{id} holds of {shard} at {:?} not what {by} held",
                    held.position
                );
            }
        }
    }
}
