//! What is seen while it runs: on a terminal alone, and on stderr, so that it is in nobody's way.

use super::engine::Live;
use super::settings::Settings;
use crate::cli::page::number::{float, grouped, short};
use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

#[derive(Debug)]
pub struct Line {
    bar: ProgressBar,
    warm_up: Duration,
    slice: Duration,
}

impl Line {
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let bar = ProgressBar::new(settings.whole().as_secs());
        if let Ok(style) = ProgressStyle::with_template("{bar:20} {msg}") {
            bar.set_style(style);
        }
        Self { bar, warm_up: settings.warm_up, slice: settings.slice }
    }

    pub fn show(&self, live: Live) {
        if self.bar.is_hidden() {
            return;
        }
        self.bar.set_position(live.elapsed.as_secs());
        let whole = self.bar.length().unwrap_or_default();
        let left = whole.saturating_sub(live.elapsed.as_secs());
        self.bar.set_message(format!("{left:>3} s left  {}", self.message(live)));
    }

    fn message(&self, live: Live) -> String {
        if live.elapsed < self.warm_up {
            return "warming up".to_owned();
        }
        let Some(slice) = live.last else { return "counting".to_owned() };
        let rate = float(slice.committed + slice.others) / self.slice.as_secs_f64().max(f64::EPSILON);
        let latency = slice.latency.map_or_else(
            || "no answer".to_owned(),
            |latency| {
                let ms = |us: u64| short(float(us) / 1_000.0);
                format!("p50 {} ms  p99 {} ms", ms(latency.p50_us), ms(latency.p99_us))
            },
        );
        format!("{}/s  {latency}  {} errors", short(rate), grouped(live.errors))
    }

    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::tally::{Latency, Slice};
    use super::*;

    #[test]
    fn a_line_tells_what_happened_last() {
        let mut settings = Settings::new(Vec::new(), 1, Duration::from_secs(10));
        settings.warm_up = Duration::from_secs(2);
        let line = Line::new(&settings);
        let latency = Some(Latency { p50_us: 9_500, p99_us: 28_000, max_us: 30_000 });
        let last = Some(Slice { committed: 5_000, others: 824, errors: 3, latency });
        let mut live = Live {
            elapsed: Duration::from_secs(1),
            counted: Duration::ZERO,
            last: None,
            committed: 0,
            errors: 0,
        };
        assert_eq!(line.message(live), "warming up");
        live.elapsed = Duration::from_secs(2);
        assert_eq!(line.message(live), "counting");
        (live.last, live.errors) = (last, 1_234);
        assert_eq!(line.message(live), "5,824/s  p50 9.5 ms  p99 28 ms  1,234 errors");
        live.last = Some(Slice::default());
        assert_eq!(line.message(live), "0/s  no answer  1,234 errors");
    }
}
