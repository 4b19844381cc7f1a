//! What checkouts say to stock shards and hear from them: votes, outcomes in bulk, watermarks, repeats.

use super::checkout::{Stage, Then};
use super::message::{Message, Vote};
use super::outbox::Outbox;
use super::payment::{PaymentShard, Waiter};
use super::routes::Routes;
use crate::modules::payment::{Command, OrderRef};
use crate::modules::request::{OrderId, Outcome, Refusal};
use kassa_protocols::breaks;
use kassa_protocols::commit::coordinator;
use kassa_protocols::ids::{Module, Shard, ShardNo, TxnId};
use kassa_protocols::tables::Disk;
use kassa_protocols::time::{Span, Time};
use std::collections::BTreeMap;

/// Finished charges logged in one entry at the most.
const FINISH_BATCH_MAX: usize = 1_024;
/// How often what is unanswered is looked over.
const RESEND_EVERY: Span = Span::from_millis(100);

impl PaymentShard {
    /// A refusal that is no outcome of a charge waits for a round that begins now.
    pub(super) fn refuse_after_round(
        &mut self,
        id: &OrderId,
        refusal: Refusal,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) {
        let Some(checkout) = self.checkouts.active.get_mut(id) else { return };
        checkout.stage = Stage::Refusing;
        let order = checkout.order.clone();
        self.read(Command::Nothing, Waiter::Refuse { order, refusal }, disk, out);
    }

    /// The round has passed. If the order was charged, removed or overwritten by now, it is asked anew.
    pub(super) fn refuse_checkout(
        &mut self,
        now: Time,
        order: &OrderRef,
        refusal: Refusal,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) {
        let overtaken = self.group.look(disk, |payments, view| {
            payments
                .order(view, order)
                .map_or(true, |payments| payments.charge().is_some() || payments.closed)
        });
        // These two say nothing of what else may have happened to the order.
        if !overtaken || matches!(refusal, Refusal::OrderNotFound(_) | Refusal::UserNotFound(_)) {
            return self.refused(now, &order.order, Outcome::Refused(refusal), disk, out);
        }
        let Some(checkout) = self.checkouts.active.remove(&order.order) else { return };
        let order = checkout.order.clone();
        for (asker, deadline) in checkout.into_askers() {
            self.checkout(now, asker, order.clone(), deadline, disk, out);
        }
    }

    pub fn voted(
        &mut self,
        now: Time,
        shard: ShardNo,
        txn: TxnId,
        vote: Vote,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) {
        let vote = match vote {
            Vote::Granted(lines) => coordinator::Vote::Granted(lines),
            Vote::Busy => coordinator::Vote::Busy,
            Vote::Refused(refusal) => coordinator::Vote::Refused(refusal),
            Vote::Fenced => coordinator::Vote::Fenced,
        };
        let steps = self.checkouts.coordinator.as_mut().map(|c| c.voted(now, shard, txn, vote));
        self.run(now, steps.unwrap_or_default(), disk, out);
    }

    pub fn resolved(
        &mut self,
        now: Time,
        shard: ShardNo,
        txns: Vec<TxnId>,
        watermark: TxnId,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) {
        let Some(coordinator) = &self.checkouts.coordinator else { return };
        self.checkouts.told.insert(shard, watermark);
        // One that has nothing open and knows it need not be told again.
        if coordinator.has_open(shard) || coordinator.watermark(shard) != watermark {
            self.checkouts.moved.insert(shard);
        } else {
            self.checkouts.moved.remove(&shard);
        }
        for txn in txns {
            let steps = self.checkouts.coordinator.as_mut().map(|c| c.acknowledged(shard, txn));
            self.run(now, steps.unwrap_or_default(), disk, out);
        }
    }

    pub(super) fn finished_applied(&mut self, txns: &[TxnId]) {
        let Some(coordinator) = &mut self.checkouts.coordinator else { return };
        for &txn in txns {
            self.checkouts.moved.extend(coordinator.finished(txn));
        }
    }

    /// A stock shard has a new leader, or the link to it is new: what it owes an answer to is sent again.
    pub fn stock_leader_changed(&mut self, now: Time, shard: ShardNo, disk: &dyn Disk, out: &mut Outbox) {
        let steps = self.checkouts.coordinator.as_mut().map(|c| c.resend(now, Some(shard), true));
        self.run(now, steps.unwrap_or_default(), disk, out);
    }

