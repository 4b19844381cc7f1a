//! The store on a real disk: the group commit that every answer waits for, and a checkpoint's batch.
//!
//! The directory is in cargo's build directory: `/tmp` is often in memory, where an fsync is free.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kassa_storage::{Batch, Options, Store};
use std::iter;
use std::time::Duration;
use tempfile::TempDir;

/// The packed record of a busy round.
const LOG_RECORD_BYTES: usize = 4 << 10;
/// What a checkpoint writes at a time.
const TABLE_RECORDS: usize = 200;
const VALUE_BYTES: usize = 100;
/// Table records are written again and again, as those of a shop are.
const KEYS: u64 = 20_000;
/// Log records kept behind the newest, as by checkpoints that keep up.
const LOG_KEPT: u64 = 1_000;

fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("cargo has made the directory");
    let store = Store::open(dir.path(), Options::default()).expect("an empty directory makes a store");
    (dir, store)
}

fn group_commit(criterion: &mut Criterion) {
    let (_dir, store) = store();
    let record = vec![0xa5; LOG_RECORD_BYTES];
    let mut position = 0;
    let mut group = criterion.benchmark_group("storage");
    group.throughput(Throughput::Bytes(LOG_RECORD_BYTES as u64));
    group.bench_function("group_commit_4k_fsync", |bencher| {
        bencher.iter(|| {
            position += 1;
            let batch = Batch {
                log: Some((position, &record[..])),
                tables: iter::empty(),
                cut_below: position.checked_sub(LOG_KEPT),
                sync: true,
            };
            store.commit(batch).expect("the disk takes it");
        });
    });
    group.finish();
}

fn tables(criterion: &mut Criterion) {
    let (_dir, store) = store();
    let value = [0x5a; VALUE_BYTES];
    let mut next = 0_u64;
    let mut group = criterion.benchmark_group("storage");
    group.throughput(Throughput::Elements(TABLE_RECORDS as u64));
    group.bench_function("tables_200_no_fsync", |bencher| {
        bencher.iter(|| {
            // An odd step that shares no factor with the number of keys visits all of them.
            let keys: Vec<[u8; 8]> = iter::repeat_with(|| {
                next = (next + 7_919) % KEYS;
                next.to_be_bytes()
            })
            .take(TABLE_RECORDS)
            .collect();
            let batch = Batch {
                log: None,
                tables: keys.iter().map(|key| (7, &key[..], Some(&value[..]))),
                cut_below: None,
                sync: false,
            };
            store.commit(batch).expect("the disk takes it");
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = group_commit, tables
}
criterion_main!(benches);
