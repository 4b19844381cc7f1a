//! The one place that reads the pod's monotonic clock.

use kassa_protocols::time::{Span, Time};
use std::time::{Duration, Instant};

/// Turns readings of the monotonic clock into [`Time`]; copies agree with each other.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Microseconds since the clock was started, plus one: zero is before every reading.
    #[must_use]
    pub fn now(&self) -> Time {
        let micros = self.start.elapsed().as_micros();
        Time(u64::try_from(micros).expect("half a million years of uptime fit") + 1)
    }

    /// The moment at which the clock will read `time`.
    #[must_use]
    pub fn instant(&self, time: Time) -> Instant {
        self.start + Duration::from_micros(time.0.saturating_sub(1).min(FAR_MICROS))
    }
}

/// A hundred years: later than that is never, and `Instant` need not hold it.
const FAR_MICROS: u64 = 100 * 365 * 24 * 3_600 * 1_000_000;

/// A duration as the pure code counts it, rounded down to microseconds.
#[must_use]
pub fn span(duration: Duration) -> Span {
    Span(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}
