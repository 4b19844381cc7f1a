//! Payment: users, their credit, and what was paid for orders.
//!
//! Applying [`Command::Charge`] is *the* decision of a checkout (the last-agent optimisation of two-phase
//! commit, Gray 1978): there is no other record of it, and no window in which only a coordinator knows.
//! A charge stays in the unfinished set until every stock shard has acknowledged its confirmation.
//!
//! A payment record keeps every receipt and refund of its order, from which the order module's copies are
//! derived at any time, on every replica. Payments name the order's incarnation and the user's: a batch of
//! users voids payments without a receipt, what was bought stays bought; a batch of orders leaves nothing.

mod charge;
mod prepared;
mod records;
mod repeats;

pub use prepared::{Prepared, prepared_key};
pub use records::{OrderPayments, OrderRef, Payment, User, order_of_key, order_payments};

use super::batch::{BatchRecord, Load, insert_and_prune, newest_covering};
use super::keys;
use super::machine::{Context, Machine, decode, encode};
use super::money::Money;
use super::receipt::Receipt;
use super::request::{Answer, OrderId, Refusal, UserId};
use super::stock::{batch_key, txn_from_key, txn_key};
use kassa_protocols::ids::{Incarnation, OpId, ShardNo, TxnId};
use kassa_protocols::tables::View;
use prepared::Votes;
use records::{KeyAnswer, credit_answer, order_key, user_key};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const USERS: u8 = b'u';
/// The table of what was paid for orders; the node watches it to derive receipts.
pub const ORDERS: u8 = b'o';
/// The table of the unfinished set.
pub const UNFINISHED: u8 = b'f';
/// The table of the blocking commit's yes votes.
const PREPARED: u8 = b'p';
const BATCHES: u8 = b'b';

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    CreateUser {
        user: UserId,
    },
    AddFunds {
        key: OpId,
        user: UserId,
        amount: Money,
    },
    Pay {
        key: OpId,
        user: UserId,
        amount: Money,
    },
    PayOrder {
        key: OpId,
        order: OrderRef,
        amount: Money,
    },
    Cancel {
        key: OpId,
        order: OrderRef,
    },
    /// The decision of a checkout. `total` is `None` where it is too large for the money type.
    Charge {
        key: OpId,
        order: OrderRef,
        receipt: Box<Receipt>,
        total: Option<Money>,
    },
    /// A checkout of an order that seems paid: stores its key with the answer if it is.
    Repeat {
        key: OpId,
        order: OrderRef,
    },
    /// The order is removed.
    Close {
        key: OpId,
        order: OrderRef,
    },
    Finished(Vec<TxnId>),
    Load(BatchRecord),
    /// A read of the user's credit.
    Find {
        user: UserId,
    },
    /// A read: whether a payment for the order stands.
    Status {
        order: OrderRef,
    },
    /// Changes and tells nothing: what waits for it knows that its leader still leads.
    Nothing,
    /// The blocking commit's question whether a `Charge` would be made: a yes is a promise, and a lock.
    Prepare {
        key: OpId,
        order: OrderRef,
        receipt: Box<Receipt>,
        total: Option<Money>,
    },
    /// And its outcome.
    Commit(TxnId),
    Abort(TxnId),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Done(Answer),
    Refused(Refusal),
    Charged {
        total: Money,
    },
    /// Paid before, under this key or another.
    AlreadyPaid {
        total: Money,
    },
    /// `Repeat` of an order that is not paid.
    NotPaid,
    /// Its ballot or generation is not the newest: the coordinator rereads. Or its user was locked by a newer
    /// leader, so that it is of an older one.
    Aborted,
    /// A newer batch than the sender knows covers the order: the pod looks again.
    Overwritten,
    Acknowledged,
    /// Voted yes.
    Prepared,
}

/// The transition function of a payment shard.
#[derive(Debug, Default)]
pub struct Payments {
    users: Vec<BatchRecord>,
    orders: Vec<BatchRecord>,
    unfinished: BTreeMap<TxnId, Vec<ShardNo>>,
    votes: Votes,
}

