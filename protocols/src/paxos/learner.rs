//! The learner: what is chosen, in order; catching up from a peer's log, or by a snapshot.

use super::message::{Body, Durable, Entry, Event, Fx, Message, Record};
use super::{MESSAGE_BYTES_MAX, Replica, Role};
use crate::ids::{Ballot, PodId};
use crate::time::{Span, Time};

/// How long a replica waits for a snapshot, or a peer for another request of one, before it asks again:
/// a large shard takes seconds to send.
const SNAPSHOT_PATIENCE: Span = Span::from_millis(5_000);

/// A peer that lacks no more entries than this has caught up with a snapshot: what is kept for all
/// reaches further back.
const CAUGHT_UP_WITHIN: u64 = 64;

impl Replica {
    /// Applies the entry that was just added to the chosen prefix.
    pub(super) fn apply(&mut self, mut entry: Entry, fx: &mut Fx) {
        // An entry of a deposed leader may lie behind one of its successor and be stamped lower. Every
        // replica has the same prefix, so all of them raise it alike.
        self.time = self.time.max(entry.time);
        entry.time = self.time;
        if let Body::Lead(ballot) = entry.body {
            self.led_by(ballot, fx);
        }
        let index = self.log.applied();
        self.committed = self.committed.max(index);
        fx.events.push(Event::Chosen { index, entry });
    }

    /// The leader of `ballot` says that all up to `committed` is chosen. That tells something only of
    /// what was accepted in that ballot: at another index this replica may hold what lost.
    pub(super) fn learn(&mut self, now: Time, from: PodId, ballot: Ballot, committed: u64, fx: &mut Fx) {
        self.committed = self.committed.max(committed);
        while self.log.applied() < committed && self.log.accepted_in(self.log.applied() + 1) == Some(ballot) {
            let entry = self.log.choose_accepted();
            self.apply(entry, fx);
        }
        if self.log.applied() < self.committed {
            self.ask(now, from, fx);
        }
    }

    /// Asks `peer` for what is missing, not more often than it can answer.
    pub(super) fn ask(&mut self, now: Time, peer: PodId, fx: &mut Fx) {
        if now < self.catch_up_at || peer == self.config.me {
            return;
        }
        self.catch_up_at = now + self.config.timing.retry;
        let from = self.log.applied() + 1;
        fx.send_early.push((peer, Message::CatchUp { ballot: self.promised, from }));
    }

