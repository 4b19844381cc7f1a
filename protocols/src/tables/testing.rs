//! Tables in memory, for the tests of what lies beside.

use super::{Change, Disk};
use crate::ids::Shard;
use bytes::Bytes;
use std::collections::BTreeMap;

/// The tables of one shard, whatever it is called.
#[derive(Default)]
pub struct Tables(pub BTreeMap<Bytes, Bytes>);

impl Tables {
    pub fn write(&mut self, changes: Vec<Change>) {
        for (key, value) in changes {
            match value {
                Some(value) => self.0.insert(key, value),
                None => self.0.remove(&key),
            };
        }
    }
}

impl Disk for Tables {
    fn get(&self, _: Shard, key: &[u8]) -> Option<Bytes> {
        self.0.get(key).cloned()
    }
    fn scan(&self, _: Shard, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<(Bytes, Bytes)> {
        let found = self.0.iter().filter(|(key, _)| key.starts_with(prefix));
        let behind = found.filter(|(key, _)| after.is_none_or(|after| &key[..] > after));
        behind.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}
