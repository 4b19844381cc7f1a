//! Comparing sets with a peer's by digests, and fetching what it has more of. A new owner does so with
//! a majority.

use super::types::{BUCKETS, Event, Item, Message, Record, Sets};
use super::{Effects, Owner, Replica};
use crate::breaks;
use crate::ids::{Ballot, PodId};
use crate::time::{Span, Time};
use bytes::Bytes;
use std::collections::VecDeque;

/// Entities listed in one answer, beyond the bucket that reaches it: some 25 KiB, and a millisecond of work, since a
/// replica that joins asks so in all of its shards at once.
const LISTED_ENTITIES_MAX: usize = 512;
/// Entities asked for at a time. All shards of a replica that joins ask at once, and a round of the pod that answers
/// must not become so long for it that heartbeats come late: the pods beside a lost disk have nobody to spare.
const WANTED_ENTITIES_MAX: usize = 32;
/// Item bytes in one answer, beyond the entity that reaches it.
const CONTENTS_BYTES_MAX: usize = 64 * 1_024;
/// A question is repeated after at most as many times the usual wait. Each repeat doubles it: a peer that takes longer
/// to answer than one wait would otherwise be asked faster than it answers, for ever.
const WAITS_MAX: u64 = 4;

/// A comparison under way, as the replica sees it that asks.
#[derive(Debug)]
pub(super) struct Comparison {
    /// Of the last question: answers to older ones are ignored.
    round: u64,
    pub ballot: Option<Ballot>,
    /// When it first answered: the peer's newest edit, and the ballot under which it owned.
    first: Option<(u64, Option<Ballot>)>,
    wanted: VecDeque<Bytes>,
    /// Buckets of which the peer has not listed what differs. They are asked for while nothing is wanted.
    open: Vec<u8>,
    /// How long the last question may take, and when it is repeated.
    wait: Span,
    pub again_at: Time,
}

impl Replica {
    fn next_round(&mut self) -> u64 {
        self.round += 1;
        self.round
    }

    fn begin(&mut self, now: Time, pod: PodId, ballot: Option<Ballot>, fx: &mut Effects) {
        let round = self.next_round();
        let wait = self.config.timing.resend;
        let Some(peer) = self.peers.get_mut(&pod) else { return };
        let (wanted, open) = (VecDeque::new(), (0..BUCKETS).collect());
        let again_at = now + wait;
        peer.comparison = Some(Comparison { round, ballot, first: None, wanted, open, wait, again_at });
        self.ask(pod, fx);
    }

    /// The question that is next, or was last: its answer counts, however often it was asked.
    fn ask(&self, pod: PodId, fx: &mut Effects) {
        let Some(comparison) = self.peers.get(&pod).and_then(|peer| peer.comparison.as_ref()) else { return };
        let (round, ballot) = (comparison.round, comparison.ballot);
        let message = if comparison.wanted.is_empty() {
            Message::Compare { round, ballot, buckets: self.buckets(comparison.open.iter().copied()) }
        } else {
            let entities = comparison.wanted.iter().take(WANTED_ENTITIES_MAX).cloned().collect();
            Message::Want { round, entities }
        };
        fx.send.push((pod, message));
    }

    fn buckets(&self, which: impl IntoIterator<Item = u8>) -> Vec<(u8, u64)> {
        which.into_iter().map(|bucket| (bucket, self.digests[usize::from(bucket)])).collect()
    }

    /// Takes what a peer has into the union of the ballot being taken, if it is not yet.
    pub(super) fn collect_from(&mut self, now: Time, pod: PodId, fx: &mut Effects) {
        let Owner::Taking(ballot) = self.owner else { return };
        if self.peers.get(&pod).is_some_and(|peer| peer.up && !peer.collected) {
            self.begin(now, pod, Some(ballot), fx);
        }
    }

    /// A replica that joins compares with everybody at once: one of them owns.
    pub(super) fn catch_up_with(&mut self, now: Time, pod: PodId, fx: &mut Effects) {
        if self.is_joining() && self.peers.get(&pod).is_some_and(|peer| peer.comparison.is_none()) {
            self.begin(now, pod, None, fx);
        }
    }

    pub(super) fn tick_comparison(&mut self, now: Time, pod: PodId, fx: &mut Effects) {
        let wait_max = Span(self.config.timing.resend.0 * WAITS_MAX);
        let Some(peer) = self.peers.get_mut(&pod) else { return };
        match &mut peer.comparison {
            Some(comparison) if now >= comparison.again_at => {
                comparison.wait = wait_max.min(Span(comparison.wait.0 * 2));
                comparison.again_at = now + comparison.wait;
                self.ask(pod, fx);
            }
            Some(_) => {}
            None if now >= peer.compare_at => self.begin(now, pod, None, fx),
            None => {}
        }
    }

