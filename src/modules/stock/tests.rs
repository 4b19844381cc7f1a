//! A stock shard's transitions against books of their own, in random order, with a second machine that is
//! made anew from the records before every command: what is not stored is not remembered, so that any
//! replica that takes over judges as the last coordinator did.

use super::*;
use kassa_protocols::ids::{Ballot, Module, PodId, Shard};
use kassa_protocols::tables::{Disk, State};
use kassa_protocols::time::ShardTime;
use proptest::prelude::*;

const NOW: Context = Context { time: ShardTime(1_000), lead: Ballot::ZERO };
const SHARD: Shard = Shard { module: Module::Stock, no: ShardNo(0) };
const ITEMS: [&str; 3] = ["made", "0", "1"];

struct Nothing;

impl Disk for Nothing {
    fn get(&self, _: Shard, _: &[u8]) -> Option<Bytes> {
        None
    }
    fn scan(&self, _: Shard, _: &[u8], _: Option<&[u8]>, _: usize) -> Vec<(Bytes, Bytes)> {
        Vec::new()
    }
}

/// A machine and its records.
struct Replica {
    stock: Stock,
    state: State,
}

impl Replica {
    fn new() -> Self {
        Self { stock: Stock::default(), state: State::new(SHARD, false, None) }
    }
    fn run(&mut self, command: &Command) -> Outcome {
        self.stock.execute(NOW, command, &mut View { state: &mut self.state, disk: &Nothing })
    }
    fn restart(&mut self) {
        self.stock = Stock::default();
        self.stock.rebuild(&View { state: &mut self.state, disk: &Nothing });
    }
    fn item(&mut self, id: &str) -> Option<Item> {
        self.stock.item(&mut View { state: &mut self.state, disk: &Nothing }, &id.into())
    }
}

fn txn(shard: u16, round: u64, n: u64) -> TxnId {
    TxnId { shard: ShardNo(shard), ballot: Ballot::new(1, round, PodId(0)), n }
}

fn any_txn() -> impl Strategy<Value = TxnId> {
    (0_u16..2, 1_u64..3, 1_u64..5).prop_map(|(shard, round, n)| txn(shard, round, n))
}

fn any_command() -> impl Strategy<Value = Command> {
    let item = || (0..ITEMS.len()).prop_map(|i| ItemId::from(ITEMS[i]));
    let lowest = |shard| txn(shard, 0, 0);
    prop_oneof![
        2 => (any::<u128>(), item(), 0_u64..9).prop_map(|(key, item, units)| Command::Add { key: OpId(key), item, units }),
        1 => (any::<u128>(), item(), 0_u64..4).prop_map(|(key, item, units)| Command::Subtract { key: OpId(key), item, units }),
        6 => (any_txn(), prop::collection::btree_map(item(), 1_u64..4, 1..3)).prop_map(move |(txn, lines)| {
            Command::Reserve { txn, lines: lines.into_iter().collect(), watermark: lowest(txn.shard.0) }
        }),
        2 => (any_txn(), prop::collection::btree_map(item(), 1_u64..4, 1..3)).prop_map(move |(txn, lines)| {
            Command::Lock { txn, lines: lines.into_iter().collect(), watermark: lowest(txn.shard.0) }
        }),
        3 => any_txn().prop_map(move |txn| Command::Confirm { txns: vec![txn], watermark: lowest(txn.shard.0) }),
        2 => any_txn().prop_map(move |txn| Command::Release { txns: vec![txn], watermark: lowest(txn.shard.0) }),
        2 => any_txn().prop_map(Command::Watermark),
        1 => (1_u64..5, 0_u64..9).prop_map(|(incarnation, stock)| Command::Load(BatchRecord {
            incarnation: Incarnation(incarnation),
            key: OpId(u128::from(incarnation)),
            seed: 0,
            load: Load::Items { n: 2, stock, price: Money::whole(1) },
        })),
    ]
}

/// What became of a transaction, by the books.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Held(Vec<ReservedLine>),
    Sold(Vec<ReservedLine>),
    /// Dropped because of the watermark: nothing is granted under this id ever again.
    Passed,
}

