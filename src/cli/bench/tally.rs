//! What a run counts: over all, and in slices of time, by which its noise is told.

use super::settings::Settings;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Latencies are kept up to this, in microseconds, with three digits: longer than any answer is awaited.
const LATENCY_US_MAX: u64 = 100_000_000;

/// Between two moments.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The first request was sent.
    pub started: Instant,
    /// The warm-up was over.
    pub from: Instant,
    pub until: Instant,
}

impl Clock {
    #[must_use]
    pub fn start(settings: &Settings) -> Self {
        let started = Instant::now();
        Self { started, from: started + settings.warm_up, until: started + settings.whole() }
    }
}

/// What happened in one slice of the time that counts. Latencies are of what was answered in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    pub committed: u64,
    /// Edits and reads answered 200.
    pub others: u64,
    pub errors: u64,
    pub latency: Option<Latency>,
}

/// Of the checkouts in a slice; of the edits and reads, where the mix has no checkouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    pub p50_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

/// Open loop: whether the rate that was asked for was offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    /// Requests that were due while the clock ran.
    pub due: u64,
    /// Those among them that were never sent, since time was over before a connection was free.
    pub unsent: u64,
    /// Those that had to wait for a connection: as many as are allowed were waiting for answers.
    pub waited: u64,
    /// The longest that one was sent after it was due.
    pub late_max: Duration,
}

impl Offered {
    /// Whether nearly all was sent.
    #[must_use]
    pub const fn is_reached(&self) -> bool {
        /// What is on its way when time is over, and chance, are below one in this many.
        const SHARE: u64 = 100;
        self.unsent * SHARE <= self.due
    }
}

/// What a run counted.
#[derive(Debug)]
pub struct Tally {
    clock: Clock,
    slice: Duration,
    has_checkouts: bool,
    /// Checkouts answered 200 while the clock ran.
    pub committed: u64,
    /// And before or after, by requests of the warm-up or that were on their way.
    pub committed_outside: u64,
    /// Edits and reads answered 200.
    pub others: u64,
    /// Everything else, by code.
    pub errors: BTreeMap<String, u64>,
    /// Errors of the warm-up.
    pub errors_before: u64,
    /// Orders whose checkout may or may not have taken effect.
    pub open: Vec<usize>,
    /// Of committed checkouts, from when they were due. Those of the warm-up are not in it.
    pub latency_us: Histogram<u64>,
    /// The same of edits and reads.
    pub others_latency_us: Histogram<u64>,
    /// The longest time in which no client was answered anything but an error of the server.
    pub silence: Duration,
    /// How long the clock ran: less than was asked for where the orders ran out.
    pub elapsed: Duration,
    pub ran_out: bool,
    /// The whole slices of it, in order.
    pub slices: Vec<Slice>,
    /// Open loop alone.
    pub offered: Option<Offered>,
    last_answer: Instant,
    current: Slice,
    current_latency_us: Histogram<u64>,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    Good,
    /// Nothing changed: a refusal, or 429 or 503. By its code.
    Refused {
        code: String,
        /// An error of the server, as 503 is, breaks no silence.
        by_shop: bool,
    },
    /// It may have taken effect, or not. By its code, or how the connection broke.
    Open {
        code: String,
    },
}

/// What was asked for, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The checkout of an order, by its position; or else an edit or a read.
    pub order: Option<usize>,
    /// When it was due.
    pub due: Instant,
}

impl Tally {
    /// # Errors
    /// Where the histograms cannot be made.
    pub fn new(settings: &Settings, clock: Clock) -> anyhow::Result<Self> {
        let histogram = || Histogram::new_with_bounds(1, LATENCY_US_MAX, 3);
        Ok(Self {
            clock,
            slice: settings.slice,
            has_checkouts: settings.mix.has_checkouts(),
            committed: 0,
            committed_outside: 0,
            others: 0,
            errors: BTreeMap::new(),
            errors_before: 0,
            open: Vec::new(),
            latency_us: histogram()?,
            others_latency_us: histogram()?,
            silence: Duration::ZERO,
            elapsed: settings.duration,
            ran_out: false,
            slices: Vec::new(),
            offered: None,
            last_answer: clock.from,
            current: Slice::default(),
            current_latency_us: histogram()?,
        })
    }

    /// What the percentiles of the run are told of: checkouts, or what there is instead.
    #[must_use]
    pub const fn main_latency_us(&self) -> &Histogram<u64> {
        if self.has_checkouts { &self.latency_us } else { &self.others_latency_us }
    }

