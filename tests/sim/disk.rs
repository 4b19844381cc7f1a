//! A pod's disk: three stores of a log and tables each, with what a crash may take away.
//!
//! A commit is atomic. One with `sync` makes itself and all before it in its store durable; any other
//! may be lost at a crash, and then so are those after it: a prefix of the commits survives.

use bytes::Bytes;
use kassa::node::Commit;
use kassa_protocols::ids::{Module, Shard};
use kassa_protocols::tables;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::ops::Bound;

type Table = BTreeMap<Bytes, Bytes>;

#[derive(Default)]
pub struct Disk {
    stores: [Store; 3],
    /// A broken sector was met: the preflight at the next start finds it.
    rotten: bool,
}

#[derive(Default)]
struct Store {
    log: BTreeMap<u64, Bytes>,
    /// The highest position ever appended and not lost; a cut does not lower it.
    last: Option<u64>,
    tables: BTreeMap<Shard, Table>,
    /// How to take back each commit that is not durable yet, oldest first.
    undo: Vec<Undo>,
}

#[derive(Default)]
struct Undo {
    appended: Option<u64>,
    last: Option<u64>,
    cut: Vec<(u64, Bytes)>,
    records: Vec<(Shard, Bytes, Option<Bytes>)>,
}

/// How far one commit got when the pod was stopped in the middle of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    Nothing,
    /// In the operating system's buffer.
    Written,
    Durable,
}

/// The stores of a pod, in the order in which a start reads them.
pub const STORES: [Module; 3] = [Module::Order, Module::Stock, Module::Payment];

const fn index(module: Module) -> usize {
    match module {
        Module::Order => 0,
        Module::Stock => 1,
        // The cluster group lives in the payment store.
        Module::Payment | Module::Cluster => 2,
    }
}

impl Disk {
    /// Writes one commit, durably if it asks for that.
    pub fn apply(&mut self, commit: &Commit) {
        self.write(commit);
        if commit.sync {
            self.stores[index(commit.store)].undo.clear();
        }
    }

    /// Leaves a commit where the crash found it.
    pub fn apply_partly(&mut self, commit: &Commit, reached: Reached) {
        match reached {
            Reached::Nothing => {}
            Reached::Written => self.write(commit),
            Reached::Durable => self.apply(commit),
        }
    }

    fn write(&mut self, commit: &Commit) {
        let at = index(commit.store);
        let store = &mut self.stores[at];
        let mut undo = Undo { last: store.last, ..Undo::default() };
        if let Some((position, record)) = &commit.log {
            // A pod that restarts goes on behind its checkpoints, so there may be gaps.
            assert!(
                store.last.is_none_or(|last| last < *position),
                "the log of {} goes back to {position}",
                commit.store
            );
            store.log.insert(*position, record.clone());
            store.last = Some(*position);
            undo.appended = Some(*position);
        }
        for (shard, (key, value)) in &commit.tables {
            assert_eq!(index(shard.module), at, "{shard} is not kept in the {} store", commit.store);
            let table = store.tables.entry(*shard).or_default();
            let old = match value {
                Some(value) => table.insert(key.clone(), value.clone()),
                None => table.remove(key),
            };
            undo.records.push((*shard, key.clone(), old));
        }
        if let Some(below) = commit.cut_below {
            let kept = store.log.split_off(&below);
            undo.cut = std::mem::replace(&mut store.log, kept).into_iter().collect();
        }
        store.undo.push(undo);
    }

    /// Power fails: of the commits that are not durable, some prefix survives in each store.
    pub fn crash(&mut self, rng: &mut ChaCha8Rng) {
        for store in &mut self.stores {
            let kept = rng.random_range(0..=store.undo.len());
            while store.undo.len() > kept {
                let undo = store.undo.pop().expect("more than the kept ones are there");
                store.take_back(undo);
            }
            store.undo.clear();
        }
    }

    pub fn rot(&mut self) {
        self.rotten = true;
    }

    /// What the preflight of a start says.
    pub fn is_whole(&self) -> bool {
        !self.rotten
    }

    /// The log records of a store, oldest first, as a start feeds them back.
    pub fn records(&self, store: Module) -> impl Iterator<Item = (u64, &Bytes)> {
        self.stores[index(store)].log.iter().map(|(position, record)| (*position, record))
    }

    /// How many commits a crash now could take away.
    #[cfg(test)]
    fn undurable(&self, store: Module) -> usize {
        self.stores[index(store)].undo.len()
    }
}

