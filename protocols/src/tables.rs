//! Records: what a shard's state consists of.
//!
//! A shard is a map from byte keys to byte values; the first byte of a key names its table. The pure
//! code reads through a [`Disk`], which has two implementations: fjall in the binary, and the disk of
//! the simulator. It never writes through one: writes are effects.

mod sweep;
#[cfg(test)]
mod testing;
mod walk;

pub use walk::Page;

use crate::breaks;
use crate::ids::Shard;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use sweep::Sweep;
use walk::Walk;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What a checkpoint left on disk. Reads see the last committed checkpoint of the shard, exactly.
pub trait Disk {
    /// The value of `key` in `shard`.
    fn get(&self, shard: Shard, key: &[u8]) -> Option<Bytes>;
    /// Up to `limit` records whose key starts with `prefix` and is greater than `after`, in key order.
    fn scan(&self, shard: Shard, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<(Bytes, Bytes)>;
}

/// One change of one record; `None` deletes it.
pub type Change = (Bytes, Option<Bytes>);

/// What a checkpoint has to write, and the state of one shard between checkpoints.
///
/// Writes of a shard whose commands run in log order (`direct`) take effect at once. Those of a shard
/// that replicates results (`staged`) pass three stages: staged (this round), speculative (sent, not
/// committed), committed; reads by its coordinator see the newest, the tables only the last.
#[derive(Debug)]
pub struct State {
    shard: Shard,
    /// Whether stored values bear a version and deletions are records (quorum shards).
    versioned: bool,
    slots: Records<Slot>,
    dirty: usize,
    /// In order of key, since a write made of it is.
    staged: BTreeMap<Bytes, Option<Bytes>>,
    speculative: Records<(u64, Option<Bytes>)>,
    changed: Vec<Bytes>,
    watched: Option<u8>,
    /// Readers of the whole state, which are to know what changes behind them.
    walks: BTreeMap<u64, Walk>,
    sweep: Sweep,
}

/// Records by key: looked up many times a command, and listed in order hardly ever. Hashed alike in every
/// run, so that a simulated one repeats; whatever is listed is sorted first.
type Records<V> = HashMap<Bytes, V, BuildHasherDefault<KeyHasher>>;

/// XXH3 of the key's bytes.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }
    /// Of one slice there is one length, which its hash covers.
    fn write_usize(&mut self, _: usize) {}
    fn finish(&self) -> u64 {
        self.0
    }
}

#[derive(Debug)]
struct Slot {
    /// As stored: with its version prefix on a versioned shard.
    stored: Option<Bytes>,
    dirty: bool,
    touched: bool,
    /// Known never to have been written to the tables, so that its deletion need not be either.
    fresh: bool,
}

/// The length of the version that precedes a stored value of a versioned shard.
pub const VERSION_BYTES: usize = 21;
const DELETED: u8 = 0;
const PRESENT: u8 = 1;

/// A version as stored: order-preserving, so that bytes compare as versions do.
pub type VersionBytes = [u8; VERSION_BYTES];

impl State {
    #[must_use]
    pub fn new(shard: Shard, versioned: bool, watched: Option<u8>) -> Self {
        Self {
            shard,
            versioned,
            slots: Records::default(),
            dirty: 0,
            staged: BTreeMap::new(),
            speculative: Records::default(),
            changed: Vec::new(),
            watched,
            walks: BTreeMap::new(),
            sweep: Sweep::default(),
        }
    }

    /// The newest value that this pod's evaluation may see.
    pub fn get(&mut self, disk: &dyn Disk, key: &[u8]) -> Option<Bytes> {
        if self.versioned {
            if let Some(value) = self.staged.get(key) {
                return value.clone();
            }
            if let Some((_, value)) = self.speculative.get(key) {
                return value.clone();
            }
        }
        self.get_committed(disk, key).and_then(|(_, value)| value)
    }

