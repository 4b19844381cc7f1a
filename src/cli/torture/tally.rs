//! What the clients counted, by time and by answer.

use std::collections::BTreeMap;

/// The width of a bin of the timeline.
pub const BIN_US: u64 = 500_000;
const SECOND_US: u64 = 1_000_000;
/// Errors while at most one pod was ill that are told one by one.
const EXCUSED_BY_NOTHING_MAX: usize = 20;

/// One bin of the timeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bin {
    /// Answers that tell an outcome: 200 and refusals.
    pub told: u64,
    /// Errors of the server, and connections that broke.
    pub failed: u64,
}

#[derive(Debug, Default)]
pub struct Tally {
    pub bins: Vec<Bin>,
    /// Attempts by how they ended: `200`, `409 out_of_stock`, `connection refused`.
    pub answers: BTreeMap<String, u64>,
    /// Requests that were begun.
    pub requests: u64,
    /// Errors while at most one pod was ill and nginx was well: clients should see none.
    pub unexcused: u64,
    pub unexcused_shown: Vec<String>,
    pub slowest_us: u64,
}

impl Tally {
    pub fn count(&mut self, now_us: u64, word: &str, told: bool) {
        let no = usize::try_from(now_us / BIN_US).unwrap_or(usize::MAX);
        if self.bins.len() <= no {
            self.bins.resize(no + 1, Bin::default());
        }
        if told {
            self.bins[no].told += 1;
        } else {
            self.bins[no].failed += 1;
        }
        match self.answers.get_mut(word) {
            Some(count) => *count += 1,
            None => {
                self.answers.insert(word.to_owned(), 1);
            }
        }
    }

    pub fn unexcused(&mut self, what: impl FnOnce() -> String) {
        self.unexcused += 1;
        if self.unexcused_shown.len() < EXCUSED_BY_NOTHING_MAX {
            self.unexcused_shown.push(what());
        }
    }

    /// Answers a second that told an outcome, over a stretch of the run.
    #[must_use]
    pub fn rate(&self, from_us: u64, to_us: u64) -> u64 {
        let bins = self.within(from_us, to_us);
        let told: u64 = bins.iter().map(|bin| bin.told).sum();
        let us = BIN_US * u64::try_from(bins.len()).unwrap_or_default();
        (told * SECOND_US).checked_div(us).unwrap_or_default()
    }

    /// The whole bins of that stretch.
    fn within(&self, from_us: u64, to_us: u64) -> &[Bin] {
        let no = |us: u64| usize::try_from(us / BIN_US).unwrap_or(usize::MAX).min(self.bins.len());
        let (from, to) = (no(from_us.saturating_add(BIN_US - 1)), no(to_us));
        self.bins.get(from..to).unwrap_or_default()
    }

    /// When, from a moment on, the rate of a second first was at least that much; in microseconds after it.
    #[must_use]
    pub fn back_after_us(&self, from_us: u64, rate: u64) -> Option<u64> {
        let end_us = BIN_US * u64::try_from(self.bins.len()).unwrap_or_default();
        let seconds = (0..).map(|step| from_us + step * BIN_US).take_while(|at| at + SECOND_US <= end_us);
        seconds.into_iter().find(|&at| self.rate(at, at + SECOND_US) >= rate).map(|at| at - from_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_whole_bins() {
        let mut tally = Tally::default();
        for ms in (0..4_000).step_by(10) {
            if !(1_000..2_000).contains(&ms) {
                tally.count(ms * 1_000, "200", true);
            }
        }
        assert_eq!(tally.rate(0, SECOND_US), 100);
        assert_eq!(tally.rate(SECOND_US, 2 * SECOND_US), 0);
        assert_eq!(tally.rate(0, 2 * SECOND_US), 50);
        assert_eq!(tally.back_after_us(SECOND_US, 90), Some(SECOND_US));
        assert_eq!(tally.back_after_us(SECOND_US, 200), None);
        assert_eq!(tally.answers["200"], 300);
    }
}
