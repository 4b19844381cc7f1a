//! Batches: up to a million entities under the ids "0" … "n-1" as one record.
//!
//! A `batch_init` is logged once; what it says of an id is a pure function of the record and the id, so
//! an entity of a batch costs storage from its first change on. A batch overwrites what stands under its
//! ids: an entity's own record counts only if it is not older than the newest batch that covers the id.

use super::money::Money;
use kassa_protocols::ids::{Incarnation, OpId};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// One `batch_init`, as logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchRecord {
    /// Its index in the cluster group's log: later batches have higher ones.
    pub incarnation: Incarnation,
    pub key: OpId,
    pub seed: u64,
    pub load: Load,
}

/// What is loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Load {
    Orders { n: u64, n_items: u64, n_users: u64, item_price: Money },
    Items { n: u64, stock: u64, price: Money },
    Users { n: u64, credit: Money },
}

impl Load {
    /// How many entities it makes.
    #[must_use]
    pub const fn n(&self) -> u64 {
        match self {
            Self::Orders { n, .. } | Self::Items { n, .. } | Self::Users { n, .. } => *n,
        }
    }
}

impl BatchRecord {
    /// Whether it makes the entity of this index.
    #[must_use]
    pub const fn covers(&self, index: u64) -> bool {
        index < self.load.n()
    }

    /// Whether whoever has logged this one need not know `other`: it is the same one, or overwrites all
    /// of it.
    #[must_use]
    pub fn stands_for(&self, other: &Self) -> bool {
        let same_kind = std::mem::discriminant(&self.load) == std::mem::discriminant(&other.load);
        self.incarnation == other.incarnation
            || (same_kind && self.incarnation > other.incarnation && self.load.n() >= other.load.n())
    }

    /// The user and the two items of order `i`, as indexes; the same item twice is a quantity of two.
    /// `None` if this is not a batch of orders, or not one with this order.
    #[must_use]
    pub fn order(&self, i: u64) -> Option<(u64, [u64; 2])> {
        match &self.load {
            Load::Orders { n_items, n_users, .. } if self.covers(i) => Some((
                self.draw(i, 0).checked_rem(*n_users)?,
                [self.draw(i, 1).checked_rem(*n_items)?, self.draw(i, 2).checked_rem(*n_items)?],
            )),
            Load::Orders { .. } | Load::Items { .. } | Load::Users { .. } => None,
        }
    }

    /// The `k`-th random number of order `i`: the same on every pod and at any time.
    fn draw(&self, i: u64, k: u8) -> u64 {
        let mut input = [0; 9];
        input[..8].copy_from_slice(&i.to_be_bytes());
        input[8] = k;
        xxh3_64_with_seed(&input, self.seed)
    }
}

/// The newest of `batches`, all of one kind, that covers `index`.
#[must_use]
pub fn newest_covering(batches: &[BatchRecord], index: u64) -> Option<&BatchRecord> {
    batches.iter().filter(|batch| batch.covers(index)).max_by_key(|batch| batch.incarnation)
}

/// Adds `batch` to the known ones of its kind, in order of incarnation, and drops those that it or newer
/// ones wholly cover; their incarnations.
pub fn insert_and_prune(batches: &mut Vec<BatchRecord>, batch: BatchRecord) -> Vec<Incarnation> {
    let at = batches.partition_point(|known| known.incarnation < batch.incarnation);
    if batches.get(at).is_none_or(|known| known.incarnation != batch.incarnation) {
        batches.insert(at, batch);
    }
    let mut dropped = Vec::new();
    let mut covered_below = 0;
    for i in (0..batches.len()).rev() {
        let n = batches[i].load.n();
        if n <= covered_below {
            dropped.push(batches.remove(i).incarnation);
        }
        covered_below = covered_below.max(n);
    }
    dropped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders(incarnation: u64, n: u64) -> BatchRecord {
        let load = Load::Orders { n, n_items: 10, n_users: 7, item_price: Money::whole(5) };
        BatchRecord { incarnation: Incarnation(incarnation), key: OpId(1), seed: incarnation * 77, load }
    }

    #[test]
    fn an_order_is_a_function_of_record_and_index() {
        let batch = orders(3, 1_000);
        let mut users = [0; 7];
        let mut items = [0; 10];
        let mut doubles = 0;
        for i in 0..1_000 {
            let (user, [a, b]) = batch.order(i).expect("covered");
            assert_eq!(batch.order(i), batch.clone().order(i));
            users[usize::try_from(user).unwrap()] += 1;
            items[usize::try_from(a).unwrap()] += 1;
            items[usize::try_from(b).unwrap()] += 1;
            doubles += u32::from(a == b);
        }
        assert!(users.iter().all(|n| (90..200).contains(n)), "{users:?}");
        assert!(items.iter().all(|n| (140..260).contains(n)), "{items:?}");
        assert!((60..150).contains(&doubles), "{doubles}");
        assert_eq!(batch.order(1_000), None);
        let other: Vec<_> = (0..20).map(|i| orders(4, 1_000).order(i)).collect();
        assert_ne!(other, (0..20).map(|i| batch.order(i)).collect::<Vec<_>>(), "the seed matters");
    }

    #[test]
    fn newer_batches_overwrite_and_replace_those_they_cover() {
        let mut known = Vec::new();
        assert_eq!(insert_and_prune(&mut known, orders(1, 100)), []);
        assert_eq!(insert_and_prune(&mut known, orders(2, 10)), []);
        assert_eq!(newest_covering(&known, 9).map(|b| b.incarnation), Some(Incarnation(2)));
        assert_eq!(newest_covering(&known, 10).map(|b| b.incarnation), Some(Incarnation(1)));
        assert_eq!(newest_covering(&known, 100), None);
        assert_eq!(insert_and_prune(&mut known, orders(3, 10)), [Incarnation(2)]);
        assert!(known[1].stands_for(&orders(2, 10)));
        assert!(!known[1].stands_for(&orders(1, 100)));
        assert!(!known[0].stands_for(&orders(3, 10)), "an older one never stands for a newer");
        assert_eq!(insert_and_prune(&mut known, orders(4, 100)), [Incarnation(3), Incarnation(1)]);
        assert_eq!(insert_and_prune(&mut known, orders(2, 50)), [Incarnation(2)], "late and covered");
        assert_eq!(known.len(), 1);
    }
}
