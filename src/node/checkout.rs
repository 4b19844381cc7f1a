//! Checkouts of one payment shard at its leader: reserve, decide, finish.
//!
//! One checkout of an order at a time; whoever asks meanwhile waits for its outcome. What the coordinator
//! machine says is carried out here: reserves, releases and confirmations are posted to the leaders of
//! stock shards, the decision is submitted as a `Charge`. Nothing is told on the strength of what only
//! this pod believes: an outcome is an applied `Charge`, or a refusal behind a round begun after it.

use super::config::Config;
use super::message::{Message, Tell, Vote};
use super::outbox::Outbox;
use super::payment::{Asker, PaymentShard, Waiter};
use super::routes::Routes;
use crate::modules::money::Money;
use crate::modules::order::CheckoutLines;
use crate::modules::payment::{self, Command, OrderRef, Receipt, ReceiptLine};
use crate::modules::request::{Answer, ItemId, OrderId, Outcome, Refusal, Request};
use crate::modules::stock::ReservedLine;
use kassa_protocols::commit::coordinator::{self, Action, Coordinator};
use kassa_protocols::ids::{Ballot, Module, Shard, ShardNo, TxnId};
use kassa_protocols::placement::shard_of;
use kassa_protocols::tables::Disk;
use kassa_protocols::time::{Span, Time};
use std::collections::{BTreeMap, BTreeSet};

type Lines = Vec<(ItemId, u64)>;
type Machine = Coordinator<Lines, Vec<ReservedLine>, Refusal>;
type Step = Action<Lines, Vec<ReservedLine>, Refusal>;

/// Finished charges logged in one entry at the most.
const FINISH_BATCH_MAX: usize = 1_024;
/// How often what is unanswered is looked over.
const RESEND_EVERY: Span = Span::from_millis(100);
/// Edits of one order that wait for its charge at the most; past it an edit is sent back to be asked again.
const PARKED_MAX: usize = 1_024;

#[derive(Debug)]
enum Stage {
    Reserving,
    Charging,
    /// Everything is being given back; then this.
    GivingBack(Then),
    /// Refused; a round is under way.
    Refusing,
}

#[derive(Debug)]
enum Then {
    Tell(Outcome),
    Restart,
}

#[derive(Debug)]
struct Checkout {
    order: OrderRef,
    /// Its key is the charge's.
    first: (Asker, Time),
    /// Came while it was under way, and are asked anew behind it: a shard may have judged the first one's
    /// request before they came, so that its refusal is none of theirs.
    late: Vec<(Asker, Time)>,
    stage: Stage,
    lines: Option<CheckoutLines>,
}

impl Checkout {
    fn waiting(&self) -> impl Iterator<Item = Asker> {
        std::iter::once(self.first).chain(self.late.iter().copied()).map(|(asker, _)| asker)
    }
    fn into_askers(self) -> impl Iterator<Item = (Asker, Time)> {
        std::iter::once(self.first).chain(self.late)
    }
}

/// An edit that waits for its order's charge to be applied.
#[derive(Debug)]
struct Parked {
    order: OrderRef,
    asker: Asker,
    request: Request,
    price: Option<Money>,
}

/// The checkouts of one payment shard.
pub struct Checkouts {
    shards: u16,
    confirm_after: Span,
    finish_after: Span,
    watermark_every: Span,
    confirm_batch_max: usize,
    coordinator: Option<Machine>,
    active: BTreeMap<OrderId, Checkout>,
    attempts: BTreeMap<TxnId, OrderId>,
    parked: BTreeMap<OrderId, Vec<Parked>>,
    reserves: Vec<(ShardNo, TxnId, Lines, bool, bool)>,
    releases: BTreeMap<ShardNo, Vec<TxnId>>,
    confirms: BTreeMap<ShardNo, Vec<TxnId>>,
    confirm_at: Option<Time>,
    finished: Vec<TxnId>,
    finish_at: Option<Time>,
    /// Stock shards whose watermark may have moved since they were last told.
    moved: BTreeSet<ShardNo>,
    /// The watermark that each stock shard has acknowledged.
    told: BTreeMap<ShardNo, TxnId>,
    watermark_at: Time,
    resend_at: Time,
}

