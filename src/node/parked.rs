//! Requests about an order whose charge is being decided: they wait until it is applied.
//!
//! An edit that slipped in would be acknowledged and not be part of what is charged. A checkout that found the
//! vote of an earlier leader's might be refused, and then that one be charged.

use super::message::Tell;
use super::outbox::Outbox;
use super::payment::{Asker, PaymentShard};
use crate::modules::money::Money;
use crate::modules::payment::OrderRef;
use crate::modules::request::{Op, OrderId, Request};
use kassa_protocols::tables::Disk;
use kassa_protocols::time::Time;

/// Requests about one order that wait for its charge at the most; past it one is sent back to be asked again.
const PARKED_MAX: usize = 1_024;

/// A request that waits for its order's charge to be applied.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) order: OrderRef,
    pub(super) asker: Asker,
    pub(super) request: Request,
    pub(super) price: Option<Money>,
    pub(super) deadline: Time,
}

impl PaymentShard {
    pub(super) fn park(&mut self, parked: Parked, out: &mut Outbox) {
        let waiting = self.checkouts.parked.entry(parked.order.order.clone()).or_default();
        if waiting.len() < PARKED_MAX {
            waiting.push(parked);
        } else {
            self.say(parked.asker, Tell::NotLeader { leader: None }, out);
        }
    }

    /// Whether a charge of the order is being decided.
    pub(super) fn is_charging(&self, order: &OrderId) -> bool {
        self.checkouts.is_charging(order) || self.blocking.is_in_doubt(order)
    }

    pub(super) fn unpark(&mut self, now: Time, id: &OrderId, disk: &dyn Disk, out: &mut Outbox) {
        for Parked { order, asker, request, price, deadline } in
            self.checkouts.parked.remove(id).unwrap_or_default()
        {
            // The order may have been overwritten or removed meanwhile.
            let (id, incarnation) = (&order.order, order.incarnation);
            if matches!(request.op, Op::Checkout { .. }) {
                if let Some(order) = self.order_even_removed(asker, id, incarnation, disk, out) {
                    self.checkout(now, asker, order, deadline, disk, out);
                }
            } else if let Some(order) = self.find_order(asker, id, incarnation, disk, out) {
                self.edit(now, asker, &order, &request, price, disk, out);
            }
        }
    }
}
