//! Records: what a shard's state consists of.
//!
//! A shard is a map from byte keys to byte values; the first byte of a key names its table. The pure
//! code reads through a [`Disk`], which has two implementations: fjall in the binary, and the disk of
//! the simulator. It never writes through one: writes are effects.

use crate::ids::Shard;
use bytes::Bytes;

/// What a checkpoint left on disk. Reads see the last committed checkpoint of the shard, exactly.
pub trait Disk {
    /// The value of `key` in `shard`.
    fn get(&self, shard: Shard, key: &[u8]) -> Option<Bytes>;
    /// Up to `limit` records whose key starts with `prefix` and is greater than `after`, in key order.
    fn scan(&self, shard: Shard, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<(Bytes, Bytes)>;
}

/// One change of one record; `None` deletes it.
pub type Change = (Bytes, Option<Bytes>);