/// What there has to be of each item, and what became of each transaction.
#[derive(Default)]
struct Books {
    batch: Incarnation,
    /// By item: its incarnation and what can still be sold of it, reserved units included.
    units: BTreeMap<ItemId, (Incarnation, u64)>,
    txns: BTreeMap<TxnId, Fate>,
}

impl Books {
    fn take(&mut self, lines: &[ReservedLine]) {
        for line in lines {
            if let Some((incarnation, units)) = self.units.get_mut(&line.item)
                && *incarnation == line.incarnation
            {
                *units -= line.units;
            }
        }
    }

    fn reserved(&self, item: &ItemId, incarnation: Incarnation) -> u64 {
        let held = |fate: &Fate| match fate {
            Fate::Held(lines) => lines.clone(),
            Fate::Sold(_) | Fate::Passed => Vec::new(),
        };
        let lines = self.txns.values().flat_map(held);
        lines
            .filter(|line| line.item == *item && line.incarnation == incarnation)
            .map(|line| line.units)
            .sum()
    }

    fn note(&mut self, command: &Command, outcome: &Outcome) {
        match (command, outcome) {
            (Command::Add { item, units, .. }, Outcome::Done(_)) => {
                self.units.get_mut(item).expect("an item that is there").1 += units;
            }
            (Command::Subtract { item, units, .. }, Outcome::Done(_)) => {
                self.units.get_mut(item).expect("an item that is there").1 -= units;
            }
            (Command::Load(batch), _) if batch.incarnation > self.batch => {
                self.batch = batch.incarnation;
                let Load::Items { stock, .. } = batch.load else { return };
                for item in &ITEMS[1..] {
                    self.units.insert((*item).into(), (batch.incarnation, stock));
                }
            }
            (Command::Reserve { txn, .. } | Command::Lock { txn, .. }, Outcome::Granted(lines)) => {
                match self.txns.get(txn) {
                    None => {
                        let locked = lines.iter().any(|line| self.reserved(&line.item, line.incarnation) > 0);
                        assert!(
                            !locked || matches!(command, Command::Reserve { .. }),
                            "{txn:?} gets what is locked"
                        );
                        self.txns.insert(*txn, Fate::Held(lines.clone()));
                    }
                    Some(Fate::Held(known) | Fate::Sold(known)) => assert_eq!(known, lines, "granted twice"),
                    Some(Fate::Passed) => panic!("{txn:?} is granted behind the watermark that dropped it"),
                }
            }
            (
                Command::Reserve { txn, lines, .. } | Command::Lock { txn, lines, .. },
                Outcome::Busy | Outcome::OutOfStock(_),
            ) => {
                let exclusive = matches!(command, Command::Lock { .. });
                let short = |(item, units): &(ItemId, u64)| {
                    self.units.get(item).is_some_and(|(incarnation, all)| {
                        let reserved = self.reserved(item, *incarnation);
                        let locked = exclusive && reserved > 0;
                        (locked || all - reserved < *units) && (*outcome == Outcome::Busy || all < units)
                    })
                };
                assert!(lines.iter().any(short), "{txn:?} is refused with enough in stock: {outcome:?}");
            }
            (Command::Confirm { txns, .. }, _) => {
                for txn in txns {
                    if let Some(Fate::Held(lines)) = self.txns.get(txn).cloned() {
                        self.take(&lines);
                        self.txns.insert(*txn, Fate::Sold(lines));
                    }
                }
            }
            (Command::Release { txns, .. }, _) => {
                self.txns.retain(|txn, fate| !txns.contains(txn) || !matches!(fate, Fate::Held(_)));
            }
            (Command::Watermark(watermark), _) => {
                for (txn, fate) in &mut self.txns {
                    if txn.shard == watermark.shard && txn < watermark {
                        *fate = Fate::Passed;
                    }
                }
            }
            _ => {}
        }
    }
}

