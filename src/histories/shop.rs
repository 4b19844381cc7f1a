//! What the harness knows of the shop: every entity it has been told of, and every request with its end.

use crate::modules::money::Money;
use crate::modules::request::{ItemId, Op, OrderId, Outcome, UserId};
use kassa_protocols::ids::OpId;

/// Made items cost `1, BASE, BASE², …` times a unit, so that a total tells the units of each item.
pub const BASE: u64 = 64;
/// The items that were made one by one, at most: `BASE`^5 units still fit an amount.
pub const MADE_ITEMS_MAX: usize = 5;

#[derive(Clone, Debug)]
pub struct UserInfo {
    pub id: UserId,
    pub batch: bool,
}

#[derive(Clone, Debug)]
pub struct ItemInfo {
    pub id: ItemId,
    pub batch: bool,
    pub price: Money,
}

#[derive(Clone, Debug)]
pub struct OrderInfo {
    pub id: OrderId,
    /// By number; of a batch order as `find` told.
    pub user: usize,
    pub batch: bool,
    /// Units of each item that were ever asked to be added: no more can be charged.
    pub most: Vec<(usize, u64)>,
    /// Its lines change no more.
    pub sealed: bool,
    /// All of its lines were acknowledged while nothing was broken: no pod may be without them.
    pub sure: bool,
    /// Made anew by a later batch: the id means another order now.
    pub replaced: bool,
    /// The amount that `pay` offers for it.
    pub offer: Option<Money>,
}

/// Whom a request is about, by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    pub user: Option<usize>,
    pub item: Option<usize>,
    pub order: Option<usize>,
    /// It touches what a batch made.
    pub batch: bool,
}

/// One request from its first sending to its end, whatever number of times it was sent.
#[derive(Clone, Debug)]
pub struct Record {
    pub client: usize,
    pub op: Op,
    pub target: Target,
    pub key: usize,
    pub call_us: u64,
    pub ret_us: Option<u64>,
    pub outcome: Option<Outcome>,
    pub attempts: u32,
    /// Nothing was broken from shortly before the call up to the end.
    pub calm: bool,
    /// No pod was behind: what a read shows is not what an overwritten order was.
    pub connected: bool,
    /// The record whose effect this one repeats, by key.
    pub repeats: Option<usize>,
    /// One of the reads at the very end, when all is quiet.
    pub last: bool,
}

/// An idempotency key and the request it belongs to.
#[derive(Clone, Debug)]
pub struct Key {
    pub id: OpId,
    pub op: Op,
    pub target: Target,
    /// The record under which it took effect.
    pub done: Option<usize>,
    pub busy: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Shop {
    pub users: Vec<UserInfo>,
    pub items: Vec<ItemInfo>,
    pub orders: Vec<OrderInfo>,
    pub history: Vec<Record>,
    pub keys: Vec<Key>,
    /// Orders of a batch stood under its ids before this shop was: a pod that was cut off may show them.
    pub batch_before: bool,
    /// A disk is gone for good: what it alone had acknowledged, with no majority in reach, may be too.
    pub disk_lost: bool,
}

impl Shop {
    pub fn user_named(&self, id: &UserId) -> Option<usize> {
        self.users.iter().position(|user| user.id == *id)
    }

    pub fn item_named(&self, id: &ItemId) -> Option<usize> {
        self.items.iter().position(|item| item.id == *id)
    }

    /// The most that an order can cost.
    pub fn most_total(&self, order: usize) -> Money {
        let cost = |&(item, units): &(usize, u64)| self.items[item].price.checked_mul(units);
        self.orders[order]
            .most
            .iter()
            .filter_map(cost)
            .fold(Money::ZERO, |sum, cost| sum.checked_add(cost).expect("a few small prices"))
    }

    pub fn most_units(&self, order: usize, item: usize) -> u64 {
        self.orders[order].most.iter().find(|(of, _)| *of == item).map_or(0, |(_, units)| *units)
    }

    /// The lines behind a total. Of a batch order they are fixed; else the prices tell them.
    pub fn lines(&self, order: usize, total: Money) -> Option<Vec<(usize, u64)>> {
        let info = &self.orders[order];
        if info.batch {
            return (self.most_total(order) == total).then(|| info.most.clone());
        }
        let mut made: Vec<usize> = (0..self.items.len()).filter(|&item| !self.items[item].batch).collect();
        made.sort_by_key(|&item| std::cmp::Reverse(self.items[item].price));
        let mut left = total;
        let mut lines = Vec::new();
        for item in made {
            let mut units = 0;
            while let Some(rest) = left.checked_sub(self.items[item].price) {
                units += 1;
                left = rest;
                if units >= BASE {
                    return None;
                }
            }
            if units > 0 {
                lines.push((item, units));
            }
        }
        (left == Money::ZERO).then_some(lines)
    }
}
