//! Stores whose contents are known, and the disk below them as bytes that a test may change.

#![allow(dead_code, reason = "shared by several tests, none of which needs all of it")]

use kassa_storage::{Batch, Options, Store};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What a store must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    pub log: BTreeMap<u64, Vec<u8>>,
    pub tables: BTreeMap<(u16, Vec<u8>), Vec<u8>>,
}

pub const SHARDS: u16 = 3;

impl Model {
    pub fn of(store: &Store) -> Self {
        let log = store.log().map(Result::unwrap).map(|(at, bytes)| (at, bytes.to_vec())).collect();
        let mut tables = BTreeMap::new();
        for shard in 0..SHARDS {
            for (key, value) in store.scan(shard, b"", None, usize::MAX).unwrap() {
                assert_eq!(store.get(shard, &key).unwrap().unwrap(), value);
                tables.insert((shard, key.to_vec()), value.to_vec());
            }
        }
        Self { log, tables }
    }

    /// Commits a round that is a function of `n`, with tables if `checkpoint`, to `store` as well.
    pub fn round(&mut self, store: &Store, n: u64, record_bytes: usize, checkpoint: bool, sync: bool) {
        let record = filler(n, record_bytes);
        let changes: Vec<(u16, Vec<u8>, Option<Vec<u8>>)> = (0..if checkpoint { 20 } else { 0 })
            .map(|k| {
                let key = format!("key-{}", (n * 7 + k * 13) % 50).into_bytes();
                let value = (k != 5).then(|| filler(n * 100 + k, 30));
                (u16::try_from(k).unwrap() % SHARDS, key, value)
            })
            .collect();
        let distinct: BTreeMap<_, _> =
            changes.into_iter().map(|(shard, key, value)| ((shard, key), value)).collect();
        let tables = distinct.iter().map(|((shard, key), value)| (*shard, &key[..], value.as_deref()));
        store.commit(Batch { log: Some((n, &record[..])), tables, cut_below: None, sync }).unwrap();
        self.log.insert(n, record);
        for (key, value) in distinct {
            match value {
                Some(value) => self.tables.insert(key, value),
                None => self.tables.remove(&key),
            };
        }
    }
}

/// Bytes without long runs of zeros, different for each `n`.
pub fn filler(n: u64, len: usize) -> Vec<u8> {
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0] | 1
        })
        .collect()
}

pub fn small() -> Options {
    Options { log_memtable_bytes: 16 * 1024, tables_memtable_bytes: 8 * 1024, ..Options::default() }
}

/// A directory in memory where the system has such: thousands of stores are opened here, each with
/// several fsyncs.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub fn open(dir: &Path) -> Store {
    Store::open(dir, small()).unwrap()
}

pub fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    found.sort();
    Ok(found)
}

/// The bytes of a file, its length; of a journal made 64 MiB long beforehand, without the zeros.
pub fn content(path: &Path) -> io::Result<(Vec<u8>, u64)> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let end = if len == 0 { 0 } else { rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0))? };
    let mut bytes = vec![0; usize::try_from(end.min(len)).unwrap()];
    file.read_exact_at(&mut bytes, 0)?;
    if len > 1024 * 1024 {
        bytes.truncate(bytes.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1));
    }
    Ok((bytes, len))
}

pub fn write(path: &Path, bytes: &[u8], len: u64) {
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.set_len(len).unwrap();
}

/// All files of a directory in memory: the disk as a crash would leave it.
#[derive(PartialEq, Eq)]
pub struct Image(pub Vec<(PathBuf, Vec<u8>, u64)>);

impl Image {
    /// Of a store that may be running, at one moment: two readings that are the same have a moment
    /// between them at which all files were so.
    pub fn of(dir: &Path) -> Self {
        let mut last = None;
        loop {
            match (Self::read(dir).ok(), last) {
                (Some(image), Some(before)) if image == before => return image,
                (image, _) => last = image,
            }
        }
    }

    fn read(dir: &Path) -> io::Result<Self> {
        let mut read = Vec::new();
        for path in files(dir)? {
            let (bytes, len) = content(&path)?;
            read.push((path.strip_prefix(dir).unwrap().to_owned(), bytes, len));
        }
        Ok(Self(read))
    }

    pub fn restore(&self, dir: &Path) {
        if dir.exists() {
            fs::remove_dir_all(dir).unwrap();
        }
        for (path, bytes, len) in &self.0 {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            write(&path, bytes, *len);
        }
    }

    pub fn journal(&self) -> (PathBuf, Vec<u8>) {
        let journals = self.0.iter().filter(|(path, ..)| path.extension().is_some_and(|end| end == "jnl"));
        let newest = journals.max_by_key(|(path, ..)| path.clone()).unwrap();
        (newest.0.clone(), newest.1.clone())
    }
}
