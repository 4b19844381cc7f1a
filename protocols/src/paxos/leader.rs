//! The leader: phase 2, pipelined, with a cursor per peer; heartbeats; standing down; handing over.
//!
//! Acknowledgements are cumulative: within a ballot a replica accepts without gaps, so one number says
//! it all, and the commit index is the majority's median of these numbers.

use super::message::{Body, Entry, Event, Fx, Message, Record};
use super::reads::Reads;
use super::{MESSAGE_BYTES_MAX, Peer, Replica, Role};
use crate::breaks;
use crate::ids::{Ballot, PodId};
use crate::time::{ShardClock, Time};
use bytes::Bytes;

/// Own entries in flight. A round of the loop makes one entry, and a round trip lasts a few rounds; past
/// that, larger entries serve better than more.
pub const PROPOSALS_IN_FLIGHT_MAX: u64 = 64;
/// Entries sent to one peer and not acknowledged: what a peer that hangs can be owed at most.
const PEER_IN_FLIGHT_MAX: u64 = 128;

#[derive(Clone, Debug, Hash)]
pub(super) struct Leader {
    /// The first index proposed in this ballot; all before it is chosen.
    pub start: u64,
    /// The last index proposed.
    pub last: u64,
    /// Where the own `Lead` is.
    pub lead_at: u64,
    /// Whether the `Lead` is applied.
    pub serving: bool,
    /// What is on the own disk: counted as a vote only when the self-addressed message is back.
    pub own: u64,
    pub clock: ShardClock,
    pub heartbeat_at: Time,
    pub reads: Reads,
    /// Since when the preferred leader has kept up.
    pub preferred_ready_since: Option<Time>,
    pub handing_over_since: Option<Time>,
}

impl Replica {
    /// Phase 1 is complete: proposes the recovered tail and then the own `Lead`.
    pub(super) fn take_office(&mut self, now: Time, tail: Vec<Entry>, fx: &mut Fx) {
        let applied = self.log.applied();
        let stamp = tail.iter().map(|entry| entry.time).max().unwrap_or(self.time).max(self.time);
        let lead_at = applied + 1 + tail.len() as u64;
        self.role = Role::Leader(Leader {
            start: applied + 1,
            last: applied,
            lead_at,
            serving: false,
            own: applied,
            clock: ShardClock::start(stamp, now),
            heartbeat_at: now + self.config.timing.heartbeat,
            reads: Reads::default(),
            preferred_ready_since: None,
            handing_over_since: None,
        });
        self.leader = Some(self.config.me);
        self.committed = applied;
        for peer in &mut self.peers {
            peer.acked = applied;
            peer.votes = true;
            peer.sent = applied;
            peer.told = applied;
            peer.read = 0;
            peer.heard_at = now;
        }
        let ballot = self.promised;
        for entry in tail {
            self.accept_own(entry, fx);
        }
        self.accept_own(Entry { time: stamp, origin: ballot, body: Body::Lead(ballot) }, fx);
        if breaks::is("serve-before-lead") {
            self.serve(now, fx);
        }
        self.send_proposals(now, fx);
    }

    /// Proposes commands as one entry; its index. `None` unless this replica leads and its `Lead` is
    /// applied, if too much is in flight already, or while the leadership is being handed over.
    pub fn propose(&mut self, now: Time, commands: Bytes, fx: &mut Fx) -> Option<u64> {
        let ballot = self.promised;
        let Role::Leader(leader) = &mut self.role else { return None };
        let full = leader.last - self.committed >= PROPOSALS_IN_FLIGHT_MAX;
        if !leader.serving || full || leader.handing_over_since.is_some() {
            return None;
        }
        let time = leader.clock.stamp(now);
        let index = leader.last + 1;
        self.accept_own(Entry { time, origin: ballot, body: Body::Commands(commands) }, fx);
        self.send_proposals(now, fx);
        Some(index)
    }

    fn accept_own(&mut self, entry: Entry, fx: &mut Fx) {
        let ballot = self.promised;
        assert_eq!(ballot.pod(), self.config.me, "proposes only in a ballot of its own");
        let Role::Leader(leader) = &mut self.role else { return };
        leader.last += 1;
        let index = leader.last;
        self.log.accept(index, ballot, entry.clone());
        self.voted = (ballot, index);
        fx.persist.push(Record::Accepted { ballot, index, applied: self.log.applied(), entry });
    }

    /// Sends what was just proposed, while it is being fsynced here, and the own vote behind the fsync.
    fn send_proposals(&mut self, now: Time, fx: &mut Fx) {
        let Role::Leader(leader) = &mut self.role else { return };
        let ballot = self.promised;
        if breaks::is("own-vote-before-fsync") {
            leader.own = leader.last;
        }
        let vote = Message::Accepted { ballot, accepted: leader.last, applied: self.log.applied() };
        fx.send.push((self.config.me, vote));
        for i in 0..self.peers.len() {
            self.pump(now, i, fx);
        }
    }

    /// Sends a peer what it does not have yet, as far as its window goes.
    pub(super) fn pump(&mut self, now: Time, i: usize, fx: &mut Fx) {
        let Role::Leader(leader) = &self.role else { return };
        let peer: &mut Peer = &mut self.peers[i];
        if !peer.up {
            return;
        }
        let mut bytes = 0;
        while peer.sent < leader.last
            && peer.sent - peer.acked < PEER_IN_FLIGHT_MAX
            && bytes < MESSAGE_BYTES_MAX
        {
            let index = peer.sent + 1;
            // Forgotten: the peer needs a snapshot, asks for it, and then says where it is.
            let Some(entry) = self.log.get(index) else { return };
            bytes += entry.weight_bytes();
            if peer.sent == peer.acked {
                peer.progress_at = now;
            }
            peer.sent = index;
            peer.sent_at = now;
            peer.told = self.committed;
            fx.send_early.push((
                peer.id,
                Message::Accept {
                    ballot: self.promised,
                    start: leader.start,
                    index,
                    committed: self.committed,
                    entry: entry.clone(),
                },
            ));
        }
    }