impl Store {
    fn take_back(&mut self, undo: Undo) {
        if let Some(position) = undo.appended {
            self.log.remove(&position);
        }
        self.log.extend(undo.cut);
        self.last = undo.last;
        for (shard, key, old) in undo.records.into_iter().rev() {
            let table = self.tables.entry(shard).or_default();
            match old {
                Some(value) => table.insert(key, value),
                None => table.remove(&key),
            };
        }
    }
}

impl tables::Disk for Disk {
    fn get(&self, shard: Shard, key: &[u8]) -> Option<Bytes> {
        self.stores[index(shard.module)].tables.get(&shard)?.get(key).cloned()
    }

    fn scan(&self, shard: Shard, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<(Bytes, Bytes)> {
        let Some(table) = self.stores[index(shard.module)].tables.get(&shard) else {
            return Vec::new();
        };
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            Some(_) | None => Bound::Included(prefix),
        };
        table
            .range::<[u8], _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kassa_protocols::tables::Disk as _;
    use rand::SeedableRng;

    const ITEM: Shard = Shard::new(Module::Stock, 1);

    fn put(position: u64, key: &'static str, value: &'static str, sync: bool) -> Commit {
        Commit {
            store: Module::Stock,
            log: Some((position, Bytes::from_static(b"r"))),
            tables: vec![(ITEM, (key.into(), Some(value.into())))],
            cut_below: None,
            after_others: false,
            sync,
        }
    }

    #[test]
    fn a_crash_keeps_what_is_durable_and_a_prefix_of_the_rest() {
        let mut seen = [false; 4];
        for seed in 0..64 {
            let mut disk = Disk::default();
            disk.apply(&put(1, "a", "1", true));
            for (position, value) in (2..).zip(["2", "3", "4"]) {
                disk.apply(&put(position, "a", value, false));
            }
            disk.apply(&Commit { cut_below: Some(4), log: None, ..put(0, "b", "x", false) });
            assert_eq!(disk.undurable(Module::Stock), 4);
            assert_eq!(disk.records(Module::Stock).count(), 1);
            disk.crash(&mut ChaCha8Rng::seed_from_u64(seed));
            let value = disk.get(ITEM, b"a").expect("the durable one at least");
            let cut = disk.get(ITEM, b"b").is_some();
            let newest: u64 = std::str::from_utf8(&value).unwrap().parse().unwrap();
            let log: Vec<u64> = disk.records(Module::Stock).map(|(position, _)| position).collect();
            let expected: Vec<u64> = (if cut { 4 } else { 1 }..=newest).collect();
            assert_eq!(log, expected);
            assert!(!cut || newest == 4, "a later commit survives an earlier one");
            seen[usize::try_from(newest).unwrap() - 1] = true;
            disk.apply(&put(newest + 1, "a", "9", true));
        }
        assert_eq!(seen, [true; 4], "some prefix never happened");
    }

    #[test]
    fn a_sync_makes_all_before_it_durable() {
        let mut disk = Disk::default();
        disk.apply(&put(1, "a", "1", false));
        disk.apply(&put(2, "a", "2", true));
        disk.apply_partly(&put(3, "a", "3", true), Reached::Nothing);
        disk.crash(&mut ChaCha8Rng::seed_from_u64(1));
        assert_eq!(disk.get(ITEM, b"a").as_deref(), Some(&b"2"[..]));
    }

    #[test]
    #[should_panic(expected = "goes back to 1")]
    fn a_log_that_goes_back_is_noticed() {
        let mut disk = Disk::default();
        disk.apply(&put(1, "a", "1", true));
        disk.apply(&put(1, "a", "1", true));
    }

    #[test]
    fn scans_a_prefix_in_order() {
        let mut disk = Disk::default();
        for (position, key) in (1..).zip(["b1", "a", "b3", "b2", "c"]) {
            disk.apply(&put(position, key, "v", true));
        }
        let keys = |after: Option<&[u8]>, limit| -> Vec<Bytes> {
            disk.scan(ITEM, b"b", after, limit).into_iter().map(|(key, _)| key).collect()
        };
        assert_eq!(keys(None, 9), ["b1", "b2", "b3"]);
        assert_eq!(keys(Some(b"b1"), 1), ["b2"]);
        assert_eq!(keys(Some(b"a"), 9), ["b1", "b2", "b3"]);
        assert!(keys(Some(b"b3"), 9).is_empty());
    }
}
