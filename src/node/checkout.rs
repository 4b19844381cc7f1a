//! Checkouts of one payment shard at its leader: reserve, decide, finish.
//!
//! `resolve` is what they say to stock shards and hear from them.
//!
//! One checkout of an order at a time; whoever asks meanwhile waits for its outcome. What the coordinator
//! machine says is carried out here: reserves, releases and confirmations are posted to the leaders of
//! stock shards, the decision is submitted as a `Charge`. Nothing is told on the strength of what only
//! this pod believes: an outcome is an applied `Charge`, or a refusal behind a round begun after it.

use super::config::{Commit, Config};
use super::message::Tell;
use super::orders::Held;
use super::outbox::Outbox;
use super::parked::Parked;
use super::payment::{Asker, PaymentShard, Waiter};
use crate::modules::money::Money;
use crate::modules::order::CheckoutLines;
use crate::modules::payment::{self, Command, OrderRef};
use crate::modules::receipt::{Receipt, ReceiptLine};
use crate::modules::request::{Answer, ItemId, OrderId, Outcome, Refusal};
use crate::modules::stock::ReservedLine;
use kassa_protocols::breaks;
use kassa_protocols::commit::coordinator::{Action, Coordinator};
use kassa_protocols::ids::{Ballot, ShardNo, TxnId};
use kassa_protocols::placement::shard_of;
use kassa_protocols::tables::Disk;
use kassa_protocols::time::{Span, Time};
use std::collections::{BTreeMap, BTreeSet};

type Lines = Vec<(ItemId, u64)>;
pub(super) type Machine = Coordinator<Lines, Vec<ReservedLine>, Refusal>;
type Step = Action<Lines, Vec<ReservedLine>, Refusal>;

#[derive(Debug)]
pub(super) enum Stage {
    Reserving,
    Charging,
    /// Everything is being given back; then this.
    GivingBack(Then),
    /// Refused; a round is under way.
    Refusing,
}

#[derive(Debug)]
pub(super) enum Then {
    Tell(Outcome),
    Restart,
}

#[derive(Debug)]
pub(super) struct Checkout {
    pub(super) order: OrderRef,
    /// Its key is the charge's.
    pub(super) first: (Asker, Time),
    /// Came while it was under way, and are asked anew behind it: a shard may have judged the first one's
    /// request before they came, so that its refusal is none of theirs.
    pub(super) late: Vec<(Asker, Time)>,
    pub(super) stage: Stage,
    pub(super) lines: Option<CheckoutLines>,
}

impl Checkout {
    fn waiting(&self) -> impl Iterator<Item = Asker> {
        std::iter::once(self.first).chain(self.late.iter().copied()).map(|(asker, _)| asker)
    }
    pub(super) fn into_askers(self) -> impl Iterator<Item = (Asker, Time)> {
        std::iter::once(self.first).chain(self.late)
    }
}

/// The checkouts of one payment shard.
pub struct Checkouts {
    pub(super) shards: u16,
    pub(super) commit: Commit,
    pub(super) confirm_after: Span,
    pub(super) finish_after: Span,
    pub(super) watermark_every: Span,
    pub(super) confirm_batch_max: usize,
    pub(super) coordinator: Option<Machine>,
    pub(super) active: BTreeMap<OrderId, Checkout>,
    pub(super) attempts: BTreeMap<TxnId, OrderId>,
    pub(super) parked: BTreeMap<OrderId, Vec<Parked>>,
    pub(super) reserves: Vec<(ShardNo, TxnId, Lines, bool, bool)>,
    pub(super) releases: BTreeMap<ShardNo, Vec<TxnId>>,
    pub(super) confirms: BTreeMap<ShardNo, Vec<TxnId>>,
    pub(super) confirm_at: Option<Time>,
    pub(super) finished: Vec<TxnId>,
    pub(super) finish_at: Option<Time>,
    /// Stock shards whose watermark may have moved since they were last told.
    pub(super) moved: BTreeSet<ShardNo>,
    /// The watermark that each stock shard has acknowledged.
    pub(super) told: BTreeMap<ShardNo, TxnId>,
    pub(super) watermark_at: Time,
    pub(super) resend_at: Time,
}