impl Payments {
    /// The user as this shard knows it: its own record unless a newer batch covers the id.
    pub fn user(&self, view: &mut View<'_>, user: &UserId) -> Option<User> {
        let own: Option<User> = view.get(&user_key(user)).map(|stored| decode(&stored));
        let batch = user.index().and_then(|index| newest_covering(&self.users, index));
        match (own, batch) {
            (Some(own), Some(batch)) if own.incarnation >= batch.incarnation => Some(own),
            (_, Some(batch)) => match batch.load {
                Load::Users { credit, .. } => Some(User { incarnation: batch.incarnation, credit }),
                Load::Items { .. } | Load::Orders { .. } => unreachable!("kept apart when logged"),
            },
            (own, None) => own,
        }
    }

    /// The newest batch of orders in this shard's own log that covers the order's id.
    #[must_use]
    pub fn order_batch(&self, order: &OrderId) -> Option<&BatchRecord> {
        order.index().and_then(|index| newest_covering(&self.orders, index))
    }

    /// What was paid for this life of the order; `Err` if this shard knows a newer one.
    pub fn order(&self, view: &mut View<'_>, order: &OrderRef) -> Result<OrderPayments, Outcome> {
        if self.order_batch(&order.order).is_some_and(|batch| batch.incarnation > order.incarnation) {
            return Err(Outcome::Overwritten);
        }
        let own: Option<OrderPayments> = view.get(&order_key(order)).map(|stored| decode(&stored));
        match own {
            Some(own) if own.incarnation > order.incarnation => Err(Outcome::Overwritten),
            Some(own) if own.incarnation == order.incarnation => Ok(own),
            Some(_) | None => {
                Ok(OrderPayments { incarnation: order.incarnation, ..OrderPayments::default() })
            }
        }
    }

    /// What `pay` or `cancel` of the order was told under `key`, if it took effect.
    pub fn credited(&self, view: &mut View<'_>, order: &OrderRef, key: OpId) -> Option<Answer> {
        let user = self.user(view, &order.user)?.incarnation;
        let known = credit_answer(&self.order(view, order).ok()?, key, user, order);
        if let Some(Outcome::Done(answer)) = known { Some(answer) } else { None }
    }

    /// Whether a payment of this user for the order stands.
    fn status(&self, view: &mut View<'_>, order: &OrderRef) -> Outcome {
        let Some(user) = self.user(view, &order.user) else {
            return Outcome::Refused(Refusal::UserNotFound(order.user.clone()));
        };
        match self.order(view, order) {
            Err(outcome) => outcome,
            Ok(payments) if payments.closed => Outcome::Refused(Refusal::OrderNotFound(order.order.clone())),
            Ok(mut payments) => {
                let paid = payments.standing(user.incarnation).is_some();
                Outcome::Done(Answer::PaymentStatus { paid })
            }
        }
    }

    /// The charges not yet finished, with the stock shards to confirm to.
    #[must_use]
    pub const fn unfinished(&self) -> &BTreeMap<TxnId, Vec<ShardNo>> {
        &self.unfinished
    }

    /// Whether the batch, or one that wholly covers it, is in this shard's own log.
    #[must_use]
    pub fn has_batch(&self, batch: &BatchRecord) -> bool {
        self.users.iter().chain(&self.orders).any(|known| known.stands_for(batch))
    }

    fn save_user(view: &mut View<'_>, id: &UserId, user: &User) {
        view.set(user_key(id), encode(user));
    }
    fn save_order(view: &mut View<'_>, order: &OrderRef, payments: &OrderPayments) {
        view.set(order_key(order), encode(payments));
    }

    fn create(&self, view: &mut View<'_>, user: &UserId) -> Outcome {
        if self.user(view, user).is_none() {
            Self::save_user(view, user, &User { incarnation: Incarnation(0), credit: Money::ZERO });
        }
        Outcome::Done(Answer::UserCreated { user: user.clone() })
    }

