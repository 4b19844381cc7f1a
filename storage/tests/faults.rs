//! What a store does about crashes and damage: after a crash it holds a prefix of what was committed,
//! and all that was synced; damage is refused, never served. Flipped bytes are in `every_byte`.

#![allow(clippy::unwrap_used, reason = "a test may fail by a panic, in its helpers too")]

mod image;

use image::{Image, Model, SHARDS, content, open, scratch, small, write};
use kassa_storage::{OpenError, Options, Store, check};
use std::fs;
use std::path::Path;

/// A store with table files and a journal, closed or as a crash leaves it.
fn populated(dir: &Path, lives: u64, closed: bool) -> (Image, Model) {
    let mut model = Model::default();
    let mut n = 0;
    for life in 1..=lives {
        let store = open(dir);
        for _ in 0..25 {
            model.round(&store, n, 1_200, n % 5 == 4, true);
            n += 1;
        }
        // Each life has filled a memtable of either keyspace, and ends once it is on the disk.
        let flushed = |id: u64| fs::read_dir(dir.join(format!("keyspaces/{id}/tables"))).unwrap().count() > 0;
        while !(flushed(1) && flushed(2)) {
            std::thread::yield_now();
        }
        if life == lives && !closed {
            return (Image::of(dir), model);
        }
    }
    (Image::of(dir), model)
}

/// A damaged store is refused by name, or is served just as it was.
fn refused_or_right(dir: &Path, model: &Model, what: &str) -> bool {
    match Store::open(dir, Options { must_exist: true, ..small() }) {
        Ok(store) => {
            assert_eq!(&Model::of(&store), model, "{what}");
            false
        }
        Err(error) => {
            assert!(error.to_string().contains(dir.to_str().unwrap()), "{what}: {error}");
            true
        }
    }
}

#[test]
fn a_missing_or_shortened_file_is_refused_or_harmless() {
    for closed in [true, false] {
        let source = scratch();
        let (image, model) = populated(source.path(), 2, closed);
        let temporary = scratch();
        let dir = temporary.path().join("store");
        for (path, bytes, len) in &image.0 {
            image.restore(&dir);
            fs::remove_file(dir.join(path)).unwrap();
            let refused = refused_or_right(&dir, &model, &format!("{} deleted", path.display()));
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(refused || !(name.ends_with("jnl") || name == "current" || name == "kassa"), "{name}");
            if name.ends_with("jnl") && !closed {
                continue;
            }
            for keep in [0, 1, bytes.len() / 2, bytes.len().saturating_sub(1)] {
                if keep < bytes.len() {
                    image.restore(&dir);
                    write(&dir.join(path), &bytes[..keep], keep as u64);
                    let what = format!("{} cut from {len} to {keep}", path.display());
                    if refused_or_right(&dir, &model, &what) && keep > 1 {
                        let left = content(&dir.join(path)).unwrap().0;
                        assert_eq!(left, bytes[..keep], "what is refused is left as it is");
                    }
                }
            }
        }
        for folder in ["keyspaces", "keyspaces/0", "keyspaces/1", "keyspaces/2"] {
            image.restore(&dir);
            fs::remove_dir_all(dir.join(folder)).unwrap();
            assert!(refused_or_right(&dir, &model, folder));
        }
        for stray in ["keyspaces/3", "keyspaces/lost+found"] {
            image.restore(&dir);
            fs::create_dir(dir.join(stray)).unwrap();
            assert!(refused_or_right(&dir, &model, stray));
        }
    }
}

/// A store whose last batch has about `bytes` bytes: its image without and with that batch.
fn with_last_batch(dir: &Path, lives: u64, bytes: usize) -> (Image, Model, Image, Model) {
    let mut model = Model::default();
    let mut n = 0;
    for _ in 1..lives {
        model.round(&open(dir), n, 100, true, true);
        n += 1;
    }
    let store = open(dir);
    for _ in 0..3 {
        model.round(&store, n, 100, true, true);
        n += 1;
    }
    let (before, model_before) = (Image::of(dir), model.clone());
    model.round(&store, n, bytes, false, true);
    (before, model_before, Image::of(dir), model)
}

#[test]
fn a_torn_last_batch_is_cut_off_wherever_it_tore() {
    for lives in [1, 2] {
        let source = scratch();
        let (before, model_before, after, model) = with_last_batch(source.path(), lives, 90);
        let temporary = scratch();
        let dir = temporary.path().join("store");
        let (path, bytes) = after.journal();
        let start = before.journal().1.len();
        assert!(bytes.len() > start + 90);
        for keep in start..=bytes.len() {
            // The rest of the journal is not there, or was made beforehand and never written.
            for len in [keep as u64, 64 * 1024 * 1024] {
                before.restore(&dir);
                write(&dir.join(&path), &bytes[..keep], len);
                let torn = keep > start && keep < bytes.len();
                if keep % 16 == 0 {
                    assert_eq!(check(&dir).unwrap().torn_bytes > 0, torn, "{keep}");
                }
                let expected = if keep == bytes.len() { &model } else { &model_before };
                assert_eq!(&Model::of(&open(&dir)), expected, "kept {keep} of {start} to {}", bytes.len());
            }
        }
        assert_eq!(check(&dir).unwrap().torn_bytes, 0);
    }
}

