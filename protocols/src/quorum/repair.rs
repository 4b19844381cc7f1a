//! Catching up: a replica that misses something asks and keeps what it has meanwhile.
//!
//! What is in memory at the source comes as writes, in one piece: it ends in the coordinator's own
//! ballot. One that is further behind gets table records newer than its own table version, deletions
//! included; if the source has dropped deletions above that version, all of its records.

use super::types::{Beat, Event, Have, Message, Snapshot, Version, Write};
use super::{Effects, Replica, Role};
use crate::ids::{Ballot, PodId};
use crate::time::Time;
use std::sync::Arc;

/// A replica that lacks no more writes than this has caught up with a copy: what is kept for all
/// reaches further back.
const CAUGHT_UP_WITHIN: u64 = 64;

impl Replica {
    /// Asks the coordinator for what is missing, unless that is under way.
    pub(super) fn ask(&mut self, now: Time, coordinator: PodId, fx: &mut Effects) {
        let patience = self.config.timing.election;
        if self.asked.is_some_and(|asked| now.since(asked) < patience) {
            return;
        }
        self.asked = Some(now);
        let message = Message::CatchUp { ballot: self.promised, have: self.chain.have() };
        fx.send.push((coordinator, message));
    }

    /// Asked by a replica that follows this coordinator, or by a candidate that this one promised.
    pub(super) fn on_catch_up(
        &mut self,
        now: Time,
        from: PodId,
        ballot: Ballot,
        have: &Have,
        fx: &mut Effects,
    ) {
        let entitled = match &self.role {
            Role::Coordinator(coordinator) => coordinator.ballot == ballot,
            Role::Follower(_) => self.votes() && self.promised == ballot && ballot.pod() == from,
            Role::Candidate(_) => false,
        };
        if !entitled {
            return;
        }
        let Some(writes) = self.chain.beyond(have) else {
            self.transfer(now, from, have.committed, fx);
            return;
        };
        self.transfers.remove(&from);
        if writes.is_empty() {
            return;
        }
        match &self.role {
            Role::Coordinator(coordinator) => {
                let beat = coordinator.beat(&self.chain, self.floor);
                fx.send_early.push((from, Message::Repair { ballot, writes, beat }));
            }
            Role::Follower(_) | Role::Candidate(_) => {
                let beat = Beat { commit: self.chain.committed(), floor: self.floor, round: 0 };
                fx.send.push((from, Message::Repair { ballot, writes, beat }));
            }
        }
    }

    pub(super) fn on_repair(
        &mut self,
        now: Time,
        from: PodId,
        ballot: Ballot,
        writes: Vec<Arc<Write>>,
        beat: Beat,
        fx: &mut Effects,
    ) {
        match &self.role {
            Role::Candidate(candidate) => {
                if candidate.ballot == ballot {
                    self.repair_of_candidate(now, from, writes, fx);
                }
            }
            Role::Follower(_) | Role::Coordinator(_) => {
                if ballot.pod() == from {
                    self.accept_repair(now, from, ballot, &writes, beat, fx);
                }
            }
        }
    }

    /// The head of a transfer from this pod's tables as they are now.
    #[must_use]
    pub const fn snapshot(&self, newer_than: Version, full: bool) -> Snapshot {
        Snapshot {
            version: self.chain.committed(),
            time: self.chain.committed_time(),
            dropped: self.dropped,
            newer_than,
            full,
        }
    }

    /// A transfer for `peer` is of the committed version as it is now: what is committed behind it is
    /// kept until the peer has caught up, within a bound.
    pub fn transfer_taken(&mut self, peer: PodId) {
        self.wanted.insert(peer, self.chain.committed().seq);
        self.keep_what_is_wanted();
    }

    /// `peer` has the whole of a transfer: the next request makes a new one.
    pub fn transfer_sent(&mut self, peer: PodId) {
        self.transfers.remove(&peer);
    }

    /// A transfer for `peer` will not be ended: the next request makes a new one.
    pub fn transfer_given_up(&mut self, peer: PodId) {
        self.transfers.remove(&peer);
        self.wanted.remove(&peer);
        self.keep_what_is_wanted();
    }

    /// `peer` has accepted this version of the ballot that this replica coordinates.
    pub(super) fn peer_accepted(&mut self, peer: PodId, seq: u64) {
        let near = seq + CAUGHT_UP_WITHIN >= self.chain.accepted().seq;
        if near && self.wanted.remove(&peer).is_some() {
            self.keep_what_is_wanted();
        }
    }

    fn keep_what_is_wanted(&mut self) {
        self.chain.want_from(self.wanted.values().min().copied());
    }

    /// A transfer has arrived, complete. If this returns `true`, the tables are to be brought to
    /// `snapshot` (all records replaced if it is full), and stored with `durable` and
    /// `retained_log` in one batch, which replaces this shard's older log and is on disk before
    /// anything in `fx.send` leaves. If `false`, the tables here are as new, or it does not fit
    /// them: throw it away.
    pub fn install(&mut self, now: Time, snapshot: &Snapshot, fx: &mut Effects) -> bool {
        let committed = self.chain.committed();
        let fits = snapshot.full || snapshot.newer_than <= committed;
        let lacks_deletions = !snapshot.full && committed < snapshot.dropped;
        let in_office = matches!(self.role, Role::Coordinator(_));
        if snapshot.version <= committed || !fits || lacks_deletions || in_office {
            return false;
        }
        // What is committed in a ballot was promised to it by R: a candidate of an older one has lost, and must not
        // lead on top of what it could not have written.
        if snapshot.version.ballot > self.promised {
            self.promise(now, snapshot.version.ballot, fx);
        }
        let before = self.chain.accepted();
        self.chain.restart_at(snapshot.version, snapshot.time);
        self.wanted.clear();
        assert!(self.chain.accepted() >= before, "the accepted version never decreases");
        self.dropped = self.dropped.max(snapshot.dropped);
        self.logged = self.chain.committed();
        self.asked = None;
        match &mut self.role {
            Role::Follower(follower) => {
                // Round 0 vouches for nothing but what is accepted.
                if let Some(leader) = follower.leader {
                    self.acknowledge(leader, self.promised, 0, fx);
                    self.ask(now, leader, fx);
                }
            }
            Role::Candidate(candidate) => {
                candidate.asked = None;
                self.forget_repairs();
                self.try_lead(now, fx);
            }
            Role::Coordinator(_) => {}
        }
        true
    }

    fn transfer(&mut self, now: Time, peer: PodId, newer_than: Version, fx: &mut Effects) {
        let patience = self.config.timing.transfer;
        if let Some(&(version, begun)) = self.transfers.get(&peer)
            && version == newer_than
            && now.since(begun) < patience
        {
            return;
        }
        self.transfers.insert(peer, (newer_than, now));
        let full = newer_than < self.dropped;
        fx.events.push(Event::Transfer { peer, newer_than, full });
    }
}