impl Checkouts {
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            shards: config.shards,
            commit: config.commit,
            confirm_after: config.timing.confirm_after,
            finish_after: config.timing.finish_after,
            watermark_every: config.timing.watermark_every,
            confirm_batch_max: config.limits.confirm_batch_max,
            coordinator: None,
            active: BTreeMap::new(),
            attempts: BTreeMap::new(),
            parked: BTreeMap::new(),
            reserves: Vec::new(),
            releases: BTreeMap::new(),
            confirms: BTreeMap::new(),
            confirm_at: None,
            finished: Vec::new(),
            finish_at: None,
            moved: BTreeSet::new(),
            told: BTreeMap::new(),
            watermark_at: Time(0),
            resend_at: Time(0),
        }
    }

    #[must_use]
    pub fn in_flight(&self, txn: TxnId) -> bool {
        self.coordinator.as_ref().is_some_and(|coordinator| coordinator.in_flight(txn))
    }
    /// Checkouts that somebody waits for.
    #[must_use]
    pub fn active(&self) -> usize {
        self.active.len()
    }
    /// Transactions in flight, being given back, or not finished.
    #[must_use]
    pub fn open(&self) -> usize {
        self.coordinator.as_ref().map_or(0, Coordinator::len)
    }
    /// Whether the order's `Charge` is proposed and not applied: its edits wait.
    #[must_use]
    pub fn is_charging(&self, order: &OrderId) -> bool {
        self.active.get(order).is_some_and(|checkout| matches!(checkout.stage, Stage::Charging))
            && !breaks::is("edit-under-charge")
    }

    #[must_use]
    pub fn next_wakeup(&self) -> Time {
        let mut at = Time(u64::MAX);
        if let Some(coordinator) = &self.coordinator {
            at = at.min(self.confirm_at.unwrap_or(at)).min(self.finish_at.unwrap_or(at));
            if !self.moved.is_empty() {
                at = at.min(self.watermark_at);
            }
            if !coordinator.is_empty() || !self.active.is_empty() {
                at = at.min(self.resend_at);
            }
        }
        at
    }
}

impl PaymentShard {
    /// `Lead(ballot)` is applied: this pod coordinates, and finishes what its predecessors charged.
    pub(super) fn lead_checkouts(&mut self, now: Time, ballot: Ballot) {
        let (coordinator, steps) = Machine::new(self.no, ballot, self.group.machine.unfinished(), now);
        let shards = self.checkouts.shards;
        self.checkouts.coordinator = Some(coordinator);
        // Tells every stock shard at once that nothing of an older ballot can be charged any more.
        self.checkouts.moved = (0..shards).map(ShardNo).collect();
        self.checkouts.told.clear();
        self.checkouts.watermark_at = now;
        self.inherit_votes();
        for step in steps {
            if let Action::Confirm { shard, txn } = step {
                self.checkouts.confirms.entry(shard).or_default().push(txn);
                self.checkouts.confirm_at = Some(now);
            }
        }
    }

    /// This pod coordinates no longer: its checkouts are void, and their askers ask the next leader.
    pub(super) fn drop_checkouts(&mut self, out: &mut Outbox) {
        let old = std::mem::take(&mut self.checkouts.active);
        let parked = std::mem::take(&mut self.checkouts.parked);
        let leader = self.group.leader().filter(|_| !self.group.is_leading());
        for (asker, _) in old.into_values().flat_map(Checkout::into_askers) {
            self.say(asker, Tell::NotLeader { leader }, out);
        }
        for waiter in self.drop_votes() {
            self.void(waiter, out);
        }
        for parked in parked.into_values().flatten() {
            self.say(parked.asker, Tell::NotLeader { leader }, out);
        }
        let checkouts = &mut self.checkouts;
        checkouts.coordinator = None;
        checkouts.attempts.clear();
        checkouts.reserves.clear();
        checkouts.releases.clear();
        checkouts.confirms.clear();
        checkouts.finished.clear();
        checkouts.moved.clear();
        (checkouts.confirm_at, checkouts.finish_at) = (None, None);
    }

