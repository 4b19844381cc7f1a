//! Time as a value.

use serde::{Deserialize, Serialize};
use std::ops::{Add, Sub};

/// A reading of one pod's monotonic clock, in microseconds since some start of its own.
/// Never compared between pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time(pub u64);

/// A span in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Span(pub u64);

/// A shard's replicated time, in microseconds: only its leader advances it, it never decreases,
/// and it says nothing about anybody's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardTime(pub u64);

impl Span {
    #[must_use]
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms * 1_000)
    }
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000
    }
}

impl Time {
    /// The span since `earlier`, zero if it is in fact later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
    /// The next multiple of `interval` after this: what is due on one beat shares rounds and frames.
    #[must_use]
    pub const fn next_beat(self, interval: Span) -> Self {
        Self((self.0 / interval.0 + 1) * interval.0)
    }
}

impl Add<Span> for Time {
    type Output = Self;
    fn add(self, rhs: Span) -> Self {
        Self(self.0.saturating_add(rhs.0))
    }
}

impl Sub<Span> for Time {
    type Output = Self;
    fn sub(self, rhs: Span) -> Self {
        Self(self.0.saturating_sub(rhs.0))
    }
}

/// The most that one log entry may advance a shard's time: a leader whose clock jumps cannot make
/// every idempotency key of the shard expire at once.
pub const SHARD_TIME_STEP_MAX: Span = Span::from_millis(1_000);

/// Advances a shard's time by the leader's own monotonic clock since its `Lead` was applied.
#[derive(Clone, Copy, Debug, Hash)]
pub struct ShardClock {
    stamp: ShardTime,
    read_at: Time,
}

impl ShardClock {
    /// Starts at the last stamp of the log, when the leader's `Lead` is applied.
    #[must_use]
    pub const fn start(last: ShardTime, now: Time) -> Self {
        Self { stamp: last, read_at: now }
    }
    /// The stamp for an entry made now.
    pub fn stamp(&mut self, now: Time) -> ShardTime {
        let elapsed = now.since(self.read_at).0.min(SHARD_TIME_STEP_MAX.0);
        self.read_at = self.read_at.max(now);
        self.stamp = ShardTime(self.stamp.0 + elapsed);
        self.stamp
    }
}
