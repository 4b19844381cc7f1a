//! A replica whose disk was lost comes back with an empty one, under the same number.
//!
//! Whoever replaces a disk raises the *epoch* of the shard. The new disk's replica *joins*: it accepts, is
//! repaired and gets copies like any other, but promises nothing, acknowledges nothing and answers no read, until
//! it is *whole*: until it has accepted a version of that epoch, or of a later one.
//!
//! # Why that is enough
//! The first coordinator of the new epoch is promised by R of the N - 1 replicas that are left, each of which
//! refuses older ballots from then on. What was committed before is on W disks, W - 1 of them not the lost
//! one, and R + (W - 1) > N - 1: one of those R tells of it. The N - R that may be left to the older epoch, the
//! lost disk included should it come back, are fewer than W. So all versions of the new epoch are on top of
//! everything that was ever committed, and whoever has accepted one of them has all of it, since a replica
//! accepts only on top of the predecessor. Of ballots of the new epoch the new disk has forgotten nothing. Should
//! it be the only one of a later coordinator's R that tells of what came before, it does tell.

use super::{Effects, Replica, Role, Version};
use crate::breaks;
use crate::ids::Ballot;
use crate::time::Time;

impl Replica {
    /// Whether this replica's disk took the place of a lost one and has not caught up with its past.
    #[must_use]
    pub fn is_joining(&self) -> bool {
        if breaks::is("epoch-kept") {
            return self.config.joined > 0 && self.chain.accepted() == Version::ZERO;
        }
        self.chain.accepted().ballot.epoch < self.config.joined
    }

    /// Whether it counts.
    pub(super) fn votes(&self) -> bool {
        !self.is_joining() || breaks::is("joining-votes")
    }

    /// A replica's disk was replaced: from now on ballots of older epochs are refused. Whoever led or stood does
    /// so again, in the new epoch. Nothing of the lost disk may be handed to this replica any more.
    pub fn raise_epoch(&mut self, now: Time, epoch: u32, fx: &mut Effects) {
        if epoch <= self.config.epoch || breaks::is("epoch-kept") {
            return;
        }
        self.config.epoch = epoch;
        let in_office = !matches!(self.role, Role::Follower(_));
        let floor = Ballot { epoch, round: 0, pod: 0 };
        // After a loss of power a disk may hold the promise, and not yet that the replacement was agreed.
        if floor > self.promised {
            self.promise(now, floor, fx);
        }
        self.follow_nobody(now);
        if in_office {
            self.stand(now, fx);
        }
    }
}