    pub(super) fn checkout(
        &mut self,
        now: Time,
        asker: Asker,
        order: OrderRef,
        deadline: Time,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) {
        if let Some(checkout) = self.checkouts.active.get_mut(&order.order) {
            if checkout.order != order {
                // Of another life of the id: that one ends first.
                return self.say(asker, Tell::NotLeader { leader: None }, out);
            }
            let known = checkout.waiting().any(|known| known == asker);
            if !known {
                checkout.late.push((asker, deadline));
            }
            return;
        }
        let time = self.group.time();
        let paid = self.group.look(disk, |payments, view| {
            payments.order(view, &order).is_ok_and(|payments| payments.charge().is_some())
                || asker.key.is_some_and(|key| payments.checked_out(view, time, &order, key).is_some())
        });
        if paid && let Some(key) = asker.key {
            let command = Command::Repeat { key, order: order.clone() };
            return self.submit(command, Waiter::Repeat { order, asker, deadline }, disk, out);
        }
        let checkout = Checkout {
            order: order.clone(),
            first: (asker, deadline),
            late: Vec::new(),
            stage: Stage::Reserving,
            lines: None,
        };
        self.checkouts.active.insert(order.order.clone(), checkout);
        self.attempt(now, &order.order, false, disk, out);
    }

    /// Reserves what the order holds now, under a fresh transaction id.
    pub(super) fn attempt(
        &mut self,
        now: Time,
        id: &OrderId,
        in_turn: bool,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) {
        let Some(checkout) = self.checkouts.active.get(id) else { return };
        let order = checkout.order.clone();
        let batch = self.group.machine.order_batch(id).cloned();
        if batch.as_ref().is_some_and(|batch| batch.incarnation > order.incarnation) {
            let checkout = self.checkouts.active.remove(id).expect("just found");
            for (asker, _) in checkout.into_askers() {
                self.say(asker, Tell::Overwritten { batch: batch.clone() }, out);
            }
            return;
        }
        let lines = self.orders.checkout_lines(disk, id, batch.as_ref());
        let known = self.group.look(disk, |payments, view| payments.user(view, &order.user).is_some());
        let Some(lines) = lines.filter(|_| known) else {
            let refusal =
                if known { Refusal::OrderNotFound(id.clone()) } else { Refusal::UserNotFound(order.user) };
            return self.refuse_after_round(id, refusal, disk, out);
        };
        let mut by_shard: BTreeMap<ShardNo, Lines> = BTreeMap::new();
        for (item, units) in lines.units() {
            let shard = shard_of(item.as_str().as_bytes(), self.checkouts.shards);
            by_shard.entry(shard).or_default().push((item, units));
        }
        let checkout = self.checkouts.active.get_mut(id).expect("just found");
        checkout.lines = Some(lines);
        checkout.stage = Stage::Reserving;
        let Some(coordinator) = &mut self.checkouts.coordinator else { return };
        let (txn, steps) = coordinator.begin(now, by_shard, in_turn);
        self.checkouts.attempts.insert(txn, id.clone());
        self.run(now, steps, disk, out);
    }