    /// The committed value, with its version bytes (empty on an unversioned shard). A deletion that is
    /// still remembered shows as `Some((version, None))`.
    pub fn get_committed(&mut self, disk: &dyn Disk, key: &[u8]) -> Option<(Bytes, Option<Bytes>)> {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.touched = true;
            let stored = slot.stored.clone();
            return self.versioned_parts(stored);
        }
        let stored = disk.get(self.shard, key);
        let fresh = stored.is_none();
        self.slots.insert(
            Bytes::copy_from_slice(key),
            Slot { stored: stored.clone(), dirty: false, touched: true, fresh },
        );
        self.versioned_parts(stored)
    }

    fn versioned_parts(&self, stored: Option<Bytes>) -> Option<(Bytes, Option<Bytes>)> {
        let stored = stored?;
        Some(if self.versioned { stored_parts(&stored) } else { (Bytes::new(), Some(stored)) })
    }

    /// Sets a record by a command: staged on a versioned shard, at once on another.
    pub fn set(&mut self, key: Bytes, value: Option<Bytes>) {
        if self.versioned {
            self.staged.insert(key, value);
        } else {
            self.store(key, value);
        }
    }

    fn store(&mut self, key: Bytes, stored: Option<Bytes>) {
        if self.watched.is_some() && self.watched == key.first().copied() {
            self.changed.push(key.clone());
        }
        for walk in self.walks.values_mut() {
            walk.note(&key);
        }
        let slot =
            self.slots.entry(key).or_insert(Slot { stored: None, dirty: false, touched: true, fresh: false });
        slot.stored = stored;
        slot.touched = true;
        if !slot.dirty {
            slot.dirty = true;
            self.dirty += 1;
        }
    }

    /// Takes what this round's commands changed, as one write; it stays visible as speculative under `seq`.
    pub fn take_staged(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.staged).into_iter().collect()
    }
    #[must_use]
    pub fn has_staged(&self) -> bool {
        !self.staged.is_empty()
    }
    /// A write sent under `seq` is visible to evaluation until it is committed or dropped.
    pub fn speculate(&mut self, seq: u64, changes: &[Change]) {
        for (key, value) in changes {
            self.speculative.insert(key.clone(), (seq, value.clone()));
        }
    }
    /// A coordinator that lost its office forgets everything that is not committed.
    pub fn drop_speculative(&mut self) {
        self.speculative.clear();
        self.staged.clear();
    }
    /// A write became committed: into the tables, with its version.
    pub fn commit(&mut self, seq: u64, version: &VersionBytes, changes: &[Change]) {
        debug_assert!(self.versioned);
        for (key, value) in changes {
            if self.speculative.get(key).is_some_and(|(newest, _)| *newest <= seq) {
                self.speculative.remove(key);
            }
            let forgets = value.is_none() && breaks::is("deletion-unversioned");
            self.store(key.clone(), (!forgets).then(|| stored_value(version, value.as_ref())));
        }
    }
    /// A record received from another replica, as stored there. It need not stay in memory.
    pub fn install(&mut self, key: Bytes, stored: Option<Bytes>) {
        self.store(key.clone(), stored);
        if let Some(slot) = self.slots.get_mut(&key) {
            slot.touched = false;
        }
    }

    /// The keys of the watched table that were committed since the last call.
    pub fn take_changed(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.changed)
    }
    #[must_use]
    pub const fn dirty(&self) -> usize {
        self.dirty
    }
    #[must_use]
    pub fn held(&self) -> usize {
        self.slots.len()
    }

    /// What a checkpoint must write, so that the tables hold exactly the committed state. Remembered
    /// deletions of a version at or below `drop_below` are dropped. Records not touched since the last
    /// checkpoint leave memory.
    pub fn checkpoint(&mut self, drop_below: Option<&VersionBytes>) -> Vec<Change> {
        let mut changes = Vec::with_capacity(self.dirty);
        let versioned = self.versioned;
        let mut deletions = 0;
        self.slots.retain(|key, slot| {
            let keep = std::mem::replace(&mut slot.touched, false);
            if !slot.dirty {
                return keep;
            }
            slot.dirty = false;
            let gone = match &slot.stored {
                None => true,
                Some(stored) if versioned && stored[VERSION_BYTES] == DELETED => {
                    let gone = drop_below.is_some_and(|below| stored[..VERSION_BYTES] <= below[..]);
                    deletions += usize::from(!gone);
                    gone
                }
                Some(_) => false,
            };
            if gone {
                if !slot.fresh {
                    changes.push((key.clone(), None));
                }
                return false;
            }
            slot.fresh = false;
            changes.push((key.clone(), slot.stored.clone()));
            keep
        });
        self.dirty = 0;
        self.sweep.wrote(deletions);
        changes.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        changes
    }

    /// All committed records under `prefix`, as stored, in key order: the tables and what is newer in memory.
    #[must_use]
    pub fn scan_stored(&self, disk: &dyn Disk, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
        let mut found: BTreeMap<Bytes, Option<Bytes>> = BTreeMap::new();
        let mut after: Option<Bytes> = None;
        loop {
            let page = disk.scan(self.shard, prefix, after.as_deref(), SCAN_PAGE);
            let full = page.len() == SCAN_PAGE;
            after = page.last().map(|(key, _)| key.clone());
            found.extend(page.into_iter().map(|(key, value)| (key, Some(value))));
            if !full {
                break;
            }
        }
        #[expect(clippy::iter_over_hash_type, reason = "into a map in order of key")]
        for (key, slot) in &self.slots {
            if slot.dirty && key.starts_with(prefix) {
                found.insert(key.clone(), slot.stored.clone());
            }
        }
        found.into_iter().filter_map(|(key, value)| value.map(|value| (key, value))).collect()
    }

    /// All committed records with their values, in key order; what is deleted is left out.
    #[must_use]
    pub fn scan_committed(&self, disk: &dyn Disk) -> Vec<(Bytes, Bytes)> {
        let value = |stored: Bytes| match self.versioned {
            // A record that is no part of the state, as the place in the log, bears no version.
            true if stored.len() <= VERSION_BYTES => None,
            true => (stored[VERSION_BYTES] == PRESENT).then(|| stored.slice(VERSION_BYTES + 1..)),
            false => Some(stored),
        };
        let stored = self.scan_stored(disk, &[]).into_iter();
        stored.filter_map(|(key, stored)| Some((key, value(stored)?))).collect()
    }

    /// All records under `prefix` as this pod's evaluation sees them, in key order.
    #[must_use]
    pub fn scan(&self, disk: &dyn Disk, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
        let stored = self.scan_stored(disk, prefix);
        if !self.versioned {
            return stored;
        }
        let mut found: BTreeMap<Bytes, Option<Bytes>> =
            stored.into_iter().map(|(key, stored)| (key, stored_parts(&stored).1)).collect();
        let speculative = self.speculative.iter().map(|(key, (_, value))| (key, value));
        for (key, value) in speculative.chain(self.staged.iter()) {
            if key.starts_with(prefix) {
                found.insert(key.clone(), value.clone());
            }
        }
        found.into_iter().filter_map(|(key, value)| value.map(|value| (key, value))).collect()
    }

    /// Forgets everything in memory: what follows is a full copy.
    pub fn reset(&mut self) {
        self.slots.clear();
        self.dirty = 0;
        self.drop_speculative();
        self.changed.clear();
        self.walks.clear();
        self.sweep = Sweep::default();
    }
}

