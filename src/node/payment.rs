//! A payment shard on this pod and the order shard of the same number: their leader is the owner of the
//! orders and the coordinator of their checkouts.
//!
//! This file takes questions in and passes outcomes on; `checkout` follows the checkouts.

#![expect(clippy::too_many_arguments, reason = "a step carries its time, the disk and the outbox besides")]

use super::admission::{Admission, Verdict};
use super::blocking::Blocking;
use super::checkout::Checkouts;
use super::config::Config;
use super::group::{Group, Output};
use super::message::{Ask, AskId, Fate, Message, Question, Stamp, Tell};
use super::orders::{Held, OrderShard};
use super::outbox::Outbox;
use super::parked::Parked;
use super::routes::Routes;
use crate::modules::order::mint_id;
use crate::modules::payment::{self, Command, OrderRef, Payments};
use crate::modules::request::{Answer, Op, Outcome, Refusal, Request};
use kassa_protocols::breaks;
use kassa_protocols::commit::decisions::Decision;
use kassa_protocols::ids::{Incarnation, OpId, PodId, ShardNo, TxnId};
use kassa_protocols::quorum;
use kassa_protocols::tables::Disk;
use kassa_protocols::time::Time;

/// Somebody who waits for an answer: a question of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    pub from: PodId,
    pub id: AskId,
    /// Of a mutation: a refusal is remembered under it.
    pub key: Option<OpId>,
}

/// Who waits for the outcome of a command.
#[derive(Clone, Debug)]
pub enum Waiter {
    Ask(Asker),
    /// An answer that is known, but for whether this pod still leads: told when a round has passed.
    Then(Asker, Box<Outcome>),
    /// Of the charge or, in the blocking commit, of the vote.
    Charge(TxnId),
    /// The decision of the blocking commit is applied.
    Concluded(TxnId, Decision),
    Repeat {
        order: OrderRef,
        asker: Asker,
        deadline: Time,
    },
    /// The order as it stands once a round has passed.
    Find {
        order: OrderRef,
        asker: Asker,
    },
    Owner {
        order: OrderRef,
        removed: bool,
        asker: Asker,
    },
    /// A doubt: answered after a round.
    Doubt {
        from: PodId,
        stock: ShardNo,
        txns: Vec<TxnId>,
    },
    Finished(Vec<TxnId>),
    /// A checkout was refused before anything was reserved; if it was paid meanwhile, that is the answer.
    Refuse {
        order: OrderRef,
        refusal: Refusal,
    },
    /// A batch that the cluster group holds.
    Batch,
}

/// One payment shard with its order shard.
pub struct PaymentShard {
    pub no: ShardNo,
    pub group: Group<Payments, Waiter>,
    pub orders: OrderShard,
    pub checkouts: Checkouts,
    pub blocking: Blocking,
    admission: Admission,
    /// What is to be told, gathered by the parts.
    pub committed: u64,
    /// The newest batch submitted unasked in this term of office.
    following: Incarnation,
}

impl PaymentShard {
    #[must_use]
    pub fn new(
        no: ShardNo,
        group: Group<Payments, Waiter>,
        orders: OrderShard,
        joined: u32,
        config: &Config,
    ) -> Self {
        let checkouts = Checkouts::new(config);
        let blocking = Blocking::new(config.me, joined);
        Self {
            no,
            group,
            orders,
            checkouts,
            blocking,
            admission: Admission::default(),
            committed: 0,
            following: Incarnation(0),
        }
    }

    #[must_use]
    pub fn stamp(&self) -> Stamp {
        self.admission.stamp(self.group.time())
    }

