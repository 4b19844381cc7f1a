//! What clients ask of orders at their owner, and of any replica when no owner can be reached.

#![expect(clippy::too_many_arguments, reason = "a step carries its time, the disk and the outbox besides")]

use super::message::Tell;
use super::orders::{Held, NotTaken};
use super::outbox::Outbox;
use super::payment::{Asker, PaymentShard, Waiter};
use crate::modules::payment::{Command, OrderRef};
use crate::modules::request::{Answer, Op, OrderId, Outcome, Refusal, Request, UserId};
use kassa_protocols::ids::{Incarnation, OpId};
use kassa_protocols::tables::Disk;
use kassa_protocols::time::{ShardTime, Time};

impl PaymentShard {
    /// `pay`, `cancel` and `status` of an order that is known to exist, or to have existed: then only what
    /// took effect before is told again.
    pub(super) fn of_order(
        &mut self,
        asker: Asker,
        request: &Request,
        order: OrderRef,
        removed: bool,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) {
        if removed {
            let known = self.group.look(disk, |payments, view| payments.credited(view, &order, request.key));
            let refusal = || Outcome::Refused(Refusal::OrderNotFound(order.order.clone()));
            let outcome = known.map_or_else(refusal, Outcome::Done);
            return self.then(asker, outcome, disk, out);
        }
        let key = request.key;
        if let Op::PayOrder { amount, .. } = request.op {
            self.submit(Command::PayOrder { key, order, amount }, Waiter::Ask(asker), disk, out);
        } else if matches!(request.op, Op::CancelPayment { .. }) {
            self.submit(Command::Cancel { key, order }, Waiter::Ask(asker), disk, out);
        } else if matches!(request.op, Op::PaymentStatus { .. }) {
            self.read(Command::Status { order }, Waiter::Ask(asker), disk, out);
        }
    }

    /// An edit of an open order, against what payment has applied.
    pub fn edit(
        &mut self,
        now: Time,
        asker: Asker,
        order: &OrderRef,
        request: &Request,
        price: Option<crate::modules::money::Money>,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) {
        let batch = self.group.machine.order_batch(&order.order).cloned();
        match self.orders.edit(now, asker, order, batch.as_ref(), request, price, disk, out) {
            Ok(()) => {}
            Err(NotTaken::Refused(refusal)) => self.orders.hold(asker, Held::Judged(refusal), out),
            Err(NotTaken::Overloaded) => self.say(asker, Tell::Outcome(Outcome::Overloaded), out),
        }
    }

    pub(super) fn create_order(
        &mut self,
        now: Time,
        asker: Asker,
        key: OpId,
        user: &UserId,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) {
        if self.orders.create(now, asker, key, user, disk, out).is_err() {
            self.say(asker, Tell::Outcome(Outcome::Overloaded), out);
        }
    }

    /// Tells an outcome once a round shows that this pod still leads.
    pub fn then(&mut self, asker: Asker, outcome: Outcome, disk: &dyn Disk, out: &mut Outbox) {
        self.read(Command::Nothing, Waiter::Then(asker, Box::new(outcome)), disk, out);
    }

    /// The order under this id in this incarnation, or the answer that there is none.
    pub(super) fn find_order(
        &mut self,
        asker: Asker,
        id: &OrderId,
        incarnation: Incarnation,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) -> Option<OrderRef> {
        let order = self.order_even_removed(asker, id, incarnation, disk, out)?;
        let closed =
            self.group.look(disk, |payments, view| payments.order(view, &order).is_ok_and(|p| p.closed));
        if closed {
            self.then(asker, Outcome::Refused(Refusal::OrderNotFound(id.clone())), disk, out);
            return None;
        }
        Some(order)
    }

    /// Whether a charge of the order stands, as far as this leader has judged.
    pub(super) fn is_paid(&mut self, id: &OrderId, disk: &dyn Disk) -> bool {
        let batch = self.group.machine.order_batch(id).cloned();
        let incarnation = batch.as_ref().map_or(Incarnation(0), |batch| batch.incarnation);
        self.orders.owner(disk, id, batch.as_ref()).is_some_and(|user| {
            let order = OrderRef { user, order: id.clone(), incarnation };
            self.group.look(disk, |payments, view| {
                payments.order(view, &order).is_ok_and(|payments| payments.charge().is_some())
            })
        })
    }

