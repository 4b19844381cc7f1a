//! The charge of a checkout, as either commit has it: judged, and carried out.
//!
//! In the reserving commit both are one command, whose outcome is the decision. In the blocking two-phase
//! commit ([`super::prepared`]) the judgement is a vote, and the charge follows once it was decided elsewhere.

use super::records::{KeyAnswer, OrderPayments, OrderRef, Payment, User};
use super::{Outcome, Payments, UNFINISHED};
use crate::modules::machine::{Context, encode};
use crate::modules::money::Money;
use crate::modules::receipt::Receipt;
use crate::modules::request::Refusal;
use crate::modules::stock::txn_key;
use kassa_protocols::breaks;
use kassa_protocols::ids::{Incarnation, OpId, ShardNo};
use kassa_protocols::tables::View;

/// What a charge that may be made rests on.
pub(super) struct Judged {
    pub(super) user: User,
    pub(super) payments: OrderPayments,
    pub(super) total: Money,
}

impl Payments {
    pub(super) fn charge(
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
            Ok(Judged { user, payments, total }) => {
                let incarnation = user.incarnation;
                self.carry_out(
                    context,
                    view,
                    key,
                    order,
                    receipt,
                    total,
                    incarnation,
                    Some(user),
                    Some(payments),
                )
            }
        }
    }

    /// Whether the charge may be made as things stand.
    ///
    /// # Errors
    /// The outcome, if it may not.
    pub(super) fn judge(
        &self,
        context: Context,
        view: &mut View<'_>,
        key: OpId,
        order: &OrderRef,
        receipt: &Receipt,
        total: Option<Money>,
    ) -> Result<Judged, Outcome> {
        let Ok(mut payments) = self.order(view, order) else { return Err(Outcome::Aborted) };
        if let Some(total) = Self::checked_out_of(view, context.time, &payments, order, key) {
            return Err(Outcome::AlreadyPaid { total });
        }
        // A newer leader has been in office since: what it told the stock shards about this one stands.
        if receipt.txn.ballot < context.lead && !breaks::is("charge-after-lead") {
            return Err(Outcome::Aborted);
        }
        if let Some(paid) = payments.charge().map(|receipt| receipt.total) {
            return Err(Self::repeat_paid(context, view, key, order, payments, paid));
        }
        if payments.closed {
            return Err(Outcome::Refused(Refusal::OrderNotFound(order.order.clone())));
        }
        if receipt.generation != payments.generation() && !breaks::is("generation-ignored") {
            return Err(Outcome::Aborted);
        }
        let Some(user) = self.user(view, &order.user) else {
            return Err(Outcome::Refused(Refusal::UserNotFound(order.user.clone())));
        };
        let Some(total) = total else { return Err(Outcome::Refused(Refusal::InsufficientCredit)) };
        match payments.standing(user.incarnation) {
            Some(standing) if standing.amount != total => Err(Outcome::Refused(Refusal::PaymentMismatch)),
            None if user.credit < total => Err(Outcome::Refused(Refusal::InsufficientCredit)),
            Some(_) | None => Ok(Judged { user, payments, total }),
        }
    }

    /// Makes the charge. The user or the payments are `None` where a batch has reset them since they were
    /// judged: the effect on those is nil, as if the charge had come before.
    #[expect(clippy::too_many_arguments, reason = "what was judged, however long ago")]
    pub(super) fn carry_out(
        &mut self,
        context: Context,
        view: &mut View<'_>,
        key: OpId,
        order: &OrderRef,
        receipt: &Receipt,
        total: Money,
        user_incarnation: Incarnation,
        user: Option<User>,
        payments: Option<OrderPayments>,
    ) -> Outcome {
        if let Some(mut payments) = payments {
            let receipt = Some(receipt.clone());
            if let Some(standing) = payments.standing(user_incarnation) {
                standing.receipt = receipt;
            } else {
                if let Some(mut user) = user {
                    user.credit = user.credit.checked_sub(total).expect("judged, and locked since");
                    Self::save_user(view, &order.user, &user);
                }
                let amount = total;
                payments.payments.push(Payment { amount, user_incarnation, refunded: false, receipt });
            }
            payments.remember(context, key, user_incarnation, KeyAnswer::CheckedOut(total));
            Self::save_order(view, order, &payments);
        }
        let shards = stock_shards(receipt);
        if !shards.is_empty() {
            view.set(txn_key(UNFINISHED, receipt.txn), encode(&shards));
            self.unfinished.insert(receipt.txn, shards);
        }
        Outcome::Charged { total }
    }
}

/// The stock shards to confirm to.
pub(super) fn stock_shards(receipt: &Receipt) -> Vec<ShardNo> {
    let mut shards: Vec<ShardNo> = receipt.lines.iter().map(|line| line.stock_shard).collect();
    shards.sort_unstable();
    shards.dedup();
    shards
}
