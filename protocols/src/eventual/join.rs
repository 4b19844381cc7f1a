//! A replica whose disk was lost comes back with an empty one, under the same number.
//!
//! What it acknowledged of owners' edits is gone: so it *joins*, and has no part in a union, until it is *whole*:
//! until it holds all that an owner held which owns under a ballot of the epoch that the replacement began, or a
//! later one. That owner took the union of a majority of whole replicas, which met every majority that
//! acknowledged an edit in older epochs even without the lost disk. What it acknowledges meanwhile is on its
//! disk, and as good as any other's.
//!
//! Its numbers begin above all that the lost disk can have used, so that what others hold of the old
//! journal is not taken for the new one. What others believed the lost disk to hold they forget.

use super::types::Record;
use super::{Effects, Replica, START_SHIFT};
use crate::breaks;
use crate::ids::{Ballot, PodId};

/// The place of a disk in the number of a start: a disk is started fewer than 65,536 times, and a pod has
/// fewer than 256 of them.
const DISK_SHIFT: u32 = 16;

impl Replica {
    /// Whether this replica's disk took the place of a lost one and has not caught up with its past.
    #[must_use]
    pub fn is_joining(&self) -> bool {
        self.whole < self.config.joined && !breaks::is("joining-votes")
    }

    /// All that was acknowledged before `epoch` is here.
    pub(super) fn whole_since(&mut self, ballot: Ballot, fx: &mut Effects) {
        if self.is_joining() && ballot.epoch >= self.config.joined {
            self.whole = ballot.epoch;
            fx.persist.push(Record::Whole { epoch: self.whole });
        }
    }

    /// The number of this start: above all of earlier ones, and of earlier disks.
    pub(super) fn next_start(&self) -> u64 {
        let disk = u64::from(self.config.disk_of(self.config.me));
        let floor = if breaks::is("numbers-reused") { 0 } else { disk << DISK_SHIFT };
        let start = self.start.max(floor) + 1;
        let last = ((disk + 1) << DISK_SHIFT).min(1 << (u64::BITS - START_SHIFT));
        assert!(start < last, "a disk is started fewer than 65,536 times, and a pod has fewer than 256");
        start
    }

    /// The disk of `pod` was replaced, and this is its `disk`-th new one. Nothing of the lost disk may be handed
    /// to this replica any more.
    pub fn replaced(&mut self, pod: PodId, disk: u32) {
        if disk <= self.config.disk_of(pod) {
            return;
        }
        self.config.disks.insert(pod, disk);
        let bit = self.bit(pod);
        let Some(peer) = self.peers.get_mut(&pod) else { return };
        (peer.up, peer.comparison, peer.collected) = (false, None, false);
        if !breaks::is("cursor-kept") {
            (peer.acked, peer.sent, peer.under) = (0, 0, Ballot::ZERO);
            for edit in &mut self.pending {
                edit.acked &= !bit;
            }
        }
    }
}
