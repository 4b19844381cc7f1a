//! A voter whose disk was lost comes back with an empty one, under the same number.
//!
//! It has forgotten what it promised and accepted. So whoever replaces a disk raises the *epoch* of the shard,
//! and the new disk's replica *joins*: it follows the log and says how far it has come, but promises nothing,
//! confirms no read, stands for nothing and counts for nothing, until it is *whole*: until it has applied the
//! `Lead` of a leader of that epoch or a later one.
//!
//! # Why that is enough
//! Of 2f + 1 voters one is lost. The first leader of the new epoch is promised by f + 1 of the 2f others, each of
//! which refuses older ballots from then on. What was chosen in an older ballot is on f + 1 disks, f of them not
//! the lost one, so one of those f + 1 tells of it; and the f that may be left to the older epoch, the lost
//! disk included should it come back, are no majority. So all that older ballots ever chose lies before the new
//! leader's `Lead`, and whoever has applied that has all of it. Of ballots of the new epoch it has forgotten
//! nothing: its votes are as good as any other's.
//!
//! A replica may follow a leader of an epoch that it has not been told of. It cannot lead in it: whoever does
//! counts no vote of the lost disk. In the cluster group, whose own log tells of it, it has to be told before it
//! promises anything in that epoch.

use super::message::{Event, Fx, Record};
use super::{Replica, Role};
use crate::breaks;
use crate::ids::{Ballot, PodId, Shard};
use crate::time::Time;

impl Replica {
    /// Whether this replica's disk took the place of a lost one and has not caught up with its past.
    #[must_use]
    pub fn is_joining(&self) -> bool {
        if breaks::is("epoch-kept") {
            return self.config.joined > 0 && self.lead == Ballot::ZERO;
        }
        self.lead.epoch < self.config.joined
    }

    /// Whether it takes part in decisions.
    pub(super) fn votes(&self) -> bool {
        self.voter && (!self.is_joining() || breaks::is("joining-votes"))
    }

    /// Whether the entries that raise the epoch are in this very log. In other shards whoever has not been told of
    /// a replacement may follow a leader of the newer epoch; it is told by the cluster group. Here
    /// nobody else would tell it: had the leader gone once a majority has promised, none of them
    /// could lead, not knowing whose votes count no more, and none would hear it from another.
    pub(super) fn tells_itself(&self) -> bool {
        self.config.shard == Shard::CLUSTER && !breaks::is("untold-promise")
    }

    /// Whether `ballot` is of an epoch that this replica has to be told of first. Then it asks its sender, who
    /// has been.
    pub(super) fn must_be_told(&mut self, now: Time, from: PodId, ballot: Ballot, fx: &mut Fx) -> bool {
        let untold = ballot.epoch > self.config.epoch && self.tells_itself();
        if untold {
            self.ask(now, from, fx);
        }
        untold
    }

    /// A `Lead` was applied.
    pub(super) fn led_by(&mut self, ballot: Ballot, fx: &mut Fx) {
        let joining = self.is_joining();
        self.lead = self.lead.max(ballot);
        if joining && !self.is_joining() {
            fx.events.push(Event::Whole);
        }
    }

    /// A voter's disk was replaced: from now on ballots of older epochs are refused. Whoever led or stood does
    /// so again, in the new epoch. Nothing of the lost disk may be handed to this replica any more.
    pub fn raise_epoch(&mut self, now: Time, epoch: u32, fx: &mut Fx) {
        if epoch <= self.config.epoch || breaks::is("epoch-kept") {
            return;
        }
        self.config.epoch = epoch;
        let floor = Ballot { epoch, round: 0, pod: 0 };
        if floor <= self.promised {
            return;
        }
        let in_office = matches!(self.role, Role::Leader(_) | Role::Candidate(_));
        self.step_down(now, fx);
        let applied = self.log.applied();
        if self.tells_itself()
            && let Some(entry) = self.log.get(applied).cloned()
        {
            // A restart that knew of the promise and not of its reason would never be told.
            fx.persist.push(Record::Chosen { index: applied, entry });
        }
        self.promise(floor, fx);
        self.leader = None;
        self.heard(now);
        for peer in &mut self.peers {
            // Told by a disk that may be gone.
            peer.applied = 0;
        }
        if in_office {
            self.stand(now, fx);
            self.prepare_again_at(now + self.config.timing.heartbeat);
        }
    }

    pub(super) fn on_joining(
        &mut self,
        now: Time,
        from: PodId,
        ballot: Ballot,
        accepted: u64,
        applied: u64,
        fx: &mut Fx,
    ) {
        let Role::Leader(leader) = &self.role else { return };
        if ballot != self.promised || from == self.config.me {
            return;
        }
        let accepted = accepted.min(leader.last);
        if let Some(i) = self.peers.iter().position(|peer| peer.id == from) {
            self.peers[i].votes = false;
            self.peer_holds(now, i, accepted, applied, fx);
        }
    }
}
