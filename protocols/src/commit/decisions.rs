//! The blocking two-phase commit (Gray 1978; Bernstein, Hadzilacos and Goodman 1987, chapter 7): what only the
//! pod that coordinates knows, and what a participant does that has voted yes and does not know it.
//!
//! Presumed abort: a coordinator forces a commit to its own disk before anybody hears of it, and says of what
//! it has no record of that it was aborted. Nobody else may say so. Until it is back, whoever has voted yes
//! stays in doubt, and what it has locked stays locked.

use crate::breaks;
use crate::ids::{PodId, TxnId};
use crate::time::{Span, Time};
use std::collections::BTreeMap;

/// How long a question to a coordinator waits for its answer before it is asked again.
pub const ASK_AGAIN: Span = Span::from_millis(300);

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    Commit,
    Abort,
}

/// The commits that this pod has decided and that its participants may still ask for, each with whether it is
/// on this pod's disk yet. It is on no other.
#[derive(Clone, Debug, Default, Hash)]
pub struct Decisions {
    made: BTreeMap<TxnId, bool>,
}

impl Decisions {
    /// Found in the log.
    pub fn recover(&mut self, txn: TxnId) {
        self.made.insert(txn, true);
    }

    /// All participants have voted yes: to be logged. Nothing leaves that rests on it before
    /// [`Self::durable`].
    pub fn make(&mut self, txn: TxnId) {
        let known = self.made.insert(txn, false);
        assert!(known.is_none(), "{txn:?} is decided once");
    }

    /// It is on disk now.
    pub fn durable(&mut self, txn: TxnId) {
        if let Some(durable) = self.made.get_mut(&txn) {
            *durable = true;
        }
    }

    /// What to say to a participant in doubt, of a transaction that is not in flight here; nothing yet of one
    /// whose decision is on its way to the disk.
    #[must_use]
    pub fn answer(&self, txn: TxnId) -> Option<Decision> {
        match self.made.get(&txn) {
            Some(true) => Some(Decision::Commit),
            Some(false) if breaks::is("commit-before-decision") => Some(Decision::Commit),
            Some(false) => None,
            None => Some(Decision::Abort),
        }
    }

    /// Nobody will ask for it any more.
    pub fn forget(&mut self, txn: TxnId) {
        self.made.remove(&txn);
    }

    /// The oldest: of the lowest ballot.
    #[must_use]
    pub fn first(&self) -> Option<TxnId> {
        self.made.keys().next().copied()
    }

    /// What a log that is cut has to hold again.
    pub fn iter(&self) -> impl Iterator<Item = TxnId> {
        self.made.keys().copied()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.made.len()
    }
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.made.is_empty()
    }
}

/// A participant's transactions that have voted yes and whose coordinator is gone from its office.
#[derive(Clone, Debug, Default, Hash)]
pub struct Doubts {
    /// When their coordinators were last asked.
    open: BTreeMap<TxnId, Option<Time>>,
}

impl Doubts {
    #[must_use]
    pub fn new(txns: impl Iterator<Item = TxnId>) -> Self {
        Self { open: txns.map(|txn| (txn, None)).collect() }
    }

    /// Whom to ask for what: those not asked for [`ASK_AGAIN`], or all that `back` coordinated.
    pub fn ask(&mut self, now: Time, back: Option<PodId>) -> BTreeMap<PodId, Vec<TxnId>> {
        let mut questions: BTreeMap<PodId, Vec<TxnId>> = BTreeMap::new();
        for (txn, asked) in &mut self.open {
            let pod = txn.ballot.pod();
            if back == Some(pod) || asked.is_none_or(|asked| now.since(asked) >= ASK_AGAIN) {
                *asked = Some(now);
                questions.entry(pod).or_default().push(*txn);
            }
        }
        questions
    }

    /// The word of `from`: whether it is news, and of the one pod that may give it.
    pub fn told(&mut self, from: PodId, txn: TxnId) -> bool {
        let may = txn.ballot.pod() == from || breaks::is("abort-presumed-by-anyone");
        may && self.open.remove(&txn).is_some()
    }

    /// The coordinators that are waited for.
    pub fn waited_for(&self) -> impl Iterator<Item = PodId> {
        self.open.keys().map(|txn| txn.ballot.pod())
    }
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}
