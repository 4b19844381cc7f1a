//! Stock: items, and the units set aside for checkouts in flight.
//!
//! A reservation is never a lock: reserved units leave `available` at once and others carry on with the
//! rest. (In the blocking commit it is one: others wait until the item has no unit set aside.) It is granted for all of its lines or none. Below a payment shard's watermark nothing can be
//! charged any more, so that a reservation still held there was aborted and is released, and one that
//! was sold need not be remembered. Reservations name the incarnation of each item: a batch over an item
//! makes their effect on it nil.

use super::batch::{BatchRecord, Load, newest_covering};
use super::keys;
use super::machine::{Context, Machine, decode, encode};
use super::money::Money;
use super::request::{Answer, ItemId, Refusal, UNITS_MAX};
use bytes::{BufMut, Bytes, BytesMut};
use kassa_protocols::breaks;
use kassa_protocols::ids::{Incarnation, OpId, ShardNo, TxnId};
use kassa_protocols::tables::View;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

const ITEMS: u8 = b'i';
const RESERVATIONS: u8 = b'r';
const WATERMARKS: u8 = b'w';
pub const BATCHES: u8 = b'b';

/// One item. `available + reserved` obeys the bound of stock, so that a release always fits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    pub incarnation: Incarnation,
    pub price: Money,
    pub available: u64,
    pub reserved: u64,
}

impl Item {
    /// Whether so many units can be set aside now. In the blocking commit every checkout that has some of the item
    /// set aside has locked it: an `exclusive` one waits for that, even if units are left.
    #[must_use]
    pub fn covers(&self, units: u64, exclusive: bool) -> bool {
        let locked = exclusive && self.reserved > 0 && !breaks::is("item-not-locked");
        self.available >= units && !locked
    }
}

/// Units of one item, set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservedLine {
    pub item: ItemId,
    pub incarnation: Incarnation,
    pub units: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Reservation {
    /// Sold: confirmed, and remembered until the watermark passes it, so that a late duplicate of its
    /// `Reserve` never takes units twice.
    sold: bool,
    lines: Vec<ReservedLine>,
}

/// A command to one stock shard. Every message of a payment shard carries its watermark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    Create {
        key: OpId,
        item: ItemId,
        price: Money,
    },
    Add {
        key: OpId,
        item: ItemId,
        units: u64,
    },
    Subtract {
        key: OpId,
        item: ItemId,
        units: u64,
    },
    Load(BatchRecord),
    Reserve {
        txn: TxnId,
        lines: Vec<(ItemId, u64)>,
        watermark: TxnId,
    },
    Confirm {
        txns: Vec<TxnId>,
        watermark: TxnId,
    },
    Release {
        txns: Vec<TxnId>,
        watermark: TxnId,
    },
    Watermark(TxnId),
    /// A read.
    Find {
        item: ItemId,
    },
    /// Changes and tells nothing: what waits for it knows that its leader still leads.
    Nothing,
    /// A `Reserve` of the blocking commit: what it sets aside is locked.
    Lock {
        txn: TxnId,
        lines: Vec<(ItemId, u64)>,
        watermark: TxnId,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Done(Answer),
    Refused(Refusal),
    /// All lines are set aside.
    Granted(Vec<ReservedLine>),
    /// Cannot be covered even if every checkout in flight aborts.
    OutOfStock(ItemId),
    /// Cannot be covered now, but may once units come back.
    Busy,
    /// Below its payment shard's watermark: its coordinator is deposed.
    Fenced,
    Acknowledged,
}

/// The transition function of a stock shard.
#[derive(Debug, Default)]
pub struct Stock {
    batches: Vec<BatchRecord>,
    open: BTreeMap<TxnId, Reservation>,
    watermarks: BTreeMap<ShardNo, TxnId>,
    /// Of reservations still held: in the blocking commit, items that are locked.
    held_lines: usize,
}

/// Where an item's own record is.
#[must_use]
pub fn item_key(item: &ItemId) -> Bytes {
    let mut key = BytesMut::with_capacity(1 + item.0.len());
    key.put_u8(ITEMS);
    key.put_slice(item.0.as_bytes());
    key.freeze()
}

