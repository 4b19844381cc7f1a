//! What every replica does: promise, accept on top of the predecessor, acknowledge.

use super::chain::Spliced;
use super::types::{Beat, Have, Message, Record, Version, Write};
use super::{Effects, Replica, Role};
use crate::ids::{Ballot, PodId};
use crate::time::Time;
use std::sync::Arc;

impl Replica {
    /// A promise carries what this replica has accepted, all of it durable before the promise leaves.
    pub(super) fn on_prepare(
        &mut self,
        now: Time,
        from: PodId,
        ballot: Ballot,
        have: &Have,
        fx: &mut Effects,
    ) {
        if ballot < self.promised || from != ballot.pod() {
            self.refuse(from, fx);
            return;
        }
        if !self.votes() {
            return;
        }
        if ballot > self.promised {
            self.promise(now, ballot, fx);
        }
        let Role::Follower(follower) = &mut self.role else { return };
        follower.leader = None;
        self.heard_coordinator(now);
        let more = self.chain.accepted() > have.accepted();
        let repair = if more { self.chain.beyond(have).unwrap_or_default() } else { Vec::new() };
        fx.send.push((from, Message::Promise { ballot, have: self.chain.have(), repair }));
    }

    pub(super) fn on_write(
        &mut self,
        now: Time,
        from: PodId,
        write: Arc<Write>,
        beat: Beat,
        fx: &mut Effects,
    ) {
        let ballot = write.version.ballot;
        if !self.follow(now, from, ballot, fx) {
            return;
        }
        if write.prev == self.chain.accepted() {
            self.chain.append(Arc::clone(&write));
            self.learn(ballot, beat, fx);
            self.logged = self.chain.committed();
            fx.persist.push(Record::Write { write, commit: self.logged });
        } else {
            self.learn(ballot, beat, fx);
            if !self.chain.holds(write.version) {
                self.ask(now, from, fx);
            }
        }
        self.acknowledge(from, ballot, beat.round, fx);
    }

    pub(super) fn on_heartbeat(
        &mut self,
        now: Time,
        from: PodId,
        ballot: Ballot,
        tip: Version,
        beat: Beat,
        fx: &mut Effects,
    ) {
        if !self.follow(now, from, ballot, fx) {
            return;
        }
        self.learn(ballot, beat, fx);
        if !self.chain.holds(tip) {
            self.ask(now, from, fx);
        }
        self.acknowledge(from, ballot, beat.round, fx);
    }

    /// Replaces the end of the chain by what the coordinator sent: it ends in the coordinator's own
    /// ballot, so the accepted version grows, and one log record makes the change.
    pub(super) fn accept_repair(
        &mut self,
        now: Time,
        from: PodId,
        ballot: Ballot,
        writes: &[Arc<Write>],
        beat: Beat,
        fx: &mut Effects,
    ) {
        if !self.follow(now, from, ballot, fx) {
            return;
        }
        if writes.last().is_none_or(|last| last.version.ballot != ballot) {
            return;
        }
        self.asked = None;
        let before = self.chain.accepted();
        let spliced = self.chain.splice(writes);
        assert!(self.chain.accepted() >= before, "the accepted version never decreases");
        self.learn(ballot, beat, fx);
        if let Spliced::From(first) = spliced {
            self.logged = self.chain.committed();
            fx.persist.push(Record::Splice { writes: writes[first..].to_vec(), commit: self.logged });
        }
        self.acknowledge(from, ballot, beat.round, fx);
    }

    /// A message of a coordinator: whether it is followed, being of the highest ballot seen here.
    fn follow(&mut self, now: Time, from: PodId, ballot: Ballot, fx: &mut Effects) -> bool {
        if ballot < self.promised || from != ballot.pod() {
            self.refuse(from, fx);
            return false;
        }
        if ballot > self.promised {
            self.promise(now, ballot, fx);
        }
        let Role::Follower(follower) = &mut self.role else { return false };
        follower.leader = Some(from);
        self.heard_coordinator(now);
        true
    }

    /// What the coordinator says is committed moves into the tables as far as it is here. A chain
    /// that ends in the coordinator's ballot is a prefix of the coordinator's.
    fn learn(&mut self, ballot: Ballot, beat: Beat, fx: &mut Effects) {
        self.floor = self.floor.max(beat.floor);
        let accepted = self.chain.accepted();
        if accepted.ballot == ballot && beat.commit > accepted {
            self.commit(accepted, fx);
        } else {
            self.commit(beat.commit, fx);
        }
    }

    pub(super) fn acknowledge(&self, to: PodId, ballot: Ballot, round: u64, fx: &mut Effects) {
        if !self.votes() {
            return;
        }
        let accepted = self.chain.accepted();
        fx.send.push((to, Message::Ack { ballot, accepted, round, durable: self.logged }));
    }

    fn refuse(&self, to: PodId, fx: &mut Effects) {
        fx.send.push((to, Message::Refuse { promised: self.promised }));
    }
}
