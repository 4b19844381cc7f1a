//! How long a leader or candidate may be silent: longer, where leaders keep getting lost.
//!
//! A time-out that is shorter than a round of the replicas takes deposes every leader before it has
//! answered anything, for ever. No fixed one is right for a disk that takes 1 ms and for one that takes
//! 200 ms. So each replica doubles its own when it has lost a leader, or an office of its own, to silence
//! more than once in a while, and takes that back step by step in calm times. Time-outs that grow
//! are what makes an election end once delays are bounded by *some* bound, known to nobody (Dwork, Lynch and
//! Stockmeyer 1988, §4; Chandra and Toueg 1996, figure 10). A leader whose link goes down is suspected
//! at once all the same. Nothing of this is needed for safety.

use crate::breaks;
use crate::time::{Span, Time};
use std::hash::{Hash, Hasher};

/// A time-out grows to eight times the configured one: 2 s by default, as long as a stopped pod may go unnoticed.
const DOUBLINGS_MAX: u64 = 3;
/// Without a loss for so many of the configured time-outs, 10 s by default, one doubling is taken back. Not all of
/// them: a disk that has become slow for good would lose its leaders anew, one doubling after the other.
const CALM_TIMES: u64 = 40;

/// What a replica of a shard has learned of how long its peers may take.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    /// When the last loss was.
    lost_at: Time,
    /// One more than the doublings then; 0 if nothing was ever lost.
    losses: u64,
}

impl Patience {
    /// A leader, a candidacy or an office of one's own was given up because somebody was silent for too long; the
    /// configured time-out is `timeout`.
    pub fn lose(&mut self, now: Time, timeout: Span) {
        self.losses = (self.remembered(now, timeout) + 1).min(DOUBLINGS_MAX + 1);
        self.lost_at = now;
    }

    /// How long to wait now, where `timeout` is what is configured.
    #[must_use]
    pub fn wait(&self, now: Time, timeout: Span) -> Span {
        if breaks::is("impatient") {
            return timeout;
        }
        Span(timeout.0 << self.remembered(now, timeout).saturating_sub(1))
    }

    fn remembered(&self, now: Time, timeout: Span) -> u64 {
        let calms = now.since(self.lost_at).0.checked_div(timeout.0 * CALM_TIMES).unwrap_or(0);
        self.losses.saturating_sub(calms)
    }
}

/// Two replicas that differ only in how long they wait may do the same at the same moment: the models try
/// every moment, and take them for one.
impl Hash for Patience {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Span = Span::from_millis(250);

    fn at(ms: u64) -> Time {
        Time(ms * 1_000)
    }

    #[test]
    fn one_loss_changes_nothing() {
        let mut patience = Patience::default();
        assert_eq!(patience.wait(at(0), TIMEOUT), TIMEOUT);
        patience.lose(at(100), TIMEOUT);
        assert_eq!(patience.wait(at(100), TIMEOUT), TIMEOUT);
    }

    #[test]
    fn losses_in_a_row_double_it_up_to_a_bound() {
        let mut patience = Patience::default();
        let waits: Vec<u64> = (0..6)
            .map(|n| {
                patience.lose(at(n * 1_000), TIMEOUT);
                patience.wait(at(n * 1_000), TIMEOUT).0 / TIMEOUT.0
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 8, 8]);
    }

    #[test]
    fn each_calm_takes_one_doubling_back() {
        let mut patience = Patience::default();
        for ms in [0, 1_000, 2_000] {
            patience.lose(at(ms), TIMEOUT);
        }
        let times = |patience: &Patience, ms| patience.wait(at(ms), TIMEOUT).0 / TIMEOUT.0;
        let waits = [2_000, 11_999, 12_000, 21_999, 22_000, 90_000].map(|ms| times(&patience, ms));
        assert_eq!(waits, [4, 4, 2, 2, 1, 1]);
        patience.lose(at(12_500), TIMEOUT);
        assert_eq!(times(&patience, 12_500), 4, "what was long enough before is so again at once");
        patience.lose(at(90_000), TIMEOUT);
        assert_eq!(times(&patience, 90_000), 1, "one loss by itself changes nothing");
    }
}