/// A transaction id as the bytes of a key: ordered as the ids are.
pub(super) fn txn_key(table: u8, txn: TxnId) -> Bytes {
    let mut key = BytesMut::with_capacity(24);
    key.put_u8(table);
    key.put_u16(txn.shard.0);
    key.put_u32(txn.ballot.epoch);
    key.put_u64(txn.ballot.round);
    key.put_u8(txn.ballot.pod);
    key.put_u64(txn.n);
    key.freeze()
}

/// Where the record of a batch is.
#[must_use]
pub fn batch_key(incarnation: Incarnation) -> Bytes {
    let mut key = BytesMut::with_capacity(9);
    key.put_u8(BATCHES);
    key.put_u64(incarnation.0);
    key.freeze()
}

/// An item of whose id `batch` is the newest that covers it: its own record unless that is older.
#[must_use]
pub fn load(own: Option<Item>, batch: Option<&BatchRecord>) -> Option<Item> {
    match (own, batch) {
        (Some(own), Some(batch)) if own.incarnation >= batch.incarnation => Some(own),
        (_, Some(batch)) => match batch.load {
            Load::Items { stock, price, .. } => {
                Some(Item { incarnation: batch.incarnation, price, available: stock, reserved: 0 })
            }
            Load::Orders { .. } | Load::Users { .. } => {
                unreachable!("a stock shard logs batches of items only")
            }
        },
        (own, None) => own,
    }
}

impl Stock {
    /// The item as this shard knows it: its own record unless a newer batch covers the id.
    pub fn item(&self, view: &mut View<'_>, item: &ItemId) -> Option<Item> {
        let own: Option<Item> = view.get(&item_key(item)).map(|stored| decode(&stored));
        let batch = item.index().and_then(|index| newest_covering(&self.batches, index));
        load(own, batch)
    }

    /// Whether the batch, or one that wholly covers it, is in this shard's own log.
    #[must_use]
    pub fn has_batch(&self, batch: &BatchRecord) -> bool {
        self.batches.iter().any(|known| known.stands_for(batch))
    }

    /// The reservations still held, oldest first, with the items they hold.
    pub fn held(&self) -> impl Iterator<Item = (TxnId, impl Iterator<Item = &ItemId>)> {
        self.open
            .iter()
            .filter(|(_, reservation)| !reservation.sold)
            .map(|(txn, reservation)| (*txn, reservation.lines.iter().map(|line| &line.item)))
    }

    /// Reservations remembered, held or sold.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Lines of reservations still held.
    #[must_use]
    pub const fn held_lines(&self) -> usize {
        self.held_lines
    }

    #[must_use]
    pub fn is_held(&self, txn: TxnId) -> bool {
        self.open.get(&txn).is_some_and(|reservation| !reservation.sold)
    }

    fn save(view: &mut View<'_>, id: &ItemId, item: &Item) {
        assert!(item.available + item.reserved <= UNITS_MAX, "the bound of stock holds");
        view.set(item_key(id), encode(item));
    }

    fn create(&self, view: &mut View<'_>, item: &ItemId, price: Money) -> Outcome {
        if self.item(view, item).is_none() {
            let new = Item { incarnation: Incarnation(0), price, available: 0, reserved: 0 };
            Self::save(view, item, &new);
        }
        Outcome::Done(Answer::ItemCreated { item: item.clone() })
    }

    fn change(
        &self,
        context: Context,
        view: &mut View<'_>,
        key: OpId,
        id: &ItemId,
        units: u64,
        add: bool,
    ) -> Outcome {
        let Some(mut item) = self.item(view, id) else {
            return Outcome::Refused(Refusal::ItemNotFound(id.clone()));
        };
        if let Some(answer) = keys::find(view, context.time, key, item.incarnation) {
            return Outcome::Done(answer);
        }
        if add {
            let room = UNITS_MAX - item.available - item.reserved;
            if units > room {
                let text = format!(
                    "adding {units} would bring the stock above {UNITS_MAX}; at most {room} can be added"
                );
                return Outcome::Refused(Refusal::BadAmount(text));
            }
            item.available += units;
        } else {
            if units > item.available {
                return Outcome::Refused(Refusal::OutOfStock(id.clone()));
            }
            item.available -= units;
        }
        let answer = Answer::Stock { item: id.clone(), stock: item.available };
        Self::save(view, id, &item);
        keys::remember(view, context.time, key, item.incarnation, &answer);
        Outcome::Done(answer)
    }

