//! Idempotency keys of a shard: key → answer, written in the same replicated write as the effect.
//!
//! Keys live in buckets of shard time that are dropped whole: a key is found for at least
//! [`KEPT`] and at most twice that. A key names the incarnation of the entity that it acted on, so
//! that a batch over the id voids it.

use super::machine::{decode, encode};
use super::request::Answer;
use bytes::{BufMut, Bytes, BytesMut};
use kassa_protocols::breaks;
use kassa_protocols::ids::{Incarnation, OpId};
use kassa_protocols::tables::View;
use kassa_protocols::time::{ShardTime, Span};

/// How long a key is honoured at the least: what the contract promises.
pub const KEPT: Span = Span::from_millis(10 * 60 * 1_000);

/// The table of keys in a shard's records.
pub const TABLE: u8 = b'k';

/// The bucket of a moment. A key is looked for in the current bucket and in the one before.
#[must_use]
pub fn bucket(time: ShardTime) -> u64 {
    time.0 / if breaks::is("key-dropped-early") { 250_000 } else { KEPT.0 }
}

/// The earliest moment of which keys are still kept at `time`: what was stamped before it may have
/// taken effect under a key that is forgotten.
#[must_use]
pub const fn kept_since(time: ShardTime) -> ShardTime {
    ShardTime((time.0 / KEPT.0).saturating_sub(1) * KEPT.0)
}

fn record_key(bucket: u64, op: OpId) -> Bytes {
    let mut key = BytesMut::with_capacity(25);
    key.put_u8(TABLE);
    key.put_u64(bucket);
    key.put_u128(op.0);
    key.freeze()
}

/// Whether the record under this key belongs to a bucket that is due to be dropped at `time`.
#[must_use]
pub fn is_expired(key: &[u8], time: ShardTime) -> bool {
    key.get(1..9)
        .and_then(|bytes| bytes.try_into().ok())
        .is_some_and(|bytes| u64::from_be_bytes(bytes) < bucket(time).saturating_sub(1))
}

/// What `op` was answered, if it took effect on this incarnation.
pub fn find(view: &mut View<'_>, time: ShardTime, op: OpId, incarnation: Incarnation) -> Option<Answer> {
    let current = bucket(time);
    let stored = view
        .get(&record_key(current, op))
        .or_else(|| current.checked_sub(1).and_then(|before| view.get(&record_key(before, op))))?;
    let (of, answer): (Incarnation, Answer) = decode(&stored);
    (of == incarnation).then_some(answer)
}

/// Remembers what `op` is answered, with its effect.
pub fn remember(view: &mut View<'_>, time: ShardTime, op: OpId, incarnation: Incarnation, answer: &Answer) {
    if !breaks::is("key-not-stored") {
        view.set(record_key(bucket(time), op), encode(&(incarnation, answer)));
    }
}
