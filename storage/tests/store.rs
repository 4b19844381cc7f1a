//! What a store promises while nothing goes wrong.

#![allow(clippy::unwrap_used, reason = "a test may fail by a panic, in its helpers too")]

use bytes::Bytes;
use kassa_storage::{Batch, CommitError, OpenError, Options, Store};
use std::path::Path;

type Change<'a> = (u16, &'a [u8], Option<&'a [u8]>);

fn open(dir: &Path) -> Store {
    Store::open(dir, Options::default()).unwrap()
}

fn commit(
    store: &Store,
    log: Option<(u64, &[u8])>,
    tables: &[Change<'_>],
    cut_below: Option<u64>,
    sync: bool,
) {
    store.commit(Batch { log, tables: tables.iter().copied(), cut_below, sync }).unwrap();
}

fn positions(store: &Store) -> Vec<u64> {
    store.log().map(|record| record.unwrap().0).collect()
}

#[test]
fn what_was_committed_is_there_now_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    commit(&store, Some((7, b"seven")), &[(3, b"apple", Some(b"red"))], None, true);
    commit(
        &store,
        Some((8, b"eight")),
        &[(3, b"pear", Some(b"")), (4, b"apple", Some(b"green"))],
        None,
        false,
    );
    commit(&store, None, &[(3, b"apple", None), (3, b"", Some(b"empty key"))], None, false);
    let check = |store: &Store| {
        let log: Vec<_> = store.log().map(Result::unwrap).collect();
        assert_eq!(log, [(7, Bytes::from("seven")), (8, Bytes::from("eight"))]);
        assert_eq!(store.get(3, b"apple").unwrap(), None);
        assert_eq!(store.get(3, b"pear").unwrap().unwrap(), "");
        assert_eq!(store.get(3, b"").unwrap().unwrap(), "empty key");
        assert_eq!(store.get(4, b"apple").unwrap().unwrap(), "green");
        assert_eq!(store.get(5, b"apple").unwrap(), None);
    };
    check(&store);
    drop(store);
    let store = open(dir.path());
    check(&store);
    commit(&store, Some((9, b"nine")), &[], None, true);
    assert_eq!(positions(&store), [7, 8, 9]);
}

#[test]
fn a_scan_stays_in_its_shard_and_prefix_and_pages() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let keys: [&[u8]; 7] = [b"", b"a", b"ab", b"abc", b"b", b"\xff", b"\xff\xff"];
    let mut tables: Vec<Change<'_>> = Vec::new();
    for shard in [0, 1, 2, 255, 256, 65_534] {
        tables.extend(keys.iter().map(|&key| (shard, key, Some(key))));
    }
    commit(&store, None, &tables, None, true);
    let scan = |shard, prefix: &[u8], after: Option<&[u8]>, limit| {
        let found = store.scan(shard, prefix, after, limit).unwrap();
        assert!(found.iter().all(|(key, value)| key == value));
        found.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    for shard in [0, 1, 255, 65_534] {
        assert_eq!(scan(shard, b"", None, 100), keys);
        assert_eq!(scan(shard, b"a", None, 100), keys[1..4]);
        assert_eq!(scan(shard, b"a", Some(b"ab"), 100), keys[3..4]);
        assert_eq!(scan(shard, b"a", Some(b""), 100), keys[1..4]);
        assert_eq!(scan(shard, b"a", Some(b"b"), 100), keys[..0]);
        assert_eq!(scan(shard, b"", Some(b"\xff"), 100), keys[6..]);
        assert_eq!(scan(shard, b"\xff", None, 100), keys[5..]);
        assert_eq!(scan(shard, b"", Some(b"a"), 2), keys[2..4]);
        assert_eq!(scan(shard, b"", None, 0), keys[..0]);
    }
    assert_eq!(scan(3, b"", None, 100), keys[..0]);
}

#[test]
fn a_cut_goes_forward_bit_by_bit_and_keeps_the_newest_record() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for position in 0..200 {
        commit(&store, Some((position, b"x")), &[], None, false);
    }
    commit(&store, None, &[(0, b"k", Some(b"v"))], Some(100), false);
    assert!(positions(&store)[0] > 0, "each batch cuts some");
    commit(&store, Some((200, b"x")), &[], None, true);
    assert_eq!(positions(&store), (100..=200).collect::<Vec<_>>());
    commit(&store, None, &[], Some(50), true);
    assert_eq!(positions(&store)[0], 100, "a cut never goes back");
    for position in 201..203 {
        commit(&store, Some((position, b"x")), &[], Some(u64::MAX), true);
    }
    assert_eq!(positions(&store), [202]);
    drop(store);
    let store = open(dir.path());
    assert_eq!(positions(&store), [202]);
    commit(&store, Some((203, b"x")), &[], Some(203), true);
    assert_eq!(positions(&store), [203]);
}

#[test]
fn positions_have_no_gaps_and_a_failed_commit_is_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    commit(&store, Some((5, b"x")), &[], None, true);
    let batch = Batch { log: Some((7, &b"x"[..])), tables: [], cut_below: None, sync: true };
    assert!(matches!(store.commit(batch), Err(CommitError::Position { last: 5, got: 7 })));
    let batch = Batch { log: Some((6, &b"x"[..])), tables: [], cut_below: None, sync: true };
    assert!(matches!(store.commit(batch), Err(CommitError::Failed)));
}

#[test]
fn a_directory_has_one_owner_and_holds_a_store_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let must_exist = || Options { must_exist: true, ..Options::default() };
    assert!(matches!(Store::open(&path, must_exist()), Err(OpenError::Missing { .. })));
    let store = open(&path);
    assert!(matches!(Store::open(&path, Options::default()), Err(OpenError::Locked { .. })));
    drop(store);
    drop(Store::open(&path, must_exist()).unwrap());
    assert!(matches!(Store::open(dir.path(), Options::default()), Err(OpenError::Foreign { .. })));
    assert!(path.exists());
}
