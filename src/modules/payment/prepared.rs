//! The payment side of the blocking two-phase commit: it votes, and then it waits for the decision.
//!
//! A yes vote promises that the charge can be made whenever it is decided, so that the user it debits is locked
//! until then: nothing else changes the user, what it has paid, or whether its order is closed. The credit
//! itself changes with the commit alone, and is read as it was until then. The vote, and the lock with it, is
//! part of the replicated records: it outlives every leader, without a limit in time.
//!
//! A batch over the user or the order is not held up: a charge that was promised before it is made as if it
//! had been made before it.

use super::charge::{Judged, stock_shards};
use super::{Command, OrderRef, Outcome, PREPARED, Payments};
use crate::modules::machine::{Context, decode, encode};
use crate::modules::money::Money;
use crate::modules::receipt::Receipt;
use crate::modules::request::{OrderId, UserId};
use crate::modules::stock::{txn_from_key, txn_key};
use bytes::Bytes;
use kassa_protocols::ids::{Incarnation, OpId, ShardNo, TxnId};
use kassa_protocols::tables::View;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A yes vote, as stored: all that the charge needs.
#[derive(Serialize, Deserialize)]
struct Promise {
    key: OpId,
    order: OrderRef,
    receipt: Box<Receipt>,
    total: Money,
    user_incarnation: Incarnation,
    /// Whether it debits the user: a payment may stand already.
    debits: bool,
}

/// What is known of a yes vote at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    pub user: UserId,
    pub order: OrderId,
    pub shards: Vec<ShardNo>,
}

/// The yes votes that are not decided, and the users that they lock.
#[derive(Debug, Default)]
pub(super) struct Votes {
    prepared: BTreeMap<TxnId, Prepared>,
    locked: BTreeMap<UserId, TxnId>,
}

impl Votes {
    fn insert(&mut self, txn: TxnId, promise: &Promise) {
        let (user, order) = (promise.order.user.clone(), promise.order.order.clone());
        let before = self.locked.insert(user.clone(), txn);
        assert!(before.is_none(), "a user that is locked votes for nothing else");
        self.prepared.insert(txn, Prepared { user, order, shards: stock_shards(&promise.receipt) });
    }

    pub(super) fn rebuild(&mut self, view: &View<'_>) {
        *self = Self::default();
        for (key, stored) in view.scan(&[PREPARED]) {
            self.insert(txn_from_key(&key), &decode(&stored));
        }
    }

    /// Whether a command would change a user that is locked. No leader submits one so; but what a former leader
    /// proposed may be chosen behind the vote of its successor.
    pub(super) fn forbid(&self, command: &Command) -> bool {
        !self.locked.is_empty() && command.locks().is_some_and(|user| self.locked.contains_key(user))
    }
}

/// Where a yes vote is stored.
#[must_use]
pub fn prepared_key(txn: TxnId) -> Bytes {
    txn_key(PREPARED, txn)
}

impl Command {
    /// The user that it changes, and that must not be locked by another transaction.
    #[must_use]
    pub const fn locks(&self) -> Option<&UserId> {
        match self {
            Self::AddFunds { user, .. } | Self::Pay { user, .. } => Some(user),
            Self::PayOrder { order, .. }
            | Self::Cancel { order, .. }
            | Self::Close { order, .. }
            | Self::Charge { order, .. }
            | Self::Prepare { order, .. } => Some(&order.user),
            // A user that is there is not created, and a repeat of what is paid changes its keys alone.
            Self::CreateUser { .. } | Self::Repeat { .. } => None,
            Self::Commit(_) | Self::Abort(_) | Self::Finished(_) => None,
            Self::Load(_) | Self::Find { .. } | Self::Status { .. } | Self::Nothing => None,
        }
    }
}

impl Payments {
    /// The transactions that were voted for and are not decided.
    #[must_use]
    pub const fn prepared(&self) -> &BTreeMap<TxnId, Prepared> {
        &self.votes.prepared
    }

    /// Votes: yes with a promise, or no with the outcome.
    pub(super) fn prepare(
        &mut self,
        context: Context,
        view: &mut View<'_>,
        key: OpId,
        order: &OrderRef,
        receipt: &Receipt,
        total: Option<Money>,
    ) -> Outcome {
        match self.judge(context, view, key, order, receipt, total) {
            Err(outcome) => outcome,
            Ok(Judged { user, mut payments, total }) => {
                let user_incarnation = user.incarnation;
                let debits = payments.standing(user_incarnation).is_none();
                let (order, receipt) = (order.clone(), Box::new(receipt.clone()));
                let promise = Promise { key, order, receipt, total, user_incarnation, debits };
                let txn = promise.receipt.txn;
                view.set(prepared_key(txn), encode(&promise));
                self.votes.insert(txn, &promise);
                Outcome::Prepared
            }
        }
    }

    /// Takes the promise of a vote, and its lock.
    fn redeem(&mut self, view: &mut View<'_>, txn: TxnId) -> Option<Promise> {
        let prepared = self.votes.prepared.remove(&txn)?;
        self.votes.locked.remove(&prepared.user);
        let stored = view.get(&prepared_key(txn)).expect("a vote is stored");
        view.delete(prepared_key(txn));
        Some(decode(&stored))
    }

    /// The transaction was decided: the charge is made. Nothing happens if it has been.
    pub(super) fn commit(&mut self, context: Context, view: &mut View<'_>, txn: TxnId) -> Outcome {
        let Some(promise) = self.redeem(view, txn) else { return Outcome::Acknowledged };
        let Promise { key, order, receipt, total, user_incarnation, debits } = promise;
        let payments = self.order(view, &order).ok();
        let mut user = self.user(view, &order.user).filter(|user| user.incarnation == user_incarnation);
        // A batch over the order takes the record of the charge, and not its price back.
        if payments.is_none()
            && debits
            && let Some(user) = &mut user
        {
            user.credit = user.credit.checked_sub(total).expect("judged, and locked since");
            Self::save_user(view, &order.user, user);
        }
        self.carry_out(context, view, key, &order, &receipt, total, user_incarnation, user, payments)
    }

    pub(super) fn abort(&mut self, view: &mut View<'_>, txn: TxnId) -> Outcome {
        let _ = self.redeem(view, txn);
        Outcome::Acknowledged
    }
}
