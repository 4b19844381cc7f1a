//! Sweeps: remembered deletions leave the tables for good.
//!
//! On a versioned shard a deletion is a record, so that a replica that fetches what is newer than its own
//! tables learns of it. Once that is no longer needed, the record goes: at once if a checkpoint still finds
//! it in memory, else a sweep comes by. With every checkpoint it looks at one more page of the tables.

use super::{Change, DELETED, Disk, State, VERSION_BYTES, VersionBytes};
use bytes::Bytes;

/// Records looked at with one checkpoint, besides as many as that one writes: so a sweep gets round faster
/// than deletions can fill the tables, and takes less time than the checkpoint.
const PAGE_RECORDS_MIN: usize = 256;

/// How far a sweep has come, and what it found.
#[derive(Debug)]
pub(super) struct Sweep {
    after: Option<Bytes>,
    /// Deletions met that are still needed; written by checkpoints since the sweep began; and of both
    /// together, what the last sweep knew.
    met: usize,
    written: usize,
    last: usize,
}

impl Default for Sweep {
    /// What an earlier life left in the tables is unknown: a first sweep finds out.
    fn default() -> Self {
        Self { after: None, met: 0, written: 0, last: 1 }
    }
}

impl Sweep {
    pub const fn wrote(&mut self, deletions: usize) {
        self.written += deletions;
    }
}

impl State {
    /// Deletions that the tables hold, about: counted up until a sweep has been round.
    #[must_use]
    pub fn remembered_deletions(&self) -> usize {
        let Sweep { met, written, last, .. } = &self.sweep;
        (*last).max(*met) + written
    }

    /// The next page's deletions of a version at or below `drop_below`, to be removed in the batch of a
    /// checkpoint. To be called before [`State::checkpoint`] gives the rest of that batch: what that
    /// writes is left alone. A record that is not the state's but lies with it may seem to be a deletion:
    /// whoever keeps one leaves it out.
    pub fn sweep(&mut self, disk: &dyn Disk, drop_below: &VersionBytes) -> Vec<Change> {
        if !self.versioned || self.remembered_deletions() == 0 {
            return Vec::new();
        }
        let records_max = PAGE_RECORDS_MIN + self.dirty;
        let page = disk.scan(self.shard, &[], self.sweep.after.as_deref(), records_max);
        let at_end = page.len() < records_max;
        self.sweep.after = page.last().map(|(key, _)| key.clone());
        let mut gone = Vec::new();
        for (key, stored) in page {
            if stored.len() != VERSION_BYTES + 1 || stored[VERSION_BYTES] != DELETED {
                continue;
            }
            let newer = self.slots.get(&key).is_some_and(|slot| slot.dirty);
            if stored[..VERSION_BYTES] <= drop_below[..] && !newer {
                self.slots.remove(&key);
                gone.push((key, None));
            } else {
                self.sweep.met += 1;
            }
        }
        if at_end {
            self.sweep = Sweep { after: None, met: 0, written: 0, last: self.sweep.met + self.sweep.written };
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::super::stored_value;
    use super::super::testing::Tables;
    use super::*;
    use crate::ids::{Module, Shard, ShardNo};

    const SHARD: Shard = Shard { module: Module::Stock, no: ShardNo(0) };

    /// A checkpoint that drops deletions up to `dropped`.
    fn checkpoint(tables: &mut Tables, state: &mut State, dropped: u8) {
        let mut changes = state.sweep(tables, &version(dropped));
        changes.extend(state.checkpoint(Some(&version(dropped))));
        let keys: std::collections::BTreeSet<&Bytes> = changes.iter().map(|(key, _)| key).collect();
        assert_eq!(keys.len(), changes.len(), "a batch changes a record once");
        tables.write(changes);
    }

    fn version(n: u8) -> VersionBytes {
        [n; VERSION_BYTES]
    }

    fn key(n: u16) -> Bytes {
        Bytes::copy_from_slice(&n.to_be_bytes())
    }

    /// Commits a value for each key, or its deletion, at a version.
    fn commit(state: &mut State, keys: impl Iterator<Item = u16>, at: u8, value: Option<Bytes>) {
        let changes: Vec<Change> = keys.map(|n| (key(n), value.clone())).collect();
        state.commit(u64::from(at), &version(at), &changes);
    }

    #[test]
    fn deletions_leave_the_tables_a_page_at_a_time() {
        let (mut tables, mut state) = (Tables::default(), State::new(SHARD, true, None));
        commit(&mut state, 0..2_000, 1, Some(Bytes::from_static(b"here")));
        checkpoint(&mut tables, &mut state, 0);
        commit(&mut state, 0..1_000, 2, None);
        checkpoint(&mut tables, &mut state, 1);
        assert_eq!(tables.0.len(), 2_000, "still needed");
        assert!(state.remembered_deletions() >= 1_000);
        let mut checkpoints = 0;
        while tables.0.len() > 1_000 {
            checkpoint(&mut tables, &mut state, 2);
            checkpoints += 1;
            assert!(checkpoints < 20, "{} records are left", tables.0.len());
        }
        assert!(checkpoints > 2, "a page is some of the records");
        assert!((1_000..2_000).all(|n| state.get(&tables, &key(n)).is_some()));
        for _ in 0..20 {
            checkpoint(&mut tables, &mut state, 2);
        }
        assert_eq!(state.remembered_deletions(), 0);
        assert_eq!(tables.0.len(), 1_000);
    }

    #[test]
    fn what_was_deleted_and_came_back_stays() {
        let (mut tables, mut state) = (Tables::default(), State::new(SHARD, true, None));
        commit(&mut state, 0..10, 1, Some(Bytes::from_static(b"here")));
        commit(&mut state, 0..10, 2, None);
        checkpoint(&mut tables, &mut state, 1);
        commit(&mut state, 0..5, 3, Some(Bytes::from_static(b"again")));
        checkpoint(&mut tables, &mut state, 2);
        let again = stored_value(&version(3), Some(&Bytes::from_static(b"again")));
        assert_eq!(tables.0, (0..5).map(|n| (key(n), again.clone())).collect());
        assert_eq!(state.get(&tables, &key(7)), None);
    }

    #[test]
    fn what_an_earlier_life_left_is_found() {
        let mut tables = Tables::default();
        tables.0.insert(key(1), stored_value(&version(4), None));
        tables.0.insert(key(2), stored_value(&version(6), None));
        let mut state = State::new(SHARD, true, None);
        checkpoint(&mut tables, &mut state, 5);
        assert_eq!(tables.0.keys().collect::<Vec<_>>(), [&key(2)]);
    }
}
