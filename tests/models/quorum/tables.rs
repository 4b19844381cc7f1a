//! The tables of a replica: records as the product stores them, changed by the product's own code.

use bytes::Bytes;
use kassa_protocols::ids::{Ballot, Module, Shard};
use kassa_protocols::quorum::{Version, Write};
use kassa_protocols::tables::{State, VersionBytes, stored_parts};
use std::collections::BTreeMap;

pub const SHARD: Shard = Shard::new(Module::Stock, 0);
/// The one record that all is about.
pub const KEY: &[u8] = b"k";

/// The record's value, if it is there.
pub type Value = Option<u8>;

/// Records as stored, by key.
pub type Tables = BTreeMap<Bytes, Bytes>;

/// Order-preserving, as stored.
pub fn version_bytes(version: Version) -> VersionBytes {
    let mut bytes = VersionBytes::default();
    bytes[..4].copy_from_slice(&version.ballot.epoch.to_be_bytes());
    bytes[4..12].copy_from_slice(&version.ballot.round.to_be_bytes());
    bytes[12] = version.ballot.pod;
    bytes[13..].copy_from_slice(&version.seq.to_be_bytes());
    bytes
}

/// Brings the tables to what a committed write says, by the product's own code.
pub fn commit(tables: &mut Tables, write: &Write) {
    let mut state = State::new(SHARD, true, None);
    state.commit(write.version.seq, &version_bytes(write.version), &write.records);
    for (key, stored) in state.checkpoint(None) {
        match stored {
            Some(stored) => drop(tables.insert(key, stored)),
            None => drop(tables.remove(&key)),
        }
    }
}

pub fn value(bytes: Option<&Bytes>) -> Value {
    bytes.map(|bytes| bytes[0])
}

/// The record, and at which version it was last written.
pub fn record(tables: &Tables) -> (VersionBytes, Value) {
    let Some(stored) = tables.get(KEY) else { return (VersionBytes::default(), None) };
    let (version, bytes) = stored_parts(stored);
    (version[..].try_into().expect("a version as stored"), value(bytes.as_ref()))
}

/// What [`version_bytes`] made.
pub fn from_bytes(bytes: VersionBytes) -> Version {
    let part =
        |range: std::ops::Range<usize>| bytes[range].iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
    let epoch = u32::try_from(part(0..4)).expect("four bytes");
    Version { ballot: Ballot { epoch, round: part(4..12), pod: bytes[12] }, seq: part(13..21) }
}