    /// Whether payment has closed the order.
    pub(super) fn is_removed(&mut self, order: &OrderRef, disk: &dyn Disk) -> bool {
        self.group.look(disk, |payments, view| payments.order(view, order).is_ok_and(|p| p.closed))
    }

    pub(super) fn order_even_removed(
        &mut self,
        asker: Asker,
        id: &OrderId,
        incarnation: Incarnation,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) -> Option<OrderRef> {
        let batch = self.group.machine.order_batch(id).cloned();
        if batch.as_ref().is_some_and(|batch| batch.incarnation > incarnation) {
            self.say(asker, Tell::Overwritten { batch }, out);
            return None;
        }
        if batch.as_ref().map_or(Incarnation(0), |batch| batch.incarnation) < incarnation {
            // Asked under a batch that this shard has not logged yet: its leader is about to.
            self.say(asker, Tell::NotLeader { leader: None }, out);
            return None;
        }
        match self.orders.owner(disk, id, batch.as_ref()) {
            Some(user) => Some(OrderRef { user, order: id.clone(), incarnation }),
            None => {
                self.then(asker, Outcome::Refused(Refusal::OrderNotFound(id.clone())), disk, out);
                None
            }
        }
    }

    pub(super) fn anywhere(
        &mut self,
        now: Time,
        asker: Asker,
        request: &Request,
        incarnation: Incarnation,
        price: Option<crate::modules::money::Money>,
        stamp: ShardTime,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) {
        if let Op::CreateOrder { user } = &request.op {
            return self.create_order(now, asker, request.key, user, disk, out);
        }
        let (Op::FindOrder { order: id } | Op::AddItem { order: id, .. } | Op::RemoveItem { order: id, .. }) =
            &request.op
        else {
            return;
        };
        let batch = self.group.machine.order_batch(id).cloned();
        if batch.as_ref().map_or(Incarnation(0), |batch| batch.incarnation) != incarnation {
            return self.say(asker, Tell::NotLeader { leader: None }, out);
        }
        let Some(user) = self.orders.owner(disk, id, batch.as_ref()) else {
            return self.say(asker, Tell::NotLeader { leader: None }, out);
        };
        let order = OrderRef { user, order: id.clone(), incarnation };
        if matches!(request.op, Op::FindOrder { .. }) {
            let outcome = self.view(&order, disk);
            return self.orders.hold(asker, Held::Outcome(outcome), out);
        }
        // An edit that an owner refused while the order was paid must not slip into what a cancel opened since.
        let open = self.orders.checkout_lines(disk, id, batch.as_ref()).and_then(|lines| lines.generation);
        let shard_time = self.group.time();
        let may_edit = self.group.look(disk, |payments, view| {
            payments.order(view, &order).is_ok_and(|payments| payments.may_edit(open, stamp, shard_time))
        });
        if !may_edit {
            return self.say(asker, Tell::NotLeader { leader: None }, out);
        }
        match self.orders.edit(now, asker, &order, batch.as_ref(), request, price, disk, out) {
            Ok(()) => {}
            // A copy that may lack what others have can take an edit, but not refuse one.
            Err(NotTaken::Refused(_)) => self.say(asker, Tell::NotLeader { leader: None }, out),
            Err(NotTaken::Overloaded) => self.say(asker, Tell::Outcome(Outcome::Overloaded), out),
        }
    }

    pub fn view(&mut self, order: &OrderRef, disk: &dyn Disk) -> Outcome {
        let batch = self.group.machine.order_batch(&order.order).cloned();
        match self.orders.view(disk, &order.order, batch.as_ref()) {
            Some(view) => Outcome::Done(Answer::Order(view)),
            None => Outcome::Refused(Refusal::OrderNotFound(order.order.clone())),
        }
    }
}
