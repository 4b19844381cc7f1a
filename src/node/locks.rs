//! Users that a checkout of the blocking commit has locked, and who waits for them: first come, first served.
//!
//! What this office submits never meets a lock: so an outcome that somebody waits for is never "void, it is locked".
//! The locks themselves are replicated (`modules::payment`); a leader learns of those of its predecessors when
//! it takes office, and takes its own before it submits a vote. What waits is volatile, as all that a leader has
//! not submitted.

use super::payment::Waiter;
use crate::modules::payment::Command;
use crate::modules::request::UserId;
use kassa_protocols::breaks;
use kassa_protocols::ids::TxnId;
use kassa_protocols::time::{Span, Time};
use std::collections::{BTreeMap, VecDeque};

/// Commands that wait at one shard at the most: past it a newcomer is sent back to be asked again. Not so a vote:
/// there are no more of those than checkouts that clients wait for.
const WAITING_MAX: usize = 16_384;
/// Nobody waits that long for an answer: what was not submitted by then is not submitted any more.
const WAIT_MAX: Span = Span::from_millis(20_000);

#[derive(Debug)]
struct Waiting {
    command: Command,
    waiter: Waiter,
    /// When it was first looked over.
    since: Option<Time>,
}

/// The locked users of one payment shard, at its leader.
#[derive(Debug, Default)]
pub(super) struct Locks {
    held: BTreeMap<UserId, TxnId>,
    waiting: BTreeMap<UserId, VecDeque<Waiting>>,
    count: usize,
}

/// What becomes of a command.
pub(super) enum Turn {
    /// Submit it.
    Now(Command, Waiter),
    Waits,
    Full(Waiter),
}

impl Locks {
    /// A leader takes office, and finds these users locked.
    pub(super) fn lead<'a>(&mut self, locked: impl Iterator<Item = (&'a UserId, TxnId)>) {
        self.held = locked.map(|(user, txn)| (user.clone(), txn)).collect();
    }

    /// A command is to be submitted: now, with the lock if it is a vote, or when its turn comes.
    pub(super) fn admit(&mut self, command: Command, waiter: Waiter) -> Turn {
        let Some(user) = command.locks() else { return Turn::Now(command, waiter) };
        let taken = self.held.contains_key(user) && !breaks::is("user-not-locked");
        if !taken && !self.waiting.contains_key(user) {
            return self.take(command, waiter);
        }
        if self.count >= WAITING_MAX && !matches!(waiter, Waiter::Charge(_)) {
            return Turn::Full(waiter);
        }
        self.count += 1;
        let waiting = Waiting { command, waiter, since: None };
        self.waiting
            .entry(waiting.command.locks().expect("as above").clone())
            .or_default()
            .push_back(waiting);
        Turn::Waits
    }

    fn take(&mut self, command: Command, waiter: Waiter) -> Turn {
        if let Command::Prepare { order, receipt, .. } = &command {
            self.held.insert(order.user.clone(), receipt.txn);
        }
        Turn::Now(command, waiter)
    }

    /// `txn` has no lock any more. Gives its user, if it had one.
    pub(super) fn release(&mut self, txn: TxnId) -> Option<UserId> {
        let user = self.held.iter().find(|(_, holder)| **holder == txn).map(|(user, _)| user.clone())?;
        self.held.remove(&user);
        Some(user)
    }

    /// The next that waits for the user, if nobody has locked it.
    pub(super) fn next(&mut self, user: &UserId) -> Option<(Command, Waiter)> {
        if self.held.contains_key(user) {
            return None;
        }
        let waiting = self.waiting.get_mut(user)?;
        let first = waiting.pop_front();
        if waiting.is_empty() {
            self.waiting.remove(user);
        }
        let Waiting { command, waiter, .. } = first?;
        self.count -= 1;
        match self.take(command, waiter) {
            Turn::Now(command, waiter) => Some((command, waiter)),
            Turn::Waits | Turn::Full(_) => unreachable!("it is its turn"),
        }
    }

    /// Takes the vote of `txn` back, if it waits yet.
    pub(super) fn withdraw(&mut self, txn: TxnId) -> bool {
        let before = self.count;
        self.retain(|waiting| !matches!(waiting.waiter, Waiter::Charge(waits) if waits == txn));
        self.count < before
    }

    /// What has waited in vain for too long. Votes are not among them: their checkouts end them.
    pub(super) fn expired(&mut self, now: Time) -> Vec<Waiter> {
        let mut expired = Vec::new();
        self.retain(|waiting| {
            let since = *waiting.since.get_or_insert(now);
            let late = now.since(since) >= WAIT_MAX && !matches!(waiting.waiter, Waiter::Charge(_));
            if late {
                expired.push(waiting.waiter.clone());
            }
            !late
        });
        expired
    }

    fn retain(&mut self, mut keep: impl FnMut(&mut Waiting) -> bool) {
        self.waiting.retain(|_, waiting| {
            waiting.retain_mut(&mut keep);
            !waiting.is_empty()
        });
        self.count = self.waiting.values().map(VecDeque::len).sum();
    }

    /// The leader's term is over.
    pub(super) fn drain(&mut self) -> Vec<Waiter> {
        self.held.clear();
        self.count = 0;
        let waiting = std::mem::take(&mut self.waiting).into_values().flatten();
        waiting.map(|waiting| waiting.waiter).collect()
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}