    pub fn tick_checkouts(&mut self, now: Time, disk: &dyn Disk, out: &mut Outbox) {
        if self.checkouts.coordinator.is_none() || now < self.checkouts.resend_at {
            return;
        }
        self.checkouts.resend_at = now + RESEND_EVERY;
        self.tick_votes(now, disk, out);
        let steps =
            self.checkouts.coordinator.as_mut().map(|c| c.resend(now, None, false)).unwrap_or_default();
        let before = self.checkouts.reserves.len();
        self.run(now, steps, disk, out);
        for reserve in &mut self.checkouts.reserves[before..] {
            reserve.4 = true;
        }
        // One whose first asker has given up waiting is given back; those behind it begin anew.
        let late: Vec<(TxnId, OrderId)> = self
            .checkouts
            .attempts
            .iter()
            .filter(|(_, id)| {
                self.checkouts.active.get(*id).is_some_and(|checkout| {
                    let reserving = matches!(checkout.stage, Stage::Reserving);
                    let charging = matches!(checkout.stage, Stage::Charging);
                    let may = reserving || charging && self.blocking.locks.has_waiting();
                    may && checkout.first.1 < now || charging && breaks::is("release-under-charge")
                })
            })
            .map(|(txn, id)| (*txn, id.clone()))
            .collect();
        for (txn, id) in late {
            let charging = self.checkouts.is_charging(&id);
            // A vote that waits for its user was not asked for yet; any other may be given at any time.
            if charging && !self.blocking.locks.withdraw(txn) && !breaks::is("release-under-charge") {
                continue;
            }
            if let Some(checkout) = self.checkouts.active.get_mut(&id) {
                checkout.stage = Stage::GivingBack(Then::Tell(Outcome::Unknown));
                self.give_back(now, txn, disk, out);
            }
        }
    }

    /// Posts what this round's checkouts have for the stock shards, and logs what is finished.
    pub(super) fn post_checkouts(&mut self, now: Time, routes: &Routes, disk: &dyn Disk, out: &mut Outbox) {
        if breaks::is("watermark-before-lead")
            && self.checkouts.coordinator.is_none()
            && !self.group.is_leading()
            && self.group.leader() == Some(routes.me())
        {
            self.lead_checkouts(now, self.group.ballot());
        }
        let checkouts = &mut self.checkouts;
        let Some(coordinator) = &checkouts.coordinator else { return };
        let full = checkouts.confirms.values().any(|txns| txns.len() >= checkouts.confirm_batch_max);
        let mut due = std::mem::take(&mut checkouts.releases);
        let mut confirms = BTreeMap::new();
        if full || checkouts.confirm_at.is_some_and(|at| at <= now) {
            confirms = std::mem::take(&mut checkouts.confirms);
            checkouts.confirm_at = None;
            for &no in confirms.keys() {
                due.entry(no).or_default();
            }
        }
        if checkouts.watermark_at <= now && !checkouts.moved.is_empty() {
            checkouts.watermark_at = now + checkouts.watermark_every;
            for &no in &checkouts.moved {
                if checkouts.told.get(&no) != Some(&coordinator.watermark(no)) {
                    due.entry(no).or_default();
                }
            }
        }
        for (no, release) in due {
            let confirm = confirms.remove(&no).unwrap_or_default();
            if let Some(leader) = routes.leader_or_guess(stock_shard(no), now) {
                let watermark = coordinator.watermark(no);
                out.post(leader, Message::Resolve { shard: no, confirm, release, watermark });
            }
        }
        for (no, txn, lines, wait, again) in std::mem::take(&mut checkouts.reserves) {
            if let Some(leader) = routes.leader_or_guess(stock_shard(no), now) {
                let watermark = coordinator.watermark(no);
                let message = Message::Reserve { shard: no, txn, lines, wait, watermark };
                if again {
                    out.post_again(leader, message);
                } else {
                    out.post(leader, message);
                }
            }
        }
        let full = checkouts.finished.len() >= FINISH_BATCH_MAX;
        if full || checkouts.finish_at.is_some_and(|at| at <= now) {
            checkouts.finish_at = None;
            let txns = std::mem::take(&mut checkouts.finished);
            if !txns.is_empty() {
                self.submit(Command::Finished(txns.clone()), Waiter::Finished(txns), disk, out);
            }
        }
    }
}

const fn stock_shard(no: ShardNo) -> Shard {
    Shard { module: Module::Stock, no }
}