#[test]
fn a_hole_of_whole_sectors_is_torn_and_a_smaller_one_is_damage() {
    let source = scratch();
    let (before, model_before, after, _) = with_last_batch(source.path(), 2, 5_000);
    let temporary = scratch();
    let dir = temporary.path().join("store");
    let (path, bytes) = after.journal();
    let start = before.journal().1.len();
    for sector in start / 512..bytes.len() / 512 {
        let hole = (sector * 512).max(start)..(sector + 1) * 512;
        for (hole, torn) in [(hole.clone(), true), (hole.start + 1..hole.end, hole.len() == 1)] {
            let mut torn_bytes = bytes.clone();
            torn_bytes[hole].fill(0);
            after.restore(&dir);
            write(&dir.join(&path), &torn_bytes, torn_bytes.len() as u64);
            match Store::open(&dir, small()) {
                Ok(store) => {
                    assert!(torn, "sector {sector}");
                    assert_eq!(Model::of(&store), model_before);
                }
                Err(error) => assert!(!torn && matches!(error, OpenError::Damaged(_)), "{sector}: {error}"),
            }
        }
    }
}

#[test]
fn batches_behind_a_torn_one_are_cut_unless_they_prove_that_it_was_synced() {
    let source = scratch();
    let store = open(source.path());
    let mut model = Model::default();
    model.round(&store, 0, 100, true, true);
    let (model_before, start) = (model.clone(), Image::of(source.path()).journal().1.len());
    model.round(&store, 1, 9_000, false, false);
    model.round(&store, 2, 100, false, true);
    let in_flight = Image::of(source.path());
    model.round(&store, 3, 100, false, true);
    let acknowledged = Image::of(source.path());
    let temporary = scratch();
    let dir = temporary.path().join("store");
    let tear = |image: &Image| {
        image.restore(&dir);
        let (path, mut bytes) = image.journal();
        let sector = (start / 512 + 2) * 512;
        bytes[sector..sector + 1_024].fill(0);
        write(&dir.join(path), &bytes, bytes.len() as u64);
    };
    tear(&in_flight);
    assert_eq!(Model::of(&open(&dir)), model_before);
    tear(&acknowledged);
    assert!(matches!(Store::open(&dir, small()), Err(OpenError::Damaged(_))));
    acknowledged.restore(&dir);
    assert_eq!(Model::of(&open(&dir)), model);
}

#[test]
fn a_batch_that_is_missing_between_others_is_noticed() {
    let source = scratch();
    let store = open(source.path());
    let mut model = Model::default();
    let mut ends = vec![0];
    for n in 0..4 {
        model.round(&store, n, 100, true, true);
        ends.push(Image::of(source.path()).journal().1.len());
    }
    let image = Image::of(source.path());
    let (path, bytes) = image.journal();
    let temporary = scratch();
    let dir = temporary.path().join("store");
    for gap in ends.windows(2).take(3) {
        image.restore(&dir);
        write(&dir.join(&path), &[&bytes[..gap[0]], &bytes[gap[1]..]].concat(), bytes.len() as u64);
        assert!(matches!(Store::open(&dir, small()), Err(OpenError::Damaged(_))), "{gap:?}");
    }
}

#[test]
fn a_crash_leaves_a_prefix_and_all_that_a_sync_covered() {
    let source = scratch();
    let store = open(source.path());
    let mut model = Model::default();
    let mut history = vec![model.clone()];
    for n in 0..30 {
        model.round(&store, n, 700, true, false);
        history.push(model.clone());
    }
    let temporary = scratch();
    let dir = temporary.path().join("store");
    Image::of(source.path()).restore(&dir);
    let found = Model::of(&open(&dir));
    assert_eq!(found, history[found.log.len()], "a prefix");
    model.round(&store, 30, 10, false, true);
    Image::of(source.path()).restore(&dir);
    assert_eq!(Model::of(&open(&dir)), model);
}

#[test]
fn a_check_counts_and_changes_nothing() {
    let temporary = scratch();
    let dir = temporary.path().join("store");
    assert!(matches!(check(&dir), Err(OpenError::Missing { .. })));
    let source = scratch();
    let (image, model) = populated(source.path(), 2, false);
    image.restore(&dir);
    let report = check(&dir).unwrap();
    assert_eq!(report.commits, 50);
    assert_eq!(report.log_positions, Some((0, 49)));
    assert_eq!(report.log_bytes, 50 * 1_200);
    for shard in 0..SHARDS {
        let records = model.tables.iter().filter(|((of, _), _)| *of == shard);
        let bytes: usize = records.clone().map(|((_, key), value)| key.len() + value.len()).sum();
        assert_eq!(report.shards[&shard].records, records.count() as u64);
        assert_eq!(report.shards[&shard].bytes, bytes as u64);
    }
    for ((path, bytes, len), after) in image.0.iter().zip(&Image::of(&dir).0) {
        assert_eq!((path, bytes, len), (&after.0, &after.1, &after.2));
    }
    let store = open(&dir);
    assert!(matches!(check(&dir), Err(OpenError::Locked { .. })));
    assert_eq!(Model::of(&store), model);
}
