//! Checkouts of an order that is paid already, and repeats under a key that was told so.

use super::records::{KeyAnswer, KeyEntry};
use super::{OrderPayments, OrderRef, Outcome, Payments};
use crate::modules::keys;
use crate::modules::machine::Context;
use crate::modules::money::Money;
use crate::modules::request::Answer;
use kassa_protocols::ids::OpId;
use kassa_protocols::tables::View;
use kassa_protocols::time::ShardTime;

impl Payments {
    /// What a checkout under `key` was told, if it took effect.
    pub fn checked_out(
        &self,
        view: &mut View<'_>,
        time: ShardTime,
        order: &OrderRef,
        key: OpId,
    ) -> Option<Money> {
        let payments = self.order(view, order).ok()?;
        Self::checked_out_of(view, time, &payments, order, key)
    }

    pub(super) fn checked_out_of(
        view: &mut View<'_>,
        time: ShardTime,
        payments: &OrderPayments,
        order: &OrderRef,
        key: OpId,
    ) -> Option<Money> {
        if let Some(KeyEntry { answer: KeyAnswer::CheckedOut(total), .. }) = payments.find_key(key) {
            return Some(*total);
        }
        let repeated = payments.repeated.then(|| keys::find(view, time, key, order.incarnation)).flatten();
        match repeated {
            Some(Answer::CheckedOut { order: of, total_cost }) if of == order.order => Some(total_cost),
            _ => None,
        }
    }

    /// A checkout of a paid order: any number of clients may ask for that, each under a key of its own.
    pub(super) fn repeat_paid(
        context: Context,
        view: &mut View<'_>,
        key: OpId,
        order: &OrderRef,
        mut payments: OrderPayments,
        total: Money,
    ) -> Outcome {
        let answer = Answer::CheckedOut { order: order.order.clone(), total_cost: total };
        keys::remember(view, context.time, key, order.incarnation, &answer);
        if !payments.repeated {
            payments.repeated = true;
            Self::save_order(view, order, &payments);
        }
        Outcome::AlreadyPaid { total }
    }

    pub(super) fn repeat(
        &self,
        context: Context,
        view: &mut View<'_>,
        key: OpId,
        order: &OrderRef,
    ) -> Outcome {
        let payments = match self.order(view, order) {
            Ok(payments) => payments,
            Err(outcome) => return outcome,
        };
        if let Some(total) = Self::checked_out_of(view, context.time, &payments, order, key) {
            return Outcome::AlreadyPaid { total };
        }
        match payments.charge().map(|receipt| receipt.total) {
            Some(total) => Self::repeat_paid(context, view, key, order, payments, total),
            None => Outcome::NotPaid,
        }
    }
}
