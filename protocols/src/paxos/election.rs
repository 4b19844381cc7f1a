//! Elections: who stands when, phase 1, and giving up.
//!
//! A voter that lost the leader *canvasses* first (pre-vote, Ongaro 2014 §9.6). It stands only if a
//! majority, itself included, hears it and has lost the leader too; a voter that still hears the leader
//! refuses. With leaders that stand down when they hear no majority, that settles chains and one-way
//! cuts (Ng, Haridi and Carbone 2023). All of it is liveness: safety rests on promises alone.

use super::message::{Entry, Event, Fx, Message};
use super::{Replica, Role};
use crate::breaks;
use crate::ids::{Ballot, PodId};
use crate::time::{Span, Time};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Hash)]
pub(super) struct Candidate {
    /// Unless it gets further before.
    pub gives_up_at: Time,
    pub resend_at: Time,
    /// Each voter's part of phase 1.
    parts: Vec<Part>,
    /// What is accepted above the chosen prefix, by index: the highest ballot's entry.
    tail: BTreeMap<u64, (Ballot, Entry)>,
}

#[derive(Clone, Debug, Hash)]
struct Part {
    voter: PodId,
    /// The index from which its tail is still to come.
    next: u64,
    /// Once all of it is here: up to where the voter knows everything chosen.
    applied: Option<u64>,
}

impl Replica {
    /// The leader, or a candidate that was promised, is alive: stand only when it has been silent.
    pub(super) fn heard(&mut self, now: Time) {
        self.heard_at = now;
        self.suspect = false;
        self.yielded = false;
        self.hint = None;
        self.stand_at = now + self.election_timeout(now) + self.stagger();
        if matches!(self.role, Role::Canvassing { .. }) {
            self.role = Role::Follower;
        }
    }

    /// A ballot was heard of: the next one to stand with lies above it.
    fn see(&mut self, now: Time, from: PodId, ballot: Ballot, fx: &mut Fx) {
        if !self.must_be_told(now, from, ballot, fx) {
            self.seen = self.seen.max(ballot);
        }
    }

    /// For how long a leader, a majority or phase 1 may be silent.
    pub(super) fn election_timeout(&self, now: Time) -> Span {
        self.patience.wait(now, self.config.timing.election_timeout)
    }

    /// Voters wait a little longer one after the other, so that candidates seldom clash.
    fn stagger(&self) -> Span {
        Span(self.config.timing.stagger.0 * self.rank)
    }

    /// There is no leader: stand when the voters before this one have had their chance.
    pub(super) fn stand_soon(&mut self, now: Time) {
        self.suspect = true;
        self.stand_at = now + self.stagger();
    }

    fn lost_leader(&self, now: Time) -> bool {
        // Whoever asks has lost it, even though it would wait longer the next time.
        let canvassing = matches!(self.role, Role::Canvassing { .. });
        self.suspect || canvassing || now.since(self.heard_at) >= self.election_timeout(now)
    }

    /// Gives up leading or standing, if it did. The ballot is never taken up again.
    pub(super) fn step_down(&mut self, now: Time, fx: &mut Fx) {
        let led_or_stood = matches!(self.role, Role::Leader(_) | Role::Candidate(_));
        self.role = Role::Follower;
        // Whoever was given a copy here asks the next leader for what it lacks.
        for peer in &mut self.peers {
            peer.wants_from = None;
        }
        if led_or_stood {
            self.stand_at = now + self.election_timeout(now) + self.stagger();
            fx.events.push(Event::Deposed);
        }
    }

    pub(super) fn canvass(&mut self, now: Time, fx: &mut Fx) {
        if matches!(self.role, Role::Follower) && !self.suspect {
            self.patience.lose(now, self.config.timing.election_timeout);
        }
        self.leader = None;
        self.stand_at = now + self.config.timing.heartbeat + self.stagger();
        self.reached = None;
        self.role = Role::Canvassing { granted: vec![self.config.me] };
        self.poll(fx);
        self.count_grants(now, fx);
    }

    /// Asks all other voters; answers to earlier polls count no more.
    pub(super) fn poll(&mut self, fx: &mut Fx) {
        self.polls += 1;
        let message =
            Message::Canvass { ballot: self.promised, poll: self.polls, applied: self.log.applied() };
        for peer in self.peers.iter().filter(|peer| peer.voter) {
            fx.send_early.push((peer.id, message.clone()));
        }
    }

