//! Walks: reading all committed records of a shard a page at a time, while the shard goes on.
//!
//! A copy of a shard must be of one committed state, and a shard may be larger than what memory or a
//! link can hold at once. So the records are read in key order, each page as it is when it is read; a
//! record that is committed anew behind the reader is noted; and [`State::end_walk`] gives those that
//! were, as they are then, all at one moment. Pages with that put over them are the state of that
//! moment: what the end does not give has not changed since its page was read. (Databases do the same in
//! fuzzy checkpoints; Hagmann, 1986.) Nothing is held back meanwhile, and what is kept is no more than
//! keys. The moment is the walk's last, so the log has to reach back to the end of a copy only.

use super::{Change, Disk, State};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Records read from the tables for one page at the most: a millisecond or two of the event loop.
const PAGE_RECORDS_MAX: usize = 512;
/// Records changed behind a reader at the most: their keys are kept, and their values at the end. More
/// is a copy that is slower than the shard changes, and would come too late.
const CHANGED_MAX: usize = 1 << 20;

/// One reader's place.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Up to where it has read; all keys, once it is at the end.
    upto: Bytes,
    at_end: bool,
    changed: BTreeSet<Bytes>,
}

impl Walk {
    pub fn note(&mut self, key: &Bytes) {
        if (self.at_end || *key <= self.upto) && !self.changed.contains(key) {
            self.changed.insert(key.clone());
        }
    }
}

/// Some records, in key order.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    pub records: Vec<(Bytes, Bytes)>,
    /// No key is behind these.
    pub at_end: bool,
}

impl State {
    /// Begins to read all committed records, under a number that no other walk of this shard has.
    pub fn begin_walk(&mut self, walk: u64) {
        self.walks.insert(walk, Walk::default());
    }

    /// The next records, as stored, of about `bytes_max`; a page may be empty and not the last.
    /// `None` if the walk has been dropped: the state was replaced under it, or too much has changed.
    pub fn walk_page(&mut self, walk: u64, disk: &dyn Disk, bytes_max: usize) -> Option<Page> {
        let place = self.walks.get(&walk)?;
        if place.changed.len() > CHANGED_MAX {
            self.walks.remove(&walk);
            return None;
        }
        let (page, upto) = self.page(disk, &place.upto, bytes_max);
        let place = self.walks.get_mut(&walk)?;
        place.upto = upto;
        place.at_end |= page.at_end;
        Some(page)
    }

    /// Ends a walk that has read all: what was committed anew since it was read, as it is now; `None`
    /// where there is nothing any more.
    pub fn end_walk(&mut self, walk: u64, disk: &dyn Disk) -> Option<Vec<Change>> {
        let place = self.walks.remove(&walk).filter(|place| place.at_end)?;
        let stored = |key: &Bytes| match self.slots.get(key) {
            Some(slot) => slot.stored.clone(),
            None => disk.get(self.shard, key),
        };
        Some(place.changed.iter().map(|key| (key.clone(), stored(key))).collect())
    }

    /// Forgets a walk that is not to be ended.
    pub fn drop_walk(&mut self, walk: u64) {
        self.walks.remove(&walk);
    }