proptest! {
    #[test]
    fn the_books_add_up_and_a_restarted_replica_judges_alike(
        commands in prop::collection::vec(any_command(), 1..60)
    ) {
        let (mut live, mut restarted, mut books) = (Replica::new(), Replica::new(), Books::default());
        let made = Command::Create { key: OpId(1), item: ITEMS[0].into(), price: Money::whole(1) };
        for replica in [&mut live, &mut restarted] {
            replica.run(&made);
        }
        books.units.insert(ITEMS[0].into(), (Incarnation(0), 0));
        for command in commands {
            let outcome = live.run(&command);
            restarted.restart();
            prop_assert_eq!(&restarted.run(&command), &outcome, "judged otherwise after a restart: {:?}", command);
            books.note(&command, &outcome);
            for id in ITEMS {
                let Some(item) = live.item(id) else { continue };
                prop_assert_eq!(restarted.item(id), Some(item.clone()));
                let (incarnation, units) = books.units[&ItemId::from(id)];
                prop_assert_eq!(item.incarnation, incarnation);
                prop_assert_eq!(item.available + item.reserved, units, "{} after {:?}", id, command);
                prop_assert_eq!(live.stock.held_lines(), restarted.stock.held_lines());
                prop_assert_eq!(item.reserved, books.reserved(&id.into(), incarnation), "{} after {:?}", id, command);
            }
        }
    }
}

/// Two units in stock, and one of them reserved by `txn(0, 1, 1)`.
fn with_one_reserved() -> Replica {
    let mut replica = Replica::new();
    let item = || ItemId::from(ITEMS[0]);
    replica.run(&Command::Create { key: OpId(1), item: item(), price: Money::whole(1) });
    replica.run(&Command::Add { key: OpId(2), item: item(), units: 2 });
    assert!(matches!(replica.run(&reserve()), Outcome::Granted(_)));
    replica
}

fn reserve() -> Command {
    Command::Reserve { txn: txn(0, 1, 1), lines: vec![(ITEMS[0].into(), 1)], watermark: txn(0, 0, 0) }
}

#[test]
fn what_the_watermark_dropped_is_fenced_even_after_a_restart() {
    for sold in [false, true] {
        let mut replica = with_one_reserved();
        if sold {
            replica.run(&Command::Confirm { txns: vec![txn(0, 1, 1)], watermark: txn(0, 1, 1) });
        }
        replica.run(&Command::Watermark(txn(0, 1, 2)));
        replica.restart();
        assert_eq!(replica.run(&reserve()), Outcome::Fenced);
        let left = Item { incarnation: Incarnation(0), price: Money::whole(1), available: 2, reserved: 0 };
        assert_eq!(replica.item(ITEMS[0]), Some(Item { available: 2 - u64::from(sold), ..left }));
    }
}

#[test]
fn a_late_copy_of_what_was_sold_takes_nothing() {
    let mut replica = with_one_reserved();
    let confirm = Command::Confirm { txns: vec![txn(0, 1, 1)], watermark: txn(0, 1, 1) };
    for command in [confirm.clone(), reserve(), confirm, reserve()] {
        replica.run(&command);
        let item = replica.item(ITEMS[0]).expect("it is there");
        assert_eq!((item.available, item.reserved), (1, 0), "after {command:?}");
    }
}

#[test]
fn an_item_with_anything_set_aside_is_locked_to_the_blocking_commit_and_to_no_other() {
    let mut replica = with_one_reserved();
    let lines = || vec![(ITEMS[0].into(), 1)];
    let lock = |n| Command::Lock { txn: txn(0, 1, n), lines: lines(), watermark: txn(0, 0, 0) };
    assert_eq!(replica.run(&lock(2)), Outcome::Busy, "a unit is left, and its item is locked");
    replica.restart();
    assert_eq!(replica.run(&lock(2)), Outcome::Busy, "the lock outlives whoever granted it");
    replica.run(&Command::Confirm { txns: vec![txn(0, 1, 1)], watermark: txn(0, 1, 1) });
    assert!(matches!(replica.run(&lock(2)), Outcome::Granted(_)));
    assert_eq!(replica.run(&lock(3)), Outcome::Busy, "its last unit may come back");
    replica.run(&Command::Confirm { txns: vec![txn(0, 1, 2)], watermark: txn(0, 1, 1) });
    assert_eq!(replica.run(&lock(3)), Outcome::OutOfStock(ITEMS[0].into()));
}
