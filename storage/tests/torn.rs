//! What a disk may have written of what nothing had synced: any of its sectors, and not the others. The store
//! opens whatever they are, with a prefix of the batches, and with all that was synced.

#![allow(clippy::unwrap_used, reason = "a test may fail by a panic, in its helpers too")]

mod image;

use image::{Image, Model, open, scratch, write};
use kassa_storage::{Store, check};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const SECTOR_BYTES: usize = 512;
/// Subsets of sectors that are tried; of so many sectors, all of them.
const SECTORS_MAX: usize = 10;

/// A store with some synced batches, then some of these sizes that may not be yet, in one journal.
struct Unsynced {
    journal: PathBuf,
    before: Image,
    after: Image,
    /// What it held after each batch, from the last that was synced.
    history: Vec<Model>,
}

impl Unsynced {
    fn new(dir: &Path, lives: u64, record_bytes: &[usize]) -> Self {
        let mut model = Model::default();
        let mut n = 0;
        let mut round = |store: &Store, model: &mut Model, bytes, sync| {
            model.round(store, n, bytes, n % 2 == 0, sync);
            n += 1;
        };
        for _ in 1..lives {
            round(&open(dir), &mut model, 60, true);
        }
        let store = open(dir);
        for _ in 0..2 {
            round(&store, &mut model, 60, true);
        }
        let before = Image::of(dir);
        let mut history = vec![model.clone()];
        for (nth, &bytes) in record_bytes.iter().enumerate() {
            // The last of them was to be synced with those before it: so they all have left the process.
            round(&store, &mut model, bytes, nth + 1 == record_bytes.len());
            history.push(model.clone());
        }
        let after = Image::of(dir);
        let journal = after.journal().0;
        assert_eq!(journal, before.journal().0);
        Self { journal, before, after, history }
    }

    /// The journal as it is if only the sectors that `written` names have reached the disk.
    fn journal_with(&self, written: impl Fn(usize) -> bool) -> Vec<u8> {
        let (old, new) = (self.before.journal().1, self.after.journal().1);
        let mut bytes = new;
        for (number, sector) in bytes.chunks_mut(SECTOR_BYTES).enumerate() {
            if !written(number) {
                let at = number * SECTOR_BYTES;
                for (offset, byte) in sector.iter_mut().enumerate() {
                    *byte = old.get(at + offset).copied().unwrap_or(0);
                }
            }
        }
        bytes
    }

    /// How many of the batches that nothing had synced are there.
    fn kept_of(&self, dir: &Path, bytes: &[u8], what: &str) -> usize {
        // All but the journal as it was: had the engine written table files of what came after, a loss of power
        // that took it from the journal would be refused, since the two then contradict each other.
        self.before.restore(dir);
        write(&dir.join(&self.journal), bytes, 64 * 1024 * 1024);
        // A check takes longer than all else here.
        let checked = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) % 8 == 0;
        let report = checked.then(|| check(dir).unwrap_or_else(|error| panic!("{what}: {error}")));
        let found = Model::of(&open(dir));
        let kept = self.history.iter().position(|model| *model == found);
        let kept = kept.unwrap_or_else(|| panic!("{what}: what is left is no prefix"));
        if let Some(report) = report {
            assert_eq!(report.commits, (self.history[0].log.len() + kept) as u64, "{what}");
        }
        kept
    }
}

#[test]
fn any_sectors_of_what_was_not_synced_may_be_missing() {
    for (lives, record_bytes) in [(1, &[700, 900, 300][..]), (2, &[2_900]), (2, &[20, 30, 1_500, 40])] {
        let source = scratch();
        let unsynced = Unsynced::new(source.path(), lives, record_bytes);
        let temporary = scratch();
        let dir = temporary.path().join("store");
        let (start, end) = (unsynced.before.journal().1.len(), unsynced.after.journal().1.len());
        let (first, last) = (start / SECTOR_BYTES, (end - 1) / SECTOR_BYTES);
        let sectors = last - first + 1;
        assert!((6..=SECTORS_MAX).contains(&sectors), "{sectors} sectors");
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        for subset in 0..1_usize << sectors {
            let bytes =
                unsynced.journal_with(|number| number < first || subset & (1 << (number - first)) != 0);
            let kept = unsynced.kept_of(&dir, &bytes, &format!("sectors {subset:0sectors$b}"));
            *counts.entry(kept).or_default() += 1;
        }
        println!("{record_bytes:?} in {sectors} sectors: batches kept, and of how many subsets: {counts:?}");
        // Only all of the sectors of a batch make it readable, and they always do.
        assert_eq!(counts.values().sum::<usize>(), 1 << sectors);
        assert_eq!(counts.len(), record_bytes.len() + 1, "{counts:?}");
        assert_eq!(counts[&record_bytes.len()], 1);
    }
}

#[test]
fn what_was_not_synced_may_be_cut_at_every_byte() {
    let source = scratch();
    let unsynced = Unsynced::new(source.path(), 2, &[150, 40, 200]);
    let temporary = scratch();
    let dir = temporary.path().join("store");
    let bytes = unsynced.after.journal().1;
    let mut kept_before = 0;
    for kept_bytes in unsynced.before.journal().1.len()..=bytes.len() {
        let kept = unsynced.kept_of(&dir, &bytes[..kept_bytes], &format!("cut at {kept_bytes}"));
        assert!((kept_before..=kept_before + 1).contains(&kept), "cut at {kept_bytes}: {kept} are left");
        kept_before = kept;
    }
    assert_eq!(kept_before, 3);
}
