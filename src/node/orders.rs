//! An order shard on this pod: the sets of operations, their replication, and their answers.
//!
//! Receipts, refunds and removals are derived from what payment has committed, on every replica by itself:
//! they are merged here, and neither logged nor sent. So a payment shard is checkpointed only together with
//! its order shard, which is durable first; what is newer is derived again from the payment log.
//!
//! An answer shows an order as it is in memory, with edits that may be on no disk yet: a crash could take
//! back what a client has seen. So every answer that rests on edits (a view, an edit's own, a refusal that
//! judged by the lines) is made at once and *held* until all of them are durable, by a majority or, where
//! none can be reached, here; if another pod owns the shard by then, the asker asks that one.
//!
//! A charge need not wait. Its receipt names its lines and the edits it covers, and is as durable as the
//! payment: if a crash takes back one of the edits, the order shows it all the same, and who asked for it asks
//! the next owner under the same key, where an edit that a receipt covers is known. So the charge stands,
//! the edit is answered as done, and both agree. A checkout's refusal is recorded nowhere: it is held.

#![expect(clippy::too_many_arguments, reason = "a step carries its time, the disk and the outbox besides")]

use super::config::Config;
use super::message::{Message, Record};
use super::outbox::Outbox;
use super::payment::Asker;
use crate::modules::batch::BatchRecord;
use crate::modules::machine::{decode, encode};
use crate::modules::money::Money;
use crate::modules::order::{
    self, CheckoutLines, OrderSet, OrderStore, TIME_UNKNOWN, item_of, mint_order_id, receipt_id, refund_id,
};
use crate::modules::payment::{OrderPayments, OrderRef};
use crate::modules::request::{Answer, Op, OrderId, OrderView, Outcome, Refusal, Request, UserId};
use bytes::Bytes;
use kassa_protocols::eventual;
use kassa_protocols::ids::{Ballot, Incarnation, Module, OpId, PodId, Shard, ShardNo};
use kassa_protocols::tables::{Change, Disk, State, View};
use kassa_protocols::time::{ShardTime, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const META: &[u8] = super::copy::META;
/// What is known of replaced disks, apart from `META` and only where there are any.
const DISKS: &[u8] = b"!disks";

#[derive(Serialize, Deserialize)]
struct Meta {
    position: u64,
    durable: eventual::Durable,
}

/// The parts of the durable state that are about replaced disks.
#[derive(Serialize, Deserialize)]
struct Disks {
    whole: u32,
    acknowledged_by: Vec<(PodId, u32)>,
}

impl Disks {
    fn of(durable: &eventual::Durable) -> Option<Self> {
        let acknowledged_by: Vec<(PodId, u32)> =
            durable.cursors.iter().map(|cursor| (cursor.peer, cursor.disk)).collect();
        let any = durable.whole > 0 || acknowledged_by.iter().any(|(_, disk)| *disk > 0);
        any.then_some(Self { whole: durable.whole, acknowledged_by })
    }

    fn add_to(self, durable: &mut eventual::Durable) {
        durable.whole = self.whole;
        for cursor in &mut durable.cursors {
            let by = self.acknowledged_by.iter().find(|(peer, _)| *peer == cursor.peer);
            cursor.disk = by.map_or(0, |(_, disk)| *disk);
        }
    }
}

/// An answer that waits until what it rests on is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    Outcome(Outcome),
    /// To be told only after a round that shows that this pod still leads.
    Judged(Refusal),
}

/// Why an edit was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotTaken {
    Refused(Refusal),
    /// Too many edits wait for disks.
    Overloaded,
}

/// One order shard.
pub struct OrderShard {
    no: ShardNo,
    replica: eventual::Replica,
    state: State,
    fx: eventual::Effects,
    /// The payment shard's time and the newest ballot promised there, as of the last `follow`.
    time: ShardTime,
    promised: Ballot,
    held: BTreeMap<u64, Vec<(Asker, Held)>>,
    passed: Vec<(Asker, Held)>,
    void: Vec<Asker>,
    pub(super) covered: u64,
    pub oldest_needed: Option<u64>,
}

impl OrderShard {
    #[must_use]
    pub fn new(
        no: ShardNo,
        config: &Config,
        joined: u32,
        disks: BTreeMap<PodId, u32>,
        replicas: Vec<PodId>,
        disk: &dyn Disk,
        now: Time,
    ) -> Self {
        let shard = Shard { module: Module::Order, no };
        let meta: Option<Meta> = disk.get(shard, META).map(|stored| decode(&stored));
        let (covered, mut durable) = meta.map_or_else(Default::default, |meta| (meta.position, meta.durable));
        if let Some(stored) = disk.get(shard, DISKS) {
            decode::<Disks>(&stored).add_to(&mut durable);
        }
        let (me, timing) = (config.me, eventual::Timing::default());
        let config = eventual::Config { shard, me, replicas, disks, joined, timing };
        Self {
            no,
            replica: eventual::Replica::new(config, durable, now),
            state: State::new(shard, false, None),
            fx: eventual::Effects::new(),
            time: ShardTime::default(),
            promised: Ballot::ZERO,
            held: BTreeMap::new(),
            passed: Vec::new(),
            void: Vec::new(),
            covered,
            oldest_needed: None,
        }
    }

