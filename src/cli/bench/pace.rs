//! When requests of an open loop are due, and waiting for exactly then.

use anyhow::Context;
use rand::SeedableRng;
use rand::distr::Distribution;
use rand::rngs::StdRng;
use rand_distr::Exp;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The moments at which requests are due: a Poisson process, so that they come as customers do who know nothing of
/// each other, sometimes several at once. Evenly spaced ones would never meet, and spare a server the queues that
/// it has in life.
#[derive(Debug)]
pub struct Schedule {
    next: Instant,
    gaps_s: Exp<f64>,
    random: StdRng,
}

impl Schedule {
    /// # Errors
    /// None for a rate above 0.
    pub fn new(from: Instant, rate_per_second: f64) -> anyhow::Result<Self> {
        Self::seeded(from, rate_per_second, RandomState::new().build_hasher().finish())
    }

    fn seeded(from: Instant, rate_per_second: f64, seed: u64) -> anyhow::Result<Self> {
        let gaps_s = Exp::new(rate_per_second).context("a rate above 0")?;
        let mut schedule = Self { next: from, gaps_s, random: StdRng::seed_from_u64(seed) };
        schedule.advance();
        Ok(schedule)
    }

    #[must_use]
    pub const fn next(&self) -> Instant {
        self.next
    }

    /// Takes the next one, if it is due.
    pub fn take(&mut self, now: Instant) -> Option<Instant> {
        let due = self.next;
        (due <= now).then(|| {
            self.advance();
            due
        })
    }

    fn advance(&mut self) {
        /// A rate so low that the next request is a day away needs no more exact time.
        const GAP_S_MAX: f64 = 86_400.0;
        let gap_s: f64 = self.gaps_s.sample(&mut self.random);
        self.next += Duration::from_secs_f64(gap_s.min(GAP_S_MAX));
    }
}

/// Waits to some 60 µs, where the runtime's own timers wake to the millisecond: that would be taken for latency. A
/// thread does it, which the system wakes as exactly as it wakes anything.
#[derive(Debug)]
pub struct Timer {
    wanted: SyncSender<Instant>,
    rings: Arc<Notify>,
}

impl Timer {
    /// # Errors
    /// Where the system gives no thread.
    pub fn new() -> anyhow::Result<Self> {
        // It is asked once at a time.
        let (wanted, receiver) = std::sync::mpsc::sync_channel::<Instant>(1);
        let rings = Arc::new(Notify::new());
        let bell = Arc::clone(&rings);
        let ring = move || {
            for due in receiver {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                bell.notify_one();
            }
        };
        std::thread::Builder::new().name("pace".to_owned()).spawn(ring).context("cannot start a thread")?;
        Ok(Self { wanted, rings })
    }

    /// Waits until then; to be awaited to its end before it is called again.
    ///
    /// # Errors
    /// Where the thread has ended.
    pub async fn sleep_until(&self, due: Instant) -> anyhow::Result<()> {
        self.wanted.send(due).context("the timer's thread has ended")?;
        self.rings.notified().await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_come_at_their_rate_and_at_random() {
        let from = Instant::now();
        let mut schedule = Schedule::seeded(from, 1000.0, 3).expect("a rate");
        let end = from + Duration::from_secs(100);
        let mut times = Vec::new();
        while let Some(due) = schedule.take(end) {
            times.push(due);
        }
        // Four standard deviations of a Poisson count, which is what tells it from evenly spaced ones too.
        assert!((98_735..=101_265).contains(&times.len()), "{}", times.len());
        let gaps: Vec<f64> = times.windows(2).map(|two| (two[1] - two[0]).as_secs_f64()).collect();
        let long = gaps.iter().filter(|&&gap| gap > 0.001).count();
        // e^-1 of the gaps are longer than the mean one.
        let share = f64::from(u32::try_from(long).expect("few")) / 100_000.0;
        assert!((share - 0.3679).abs() < 0.01, "{share}");
    }

    #[test]
    fn what_is_not_due_is_not_taken() {
        let from = Instant::now();
        let mut schedule = Schedule::seeded(from, 10.0, 3).expect("a rate");
        let next = schedule.next();
        assert_eq!(schedule.take(from), None);
        assert_eq!(schedule.take(next), Some(next));
        assert!(schedule.next() > next);
    }

    #[tokio::test]
    async fn the_timer_rings_and_not_too_early() {
        let timer = Timer::new().expect("a timer");
        for wait in [Duration::ZERO, Duration::from_micros(300), Duration::from_millis(3)] {
            let begun = Instant::now();
            timer.sleep_until(begun + wait).await.expect("a ring");
            assert!(begun.elapsed() >= wait, "{wait:?}");
        }
    }
}
