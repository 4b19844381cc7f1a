//! The one place that reads the pod's monotonic clock.

use kassa_protocols::time::{Span, Time};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Turns readings of the monotonic clock into [`Time`]; clones agree with each other.
///
/// It can be bent: to run at another rate, or jump ahead. Nothing in the pod may be wrong because of it,
/// only early or late, and tests of whole clusters do it to see that.
#[derive(Clone, Debug)]
pub struct Clock(Arc<RwLock<Bend>>);

/// Since `real`, when the clock showed `shown`, it has run at `percent` of the right rate.
#[derive(Clone, Copy, Debug)]
struct Bend {
    real: Instant,
    shown: Duration,
    percent: u64,
}

const RIGHT_PERCENT: u64 = 100;
/// A clock that stands still is looked at again after this.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// A hundred years: later than that is never, and `Instant` need not hold it.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

impl Clock {
    #[must_use]
    pub fn start() -> Self {
        let bend = Bend { real: Instant::now(), shown: Duration::ZERO, percent: RIGHT_PERCENT };
        Self(Arc::new(RwLock::new(bend)))
    }

    /// Microseconds since the clock was started, plus one: zero is before every reading.
    #[must_use]
    pub fn now(&self) -> Time {
        let micros = self.bend().shown_at(Instant::now()).as_micros();
        Time(u64::try_from(micros).expect("half a million years of uptime fit") + 1)
    }

    /// The moment at which the clock will show `time`, if it is not bent meanwhile.
    #[must_use]
    pub fn instant(&self, time: Time) -> Instant {
        let bend = self.bend();
        let missing = Duration::from_micros(time.0.saturating_sub(1)).saturating_sub(bend.shown).min(FAR);
        match bend.percent {
            RIGHT_PERCENT => bend.real + missing,
            0 => Instant::now() + LOOK_AGAIN_AFTER,
            percent => bend.real + scaled(missing, RIGHT_PERCENT, percent),
        }
    }

    /// Makes the clock show a later time from now on.
    pub fn jump(&self, ahead: Duration) {
        self.change(|bend| bend.shown += ahead);
    }

    /// Makes the clock run at `percent` of the right rate from now on.
    pub fn run_at(&self, percent: u64) {
        self.change(|bend| bend.percent = percent);
    }

    fn bend(&self) -> Bend {
        *self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Bend)) {
        let mut bend = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        *bend = Bend { real: now, shown: bend.shown_at(now), ..*bend };
        change(&mut bend);
    }
}

impl Bend {
    fn shown_at(&self, at: Instant) -> Duration {
        let passed = at.saturating_duration_since(self.real);
        let passed =
            if self.percent == RIGHT_PERCENT { passed } else { scaled(passed, self.percent, RIGHT_PERCENT) };
        self.shown + passed
    }
}

fn scaled(duration: Duration, times: u64, over: u64) -> Duration {
    let micros = duration.as_micros() * u128::from(times) / u128::from(over);
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)).min(FAR)
}

/// A duration as the pure code counts it, rounded down to microseconds.
#[must_use]
pub fn span(duration: Duration) -> Span {
    Span(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Span = Span::from_millis(60_000);

    #[test]
    fn a_bent_clock_never_goes_back() {
        let clock = Clock::start();
        let before = clock.now();
        clock.jump(Duration::from_secs(60));
        let ahead = clock.now();
        assert!(ahead >= before + MINUTE);
        clock.run_at(0);
        let stands = clock.now();
        assert!(stands >= ahead);
        assert_eq!(clock.now(), stands);
        clock.run_at(RIGHT_PERCENT);
        assert!(clock.now() >= stands);
    }

    #[test]
    fn a_fast_clock_gets_there_sooner() {
        let clock = Clock::start();
        clock.run_at(1_000);
        let wait = clock.instant(clock.now() + MINUTE).saturating_duration_since(Instant::now());
        assert!(wait <= Duration::from_secs(6) && wait > Duration::from_secs(5), "{wait:?}");
        clock.run_at(0);
        assert!(clock.instant(clock.now() + MINUTE) > Instant::now());
    }
}