    /// Committed records behind `after`: the tables, with what is newer in memory put over them; and
    /// up to where they reach.
    fn page(&self, disk: &dyn Disk, after: &Bytes, bytes_max: usize) -> (Page, Bytes) {
        let stored = disk.scan(self.shard, &[], Some(after), PAGE_RECORDS_MAX);
        let more = stored.len() == PAGE_RECORDS_MAX;
        let upto = stored.last().filter(|_| more).map(|(key, _)| key.clone());
        let mut found: BTreeMap<Bytes, Option<Bytes>> =
            stored.into_iter().map(|(key, value)| (key, Some(value))).collect();
        #[expect(clippy::iter_over_hash_type, reason = "into a map in order of key")]
        for (key, slot) in &self.slots {
            if slot.dirty && key > after && upto.as_ref().is_none_or(|upto| key <= upto) {
                found.insert(key.clone(), slot.stored.clone());
            }
        }
        let mut records: Vec<(Bytes, Bytes)> = Vec::new();
        let mut bytes = 0;
        for (key, value) in found.into_iter().filter_map(|(key, value)| Some((key, value?))) {
            if bytes >= bytes_max
                && let Some((last, _)) = records.last()
            {
                let last = last.clone();
                return (Page { records, at_end: false }, last);
            }
            bytes += key.len() + value.len();
            records.push((key, value));
        }
        let last = upto.or_else(|| records.last().map(|(key, _)| key.clone()));
        (Page { records, at_end: !more }, last.unwrap_or_else(|| after.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::VERSION_BYTES;
    use super::super::testing::Tables;
    use super::*;
    use crate::ids::{Module, Shard, ShardNo};
    use proptest::prelude::*;

    const SHARD: Shard = Shard { module: Module::Payment, no: ShardNo(0) };

    #[derive(Clone, Debug)]
    enum Step {
        Set(u16, Option<u8>),
        Checkpoint,
        Page,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..900u16, proptest::option::weighted(0.7, any::<u8>())).prop_map(|(k, v)| Step::Set(k, v)),
            1 => Just(Step::Checkpoint),
            2 => Just(Step::Page),
        ]
    }

    fn key(n: u16) -> Bytes {
        Bytes::copy_from_slice(&n.to_be_bytes())
    }

    proptest! {
        #[test]
        fn pages_and_the_end_are_the_state_of_the_end(
            before in 0..800u16,
            bytes_max in 1..2_000usize,
            steps in proptest::collection::vec(step(), 1..300),
        ) {
            let mut tables = Tables::default();
            let mut state = State::new(SHARD, false, None);
            for n in 0..before {
                state.set(key(n), Some(key(n)));
            }
            tables.write(state.checkpoint(None));
            let mut now: BTreeMap<Bytes, Bytes> = tables.0.clone();
            let mut copied: BTreeMap<Bytes, Bytes> = BTreeMap::new();
            state.begin_walk(7);
            let mut at_end = false;
            for step in steps {
                match step {
                    Step::Set(n, value) => {
                        let value = value.map(|value| Bytes::from(vec![value]));
                        state.set(key(n), value.clone());
                        match value {
                            Some(value) => now.insert(key(n), value),
                            None => now.remove(&key(n)),
                        };
                    }
                    Step::Checkpoint => tables.write(state.checkpoint(None)),
                    Step::Page if at_end => {}
                    Step::Page => {
                        let page = state.walk_page(7, &tables, bytes_max).expect("it goes on");
                        at_end = page.at_end;
                        copied.extend(page.records);
                    }
                }
            }
            while !at_end {
                let page = state.walk_page(7, &tables, bytes_max).expect("it goes on");
                at_end = page.at_end;
                copied.extend(page.records);
            }
            for (key, value) in state.end_walk(7, &tables).expect("it has read all") {
                match value {
                    Some(value) => copied.insert(key, value),
                    None => copied.remove(&key),
                };
            }
            prop_assert_eq!(copied, now);
        }
    }

    #[test]
    fn a_state_that_is_replaced_ends_its_walks() {
        let tables = Tables::default();
        let mut state = State::new(SHARD, true, None);
        state.install(key(1), Some(Bytes::from(vec![1; VERSION_BYTES + 1])));
        state.begin_walk(1);
        assert!(state.walk_page(1, &tables, 100).is_some_and(|page| page.at_end));
        state.reset();
        assert_eq!(state.walk_page(1, &tables, 100), None);
        assert_eq!(state.end_walk(1, &tables), None);
    }

    #[test]
    fn a_walk_that_has_not_read_all_has_no_end() {
        let tables = Tables::default();
        let mut state = State::new(SHARD, false, None);
        state.set(key(1), Some(key(1)));
        state.begin_walk(1);
        assert_eq!(state.end_walk(1, &tables), None);
    }
}