    fn load(&mut self, view: &mut View<'_>, batch: &BatchRecord) -> Outcome {
        if !self.has_batch(batch) {
            for covered in super::batch::insert_and_prune(&mut self.batches, batch.clone()) {
                view.delete(batch_key(covered));
            }
            view.set(batch_key(batch.incarnation), encode(batch));
        }
        Outcome::Acknowledged
    }

    fn reserve(
        &mut self,
        view: &mut View<'_>,
        txn: TxnId,
        lines: &[(ItemId, u64)],
        exclusive: bool,
    ) -> Outcome {
        if let Some(reservation) = self.open.get(&txn) {
            return Outcome::Granted(reservation.lines.clone());
        }
        let fenced = self.watermarks.get(&txn.shard).is_some_and(|watermark| txn < *watermark);
        if fenced && !breaks::is("reserve-below-watermark") {
            return Outcome::Fenced;
        }
        let mut items = Vec::with_capacity(lines.len());
        let mut busy = false;
        for (id, units) in lines {
            let Some(item) = self.item(view, id) else {
                return Outcome::Refused(Refusal::ItemNotFound(id.clone()));
            };
            if item.available + item.reserved < *units {
                return Outcome::OutOfStock(id.clone());
            }
            busy |= !item.covers(*units, exclusive);
            items.push(item);
        }
        if busy {
            return Outcome::Busy;
        }
        let reserved: Vec<ReservedLine> = lines
            .iter()
            .zip(items)
            .map(|((id, units), mut item)| {
                item.available -= units;
                item.reserved += units;
                // Of one in a thousand transactions, whichever replica evaluates it.
                let hits = || xxh3_64(&txn_key(RESERVATIONS, txn)).is_multiple_of(1_000);
                if breaks::is("lost-unit") && item.available > 0 && hits() {
                    item.available -= 1;
                }
                Self::save(view, id, &item);
                ReservedLine { item: id.clone(), incarnation: item.incarnation, units: *units }
            })
            .collect();
        self.held_lines += reserved.len();
        let reservation = Reservation { sold: false, lines: reserved.clone() };
        view.set(txn_key(RESERVATIONS, txn), encode(&reservation));
        self.open.insert(txn, reservation);
        Outcome::Granted(reserved)
    }

    /// Takes the units of a held reservation out of `reserved`; `back` puts them on sale again.
    fn resolve(&mut self, view: &mut View<'_>, lines: &[ReservedLine], back: bool) {
        self.held_lines = self.held_lines.saturating_sub(lines.len());
        for line in lines {
            let Some(mut item) = self.item(view, &line.item) else { continue };
            if item.incarnation != line.incarnation && !breaks::is("older-incarnation-counts") {
                continue;
            }
            item.reserved =
                item.reserved.checked_sub(line.units).expect("a held reservation's units are reserved");
            if back {
                item.available += line.units;
            }
            Self::save(view, &line.item, &item);
        }
    }

    fn confirm(&mut self, view: &mut View<'_>, txns: &[TxnId]) {
        for txn in txns {
            let Some(mut reservation) = self.open.remove(txn) else { continue };
            if !reservation.sold || breaks::is("confirmed-twice") {
                reservation.sold = true;
                self.resolve(view, &reservation.lines, false);
                view.set(txn_key(RESERVATIONS, *txn), encode(&reservation));
            }
            self.open.insert(*txn, reservation);
        }
    }

    fn release(&mut self, view: &mut View<'_>, txn: TxnId) {
        let Some(reservation) = self.open.get(&txn) else { return };
        if reservation.sold && !breaks::is("cancel-gives-back") {
            return;
        }
        let reservation = self.open.remove(&txn).expect("just found");
        self.resolve(view, &reservation.lines, true);
        view.delete(txn_key(RESERVATIONS, txn));
    }