    /// Carries out what the coordinator machine says.
    pub(super) fn run(&mut self, now: Time, steps: Vec<Step>, disk: &dyn Disk, out: &mut Outbox) {
        for step in steps {
            match step {
                Action::Reserve { shard, txn, lines, wait } => {
                    self.checkouts.reserves.push((shard, txn, lines, wait, false));
                }
                Action::Release { shard, txn } => self.checkouts.releases.entry(shard).or_default().push(txn),
                Action::Confirm { shard, txn } => {
                    self.checkouts.confirms.entry(shard).or_default().push(txn);
                    let at = self.checkouts.confirm_by(now);
                    self.checkouts.confirm_at.get_or_insert(at);
                }
                Action::Granted { txn, grants } => self.decide(now, txn, grants, disk, out),
                Action::Contended { txn } => {
                    if let Some(order) = self.checkouts.attempts.remove(&txn) {
                        self.attempt(now, &order, true, disk, out);
                    }
                }
                Action::Refused { txn, reason } => {
                    if let Some(order) = self.checkouts.attempts.remove(&txn) {
                        self.refuse_after_round(&order, reason, disk, out);
                    }
                }
                Action::Released { txn } => {
                    if let Some(order) = self.checkouts.attempts.remove(&txn) {
                        self.given_back(now, &order, disk, out);
                    }
                }
                // A newer leader has spoken to that stock shard, and this pod will hear of it too: then what
                // is under way here ends, and its askers ask the next one.
                Action::Deposed => {}
                Action::Finished { txn } => {
                    self.checkouts.finished.push(txn);
                    let at = now.next_beat(self.checkouts.finish_after);
                    self.checkouts.finish_at.get_or_insert(at);
                }
            }
        }
    }

    /// Everything is set aside: reread the order, then propose the charge, or ask for the last vote.
    pub(super) fn decide(
        &mut self,
        now: Time,
        txn: TxnId,
        grants: Vec<(ShardNo, Vec<ReservedLine>)>,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) {
        let Some(id) = self.checkouts.attempts.get(&txn).cloned() else {
            return self.give_back(now, txn, disk, out);
        };
        let batch = self.group.machine.order_batch(&id).cloned();
        let mut lines = self.orders.checkout_lines(disk, &id, batch.as_ref());
        let Some(checkout) = self.checkouts.active.get_mut(&id) else {
            return self.give_back(now, txn, disk, out);
        };
        if breaks::is("not-reread") {
            lines.clone_from(&checkout.lines);
        }
        let Some(lines) = lines.filter(|lines| checkout.lines.as_ref() == Some(lines)) else {
            checkout.stage = Stage::GivingBack(Then::Restart);
            return self.give_back(now, txn, disk, out);
        };
        checkout.stage = Stage::Charging;
        let granted: BTreeMap<&ItemId, (ShardNo, &ReservedLine)> = grants
            .iter()
            .flat_map(|(shard, lines)| lines.iter().map(|line| (&line.item, (*shard, line))))
            .collect();
        let receipt_lines = lines
            .lines
            .iter()
            .map(|line| {
                let (stock_shard, reserved) = granted[&line.item];
                ReceiptLine {
                    item: line.item.clone(),
                    incarnation: reserved.incarnation,
                    units: line.units,
                    price: line.price,
                    stock_shard,
                }
            })
            .collect();
        let receipt = Box::new(Receipt {
            txn,
            generation: lines.generation,
            lines: receipt_lines,
            covered: lines.covered.clone(),
            total: lines.total.unwrap_or(Money::MAX),
        });
        let key = checkout.first.0.key.expect("a checkout is a mutation");
        let (order, total) = (checkout.order.clone(), lines.total);
        let command = match self.checkouts.commit {
            Commit::Reserve => Command::Charge { key, order, receipt, total },
            Commit::Blocking => Command::Prepare { key, order, receipt, total },
        };
        self.submit(command, Waiter::Charge(txn), disk, out);
    }

    pub(super) fn give_back(&mut self, now: Time, txn: TxnId, disk: &dyn Disk, out: &mut Outbox) {
        let steps = self.checkouts.coordinator.as_mut().map(|c| c.abort(now, txn)).unwrap_or_default();
        self.run(now, steps, disk, out);
    }