    /// Whether this pod leads the payments and has gathered the orders.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.group.is_leading() && self.orders.is_owned(self.group.ballot())
    }

    /// Whether payments or orders of the shard are not all here yet, on a new disk.
    #[must_use]
    pub fn is_joining(&self) -> bool {
        self.group.is_joining() || self.orders.is_joining()
    }

    pub fn tell(&mut self, asker: Asker, outcome: Outcome, out: &mut Outbox) {
        if let (Outcome::Refused(_), Some(key)) = (&outcome, asker.key) {
            self.admission.refuse(key);
        }
        self.say(asker, Tell::Outcome(outcome), out);
    }

    pub fn say(&mut self, asker: Asker, tell: Tell, out: &mut Outbox) {
        if let Some(key) = asker.key {
            self.admission.answered(key);
        }
        out.post(asker.from, Message::Tell { id: asker.id, stamp: self.stamp(), tell });
    }

    fn elsewhere(&mut self, asker: Asker, out: &mut Outbox) {
        let leader = self.group.leader().filter(|_| !self.group.is_leading());
        self.say(asker, Tell::NotLeader { leader }, out);
    }

    /// A question of a pod, for a client of its own.
    pub fn asked(&mut self, now: Time, from: PodId, question: Question, disk: &dyn Disk, out: &mut Outbox) {
        let mut asker = Asker { from, id: question.id, key: None };
        let mut question = question;
        if self.is_joining() {
            // What is not here yet must not be taken for what never was.
            return self.elsewhere(asker, out);
        }
        if let Ask::Anywhere { request, incarnation, price } = question.ask {
            if !self.is_serving() {
                let stamp = question.stamp.time;
                return self.anywhere(now, asker, &request, incarnation, price, stamp, disk, out);
            }
            question.ask = match price {
                Some(price) => Ask::Add { request, incarnation, price },
                None => Ask::Op { request, incarnation },
            };
        }
        if !self.is_serving() {
            return self.elsewhere(asker, out);
        }
        let deadline = now + kassa_protocols::time::Span::from_millis(u64::from(question.remaining_ms));
        let request = match &question.ask {
            Ask::Op { request, .. } | Ask::Add { request, .. } | Ask::OfOrder { request, .. } => request,
            Ask::Owner { order, incarnation } => {
                if let Some(order) = self.order_even_removed(asker, order, *incarnation, disk, out) {
                    let removed = self.is_removed(&order, disk);
                    self.read(Command::Nothing, Waiter::Owner { order, removed, asker }, disk, out);
                }
                return;
            }
            Ask::Log { batch } => {
                if self.group.machine.has_batch(batch) {
                    return self.read(Command::Nothing, Waiter::Ask(asker), disk, out);
                }
                self.admission.fence();
                return self.submit(Command::Load(batch.clone()), Waiter::Ask(asker), disk, out);
            }
            Ask::Load { .. } | Ask::Loaded { .. } | Ask::OrderBatch { .. } | Ask::Whole { .. } => return,
            Ask::Anywhere { .. } => unreachable!("handled above"),
        };
        if !request.op.is_read() {
            let (key, time) = (request.key, self.group.time());
            match self.admission.judge(question.stamp, key, time, (from, question.id)) {
                Verdict::Admitted => asker.key = Some(key),
                Verdict::Repeated => return,
                Verdict::Pending => return self.say(asker, Tell::NotLeader { leader: None }, out),
                Verdict::Stale => return self.say(asker, Tell::Stale, out),
                Verdict::Unknown => return self.tell(asker, Outcome::Unknown, out),
            }
        }
        match question.ask {
            Ask::OfOrder { request, order, removed } => {
                self.of_order(asker, &request, order, removed, disk, out);
            }
            Ask::Op { request, incarnation } => {
                self.operation(now, asker, request, incarnation, None, deadline, disk, out);
            }
            Ask::Add { request, incarnation, price } => {
                self.operation(now, asker, request, incarnation, Some(price), deadline, disk, out);
            }
            Ask::Owner { .. } | Ask::Anywhere { .. } | Ask::Load { .. } => {}
            Ask::Loaded { .. } | Ask::OrderBatch { .. } | Ask::Log { .. } | Ask::Whole { .. } => {}
        }
    }

    fn operation(
        &mut self,
        now: Time,
        asker: Asker,
        request: Request,
        incarnation: Incarnation,
        price: Option<crate::modules::money::Money>,
        deadline: Time,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) {
        let key = request.key;
        match &request.op {
            Op::CreateUser => {
                self.submit(Command::CreateUser { user: mint_id(key).into() }, Waiter::Ask(asker), disk, out);
            }
            Op::FindUser { user } => {
                self.read(Command::Find { user: user.clone() }, Waiter::Ask(asker), disk, out);
            }
            Op::AddFunds { user, amount } => {
                let command = Command::AddFunds { key, user: user.clone(), amount: *amount };
                self.submit(command, Waiter::Ask(asker), disk, out);
            }
            Op::Pay { user, amount } => {
                let command = Command::Pay { key, user: user.clone(), amount: *amount };
                self.submit(command, Waiter::Ask(asker), disk, out);
            }
            Op::CreateOrder { user } => self.create_order(now, asker, key, user, disk, out),
            Op::FindOrder { order } => {
                if let Some(order) = self.find_order(asker, order, incarnation, disk, out) {
                    self.read(Command::Nothing, Waiter::Find { order, asker }, disk, out);
                }
            }
            Op::AddItem { order, .. } | Op::RemoveItem { order, .. } => {
                if let Some(order) = self.find_order(asker, order, incarnation, disk, out) {
                    if self.is_charging(&order.order) {
                        self.park(Parked { order, asker, request, price, deadline }, out);
                    } else {
                        self.edit(now, asker, &order, &request, price, disk, out);
                    }
                }
            }
            Op::Checkout { order } => {
                if let Some(order) = self.order_even_removed(asker, order, incarnation, disk, out) {
                    if self.blocking.is_in_doubt(&order.order) {
                        self.park(Parked { order, asker, request, price, deadline }, out);
                    } else {
                        self.checkout(now, asker, order, deadline, disk, out);
                    }
                }
            }
            Op::RemoveOrder { order } => {
                // A removed order is found nowhere, but the key of its removal is.
                if let Some(order) = self.order_even_removed(asker, order, incarnation, disk, out) {
                    self.submit(Command::Close { key, order }, Waiter::Ask(asker), disk, out);
                }
            }
            Op::PayOrder { user, order, .. }
            | Op::CancelPayment { user, order }
            | Op::PaymentStatus { user, order } => {
                if let Some(order) = self.order_even_removed(asker, order, incarnation, disk, out) {
                    let removed = self.is_removed(&order, disk);
                    let order = OrderRef { user: user.clone(), ..order };
                    self.of_order(asker, &request, order, removed, disk, out);
                }
            }
            Op::LoadOrders { .. } | Op::LoadItems { .. } | Op::LoadUsers { .. } | Op::Replace { .. } => {}
            Op::CreateItem { .. } | Op::FindItem { .. } | Op::AddStock { .. } | Op::SubtractStock { .. } => {}
        }
    }

    /// Submits a command whose user is not locked, or locked for it.
    pub(super) fn submit_unlocked(
        &mut self,
        command: Command,
        waiter: Waiter,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) {
        if let Err(waiter) = self.group.submit(command, waiter, disk) {
            self.void(waiter, out);
        }
    }
    pub fn read(&mut self, command: Command, waiter: Waiter, disk: &dyn Disk, out: &mut Outbox) {
        if let Err(waiter) = self.group.read(command, waiter, disk) {
            self.void(waiter, out);
        }
    }

    /// A waiter whose outcome will not be known here.
    pub(super) fn void(&mut self, waiter: Waiter, out: &mut Outbox) {
        match waiter {
            Waiter::Ask(asker)
            | Waiter::Then(asker, _)
            | Waiter::Repeat { asker, .. }
            | Waiter::Find { asker, .. }
            | Waiter::Owner { asker, .. } => self.elsewhere(asker, out),
            // Its askers are those of its checkout, which is void as well.
            Waiter::Charge(_) | Waiter::Refuse { .. } => {}
            Waiter::Doubt { .. } | Waiter::Finished(_) | Waiter::Batch | Waiter::Concluded(..) => {}
        }
    }

    /// Logs a batch that the cluster group holds, if this shard has not.
    pub fn follow(&mut self, batch: &crate::modules::batch::BatchRecord, disk: &dyn Disk, out: &mut Outbox) {
        if self.group.is_leading()
            && !self.group.machine.has_batch(batch)
            && self.following < batch.incarnation
        {
            self.following = batch.incarnation;
            self.admission.fence();
            self.submit(Command::Load(batch.clone()), Waiter::Batch, disk, out);
        }
    }

    /// A stock shard asks what became of its reservations.
    pub fn doubt(
        &mut self,
        from: PodId,
        stock: ShardNo,
        txns: Vec<TxnId>,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) {
        if self.is_serving() {
            self.read(Command::Nothing, Waiter::Doubt { from, stock, txns }, disk, out);
        }
    }

    fn fates(&mut self, from: PodId, stock: ShardNo, txns: Vec<TxnId>, out: &mut Outbox) {
        let ballot = self.group.ballot();
        let fates = txns
            .into_iter()
            .filter(|txn| txn.ballot <= ballot)
            .map(|txn| {
                // In flight first: a charge that is evaluated and not committed yet decides nothing.
                if self.checkouts.in_flight(txn) {
                    (txn, Fate::InFlight)
                } else if self.checkouts.is_confirming(txn)
                    || self.group.machine.unfinished().contains_key(&txn)
                {
                    (txn, Fate::Charged)
                } else {
                    (txn, Fate::Aborted)
                }
            })
            .collect();
        out.post(from, Message::Fate { stock, fates });
    }

    /// Passes on what the group and the orders have to say. Gives the copies that peers need.
    pub fn poll(
        &mut self,
        now: Time,
        routes: &Routes,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) -> Vec<(PodId, Option<quorum::Version>)> {
        let mut copies = Vec::new();
        self.orders.follow(self.group.time(), self.group.ballot());
        self.forget_settled(disk);
        loop {
            self.derive_receipts(disk);
            let Some(output) = self.group.poll() else { break };
            match output {
                Output::Outcome(waiter, outcome) => self.outcome(now, waiter, outcome, disk, out),
                Output::Leading(ballot) => {
                    self.admission.lead(ballot);
                    self.following = Incarnation(0);
                    self.orders.own(now, ballot, out);
                    self.lead_checkouts(now, ballot);
                }
                Output::Deposed(waiters) => {
                    self.orders.disown(out);
                    for waiter in waiters {
                        self.void(waiter, out);
                    }
                    self.drop_checkouts(out);
                }
                Output::Copy { peer, newer_than } => copies.push((peer, newer_than)),
            }
        }
        for (asker, held) in self.orders.take_passed() {
            match held {
                Held::Outcome(outcome) => self.tell(asker, outcome, out),
                Held::Judged(refusal) => self.then(asker, Outcome::Refused(refusal), disk, out),
            }
        }
        for asker in self.orders.take_void() {
            self.elsewhere(asker, out);
        }
        self.post_checkouts(now, routes, disk, out);
        copies
    }

    /// Receipts follow the money: what payment has committed is written to the order, on every replica.
    fn derive_receipts(&mut self, disk: &dyn Disk) {
        for key in self.group.state.take_changed() {
            let Some((_, Some(stored))) = self.group.state.get_committed(disk, &key) else { continue };
            let Some((_, order)) = payment::order_of_key(&key) else { continue };
            let payments = payment::order_payments(&stored);
            if breaks::is("receipt-on-leader-only") && !self.group.is_leading() {
                continue;
            }
            if breaks::is("cancel-gives-back") && self.checkouts.coordinator.is_some() {
                let refunded = payments.payments.iter().filter(|payment| payment.refunded);
                for receipt in refunded.filter_map(|payment| payment.receipt.as_ref()) {
                    for line in &receipt.lines {
                        self.checkouts.releases.entry(line.stock_shard).or_default().push(receipt.txn);
                    }
                }
            }
            self.orders.receipts(&order, &payments, disk);
        }
    }

    fn outcome(
        &mut self,
        now: Time,
        waiter: Waiter,
        outcome: payment::Outcome,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) {
        match waiter {
            Waiter::Ask(asker) => match outcome {
                payment::Outcome::Done(answer) => self.tell(asker, Outcome::Done(answer), out),
                payment::Outcome::Refused(refusal) => self.tell(asker, Outcome::Refused(refusal), out),
                payment::Outcome::Overwritten => self.say(asker, Tell::Overwritten { batch: None }, out),
                payment::Outcome::Acknowledged => self.say(asker, Tell::Done, out),
                payment::Outcome::Charged { .. }
                | payment::Outcome::AlreadyPaid { .. }
                | payment::Outcome::NotPaid
                | payment::Outcome::Prepared
                | payment::Outcome::Aborted => unreachable!("outcomes of checkouts only"),
            },
            Waiter::Then(asker, outcome) => {
                // Cancelled since it was judged, if only by what is not committed yet: told now, the refusal would be of
                // a time that an earlier attempt may come behind (`OrderPayments::may_edit`).
                if let Outcome::Refused(Refusal::OrderPaid(order)) = outcome.as_ref()
                    && !self.is_paid(order, disk)
                {
                    self.say(asker, Tell::NotLeader { leader: None }, out);
                } else {
                    self.tell(asker, *outcome, out);
                }
            }
            Waiter::Charge(txn) => self.charge_applied(now, txn, outcome, disk, out),
            Waiter::Concluded(txn, decision) => self.concluded(now, txn, decision, outcome, disk, out),
            Waiter::Repeat { order, asker, deadline } => match outcome {
                payment::Outcome::AlreadyPaid { total } => {
                    let answer = Answer::CheckedOut { order: order.order, total_cost: total };
                    self.tell(asker, Outcome::Done(answer), out);
                }
                payment::Outcome::Overwritten => self.say(asker, Tell::Overwritten { batch: None }, out),
                payment::Outcome::NotPaid => self.checkout(now, asker, order, deadline, disk, out),
                payment::Outcome::Done(_)
                | payment::Outcome::Refused(_)
                | payment::Outcome::Charged { .. }
                | payment::Outcome::Aborted
                | payment::Outcome::Prepared
                | payment::Outcome::Acknowledged => unreachable!("a repeat finds the charge, or none"),
            },
            Waiter::Find { order, asker } => {
                // The round may have brought a batch over it.
                let found = self.find_order(asker, &order.order, order.incarnation, disk, out);
                if let Some(order) = found {
                    let outcome = self.view(&order, disk);
                    self.orders.hold(asker, Held::Outcome(outcome), out);
                }
            }
            Waiter::Owner { order, removed, asker } => {
                self.say(asker, Tell::Owner { order, removed }, out);
            }
            Waiter::Doubt { from, stock, txns } => self.fates(from, stock, txns, out),
            Waiter::Finished(txns) => self.finished_applied(&txns),
            Waiter::Refuse { order, refusal } => self.refuse_checkout(now, &order, refusal, disk, out),
            Waiter::Batch => {}
        }
    }
}