    /// A change of a user's credit that concerns no order.
    fn change(
        &self,
        context: Context,
        view: &mut View<'_>,
        key: OpId,
        id: &UserId,
        amount: Money,
        add: bool,
    ) -> Outcome {
        let Some(mut user) = self.user(view, id) else {
            return Outcome::Refused(Refusal::UserNotFound(id.clone()));
        };
        if let Some(answer) = keys::find(view, context.time, key, user.incarnation) {
            return Outcome::Done(answer);
        }
        let (changed, refusal) = if add {
            (user.credit.checked_add(amount), Refusal::BadAmount("the credit would overflow".to_owned()))
        } else {
            (user.credit.checked_sub(amount), Refusal::InsufficientCredit)
        };
        let Some(credit) = changed else { return Outcome::Refused(refusal) };
        user.credit = credit;
        Self::save_user(view, id, &user);
        let answer = if add {
            Answer::Funds { user: id.clone(), credit }
        } else {
            Answer::Credit { user: id.clone(), credit }
        };
        keys::remember(view, context.time, key, user.incarnation, &answer);
        Outcome::Done(answer)
    }

    /// The user and the payments of an order that takes `pay` and `cancel`.
    ///
    /// # Errors
    /// What is to be told at once: the first answer under this key, or why there is nothing to do.
    fn open_order(
        &self,
        view: &mut View<'_>,
        key: OpId,
        order: &OrderRef,
    ) -> Result<(User, OrderPayments), Outcome> {
        let not_found = || Outcome::Refused(Refusal::UserNotFound(order.user.clone()));
        let user = self.user(view, &order.user).ok_or_else(not_found)?;
        let payments = self.order(view, order)?;
        if let Some(answer) = credit_answer(&payments, key, user.incarnation, order) {
            return Err(answer);
        }
        if payments.closed {
            return Err(Outcome::Refused(Refusal::OrderNotFound(order.order.clone())));
        }
        Ok((user, payments))
    }

    fn pay_order(
        &self,
        context: Context,
        view: &mut View<'_>,
        key: OpId,
        order: &OrderRef,
        amount: Money,
    ) -> Outcome {
        let (mut user, mut payments) = match self.open_order(view, key, order) {
            Ok(both) => both,
            Err(outcome) => return outcome,
        };
        match payments.standing(user.incarnation) {
            Some(standing) if standing.amount != amount => return Outcome::Refused(Refusal::PaymentMismatch),
            Some(_) => {}
            None => {
                let Some(credit) = user.credit.checked_sub(amount) else {
                    return Outcome::Refused(Refusal::InsufficientCredit);
                };
                user.credit = credit;
                Self::save_user(view, &order.user, &user);
                let user_incarnation = user.incarnation;
                payments.payments.push(Payment { amount, user_incarnation, refunded: false, receipt: None });
            }
        }
        payments.remember(context, key, user.incarnation, KeyAnswer::Credit(user.credit));
        Self::save_order(view, order, &payments);
        Outcome::Done(Answer::Credit { user: order.user.clone(), credit: user.credit })
    }

    fn cancel(&self, context: Context, view: &mut View<'_>, key: OpId, order: &OrderRef) -> Outcome {
        let (mut user, mut payments) = match self.open_order(view, key, order) {
            Ok(both) => both,
            Err(outcome) => return outcome,
        };
        let standing = payments.standing(user.incarnation).filter(|p| p.user_incarnation == user.incarnation);
        let Some(payment) = standing else { return Outcome::Refused(Refusal::PaymentNotFound) };
        let Some(credit) = user.credit.checked_add(payment.amount) else {
            return Outcome::Refused(Refusal::BadAmount(
                "the credit would overflow by the refund".to_owned(),
            ));
        };
        payment.refunded = true;
        user.credit = credit;
        payments.remember(context, key, user.incarnation, KeyAnswer::Credit(credit));
        Self::save_user(view, &order.user, &user);
        Self::save_order(view, order, &payments);
        Outcome::Done(Answer::Credit { user: order.user.clone(), credit })
    }