    /// The decision is made; or the last vote is in, and it is to be made.
    pub(super) fn charge_applied(
        &mut self,
        now: Time,
        txn: TxnId,
        outcome: payment::Outcome,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) {
        let Some(id) = self.checkouts.attempts.get(&txn).cloned() else { return };
        if outcome == payment::Outcome::Prepared {
            return self.voted_yes(txn, out);
        }
        self.unlock(txn, disk, out);
        let Some(checkout) = self.checkouts.active.get_mut(&id) else { return };
        match outcome {
            payment::Outcome::Prepared => unreachable!("voted yes above"),
            payment::Outcome::Charged { total } => {
                self.committed += 1;
                self.checkouts.attempts.remove(&txn);
                let steps =
                    self.checkouts.coordinator.as_mut().map(|c| c.charged(now, txn)).unwrap_or_default();
                self.run(now, steps, disk, out);
                self.paid(now, &id, total, disk, out);
            }
            payment::Outcome::AlreadyPaid { total } => {
                let answer = Answer::CheckedOut { order: id.clone(), total_cost: total };
                checkout.stage = Stage::GivingBack(Then::Tell(Outcome::Done(answer)));
                self.give_back(now, txn, disk, out);
            }
            payment::Outcome::Refused(refusal) => {
                checkout.stage = Stage::GivingBack(Then::Tell(Outcome::Refused(refusal)));
                self.give_back(now, txn, disk, out);
            }
            payment::Outcome::Aborted | payment::Outcome::Overwritten => {
                checkout.stage = Stage::GivingBack(Then::Restart);
                self.give_back(now, txn, disk, out);
            }
            payment::Outcome::Done(_) | payment::Outcome::NotPaid | payment::Outcome::Acknowledged => {
                unreachable!("a charge has an outcome of its own")
            }
        }
        if !self.checkouts.is_charging(&id) {
            self.unpark(now, &id, disk, out);
        }
    }

    /// The order is charged, or was: the first asker is told, the others' keys are stored with it.
    pub(super) fn paid(&mut self, now: Time, id: &OrderId, total: Money, disk: &dyn Disk, out: &mut Outbox) {
        let Some(checkout) = self.checkouts.active.remove(id) else { return };
        let answer = Answer::CheckedOut { order: id.clone(), total_cost: total };
        self.tell(checkout.first.0, Outcome::Done(answer), out);
        for (asker, deadline) in checkout.late {
            self.checkout(now, asker, checkout.order.clone(), deadline, disk, out);
        }
    }

    pub(super) fn given_back(&mut self, now: Time, id: &OrderId, disk: &dyn Disk, out: &mut Outbox) {
        let Some(checkout) = self.checkouts.active.get_mut(id) else { return };
        match std::mem::replace(&mut checkout.stage, Stage::Reserving) {
            Stage::GivingBack(Then::Restart) => self.attempt(now, id, false, disk, out),
            Stage::GivingBack(Then::Tell(Outcome::Done(Answer::CheckedOut { total_cost, .. }))) => {
                self.paid(now, id, total_cost, disk, out);
            }
            Stage::GivingBack(Then::Tell(outcome)) => self.refused(now, id, outcome, disk, out),
            stage @ (Stage::Reserving | Stage::Charging | Stage::Refusing) => checkout.stage = stage,
        }
    }

    /// Refused, and behind nothing that may still change it: told to the first, asked anew for those who
    /// came later.
    pub(super) fn refused(
        &mut self,
        now: Time,
        id: &OrderId,
        outcome: Outcome,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) {
        let Some(checkout) = self.checkouts.active.remove(id) else { return };
        // It rests on the order's lines, and nothing else records them.
        self.orders.hold(checkout.first.0, Held::Outcome(outcome), out);
        for (asker, deadline) in checkout.late {
            self.checkout(now, asker, checkout.order.clone(), deadline, disk, out);
        }
        self.unpark(now, id, disk, out);
    }
}
