//! The acceptor: what a replica promises and accepts. Everything it says here leaves after the fsync.

use super::message::{Entry, Fx, Message, Record};
use super::{MESSAGE_BYTES_MAX, Replica};
use crate::breaks;
use crate::ids::{Ballot, PodId};
use crate::time::Time;

impl Replica {
    /// Raises the promise. Invariant: it never falls, restarts included.
    pub(super) fn promise(&mut self, ballot: Ballot, fx: &mut Fx) {
        assert!(ballot >= self.promised, "an acceptor never goes back on a promise");
        if ballot > self.promised {
            self.promised = ballot;
            if !breaks::is("promise-forgotten") {
                fx.persist.push(Record::Promised { ballot });
            }
        }
    }

    /// Whether a message of `ballot` may be heeded; if not, its sender is told why.
    fn heed(&mut self, from: PodId, ballot: Ballot, fx: &mut Fx) -> bool {
        if ballot < self.promised {
            // A majority can do without whoever has no vote, however far ahead it is.
            if self.votes() {
                fx.send.push((from, Message::Reject { ballot, promised: self.promised }));
            }
            return false;
        }
        true
    }

    pub(super) fn on_prepare(&mut self, now: Time, from: PodId, ballot: Ballot, index: u64, fx: &mut Fx) {
        if !self.votes() || from != ballot.pod() || !self.heed(from, ballot, fx) {
            return;
        }
        if self.must_be_told(now, from, ballot, fx) {
            return;
        }
        if ballot > self.promised {
            self.step_down(now, fx);
            self.promise(ballot, fx);
            self.leader = None;
        }
        // Gives the candidate its time before this voter stands itself or supports another.
        self.heard(now);
        let applied = self.log.applied();
        let mut tail = Vec::new();
        let mut next = None;
        let mut bytes = 0;
        for (at, accepted, entry) in self.log.accepted_from(index.max(applied + 1)) {
            if bytes >= MESSAGE_BYTES_MAX {
                next = Some(at);
                break;
            }
            bytes += entry.weight_bytes();
            tail.push((at, accepted, entry.clone()));
        }
        fx.send.push((from, Message::Promise { ballot, applied, tail, next }));
    }

    /// Follows the leader of `ballot`, if nothing higher is promised.
    pub(super) fn follow(&mut self, now: Time, from: PodId, ballot: Ballot, fx: &mut Fx) -> bool {
        if from != ballot.pod() || from == self.config.me || !self.heed(from, ballot, fx) {
            return false;
        }
        if self.must_be_told(now, from, ballot, fx) {
            return false;
        }
        if ballot > self.promised || self.leader != Some(from) {
            self.step_down(now, fx);
            self.promise(ballot, fx);
            self.leader = Some(from);
        }
        self.heard(now);
        true
    }

    /// The end of what this replica holds of `ballot` without a gap. What is known as chosen counts: no
    /// ballot can propose anything else there.
    fn accepted(&self, ballot: Ballot, start: u64) -> u64 {
        let (voted_in, upto) = self.voted;
        let upto = if voted_in == ballot { upto } else { start.saturating_sub(1) };
        upto.max(self.log.applied())
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(super) fn on_accept(
        &mut self,
        now: Time,
        from: PodId,
        ballot: Ballot,
        start: u64,
        index: u64,
        committed: u64,
        entry: Entry,
        fx: &mut Fx,
    ) {
        if !self.follow(now, from, ballot, fx) {
            return;
        }
        let accepted = self.accepted(ballot, start);
        if index > accepted + 1 {
            // Links are FIFO: what came before it was lost with a link, and is not on its way.
            if now >= self.missing_at {
                self.missing_at = now + self.config.timing.retry;
                if self.is_joining() {
                    self.acknowledge(from, ballot, start, fx);
                } else {
                    fx.send.push((from, Message::Missing { ballot, accepted }));
                }
            }
            self.learn(now, from, ballot, committed, fx);
            return;
        }
        if index == accepted + 1 {
            self.log.accept(index, ballot, entry.clone());
            self.voted = (ballot, index);
            self.missing_at = now;
            self.learn(now, from, ballot, committed, fx);
            fx.persist.push(Record::Accepted { ballot, index, applied: self.log.applied(), entry });
        } else {
            self.learn(now, from, ballot, committed, fx);
        }
        self.acknowledge(from, ballot, start, fx);
    }

    pub(super) fn on_heartbeat(
        &mut self,
        now: Time,
        from: PodId,
        ballot: Ballot,
        committed: u64,
        fx: &mut Fx,
    ) {
        if !self.follow(now, from, ballot, fx) {
            return;
        }
        self.learn(now, from, ballot, committed, fx);
        self.acknowledge(from, ballot, 0, fx);
    }

    fn acknowledge(&self, from: PodId, ballot: Ballot, start: u64, fx: &mut Fx) {
        let (accepted, applied) = (self.accepted(ballot, start), self.log.applied());
        let message = if self.is_joining() && !breaks::is("joining-votes") {
            Message::Joining { ballot, accepted, applied }
        } else {
            Message::Accepted { ballot, accepted, applied }
        };
        fx.send.push((from, message));
    }

    /// May leave before the fsync: it says only that no higher promise has left this pod so far, and
    /// those of earlier lives are on disk.
    pub(super) fn on_read(&mut self, now: Time, from: PodId, ballot: Ballot, round: u64, fx: &mut Fx) {
        if self.votes() && self.follow(now, from, ballot, fx) {
            fx.send_early.push((from, Message::ReadOk { ballot, round }));
        }
    }
}
