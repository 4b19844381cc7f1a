//! The records of a payment shard: users, and what was paid for orders.

use super::{ORDERS, Outcome, USERS};
use crate::modules::keys;
use crate::modules::machine::{Context, decode};
use crate::modules::money::Money;
use crate::modules::receipt::Receipt;
use crate::modules::request::{Answer, OrderId, UserId};
use bytes::{BufMut, Bytes, BytesMut};
use kassa_protocols::ids::{Incarnation, OpId, TxnId};
use kassa_protocols::time::ShardTime;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub incarnation: Incarnation,
    pub credit: Money,
}

/// The order that a payment is for: its own life of the id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderRef {
    pub user: UserId,
    pub order: OrderId,
    pub incarnation: Incarnation,
}

/// One payment for an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    pub amount: Money,
    pub user_incarnation: Incarnation,
    pub refunded: bool,
    /// Of a charge; `None` for one that came through `pay` and no checkout has used.
    pub receipt: Option<Receipt>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum KeyAnswer {
    CheckedOut(Money),
    Credit(Money),
    Removed,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeyEntry {
    pub(super) key: OpId,
    pub(super) time: ShardTime,
    pub(super) user_incarnation: Incarnation,
    pub(super) answer: KeyAnswer,
}

/// Everything paid for one order by one user, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderPayments {
    pub incarnation: Incarnation,
    pub payments: Vec<Payment>,
    /// The order was removed: nothing is paid for it any more.
    pub closed: bool,
    /// Keys of checkouts that found it paid are among the shard's keys: there may be many of them.
    pub(super) repeated: bool,
    pub(super) keys: Vec<KeyEntry>,
}

impl OrderPayments {
    /// The payment that stands: not refunded, and not voided by a batch of users.
    pub(super) fn standing(&mut self, user: Incarnation) -> Option<&mut Payment> {
        self.payments
            .iter_mut()
            .rev()
            .find(|p| !p.refunded && (p.receipt.is_some() || p.user_incarnation == user))
    }
    /// The charge that the order's open generation builds on: the newest that was refunded.
    #[must_use]
    pub fn generation(&self) -> Option<TxnId> {
        self.payments.iter().rev().filter(|p| p.refunded).find_map(|p| p.receipt.as_ref()).map(|r| r.txn)
    }
    /// The charge that stands, if the order is paid.
    #[must_use]
    pub fn charge(&self) -> Option<&Receipt> {
        self.payments.iter().rev().filter(|p| !p.refunded).find_map(|p| p.receipt.as_ref())
    }
    /// Whether an edit that came in at the shard time `stamp` may be part of that generation: not if its order was
    /// paid, or may have been, at any moment since. An earlier attempt may have been refused for that.
    #[must_use]
    pub fn may_edit(&self, generation: Option<TxnId>, stamp: ShardTime, now: ShardTime) -> bool {
        let unpaid_since =
            || self.keys.iter().all(|entry| entry.time < stamp) && stamp >= keys::kept_since(now);
        generation.is_none() || generation == self.generation() && unpaid_since()
    }
    pub(super) fn find_key(&self, key: OpId) -> Option<&KeyEntry> {
        self.keys.iter().find(|entry| entry.key == key)
    }
    pub(super) fn remember(
        &mut self,
        context: Context,
        key: OpId,
        user_incarnation: Incarnation,
        answer: KeyAnswer,
    ) {
        let kept_since = keys::kept_since(context.time);
        // An entry of the same key is of an earlier life of the user, which nobody asks for any more.
        self.keys.retain(|entry| entry.time >= kept_since && entry.key != key);
        self.keys.push(KeyEntry { key, time: context.time, user_incarnation, answer });
    }
}

pub(super) fn user_key(user: &UserId) -> Bytes {
    let mut key = BytesMut::with_capacity(1 + user.0.len());
    key.put_u8(USERS);
    key.put_slice(user.0.as_bytes());
    key.freeze()
}

pub(super) fn order_key(order: &OrderRef) -> Bytes {
    let mut key = BytesMut::with_capacity(2 + order.user.0.len() + order.order.0.len());
    key.put_u8(ORDERS);
    key.put_u8(u8::try_from(order.user.0.len()).expect("an id has at most 128 bytes"));
    key.put_slice(order.user.0.as_bytes());
    key.put_slice(order.order.0.as_bytes());
    key.freeze()
}

/// The user and order that a key of the [`ORDERS`] table names.
#[must_use]
pub fn order_of_key(key: &[u8]) -> Option<(UserId, OrderId)> {
    let (&length, rest) = key.strip_prefix(&[ORDERS])?.split_first()?;
    let (user, order) = rest.split_at_checked(usize::from(length))?;
    Some((std::str::from_utf8(user).ok()?.into(), std::str::from_utf8(order).ok()?.into()))
}

/// What a value of the [`ORDERS`] table says.
#[must_use]
pub fn order_payments(stored: &[u8]) -> OrderPayments {
    decode(stored)
}

/// The answer that `pay` or `cancel` gave under this key, on this life of the user.
pub(super) fn credit_answer(
    payments: &OrderPayments,
    key: OpId,
    user: Incarnation,
    order: &OrderRef,
) -> Option<Outcome> {
    let entry = payments.find_key(key).filter(|entry| entry.user_incarnation == user)?;
    match entry.answer {
        KeyAnswer::Credit(credit) => Some(Outcome::Done(Answer::Credit { user: order.user.clone(), credit })),
        KeyAnswer::CheckedOut(_) | KeyAnswer::Removed => None,
    }
}
