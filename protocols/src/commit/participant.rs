//! The stock side's volatile part: who waits for units, and which reservations are in doubt.
//!
//! Waiting is first come, first served at each shard, and coordinators visit shards in shard order, one
//! after the other, so that no cycle of waiting is possible. The queue holds no dead: a release removes a
//! queued reserve, a newer ballot of a payment shard drops what its older ones queued, and one that can no
//! longer be covered is answered at once when it is tried again.

use crate::ids::TxnId;
use crate::time::{Span, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A reservation that somebody waits for is in doubt after this.
pub const DOUBT_WANTED: Span = Span::from_millis(200);
/// Any other is in doubt after this.
pub const DOUBT: Span = Span::from_millis(2_000);
/// How long a question waits for its answer before it is asked again.
pub const ASK_AGAIN: Span = Span::from_millis(300);
/// The most reserves that wait at one shard: past it the newcomer is told busy and sheds itself.
pub const QUEUE_MAX: usize = 16_384;

/// Whether units can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cover {
    Now,
    /// If units come back.
    Later,
    /// Not even if every checkout in flight aborts.
    Never,
}

/// A queued reserve: its lines, and how to answer it.
#[derive(Clone, Debug)]
pub struct Waiting<I, A> {
    pub txn: TxnId,
    pub lines: Vec<(I, u64)>,
    pub answer_to: A,
    /// Handed out to be tried; its outcome is awaited.
    trying: bool,
}

/// The queue and the doubts of one stock shard, under one coordinator's ballot.
#[derive(Debug)]
pub struct Participant<I, A> {
    queue: VecDeque<Waiting<I, A>>,
    /// Reservations seen held, since when, and when they were last asked about.
    held: BTreeMap<TxnId, (Time, Option<Time>)>,
}

impl<I, A> Default for Participant<I, A> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), held: BTreeMap::new() }
    }
}

impl<I: Clone + Ord, A: Clone> Participant<I, A> {
    /// Whether somebody waits for one of the items: a newcomer goes behind.
    #[must_use]
    pub fn is_wanted(&self, lines: &[(I, u64)]) -> bool {
        !self.queue.is_empty() && self.queue.iter().any(|waiting| shares(&waiting.lines, lines))
    }

    /// Puts a reserve at the end of the queue; `false` if the queue is full. One that waits already (a
    /// repeat) keeps its place and is answered where it was last asked from.
    pub fn enqueue(&mut self, txn: TxnId, lines: Vec<(I, u64)>, answer_to: A) -> bool {
        if let Some(waiting) = self.queue.iter_mut().find(|waiting| waiting.txn == txn) {
            waiting.answer_to = answer_to;
            return true;
        }
        if self.queue.len() >= QUEUE_MAX {
            return false;
        }
        self.queue.push_back(Waiting { txn, lines, answer_to, trying: false });
        true
    }

    /// Removes a queued reserve: it was released, or answered.
    pub fn remove(&mut self, txn: TxnId) -> Option<Waiting<I, A>> {
        let at = self.queue.iter().position(|waiting| waiting.txn == txn)?;
        self.queue.remove(at)
    }

    /// A payment shard's watermark has passed: what is queued below it is dead.
    pub fn raise(&mut self, watermark: TxnId) {
        self.queue.retain(|waiting| waiting.txn.shard != watermark.shard || waiting.txn >= watermark);
    }

    /// The reserves to try now: those that share no item with an earlier one that still waits and whose
    /// units are there, and those that can never be covered. Each is handed out once until
    /// [`Self::still_busy`].
    pub fn turns(&mut self, mut cover: impl FnMut(&I, u64) -> Cover) -> Vec<Waiting<I, A>> {
        let mut ahead: BTreeSet<I> = BTreeSet::new();
        let mut turns = Vec::new();
        for waiting in &mut self.queue {
            let covers = waiting.lines.iter().map(|(item, units)| cover(item, *units)).max();
            let blocked = waiting.lines.iter().any(|(item, _)| ahead.contains(item));
            let due = match covers {
                Some(Cover::Never) => true,
                Some(Cover::Now) | None => !blocked,
                Some(Cover::Later) => false,
            };
            if due && !waiting.trying {
                waiting.trying = true;
                turns.push(waiting.clone());
            }
            if covers != Some(Cover::Never) {
                ahead.extend(waiting.lines.iter().map(|(item, _)| item.clone()));
            }
        }
        turns
    }

    /// A reserve that was tried is still busy: it keeps its place. Nothing happens if it was removed meanwhile.
    pub fn still_busy(&mut self, txn: TxnId) {
        if let Some(waiting) = self.queue.iter_mut().find(|waiting| waiting.txn == txn) {
            waiting.trying = false;
        }
    }

    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// The reservations to ask their payment shards about, given all that are held now (with whether
    /// somebody waits for one of their items).
    pub fn doubts(&mut self, now: Time, held: impl Iterator<Item = (TxnId, bool)>) -> Vec<TxnId> {
        let mut known = std::mem::take(&mut self.held);
        let mut doubts = Vec::new();
        for (txn, wanted) in held {
            let (since, asked) = known.remove(&txn).unwrap_or((now, None));
            let patience = if wanted { DOUBT_WANTED } else { DOUBT };
            let due = now.since(since) >= patience && asked.is_none_or(|asked| now.since(asked) >= ASK_AGAIN);
            if due {
                doubts.push(txn);
            }
            self.held.insert(txn, (since, if due { Some(now) } else { asked }));
        }
        doubts
    }

    /// Whether somebody waits for `item`.
    #[must_use]
    pub fn wants(&self, item: &I) -> bool {
        self.queue.iter().any(|waiting| waiting.lines.iter().any(|(wanted, _)| wanted == item))
    }

    /// All that wait are to be told that this pod coordinates no longer.
    pub fn drain(&mut self) -> Vec<Waiting<I, A>> {
        self.held.clear();
        self.queue.drain(..).collect()
    }
}

fn shares<I: PartialEq>(a: &[(I, u64)], b: &[(I, u64)]) -> bool {
    a.iter().any(|(item, _)| b.iter().any(|(other, _)| other == item))
}
