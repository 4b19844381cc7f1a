//! A stock shard: its records, and the product's transitions on them.
//!
//! The shard is one log that is durable and linearizable, as the models of `paxos` and `quorum` show of it:
//! a command takes effect at once or never. A takeover then loses what is in memory, and so nothing: before
//! each command the machine is made anew from the records.

use super::{Fate, Message, TILL};
use bytes::Bytes;
use kassa::modules::machine::{Context, Machine};
use kassa::modules::money::Money;
use kassa::modules::request::ItemId;
use kassa::modules::stock::{Command, Outcome, Stock};
use kassa_protocols::commit::coordinator::Vote;
use kassa_protocols::ids::{Ballot, Module, OpId, Shard, ShardNo, TxnId};
use kassa_protocols::tables::{Disk, State, View};
use kassa_protocols::time::ShardTime;
use std::collections::BTreeMap;

pub type Records = BTreeMap<Bytes, Bytes>;

struct OnDisk<'a>(&'a Records);

impl Disk for OnDisk<'_> {
    fn get(&self, _: Shard, key: &[u8]) -> Option<Bytes> {
        self.0.get(key).cloned()
    }
    fn scan(&self, _: Shard, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<(Bytes, Bytes)> {
        let all = self.0.iter().filter(|(key, _)| key.starts_with(prefix));
        let rest = all.filter(|(key, _)| after.is_none_or(|after| &key[..] > after));
        rest.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

/// Runs something on a machine made of the records, and keeps what it changes.
pub fn on<M: Machine, T>(
    module: Module,
    no: ShardNo,
    records: &mut Records,
    run: impl FnOnce(&mut M, &mut View<'_>) -> T,
) -> T {
    let mut state = State::new(Shard { module, no }, false, None);
    let disk = OnDisk(records);
    let mut machine = M::default();
    let mut view = View { state: &mut state, disk: &disk };
    machine.rebuild(&view);
    let result = run(&mut machine, &mut view);
    for (key, value) in state.checkpoint(None) {
        match value {
            Some(value) => drop(records.insert(key, value)),
            None => drop(records.remove(&key)),
        }
    }
    result
}

#[derive(Clone, Hash)]
pub struct Shelf {
    pub no: ShardNo,
    pub records: Records,
}

/// The one item of a shelf.
pub fn item(no: ShardNo) -> ItemId {
    format!("item-{}", no.0).as_str().into()
}

impl Shelf {
    pub fn new(no: ShardNo, units: u64) -> Self {
        let mut shelf = Self { no, records: Records::new() };
        shelf.run(&Command::Create { key: OpId(1), item: item(no), price: Money::whole(1) });
        shelf.run(&Command::Add { key: OpId(2), item: item(no), units });
        shelf
    }

    fn run(&mut self, command: &Command) -> Outcome {
        let context = Context { time: ShardTime(0), lead: Ballot::ZERO };
        on(Module::Stock, self.no, &mut self.records, |stock: &mut Stock, view| {
            let outcome = stock.execute(context, command, view);
            let mut again = Stock::default();
            again.rebuild(view);
            assert_eq!(format!("{stock:?}"), format!("{again:?}"), "judged otherwise after a restart");
            outcome
        })
    }

    /// How many units are on sale, how many set aside.
    pub fn units(&self) -> (u64, u64) {
        let mut records = self.records.clone();
        on(Module::Stock, self.no, &mut records, |stock: &mut Stock, view| {
            let item = stock.item(view, &item(self.no)).expect("created");
            (item.available, item.reserved)
        })
    }

    /// The reservations that are held, and how many are remembered in all.
    pub fn held(&self) -> (Vec<TxnId>, usize) {
        let mut records = self.records.clone();
        on(Module::Stock, self.no, &mut records, |stock: &mut Stock, _| {
            (stock.held().map(|(txn, _)| txn).collect(), stock.open())
        })
    }

    pub fn deliver(&mut self, message: &Message) -> Vec<Message> {
        let (shard, lowest) = (self.no, |txn: TxnId| TxnId { ballot: Ballot::ZERO, n: 0, ..txn });
        match message {
            Message::Reserve { txn, units, watermark } => {
                let lines = vec![(item(shard), *units)];
                let outcome = self.run(&Command::Reserve { txn: *txn, lines, watermark: *watermark });
                let vote = match outcome {
                    Outcome::Granted(lines) => Vote::Granted(lines.iter().map(|line| line.units).sum()),
                    Outcome::Busy => Vote::Busy,
                    Outcome::OutOfStock(_) => Vote::Refused(()),
                    Outcome::Fenced => Vote::Fenced,
                    Outcome::Done(_) | Outcome::Refused(_) | Outcome::Acknowledged => {
                        panic!("a reserve is granted or not: {outcome:?}")
                    }
                };
                vec![Message::Vote { shard, txn: *txn, vote }]
            }
            Message::Confirm { txn, watermark } => {
                self.run(&Command::Confirm { txns: vec![*txn], watermark: *watermark });
                vec![Message::Resolved { shard, txn: *txn }]
            }
            Message::Release { txn, watermark } => {
                self.run(&Command::Release { txns: vec![*txn], watermark: *watermark });
                vec![Message::Resolved { shard, txn: *txn }]
            }
            Message::Watermark(watermark) => {
                self.run(&Command::Watermark(*watermark));
                Vec::new()
            }
            Message::Fate { txn, fate } => {
                match fate {
                    Fate::Charged => {
                        self.run(&Command::Confirm { txns: vec![*txn], watermark: lowest(*txn) });
                    }
                    Fate::Aborted => {
                        self.run(&Command::Release { txns: vec![*txn], watermark: lowest(*txn) });
                    }
                }
                Vec::new()
            }
            Message::Vote { .. } | Message::Resolved { .. } | Message::Doubt { .. } => Vec::new(),
        }
    }

    /// It asks what became of what it holds.
    pub fn doubts(&self) -> Vec<(u8, Message)> {
        let doubt = |txn| (TILL, Message::Doubt { shard: self.no, txn });
        self.held().0.into_iter().map(doubt).collect()
    }
}