    /// Takes the payment shard's time and its newest promise: to be called before anything else of a step.
    pub fn follow(&mut self, time: ShardTime, promised: Ballot) {
        self.time = self.time.max(time);
        self.promised = promised;
    }

    pub fn recover(&mut self, position: u64, record: eventual::Record, disk: &dyn Disk) {
        if position < self.covered {
            return;
        }
        self.oldest_needed.get_or_insert(position);
        let view = View { state: &mut self.state, disk };
        let mut store = OrderStore { view, batches: &[], now: TIME_UNKNOWN };
        self.replica.recover(record, &mut store);
    }

    pub fn recovered(&mut self, out: &mut Outbox) {
        self.replica.recovered(&mut self.fx);
        self.drain(out);
    }

    fn parts<'a>(
        &'a mut self,
        disk: &'a dyn Disk,
        batches: &'a [BatchRecord],
    ) -> (&'a mut eventual::Replica, OrderStore<'a>) {
        let view = View { state: &mut self.state, disk };
        (&mut self.replica, OrderStore { view, batches, now: self.time })
    }

    pub fn handle(
        &mut self,
        now: Time,
        from: PodId,
        message: eventual::Message,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) {
        let (promised, mut fx) = (self.promised, std::mem::take(&mut self.fx));
        let (replica, mut store) = self.parts(disk, &[]);
        replica.handle(now, from, message, promised, &mut store, &mut fx);
        self.fx = fx;
        self.drain(out);
    }
    pub fn tick(&mut self, now: Time, disk: &dyn Disk, out: &mut Outbox) {
        let mut fx = std::mem::take(&mut self.fx);
        let (replica, mut store) = self.parts(disk, &[]);
        replica.tick(now, &mut store, &mut fx);
        self.fx = fx;
        self.drain(out);
    }
    #[must_use]
    pub fn next_wakeup(&self) -> Time {
        self.replica.next_wakeup()
    }
    pub fn link(&mut self, now: Time, peer: PodId, up: bool, disk: &dyn Disk, out: &mut Outbox) {
        let (promised, mut fx) = (self.promised, std::mem::take(&mut self.fx));
        let (replica, mut store) = self.parts(disk, &[]);
        replica.link(now, peer, up, promised, &mut store, &mut fx);
        self.fx = fx;
        self.drain(out);
    }

    /// This pod leads the payments of the same number: it serves orders once it has gathered them.
    pub fn own(&mut self, now: Time, ballot: Ballot, out: &mut Outbox) {
        self.replica.own(now, ballot, self.promised, &mut self.fx);
        self.drain(out);
    }
    pub fn disown(&mut self, out: &mut Outbox) {
        self.replica.disown(&mut self.fx);
        self.drain(out);
    }
    #[must_use]
    pub fn is_owned(&self, ballot: Ballot) -> bool {
        self.replica.owning() == Some(ballot)
    }

    /// A pod's disk was replaced, for the `count`-th time.
    pub fn replaced(&mut self, pod: PodId, count: u32) {
        self.replica.replaced(pod, count);
    }
    /// Whether this pod's disk took the place of a lost one, and the orders are not all here yet.
    #[must_use]
    pub fn is_joining(&self) -> bool {
        self.replica.is_joining()
    }

    fn load(&mut self, disk: &dyn Disk, id: &OrderId, batch: Option<&BatchRecord>) -> Option<OrderSet> {
        let batches = batch.map_or(&[][..], std::slice::from_ref);
        let (_, mut store) = self.parts(disk, batches);
        store.load(id)
    }

    /// Whose order it is, removed or not; `None` if no such order was ever made here.
    pub fn owner(&mut self, disk: &dyn Disk, id: &OrderId, batch: Option<&BatchRecord>) -> Option<UserId> {
        self.load(disk, id, batch)?.user().cloned()
    }

    pub fn view(&mut self, disk: &dyn Disk, id: &OrderId, batch: Option<&BatchRecord>) -> Option<OrderView> {
        order::view(&self.load(disk, id, batch)?, id).ok()
    }

    /// What a checkout is to charge; `None` if there is no such order, or no more.
    pub fn checkout_lines(
        &mut self,
        disk: &dyn Disk,
        id: &OrderId,
        batch: Option<&BatchRecord>,
    ) -> Option<CheckoutLines> {
        order::checkout_lines(&self.load(disk, id, batch)?, id).ok()
    }

    /// Creates an order, or finds the one that this key made.
    ///
    /// # Errors
    /// `Overloaded`.
    pub fn create(
        &mut self,
        now: Time,
        asker: Asker,
        key: OpId,
        user: &UserId,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) -> Result<(), NotTaken> {
        let id = mint_order_id(self.no, user, key);
        let operation = order::create(self.load(disk, &id, None).as_ref(), user);
        let operation = operation.map(|operation| item_of(Incarnation(0), key, &operation));
        let answer = Answer::OrderCreated { order: id.clone() };
        self.take(now, asker, answer, &id, operation, disk, out)
    }

    /// Adds to an order, or takes away.
    ///
    /// # Errors
    /// A refusal by the order as it stands; `Overloaded`.
    pub fn edit(
        &mut self,
        now: Time,
        asker: Asker,
        order: &OrderRef,
        batch: Option<&BatchRecord>,
        request: &Request,
        price: Option<Money>,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) -> Result<(), NotTaken> {
        let (id, key) = (&order.order, request.key);
        let set = self
            .load(disk, id, batch)
            .ok_or_else(|| NotTaken::Refused(Refusal::OrderNotFound(id.clone())))?;
        let edited = match (&request.op, price) {
            (Op::AddItem { item, units, .. }, Some(price)) => {
                order::add_item(&set, id, key, item, *units, price)
            }
            (Op::RemoveItem { item, units, .. }, _) => order::remove_item(&set, id, key, item, *units),
            _ => return Ok(()),
        };
        let (operation, view) = edited.map_err(NotTaken::Refused)?;
        let operation = operation.map(|operation| item_of(set.incarnation, key, &operation));
        self.take(now, asker, Answer::Order(view), id, operation, disk, out)
    }

    /// Takes an operation, or shows a majority once more what is there of a repeated one.
    fn take(
        &mut self,
        now: Time,
        asker: Asker,
        answer: Answer,
        id: &OrderId,
        operation: Option<eventual::Item>,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) -> Result<(), NotTaken> {
        let entity = Bytes::copy_from_slice(id.0.as_bytes());
        let mut fx = std::mem::take(&mut self.fx);
        let (replica, mut store) = self.parts(disk, &[]);
        let seq = match operation {
            Some(item) => replica.edit(now, entity, vec![item], &mut store, &mut fx),
            None => replica.refresh(now, entity, &mut store, &mut fx),
        };
        self.fx = fx;
        if seq.is_none() {
            return Err(NotTaken::Overloaded);
        }
        self.hold(asker, Held::Outcome(Outcome::Done(answer)), out);
        Ok(())
    }

    /// Keeps an answer that was made just now until all edits that it may rest on are durable.
    pub fn hold(&mut self, asker: Asker, answer: Held, out: &mut Outbox) {
        let ticket = self.replica.barrier(self.promised, &mut self.fx);
        self.held.entry(ticket).or_default().push((asker, answer));
        self.drain(out);
    }

    /// Writes to the order what payment has committed for it.
    pub fn receipts(&mut self, id: &OrderId, payments: &OrderPayments, disk: &dyn Disk) {
        let mut operations = Vec::new();
        for payment in &payments.payments {
            let Some(receipt) = &payment.receipt else { continue };
            let txn = receipt.txn;
            operations.push((
                payments.incarnation,
                receipt_id(txn),
                order::Operation::Receipt(receipt.clone()),
            ));
            if payment.refunded {
                operations.push((payments.incarnation, refund_id(txn), order::Operation::Refunded { txn }));
            }
        }
        if payments.closed {
            operations.push((payments.incarnation, OpId(0), order::Operation::Closed));
        }
        if operations.is_empty() {
            return;
        }
        let entity = id.0.as_bytes();
        let (replica, mut store) = self.parts(disk, &[]);
        let merged = store.merge_operations(entity, operations);
        replica.derived(entity, merged);
    }

    /// Answers that may be given now.
    pub fn take_passed(&mut self) -> Vec<(Asker, Held)> {
        std::mem::take(&mut self.passed)
    }
    /// Askers whose answer is that of an owner which has been replaced: they ask the next one.
    pub fn take_void(&mut self) -> Vec<Asker> {
        std::mem::take(&mut self.void)
    }

    fn drain(&mut self, out: &mut Outbox) {
        let (shard, no) = (Shard { module: Module::Order, no: self.no }, self.no);
        for record in self.fx.persist.drain(..) {
            out.log(shard, Record::Order(record));
        }
        for (to, message) in self.fx.send_early.drain(..) {
            out.send_early(to, Message::Order { shard: no, message });
        }
        for (to, message) in self.fx.send.drain(..) {
            out.send(to, Message::Order { shard: no, message });
        }
        for event in self.fx.events.drain(..) {
            match event {
                eventual::Event::Passed { ticket } => {
                    self.passed.extend(self.held.remove(&ticket).into_iter().flatten());
                }
                eventual::Event::Void { ticket } => {
                    let held = self.held.remove(&ticket).into_iter().flatten();
                    self.void.extend(held.map(|(asker, _)| asker));
                }
                // An edit is answered as what it shows is, which is no earlier.
                eventual::Event::Durable { .. } | eventual::Event::Fenced { .. } => {}
                eventual::Event::Owning { .. } => {}
            }
        }
    }

    /// Records in memory.
    #[must_use]
    pub fn held(&self) -> usize {
        self.state.held()
    }

    /// Writes the sets as of now, in the same batch as the log record at `position`.
    pub fn checkpoint(&mut self, position: u64) -> Vec<Change> {
        let mut changes = self.state.checkpoint(None);
        let meta = Meta { position, durable: self.replica.durable() };
        if let Some(disks) = Disks::of(&meta.durable) {
            changes.push((Bytes::from_static(DISKS), Some(encode(&disks))));
        }
        changes.push((Bytes::from_static(META), Some(encode(&meta))));
        self.covered = position;
        self.oldest_needed = None;
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::order::add_item;
    use crate::modules::receipt::{Receipt, ReceiptLine};
    use crate::node::config::{Limits, Protocol, Timing};
    use kassa_protocols::ids::TxnId;

    struct Empty;
    impl Disk for Empty {
        fn get(&self, _: Shard, _: &[u8]) -> Option<Bytes> {
            None
        }
        fn scan(&self, _: Shard, _: &[u8], _: Option<&[u8]>, _: usize) -> Vec<(Bytes, Bytes)> {
            Vec::new()
        }
    }

    const HOUR: ShardTime = ShardTime(3_600_000_000);
    const MINUTE_US: u64 = 60_000_000;

    fn shard() -> OrderShard {
        let pods: Vec<PodId> = (0..3).map(PodId).collect();
        let config = Config {
            me: PodId(1),
            pods: pods.clone(),
            disks: BTreeMap::new(),
            replaced: BTreeMap::new(),
            shards: 24,
            replicas: 3,
            payment_pods: 3,
            stock_pods: 3,
            payment: Protocol::Paxos,
            stock: Protocol::Quorum,
            write_quorum: 2,
            commit: super::super::config::Commit::Reserve,
            timing: Timing::default(),
            limits: Limits::default(),
            seed: 1,
        };
        OrderShard::new(ShardNo(7), &config, 0, BTreeMap::new(), pods, &Empty, Time(0))
    }

    #[test]
    fn a_restart_forgets_no_edit_that_a_client_may_repeat() {
        let (id, create, key) = (OrderId::from("07-order"), OpId(1_000), OpId(5));
        // What a peer holds: the order, one addition, and the receipt that covers it.
        let mut set = OrderSet::new(Incarnation(0));
        set.merge(create, order::create(None, &"u".into()).expect("new"), HOUR);
        let (added, _) = add_item(&set, &id, key, &"i".into(), 2, Money::whole(3)).expect("added");
        set.merge(key, added.expect("new"), HOUR);
        let txn = TxnId { shard: ShardNo(7), ballot: Ballot::new(1, 1, PodId(0)), n: 1 };
        let lines = order::checkout_lines(&set, &id).expect("an order");
        let (item, price, stock_shard) = ("i".into(), Money::whole(3), ShardNo(0));
        let line = ReceiptLine { item, incarnation: Incarnation(0), units: 2, price, stock_shard };
        let (total, covered) = (Money::whole(6), lines.covered);
        let receipt = Receipt { txn, generation: None, lines: vec![line], total, covered };
        set.merge(receipt_id(txn), order::Operation::Receipt(receipt), HOUR);
        let items = set.operations().map(|(id, operation)| item_of(Incarnation(0), id, &operation)).collect();

        // It came here as a run of sets, was logged, and the pod starts again. A minute later the payment is
        // cancelled, and the client's addition comes again under its key.
        let mut orders = shard();
        let entity = Bytes::copy_from_slice(id.0.as_bytes());
        let taken = eventual::Record::Taken { from: PodId(0), seq: 1, sets: vec![(entity, items)] };
        orders.recover(1, taken, &Empty);
        orders.follow(ShardTime(HOUR.0 + MINUTE_US), Ballot::ZERO);
        let (_, mut store) = orders.parts(&Empty, &[]);
        let refunded = (Incarnation(0), refund_id(txn), order::Operation::Refunded { txn });
        store.merge_operations(id.0.as_bytes(), [refunded]);
        let set = orders.load(&Empty, &id, None).expect("there");
        let (again, _) = add_item(&set, &id, key, &"i".into(), 2, Money::whole(3)).expect("answered");
        assert_eq!(again, None, "made once");
    }
}