    pub(super) fn on_accepted(
        &mut self,
        now: Time,
        from: PodId,
        ballot: Ballot,
        accepted: u64,
        applied: u64,
        fx: &mut Fx,
    ) {
        let Role::Leader(leader) = &mut self.role else { return };
        if ballot != self.promised {
            return;
        }
        let accepted = accepted.min(leader.last);
        if from == self.config.me {
            leader.own = leader.own.max(accepted);
        } else if let Some(i) = self.peers.iter().position(|peer| peer.id == from) {
            let peer = &mut self.peers[i];
            peer.heard_at = now;
            peer.votes = true;
            self.peer_holds(now, i, accepted, applied, fx);
        }
        self.commit(now, fx);
    }

    /// A peer says how far it has come: it is sent more.
    pub(super) fn peer_holds(&mut self, now: Time, i: usize, accepted: u64, applied: u64, fx: &mut Fx) {
        let peer = &mut self.peers[i];
        let id = peer.id;
        peer.applied = peer.applied.max(applied);
        if accepted > peer.acked {
            peer.acked = accepted;
            peer.sent = peer.sent.max(accepted);
            peer.progress_at = now;
            self.pump(now, i, fx);
        }
        self.peer_applied(id, applied);
    }

    /// Something was lost on the way to this peer: sends it anew from there.
    pub(super) fn on_missing(&mut self, now: Time, from: PodId, ballot: Ballot, accepted: u64, fx: &mut Fx) {
        if !matches!(self.role, Role::Leader(_)) || ballot != self.promised {
            return;
        }
        let Some(i) = self.peers.iter().position(|peer| peer.id == from) else { return };
        let peer = &mut self.peers[i];
        peer.heard_at = now;
        peer.votes = true;
        peer.acked = peer.acked.max(accepted);
        peer.sent = peer.acked;
        self.pump(now, i, fx);
    }

    /// Invariant: only what a majority of the voters holds on disk in this ballot is chosen.
    fn commit(&mut self, now: Time, fx: &mut Fx) {
        let Role::Leader(leader) = &self.role else { return };
        let counts = |peer: &&Peer| peer.voter && peer.votes;
        let held = || self.peers.iter().filter(counts).map(|peer| peer.acked).chain([leader.own]);
        let majority = if breaks::is("minority-commits") { 1 } else { self.majority };
        let by_majority = |upto: &u64| held().filter(|held| held >= upto).count() >= majority;
        let lead_at = leader.lead_at;
        let chosen = held().filter(by_majority).max().unwrap_or(0);
        self.committed = self.committed.max(chosen);
        while self.log.applied() < self.committed {
            let entry = self.log.choose_accepted();
            self.apply(entry, fx);
            if self.log.applied() == lead_at {
                self.serve(now, fx);
            }
        }
        if let Role::Leader(leader) = &mut self.role
            && leader.handing_over_since.is_some()
            && leader.last == self.committed
        {
            leader.heartbeat_at = now;
        }
    }

    fn serve(&mut self, now: Time, fx: &mut Fx) {
        let ballot = self.promised;
        let Role::Leader(leader) = &mut self.role else { return };
        if breaks::is("serve-before-lead") {
            if leader.serving {
                return;
            }
        } else {
            assert_eq!(self.lead, ballot, "a leader's own Lead is the highest of the log");
        }
        leader.serving = true;
        leader.clock = ShardClock::start(self.time, now);
        fx.events.push(Event::Leading { ballot });
    }

    pub(super) fn tick_leader(&mut self, now: Time, fx: &mut Fx) {
        self.begin_reads(now, fx);
        let Role::Leader(leader) = &mut self.role else { return };
        if now < leader.heartbeat_at {
            return;
        }
        let timing = self.config.timing;
        leader.heartbeat_at = now + timing.heartbeat;
        let timeout = self.election_timeout(now);
        let hears = |peer: &&Peer| peer.voter && peer.votes && now.since(peer.heard_at) < timeout;
        if 1 + self.peers.iter().filter(hears).count() < self.majority {
            // Cut off: its heartbeats must not keep it in office where they still arrive.
            self.patience.lose(now, self.config.timing.election_timeout);
            self.step_down(now, fx);
            self.leader = None;
            self.stand_soon(now);
            return;
        }
        for i in 0..self.peers.len() {
            let peer = &mut self.peers[i];
            if peer.sent > peer.acked && now.since(peer.progress_at) >= timing.retry {
                peer.sent = peer.acked;
            }
            self.pump(now, i, fx);
            let peer = &mut self.peers[i];
            if peer.told < self.committed || now.since(peer.sent_at) >= timing.heartbeat {
                peer.told = self.committed;
                peer.sent_at = now;
                let message = Message::Heartbeat { ballot: self.promised, committed: self.committed };
                fx.send_early.push((peer.id, message));
            }
        }
        self.hand_over(now, fx);
    }

    /// A peer's link came up: what is on its way to it, anew.
    pub(super) fn greet(&mut self, now: Time, i: usize, fx: &mut Fx) {
        let Role::Leader(leader) = &self.role else { return };
        let (ballot, committed) = (self.promised, self.committed);
        let read = leader.reads.unanswered().filter(|_| self.peers[i].voter);
        fx.send_early.push((self.peers[i].id, Message::Heartbeat { ballot, committed }));
        if let Some(round) = read {
            fx.send_early.push((self.peers[i].id, Message::Read { ballot, round }));
        }
        self.pump(now, i, fx);
    }
}