    pub(super) fn on_catch_up(&mut self, now: Time, from: PodId, index: u64, fx: &mut Fx) {
        let ballot = self.promised;
        let applied = self.log.applied();
        self.peer_applied(from, index.saturating_sub(1));
        match self.log.chosen_from(index, MESSAGE_BYTES_MAX) {
            Some(entries) if entries.is_empty() => {}
            Some(entries) => {
                // Chosen is chosen: it rests on a majority's disks, not on this one's.
                fx.send_early.push((from, Message::Chosen { ballot, from: index, entries, applied }));
            }
            None => {
                let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == from) else { return };
                if now >= peer.snapshot_at {
                    peer.snapshot_at = now + SNAPSHOT_PATIENCE;
                    fx.events.push(Event::SnapshotWanted { peer: from });
                }
            }
        }
    }

    pub(super) fn on_chosen(
        &mut self,
        now: Time,
        from: PodId,
        first: u64,
        entries: Vec<Entry>,
        applied: u64,
        fx: &mut Fx,
    ) {
        // A leader knows all that is chosen from its own proposals.
        if matches!(self.role, Role::Leader(_)) {
            return;
        }
        let before = self.log.applied();
        for (index, entry) in (first..).zip(entries) {
            if index != self.log.applied() + 1 {
                continue;
            }
            self.log.choose(entry.clone());
            self.apply(entry.clone(), fx);
            fx.persist.push(Record::Chosen { index, entry });
        }
        if self.log.applied() == before {
            return;
        }
        self.committed = self.committed.max(applied);
        self.catch_up_at = now;
        if self.log.applied() < applied {
            self.ask(now, from, fx);
        }
        self.caught_up(now, fx);
    }

    /// The node began to receive a snapshot, or received more of it: no need to ask for another.
    pub fn snapshot_begun(&mut self, now: Time) {
        self.catch_up_at = now + SNAPSHOT_PATIENCE;
    }

    /// A snapshot for `peer` is of the applied index as it is now: what is chosen behind it is kept until
    /// the peer has caught up, within a bound.
    pub fn snapshot_taken(&mut self, peer: PodId) {
        let from = self.log.applied() + 1;
        if let Some(peer) = self.peers.iter_mut().find(|p| p.id == peer) {
            peer.wants_from = Some(from);
        }
        self.keep_what_is_wanted();
    }

    /// `peer` has the whole of a snapshot: the next request makes a new one.
    pub fn snapshot_sent(&mut self, now: Time, peer: PodId) {
        let again = now + self.config.timing.election_timeout;
        if let Some(peer) = self.peers.iter_mut().find(|p| p.id == peer) {
            peer.snapshot_at = again;
        }
    }

    /// A snapshot for `peer` will not be ended: the next request makes a new one.
    pub fn snapshot_given_up(&mut self, now: Time, peer: PodId) {
        self.snapshot_sent(now, peer);
        if let Some(peer) = self.peers.iter_mut().find(|p| p.id == peer) {
            peer.wants_from = None;
        }
        self.keep_what_is_wanted();
    }

    /// `peer` has applied up to `index`.
    pub(super) fn peer_applied(&mut self, peer: PodId, index: u64) {
        let applied = self.log.applied();
        let Some(peer) = self.peers.iter_mut().find(|p| p.id == peer) else { return };
        let Some(from) = peer.wants_from else { return };
        if index + 1 >= from {
            peer.wants_from = (index + CAUGHT_UP_WITHIN < applied).then_some(index + 1);
            self.keep_what_is_wanted();
        }
    }

    fn keep_what_is_wanted(&mut self) {
        let wanted = self.peers.iter().filter_map(|peer| peer.wants_from).min();
        self.log.want_from(wanted);
    }

    /// The node holds a whole snapshot: takes its position if that is ahead. The tables must be
    /// replaced in the batch that holds the record this asks for. The own promise stays as it is.
    pub fn install(&mut self, now: Time, durable: Durable, fx: &mut Fx) -> bool {
        self.catch_up_at = now;
        if durable.applied <= self.log.applied() {
            return false;
        }
        if matches!(self.role, Role::Leader(_)) {
            // Chosen without this leader's doing: it is deposed and has not heard of it yet.
            self.step_down(now, fx);
        }
        self.take_position(durable, fx);
        fx.persist.push(Record::Installed(self.durable()));
        self.caught_up(now, fx);
        true
    }

    fn take_position(&mut self, durable: Durable, fx: &mut Fx) {
        self.log.install(durable.applied);
        self.time = self.time.max(durable.time);
        self.led_by(durable.lead, fx);
        self.committed = self.committed.max(durable.applied);
    }

    /// The tables reflect everything up to `index` durably: older entries are kept for peers that lag
    /// a little and no longer.
    pub fn checkpointed(&mut self, index: u64) {
        self.log.checkpointed(index);
    }

    /// What a checkpoint at the applied index does not cover: logged again behind it, it lets all older
    /// records be cut. `recover` of these on `new(durable())` makes an equivalent replica.
    pub fn retained_log(&self) -> impl Iterator<Item = Record> {
        let applied = self.log.applied();
        let promised = Record::Promised { ballot: self.promised };
        std::iter::once(promised).chain(self.log.accepted_from(applied + 1).map(
            move |(index, ballot, entry)| Record::Accepted { ballot, index, applied, entry: entry.clone() },
        ))
    }

    /// Takes back one record of the pod's log, in the order they were persisted.
    ///
    /// # Panics
    /// If records are missing: a replica must not vote from a guess of what it once said.
    pub fn recover(&mut self, record: Record) {
        let mut fx = Fx::new();
        match record {
            Record::Promised { ballot } => self.promised = self.promised.max(ballot),
            Record::Accepted { ballot, index, applied, entry } => {
                self.promised = self.promised.max(ballot);
                if ballot >= self.voted.0 {
                    self.voted = (ballot, index);
                }
                if index > self.log.applied() {
                    self.log.accept(index, ballot, entry);
                }
                self.reapply(applied, &mut fx);
            }
            Record::Chosen { index, entry } => {
                self.reapply(index - 1, &mut fx);
                if index == self.log.applied() + 1 {
                    self.log.choose(entry.clone());
                    self.apply(entry, &mut fx);
                }
            }
            Record::Installed(durable) => {
                if durable.applied > self.log.applied() {
                    self.take_position(durable, &mut fx);
                    self.replayed.clear();
                }
            }
        }
        self.replayed.append(&mut fx.events);
    }

    fn reapply(&mut self, applied: u64, fx: &mut Fx) {
        while self.log.applied() < applied {
            let next = self.log.applied() + 1;
            assert!(self.log.accepted_in(next).is_some(), "entry {next} was applied and is not in the log");
            let entry = self.log.choose_accepted();
            self.apply(entry, fx);
        }
    }
}