impl Checkouts {
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            shards: config.shards,
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
    }

    /// Keeps an edit until the order's charge is applied; `false` if too many are kept.
    pub fn park(&mut self, order: OrderRef, asker: Asker, request: Request, price: Option<Money>) -> bool {
        let parked = self.parked.entry(order.order.clone()).or_default();
        let room = parked.len() < PARKED_MAX;
        if room {
            parked.push(Parked { order, asker, request, price });
        }
        room
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
        let paid = self.group.look(disk, |payments, view| {
            payments.order(view, &order).is_ok_and(|payments| payments.charge().is_some())
                || asker.key.is_some_and(|key| payments.checked_out(view, &order, key).is_some())
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
    fn attempt(&mut self, now: Time, id: &OrderId, in_turn: bool, disk: &dyn Disk, out: &mut Outbox) {
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
    fn run(&mut self, now: Time, steps: Vec<Step>, disk: &dyn Disk, out: &mut Outbox) {
        for step in steps {
            match step {
                Action::Reserve { shard, txn, lines, wait } => {
                    self.checkouts.reserves.push((shard, txn, lines, wait, false));
                }
                Action::Release { shard, txn } => self.checkouts.releases.entry(shard).or_default().push(txn),
                Action::Confirm { shard, txn } => {
                    self.checkouts.confirms.entry(shard).or_default().push(txn);
                    let at = now + self.checkouts.confirm_after;
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
                    let at = now + self.checkouts.finish_after;
                    self.checkouts.finish_at.get_or_insert(at);
                }
            }
        }
    }

    /// Everything is set aside: reread the order, then propose the charge.
    fn decide(
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
        let lines = self.orders.checkout_lines(disk, &id, batch.as_ref());
        let Some(checkout) = self.checkouts.active.get_mut(&id) else {
            return self.give_back(now, txn, disk, out);
        };
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
        let command = Command::Charge { key, order: checkout.order.clone(), receipt, total: lines.total };
        self.submit(command, Waiter::Charge(txn), disk, out);
    }

    fn give_back(&mut self, now: Time, txn: TxnId, disk: &dyn Disk, out: &mut Outbox) {
        let steps = self.checkouts.coordinator.as_mut().map(|c| c.abort(now, txn)).unwrap_or_default();
        self.run(now, steps, disk, out);
    }

    /// The decision is made.
    pub(super) fn charge_applied(
        &mut self,
        now: Time,
        txn: TxnId,
        outcome: payment::Outcome,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) {
        let Some(id) = self.checkouts.attempts.get(&txn).cloned() else { return };
        let Some(checkout) = self.checkouts.active.get_mut(&id) else { return };
        match outcome {
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

    fn unpark(&mut self, now: Time, id: &OrderId, disk: &dyn Disk, out: &mut Outbox) {
        for parked in self.checkouts.parked.remove(id).unwrap_or_default() {
            self.edit(now, parked.asker, &parked.order, &parked.request, parked.price, disk, out);
        }
    }

    /// The order is charged, or was: the first asker is told, the others' keys are stored with it.
    fn paid(&mut self, now: Time, id: &OrderId, total: Money, disk: &dyn Disk, out: &mut Outbox) {
        let Some(checkout) = self.checkouts.active.remove(id) else { return };
        let answer = Answer::CheckedOut { order: id.clone(), total_cost: total };
        self.tell(checkout.first.0, Outcome::Done(answer), out);
        for (asker, deadline) in checkout.late {
            self.checkout(now, asker, checkout.order.clone(), deadline, disk, out);
        }
    }

    fn given_back(&mut self, now: Time, id: &OrderId, disk: &dyn Disk, out: &mut Outbox) {
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
    fn refused(&mut self, now: Time, id: &OrderId, outcome: Outcome, disk: &dyn Disk, out: &mut Outbox) {
        let Some(checkout) = self.checkouts.active.remove(id) else { return };
        self.tell(checkout.first.0, outcome, out);
        for (asker, deadline) in checkout.late {
            self.checkout(now, asker, checkout.order.clone(), deadline, disk, out);
        }
        self.unpark(now, id, disk, out);
    }

    /// A refusal that is no outcome of a charge waits for a round that begins now.
    fn refuse_after_round(&mut self, id: &OrderId, refusal: Refusal, disk: &dyn Disk, out: &mut Outbox) {
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
                    matches!(checkout.stage, Stage::Reserving) && checkout.first.1 < now
                })
            })
            .map(|(txn, id)| (*txn, id.clone()))
            .collect();
        for (txn, id) in late {
            if let Some(checkout) = self.checkouts.active.get_mut(&id) {
                checkout.stage = Stage::GivingBack(Then::Tell(Outcome::Unknown));
                self.give_back(now, txn, disk, out);
            }
        }
    }

    /// Posts what this round's checkouts have for the stock shards, and logs what is finished.
    pub(super) fn post_checkouts(&mut self, now: Time, routes: &Routes, disk: &dyn Disk, out: &mut Outbox) {
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