    /// Errors while the clock ran, and after.
    #[must_use]
    pub fn errors_total(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Counts an answer that came `now`.
    pub fn count(&mut self, asked: Asked, now: Instant, ended: Ended) {
        let within = now >= self.clock.from && now <= self.clock.until;
        // Answers to what was on its way when the orders ran out count, but in no slice.
        let in_slice = within && !self.ran_out;
        if in_slice {
            self.turn(now);
        }
        match ended {
            Ended::Good => {
                match asked.order {
                    Some(_) if within => self.committed += 1,
                    Some(_) => self.committed_outside += 1,
                    None if in_slice => self.others += 1,
                    None => {}
                }
                if in_slice {
                    self.current.committed += u64::from(asked.order.is_some());
                    self.current.others += u64::from(asked.order.is_none());
                }
                self.measure(asked, now, in_slice);
                self.answered(now);
            }
            Ended::Refused { code, by_shop } => {
                self.error(code, now, in_slice);
                if by_shop {
                    self.answered(now);
                }
            }
            Ended::Open { code } => {
                self.error(code, now, in_slice);
                self.open.extend(asked.order);
            }
        }
    }

    fn measure(&mut self, asked: Asked, now: Instant, in_slice: bool) {
        if asked.due < self.clock.from {
            return;
        }
        let us = u64::try_from((now - asked.due).as_micros()).unwrap_or(u64::MAX);
        let is_checkout = asked.order.is_some();
        let all = if is_checkout { &mut self.latency_us } else { &mut self.others_latency_us };
        all.saturating_record(us);
        if in_slice && is_checkout == self.has_checkouts {
            self.current_latency_us.saturating_record(us);
        }
    }

    fn error(&mut self, code: String, now: Instant, in_slice: bool) {
        if now < self.clock.from {
            self.errors_before += 1;
            return;
        }
        *self.errors.entry(code).or_default() += 1;
        self.current.errors += u64::from(in_slice);
    }

    fn answered(&mut self, now: Instant) {
        let now = now.clamp(self.clock.from, self.clock.until);
        self.silence = self.silence.max(now.saturating_duration_since(self.last_answer));
        self.last_answer = now;
    }

    /// Closes the slices that are over by `now`.
    pub fn turn(&mut self, now: Instant) {
        let since = now.min(self.clock.until).saturating_duration_since(self.clock.from);
        let over = usize::try_from(since.as_nanos() / self.slice.as_nanos().max(1)).unwrap_or(usize::MAX);
        while self.slices.len() < over {
            let mut slice = std::mem::take(&mut self.current);
            let latency = &mut self.current_latency_us;
            if !latency.is_empty() {
                slice.latency = Some(Latency {
                    p50_us: latency.value_at_quantile(0.5),
                    p99_us: latency.value_at_quantile(0.99),
                    max_us: latency.max(),
                });
                latency.reset();
            }
            self.slices.push(slice);
        }
    }

    /// There is no order left: the clock stops here.
    pub fn run_out(&mut self, now: Instant) {
        if !self.ran_out {
            self.turn(now);
            self.ran_out = true;
            self.elapsed = now.saturating_duration_since(self.clock.from).min(self.elapsed);
        }
    }

    /// All clients have ended. The last silence is one too, and the last slice counts if it is whole.
    pub fn close(&mut self) {
        let end = self.clock.from + self.elapsed;
        self.turn(end);
        self.silence = self.silence.max(end.saturating_duration_since(self.last_answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(warm_up_s: u64, seconds: u64) -> (Tally, Instant) {
        let mut settings = Settings::new(Vec::new(), 1, Duration::from_secs(seconds));
        settings.warm_up = Duration::from_secs(warm_up_s);
        let clock = Clock::start(&settings);
        (Tally::new(&settings, clock).expect("a tally"), clock.started)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn what_the_warm_up_did_is_not_counted_but_not_forgotten() {
        let (mut tally, at) = tally(2, 3);
        let asked = |due: u64| Asked { order: Some(0), due: at + ms(due) };
        tally.count(asked(0), at + ms(1_000), Ended::Good);
        tally.count(asked(1_000), at + ms(1_500), Ended::Open { code: "x".into() });
        // Sent before the clock ran, answered while it did: counted, but the wait was partly the warm-up's.
        tally.count(asked(1_900), at + ms(2_100), Ended::Good);
        tally.count(asked(2_200), at + ms(2_300), Ended::Good);
        tally.count(asked(4_900), at + ms(5_100), Ended::Good);
        tally.close();
        assert_eq!((tally.committed, tally.committed_outside), (2, 2));
        assert_eq!((tally.errors_before, tally.errors_total(), tally.open.len()), (1, 0, 1));
        assert_eq!(tally.latency_us.len(), 2);
        assert_eq!(tally.slices.len(), 3);
        assert_eq!(tally.slices.iter().map(|slice| slice.committed).collect::<Vec<_>>(), [2, 0, 0]);
        assert_eq!(tally.silence, ms(2_700));
    }

    #[test]
    fn slices_are_of_when_it_was_answered() {
        let (mut tally, at) = tally(0, 3);
        for (due, answered) in [(100, 110), (200, 210), (300, 2_300)] {
            tally.count(Asked { order: Some(0), due: at + ms(due) }, at + ms(answered), Ended::Good);
        }
        tally.close();
        let told: Vec<Option<u64>> =
            tally.slices.iter().map(|slice| slice.latency.map(|latency| latency.max_us / 100_000)).collect();
        assert_eq!(told, [Some(0), None, Some(20)]);
        assert_eq!(tally.silence, ms(2_090));
    }

    #[test]
    fn errors_of_the_server_break_no_silence_and_refusals_do() {
        for (ended, silence_ms) in [
            (Ended::Refused { code: "unavailable".into(), by_shop: false }, 900),
            (Ended::Open { code: "outcome_unknown".into() }, 900),
            (Ended::Refused { code: "out_of_stock".into(), by_shop: true }, 500),
        ] {
            let (mut tally, at) = tally(0, 1);
            tally.count(Asked { order: None, due: at }, at + ms(100), Ended::Good);
            tally.count(Asked { order: None, due: at }, at + ms(500), ended);
            tally.close();
            assert_eq!(tally.silence, ms(silence_ms));
            assert_eq!(tally.slices[0].errors, 1);
        }
    }

    #[test]
    fn the_clock_stops_when_the_orders_run_out() {
        let (mut tally, at) = tally(0, 10);
        tally.count(Asked { order: Some(0), due: at }, at + ms(100), Ended::Good);
        tally.run_out(at + ms(2_500));
        tally.run_out(at + ms(3_500));
        // What was on its way then still counts.
        tally.count(Asked { order: Some(1), due: at }, at + ms(2_600), Ended::Good);
        tally.close();
        assert_eq!((tally.elapsed, tally.slices.len(), tally.silence), (ms(2_500), 2, ms(2_500)));
        assert_eq!((tally.committed, tally.committed_outside), (2, 0));
    }
}