    pub(super) fn on_canvass(
        &mut self,
        now: Time,
        from: PodId,
        ballot: Ballot,
        poll: u64,
        applied: u64,
        fx: &mut Fx,
    ) {
        if !self.votes() {
            return;
        }
        self.see(now, from, ballot, fx);
        let leads = matches!(self.role, Role::Leader(_));
        if !leads && from == self.promised.pod() {
            // Whoever asks does not lead, and this voter follows nobody else.
            self.suspect = true;
        }
        let lost = !leads && self.lost_leader(now);
        // A candidate that needs a snapshot would keep the shard waiting for it.
        let granted = lost && applied + 1 >= self.log.first();
        if granted && !self.yielded {
            // Lets it go first. Only once: it may be one that nobody's answers reach.
            self.yielded = true;
            self.stand_at = now + self.config.timing.heartbeat + self.stagger();
        }
        let leader = if lost { None } else { self.leader };
        let (ballot, applied) = (self.promised, self.log.applied());
        fx.send_early.push((from, Message::Canvassed { ballot, poll, granted, applied, leader }));
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(super) fn on_canvassed(
        &mut self,
        now: Time,
        from: PodId,
        ballot: Ballot,
        poll: u64,
        granted: bool,
        applied: u64,
        leader: Option<PodId>,
        fx: &mut Fx,
    ) {
        self.see(now, from, ballot, fx);
        if poll != self.polls {
            return;
        }
        self.count_reached(from, fx);
        let Role::Canvassing { granted: by } = &mut self.role else { return };
        if granted && !by.contains(&from) {
            by.push(from);
        }
        if leader.is_some() {
            self.hint = leader;
        }
        if applied > self.log.applied() {
            // Cut off from the leader, it still follows the log through a peer that is not.
            self.committed = self.committed.max(applied);
            self.ask(now, from, fx);
        }
        self.count_grants(now, fx);
    }

    fn count_grants(&mut self, now: Time, fx: &mut Fx) {
        if let Role::Canvassing { granted } = &self.role
            && granted.len() >= self.majority
        {
            self.stand(now, fx);
        }
    }

    /// Phase 1 in a fresh ballot. Even the Prepare waits for the fsync: after a crash the same ballot
    /// could otherwise be used again, for other values.
    pub(super) fn stand(&mut self, now: Time, fx: &mut Fx) {
        let seen = self.promised.max(self.seen);
        // Of a newer epoch only who is a member of it may lead in it, and that is not known here yet.
        if seen.epoch > self.config.epoch || !self.votes() {
            return;
        }
        let floor = Ballot { epoch: self.config.epoch, round: 0, pod: 0 };
        let ballot = seen.max(floor).next(self.config.me);
        self.promise(ballot, fx);
        self.heard(now);
        self.leader = None;
        let next = self.log.applied() + 1;
        let part = |voter: &PodId| Part { voter: *voter, next, applied: None };
        self.role = Role::Candidate(Candidate {
            gives_up_at: now + self.election_timeout(now),
            resend_at: now,
            parts: self.config.voters.iter().map(part).collect(),
            tail: BTreeMap::new(),
        });
        // The own promise counts once it is durable; its tail is this replica's log.
        let applied = self.log.applied();
        fx.send.push((self.config.me, Message::Promise { ballot, applied, tail: Vec::new(), next: None }));
        self.prepare(now, None, fx);
    }

    /// Sends Prepare to the voters (or the one given) that have not answered in full.
    pub(super) fn prepare(&mut self, now: Time, only: Option<PodId>, fx: &mut Fx) {
        let Role::Candidate(candidate) = &mut self.role else { return };
        if only.is_none() {
            candidate.resend_at = now + self.config.timing.retry;
        }
        for part in &candidate.parts {
            let wanted = only.is_none_or(|only| only == part.voter);
            if wanted && part.voter != self.config.me && part.applied.is_none() {
                fx.send.push((part.voter, Message::Prepare { ballot: self.promised, from: part.next }));
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(super) fn on_promise(
        &mut self,
        now: Time,
        from: PodId,
        ballot: Ballot,
        applied: u64,
        tail: Vec<(u64, Ballot, Entry)>,
        next: Option<u64>,
        fx: &mut Fx,
    ) {
        let gives_up_at = now + self.election_timeout(now);
        let Role::Candidate(candidate) = &mut self.role else { return };
        if ballot != self.promised {
            return;
        }
        let Some(part) = candidate.parts.iter_mut().find(|part| part.voter == from) else { return };
        candidate.gives_up_at = gives_up_at;
        for (index, accepted, entry) in tail {
            merge(&mut candidate.tail, index, accepted, entry);
        }
        match next {
            Some(next) if next > part.next => {
                part.next = next;
                self.prepare(now, Some(from), fx);
            }
            Some(_) => {}
            None => {
                part.applied = Some(applied);
                self.conclude(now, fx);
            }
        }
    }

    /// The chosen prefix grew: a candidate may have waited for that.
    pub(super) fn caught_up(&mut self, now: Time, fx: &mut Fx) {
        let gives_up_at = now + self.election_timeout(now);
        if let Role::Candidate(candidate) = &mut self.role {
            candidate.gives_up_at = gives_up_at;
            self.conclude(now, fx);
        }
    }

    /// Leads, once a majority has promised and this replica has what they know to be chosen.
    /// Invariant: at each index above, the entry of the highest ballot is taken, for it may be chosen.
    fn conclude(&mut self, now: Time, fx: &mut Fx) {
        let Role::Candidate(candidate) = &mut self.role else { return };
        let promised = candidate.parts.iter().filter_map(|part| part.applied.map(|a| (a, part.voter)));
        if promised.clone().count() < if breaks::is("lead-before-promises") { 1 } else { self.majority } {
            return;
        }
        let applied = self.log.applied();
        if let Some((ahead, voter)) = promised.max()
            && ahead > applied
        {
            self.ask(now, voter, fx);
            return;
        }
        let mut found = std::mem::take(&mut candidate.tail);
        for (index, accepted, entry) in self.log.accepted_from(applied + 1) {
            merge(&mut found, index, accepted, entry.clone());
        }
        let mut tail = Vec::with_capacity(found.len());
        for (index, (_, entry)) in found.split_off(&(applied + 1)) {
            // Where a majority has accepted nothing, nothing is chosen and anything may be proposed.
            // In-order acceptance leaves no such gap below an entry; a no-op would fill it.
            while applied + 1 + (tail.len() as u64) < index {
                tail.push(Entry {
                    time: self.time,
                    origin: self.promised,
                    body: super::Body::Commands(bytes::Bytes::new()),
                });
            }
            tail.push(entry);
        }
        self.take_office(now, tail, fx);
    }

    /// Some voters may not have been told of a new epoch yet: they are asked again soon.
    pub(super) fn prepare_again_at(&mut self, at: Time) {
        if let Role::Candidate(candidate) = &mut self.role {
            candidate.resend_at = candidate.resend_at.min(at);
        }
    }

    pub(super) fn tick_candidate(&mut self, now: Time, fx: &mut Fx) {
        let Role::Candidate(candidate) = &self.role else { return };
        if now >= candidate.gives_up_at {
            self.patience.lose(now, self.config.timing.election_timeout);
            self.step_down(now, fx);
            self.stand_soon(now);
        } else if now >= candidate.resend_at {
            self.prepare(now, None, fx);
            self.conclude(now, fx);
        }
    }

    /// A voter has promised more than this replica's ballot, which can never reach it: a higher one is
    /// needed, and whoever was promised goes first.
    pub(super) fn on_reject(
        &mut self,
        now: Time,
        from: PodId,
        ballot: Ballot,
        promised: Ballot,
        fx: &mut Fx,
    ) {
        self.see(now, from, promised, fx);
        let mine = matches!(self.role, Role::Leader(_) | Role::Candidate(_)) && ballot == self.promised;
        if mine {
            self.step_down(now, fx);
            self.leader = None;
            self.stand_soon(now + self.config.timing.heartbeat);
        }
    }
}

fn merge(tail: &mut BTreeMap<u64, (Ballot, Entry)>, index: u64, ballot: Ballot, entry: Entry) {
    let wins =
        |highest: Ballot| if breaks::is("oldest-vote-wins") { highest > ballot } else { highest < ballot };
    if tail.get(&index).is_none_or(|(highest, _)| wins(*highest)) {
        tail.insert(index, (ballot, entry));
    }
}