/// Records read from the tables at a time.
const SCAN_PAGE: usize = 4_096;

/// A value as a versioned shard stores it.
#[must_use]
pub fn stored_value(version: &VersionBytes, value: Option<&Bytes>) -> Bytes {
    let mut stored = Vec::with_capacity(VERSION_BYTES + 1 + value.map_or(0, Bytes::len));
    stored.extend_from_slice(version);
    match value {
        Some(value) => {
            stored.push(PRESENT);
            stored.extend_from_slice(value);
        }
        None => stored.push(DELETED),
    }
    stored.into()
}

/// The version bytes of a value as a versioned shard stores it, and the value unless it was deleted.
#[must_use]
pub fn stored_parts(stored: &Bytes) -> (Bytes, Option<Bytes>) {
    let value = (stored[VERSION_BYTES] == PRESENT).then(|| stored.slice(VERSION_BYTES + 1..));
    (stored.slice(..VERSION_BYTES), value)
}

/// A shard's state together with the disk below it: what a command reads and writes.
pub struct View<'a> {
    pub state: &'a mut State,
    pub disk: &'a dyn Disk,
}

impl View<'_> {
    pub fn get(&mut self, key: &[u8]) -> Option<Bytes> {
        self.state.get(self.disk, key)
    }
    pub fn set(&mut self, key: Bytes, value: Bytes) {
        self.state.set(key, Some(value));
    }
    pub fn delete(&mut self, key: Bytes) {
        self.state.set(key, None);
    }
    #[must_use]
    pub fn scan(&self, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
        self.state.scan(self.disk, prefix)
    }
}
