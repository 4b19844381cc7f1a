//! Every byte of every file of a small store flipped, one at a time, after an orderly end and after a crash: the
//! store is refused by name, or is served just as it was; `check` says the same.

#![allow(clippy::unwrap_used, reason = "a test may fail by a panic, in its helpers too")]

mod image;

use image::{Image, Model, scratch};
use kassa_storage::{Options, Store, check};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How a byte is changed: its lowest bit, its highest, all of them; one a byte, in turn.
const FLIPS: [u8; 4] = [0x01, 0x80, 0xff, 0x10];
/// Every so many bytes `check` is asked as well, which takes longer than all else.
const CHECK_EVERY: usize = 8;

/// So small that a few kilobytes fill them.
fn tiny() -> Options {
    Options { log_memtable_bytes: 2 * 1024, tables_memtable_bytes: 1024, ..Options::default() }
}

/// A store of some kilobytes with journals and table files of both keyspaces, in its second life if it is closed.
fn small_store(dir: &Path, closed: bool) -> (Image, Model) {
    let mut model = Model::default();
    let mut store = Store::open(dir, tiny()).unwrap();
    for n in 0..12 {
        model.round(&store, n, 200, n % 6 == 5, true);
    }
    let flushed = |id: u64| fs::read_dir(dir.join(format!("keyspaces/{id}/tables"))).unwrap().count() > 0;
    while !(flushed(1) && flushed(2)) {
        std::thread::yield_now();
    }
    if !closed {
        return (Image::of(dir), model);
    }
    drop(store);
    store = Store::open(dir, tiny()).unwrap();
    model.round(&store, 12, 100, true, true);
    drop(store);
    (Image::of(dir), model)
}

/// What became of the flips in one kind of file.
#[derive(Debug, Default)]
struct Outcomes {
    refused: usize,
    harmless: usize,
    /// Of the harmless ones those that raise the sequence number of a batch, and not up to the next one's: the
    /// order of the batches is what it was, and so is everything in them.
    raised: usize,
}

fn flip_every_byte(closed: bool) -> BTreeMap<String, Outcomes> {
    let source = scratch();
    let (image, model) = small_store(source.path(), closed);
    let temporary = scratch();
    let dir = temporary.path().join("store");
    image.restore(&dir);
    let mut outcomes: BTreeMap<String, Outcomes> = BTreeMap::new();
    for (path, bytes, _) in &image.0 {
        let counted = outcomes.entry(kind(path)).or_default();
        for (at, old) in bytes.iter().enumerate() {
            let flipped = old ^ FLIPS[at % FLIPS.len()];
            let what = format!("{} byte {at} of {}: {old:#x} to {flipped:#x}", path.display(), bytes.len());
            let file = OpenOptions::new().write(true).open(dir.join(path)).unwrap();
            file.write_all_at(&[flipped], at as u64).unwrap();
            let checked = (at % CHECK_EVERY == 0).then(|| check(&dir));
            match Store::open(&dir, Options { must_exist: true, ..tiny() }) {
                Ok(store) => {
                    assert_eq!(Model::of(&store), model, "{what}: it is served, and is not what it was");
                    assert!(checked.is_none_or(|checked| checked.is_ok()), "{what}: only a check refuses it");
                    drop(store);
                    counted.harmless += 1;
                    counted.raised += usize::from(raises_a_sequence_number(bytes, at, flipped));
                    image.restore(&dir);
                }
                Err(error) => {
                    assert!(error.to_string().contains(dir.to_str().unwrap()), "{what}: {error}");
                    assert!(checked.is_none_or(|checked| checked.is_err()), "{what}: a check finds it whole");
                    counted.refused += 1;
                    file.write_all_at(&[*old], at as u64).unwrap();
                }
            }
        }
    }
    println!("closed {closed}: {outcomes:#?}");
    outcomes
}

/// Whether this changes a batch's sequence number to a higher one. It stands behind the end of the batch before
/// it, the mark of a beginning and the count of items.
fn raises_a_sequence_number(bytes: &[u8], at: usize, flipped: u8) -> bool {
    let begins = |number_at: usize| number_at >= 9 && bytes[number_at - 9..number_at - 4] == *b"FJL\x03\x01";
    flipped > bytes[at] && (0..8).filter_map(|place| at.checked_sub(place)).any(begins)
}

/// Journals, the marker, and so on, each keyspace by itself.
fn kind(path: &Path) -> String {
    let (name, parent) = (path.file_name().unwrap().to_str().unwrap(), path.parent().unwrap());
    if parent.ends_with("tables") {
        return format!("table file of {}", parent.display());
    }
    let is_manifest = name.starts_with('v') && name != "version";
    let kind = if is_manifest { "manifest" } else { name.strip_prefix("0.").map_or(name, |_| "journal") };
    kind.to_owned()
}

fn every_byte(closed: bool) {
    let outcomes = flip_every_byte(closed);
    let bytes: usize = outcomes.values().map(|counted| counted.refused + counted.harmless).sum();
    assert!(bytes > 4_000, "{bytes}");
    // Manifests and table files that no newer manifest names any more are left for a while.
    let left_over = |kind: &str| kind == "manifest" || kind.starts_with("table file");
    for (kind, counted) in outcomes.iter().filter(|(kind, _)| *kind != "lock") {
        assert!(counted.harmless == counted.raised || left_over(kind), "{kind}: {counted:?}");
        assert!(counted.refused > counted.raised, "{kind}: {counted:?}");
    }
    assert!(outcomes["journal"].raised < 12, "less than one of each batch");
}

#[test]
fn no_byte_of_a_store_that_was_closed_matters_without_notice() {
    every_byte(true);
}

#[test]
fn no_byte_of_a_store_that_crashed_matters_without_notice() {
    every_byte(false);
}