    fn close(&self, context: Context, view: &mut View<'_>, key: OpId, order: &OrderRef) -> Outcome {
        let mut payments = match self.order(view, order) {
            Ok(payments) => payments,
            Err(outcome) => return outcome,
        };
        let removed = Outcome::Done(Answer::OrderRemoved { order: order.order.clone() });
        if payments.find_key(key).is_some_and(|entry| entry.answer == KeyAnswer::Removed) {
            return removed;
        }
        if payments.closed {
            return Outcome::Refused(Refusal::OrderNotFound(order.order.clone()));
        }
        let user = self.user(view, &order.user).map_or(Incarnation(0), |user| user.incarnation);
        if payments.standing(user).is_some() {
            return Outcome::Refused(Refusal::OrderPaid(order.order.clone()));
        }
        payments.closed = true;
        payments.remember(context, key, user, KeyAnswer::Removed);
        Self::save_order(view, order, &payments);
        removed
    }

    fn load(&mut self, view: &mut View<'_>, batch: &BatchRecord) -> Outcome {
        if !self.has_batch(batch) {
            let batches = match batch.load {
                Load::Users { .. } => &mut self.users,
                Load::Orders { .. } => &mut self.orders,
                Load::Items { .. } => {
                    unreachable!("a payment shard is sent batches of users and orders only")
                }
            };
            for covered in insert_and_prune(batches, batch.clone()) {
                view.delete(batch_key(covered));
            }
            view.set(batch_key(batch.incarnation), encode(batch));
        }
        Outcome::Acknowledged
    }
}

impl Machine for Payments {
    type Command = Command;
    type Outcome = Outcome;

    fn execute(&mut self, context: Context, command: &Command, view: &mut View<'_>) -> Outcome {
        if self.votes.forbid(command) {
            return Outcome::Aborted;
        }
        match command {
            Command::CreateUser { user } => self.create(view, user),
            Command::AddFunds { key, user, amount } => self.change(context, view, *key, user, *amount, true),
            Command::Pay { key, user, amount } => self.change(context, view, *key, user, *amount, false),
            Command::PayOrder { key, order, amount } => self.pay_order(context, view, *key, order, *amount),
            Command::Cancel { key, order } => self.cancel(context, view, *key, order),
            Command::Charge { key, order, receipt, total } => {
                self.charge(context, view, *key, order, receipt, *total)
            }
            Command::Repeat { key, order } => self.repeat(context, view, *key, order),
            Command::Close { key, order } => self.close(context, view, *key, order),
            Command::Finished(txns) => {
                for txn in txns {
                    if self.unfinished.remove(txn).is_some() {
                        view.delete(txn_key(UNFINISHED, *txn));
                    }
                }
                Outcome::Acknowledged
            }
            Command::Load(batch) => self.load(view, batch),
            Command::Find { user: id } => match self.user(view, id) {
                Some(user) => Outcome::Done(Answer::User { user: id.clone(), credit: user.credit }),
                None => Outcome::Refused(Refusal::UserNotFound(id.clone())),
            },
            Command::Status { order } => self.status(view, order),
            Command::Nothing => Outcome::Acknowledged,
            Command::Prepare { key, order, receipt, total } => {
                self.prepare(context, view, *key, order, receipt, *total)
            }
            Command::Commit(txn) => self.commit(context, view, *txn),
            Command::Abort(txn) => self.abort(view, *txn),
        }
    }

    fn rebuild(&mut self, view: &View<'_>) {
        let batches = view.scan(&[BATCHES]).into_iter().map(|(_, stored)| decode::<BatchRecord>(&stored));
        (self.users, self.orders) = batches.partition(|batch| matches!(batch.load, Load::Users { .. }));
        self.unfinished = view
            .scan(&[UNFINISHED])
            .into_iter()
            .map(|(key, stored)| (txn_from_key(&key), decode(&stored)))
            .collect();
        self.votes.rebuild(view);
    }
}

#[cfg(test)]
mod tests;