    pub(super) fn on_behind(&mut self, now: Time, from: PodId, seq: u64, fx: &mut Effects) {
        let Some(peer) = self.peers.get(&from) else { return };
        if peer.up && peer.received < seq && peer.comparison.is_none() {
            self.begin(now, from, None, fx);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(super) fn on_compare(
        &mut self,
        from: PodId,
        round: u64,
        ballot: Option<Ballot>,
        buckets: &[(u8, u64)],
        promised: Ballot,
        sets: &mut dyn Sets,
        fx: &mut Effects,
    ) {
        if ballot.is_some() && self.is_joining() {
            // What it acknowledged is gone: it stands for nothing, and is asked again later.
            return;
        }
        if ballot.is_some_and(|ballot| ballot != promised) {
            // Before the promise it could still acknowledge an older owner's edit, and after a newer one
            // the asker is no owner any more.
            fx.send.push((from, Message::NotUnder { round, promised }));
            return;
        }
        let mut entities = Vec::new();
        let mut more = Vec::new();
        for &(bucket, theirs) in buckets {
            if self.digests.get(usize::from(bucket)).is_none_or(|mine| *mine == theirs) {
                continue;
            }
            if entities.len() >= LISTED_ENTITIES_MAX {
                more.push(bucket);
            } else {
                entities.extend(sets.list(bucket));
            }
        }
        let (seq, owning) = (self.seq, self.owning());
        fx.send.push((from, Message::Compared { round, seq, owning, entities, more }));
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(super) fn on_compared(
        &mut self,
        now: Time,
        from: PodId,
        round: u64,
        seq: u64,
        owning: Option<Ballot>,
        entities: Vec<(Bytes, u64)>,
        more: Vec<u8>,
        promised: Ballot,
        sets: &mut dyn Sets,
        fx: &mut Effects,
    ) {
        let Some(comparison) = self.comparison(from, round) else { return };
        comparison.first.get_or_insert((seq, owning));
        let differing = entities.into_iter().filter(|(entity, theirs)| sets.digest(entity) != *theirs);
        comparison.wanted = differing.map(|(entity, _)| entity).collect();
        comparison.open = more;
        self.go_on(now, from, promised, fx);
    }

    /// The comparison with a peer, if `round` is that of its last question.
    fn comparison(&mut self, from: PodId, round: u64) -> Option<&mut Comparison> {
        self.peers.get_mut(&from)?.comparison.as_mut().filter(|comparison| comparison.round == round)
    }

    pub(super) fn on_not_under(&mut self, now: Time, from: PodId, round: u64, theirs: Ballot) {
        let (collect, resend) = (self.config.timing.collect, self.config.timing.resend);
        if let Some(comparison) = self.comparison(from, round) {
            let soon = comparison.ballot.is_some_and(|ballot| theirs < ballot);
            comparison.wait = if soon { collect } else { resend };
            comparison.again_at = now + comparison.wait;
        }
    }

    pub(super) fn on_want(
        from: PodId,
        round: u64,
        entities: Vec<Bytes>,
        sets: &mut dyn Sets,
        fx: &mut Effects,
    ) {
        let mut bytes = 0;
        let mut contents = Vec::new();
        for entity in entities {
            if bytes >= CONTENTS_BYTES_MAX {
                break;
            }
            let items = sets.items(&entity);
            bytes +=
                entity.len() + items.iter().map(|item| item.body.len() + size_of::<Item>()).sum::<usize>();
            contents.push((entity, items));
        }
        fx.send.push((from, Message::Contents { round, sets: contents }));
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(super) fn on_contents(
        &mut self,
        now: Time,
        from: PodId,
        round: u64,
        contents: Vec<(Bytes, Vec<Item>)>,
        promised: Ballot,
        sets: &mut dyn Sets,
        fx: &mut Effects,
    ) {
        let Some(comparison) = self.comparison(from, round) else { return };
        for (entity, _) in &contents {
            if comparison.wanted.front() == Some(entity) {
                comparison.wanted.pop_front();
            }
        }
        for (entity, items) in contents {
            if self.merge(&entity, &items, sets) {
                self.merged += 1;
                fx.persist.push(Record::Merged { entity, items });
            }
        }
        self.go_on(now, from, promised, fx);
    }

    /// Asks for the next entities, else for the next buckets; else the peer's sets are part of this one's.
    fn go_on(&mut self, now: Time, from: PodId, promised: Ballot, fx: &mut Effects) {
        let round = self.next_round();
        let timing = self.config.timing;
        let compare_at = now + if self.is_joining() { timing.resend } else { timing.compare };
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let Some(comparison) = &mut peer.comparison else { return };
        if !comparison.wanted.is_empty() || !comparison.open.is_empty() {
            comparison.round = round;
            comparison.wait = timing.resend;
            comparison.again_at = now + timing.resend;
            self.ask(from, fx);
            return;
        }
        let (ballot, first) = (comparison.ballot, comparison.first);
        peer.comparison = None;
        peer.compare_at = compare_at;
        if let Some((seq, _)) = first
            && self.advance(from, seq)
        {
            fx.persist.push(Record::Compared { from, seq });
            self.acknowledge(from, promised, fx);
        }
        if let Some((_, Some(owning))) = first {
            self.whole_since(owning, fx);
        }
        if let Owner::Taking(taking) = self.owner
            && ballot == Some(taking)
        {
            self.peers.get_mut(&from).expect("it has just answered").collected = true;
            self.settle_takeover(promised, fx);
        }
    }

    pub(super) fn settle_takeover(&mut self, promised: Ballot, fx: &mut Effects) {
        let Owner::Taking(ballot) = self.owner else { return };
        // One that joins has nothing to add to a union, and has it all afterwards.
        let own = usize::from(!self.is_joining());
        let collected = self.peers.values().filter(|peer| peer.collected).count() + own;
        let enough = collected >= self.config.majority() || breaks::is("owner-without-union");
        if enough && promised == ballot {
            self.owner = Owner::Owning(ballot);
            self.whole_since(ballot, fx);
            fx.events.push(Event::Owning { ballot });
        }
    }
}