    /// Nothing of the payment shard below `watermark` can be charged any more.
    fn raise(&mut self, view: &mut View<'_>, watermark: TxnId) {
        if self.watermarks.get(&watermark.shard).is_some_and(|known| *known >= watermark) {
            return;
        }
        let lowest = TxnId { ballot: kassa_protocols::ids::Ballot::ZERO, n: 0, ..watermark };
        let passed: Vec<TxnId> = self.open.range(lowest..watermark).map(|(txn, _)| *txn).collect();
        if passed.is_empty() {
            // What is not stored must not be remembered: replicas would judge differently after a restart.
            return;
        }
        self.watermarks.insert(watermark.shard, watermark);
        for txn in passed {
            let reservation = self.open.remove(&txn).expect("just listed");
            if !reservation.sold {
                self.resolve(view, &reservation.lines, true);
            }
            view.delete(txn_key(RESERVATIONS, txn));
        }
        let mut key = BytesMut::with_capacity(3);
        key.put_u8(WATERMARKS);
        key.put_u16(watermark.shard.0);
        if !breaks::is("watermark-volatile") {
            view.set(key.freeze(), encode(&watermark));
        }
    }
}

impl Machine for Stock {
    type Command = Command;
    type Outcome = Outcome;

    fn execute(&mut self, context: Context, command: &Command, view: &mut View<'_>) -> Outcome {
        match command {
            Command::Create { key: _, item, price } => self.create(view, item, *price),
            Command::Add { key, item, units } => self.change(context, view, *key, item, *units, true),
            Command::Subtract { key, item, units } => self.change(context, view, *key, item, *units, false),
            Command::Load(batch) => self.load(view, batch),
            Command::Reserve { txn, lines, watermark } => {
                self.raise(view, *watermark);
                self.reserve(view, *txn, lines, false)
            }
            Command::Confirm { txns, watermark } => {
                self.confirm(view, txns);
                self.raise(view, *watermark);
                Outcome::Acknowledged
            }
            Command::Release { txns, watermark } => {
                for txn in txns {
                    self.release(view, *txn);
                }
                self.raise(view, *watermark);
                Outcome::Acknowledged
            }
            Command::Watermark(watermark) => {
                self.raise(view, *watermark);
                Outcome::Acknowledged
            }
            Command::Find { item: id } => match self.item(view, id) {
                Some(item) => {
                    Outcome::Done(Answer::Item { item: id.clone(), stock: item.available, price: item.price })
                }
                None => Outcome::Refused(Refusal::ItemNotFound(id.clone())),
            },
            Command::Nothing => Outcome::Acknowledged,
            Command::Lock { txn, lines, watermark } => {
                self.raise(view, *watermark);
                self.reserve(view, *txn, lines, true)
            }
        }
    }

    fn rebuild(&mut self, view: &View<'_>) {
        self.batches = view.scan(&[BATCHES]).into_iter().map(|(_, stored)| decode(&stored)).collect();
        self.open = view
            .scan(&[RESERVATIONS])
            .into_iter()
            .map(|(key, stored)| (txn_from_key(&key), decode(&stored)))
            .collect();
        let held = self.open.values().filter(|reservation| !reservation.sold);
        self.held_lines = held.map(|reservation| reservation.lines.len()).sum();
        self.watermarks = view
            .scan(&[WATERMARKS])
            .into_iter()
            .map(|(_, stored)| decode::<TxnId>(&stored))
            .map(|watermark| (watermark.shard, watermark))
            .collect();
    }
}

pub(super) fn txn_from_key(mut key: &[u8]) -> TxnId {
    use bytes::Buf;
    assert_eq!(key.len(), 24, "a transaction's key has a table, shard, ballot and number");
    key.advance(1);
    let shard = ShardNo(key.get_u16());
    let (epoch, round, pod) = (key.get_u32(), key.get_u64(), key.get_u8());
    TxnId { shard, ballot: kassa_protocols::ids::Ballot { epoch, round, pod }, n: key.get_u64() }
}

#[cfg(test)]
mod tests;
