//! How long a leader or candidate may be silent: longer, where leaders keep getting lost.
//!
//! A time-out that is shorter than a round of the replicas takes deposes every leader before it has
//! answered anything, for ever. No fixed one is right for a disk that takes 1 ms and for one that takes
//! 200 ms. So each replica doubles its own when it has lost a leader, or an office of its own, to silence
//! more than once in a while, and goes back to the configured one after a calm. Time-outs that grow
//! are what makes an election end once delays are bounded by *some* bound, known to nobody (Dwork, Lynch and
//! Stockmeyer 1988, §4; Chandra and Toueg 1996, figure 10). A leader whose link goes down is suspected
//! at once all the same. Nothing of this is needed for safety.

use crate::breaks;
use crate::time::{Span, Time};
use std::hash::{Hash, Hasher};

/// A time-out grows to eight times the configured one: 2 s by default, as long as a stopped pod may go unnoticed.
const DOUBLINGS_MAX: u32 = 3;
/// Without a loss for so long, the configured time-out is long enough.
const CALM: Span = Span::from_millis(10_000);

/// What a replica of a shard has learned of how long its peers may take.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    /// When the last loss was, and how many there were before it without a calm in between.
    lost: Option<(Time, u32)>,
}

impl Patience {
    /// A leader, a candidacy or an office of one's own was given up because somebody was silent for too long.
    pub fn lose(&mut self, now: Time) {
        let before = match self.lost {
            Some((at, before)) if now.since(at) < CALM => before + 1,
            Some(_) | None => 0,
        };
        self.lost = Some((now, before));
    }

    /// How long to wait now, where `timeout` is what is configured.
    #[must_use]
    pub fn wait(&self, now: Time, timeout: Span) -> Span {
        match self.lost {
            Some((at, before)) if now.since(at) < CALM && !breaks::is("impatient") => {
                Span(timeout.0 << before.min(DOUBLINGS_MAX))
            }
            Some(_) | None => timeout,
        }
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
        patience.lose(at(100));
        assert_eq!(patience.wait(at(100), TIMEOUT), TIMEOUT);
    }

    #[test]
    fn losses_in_a_row_double_it_up_to_a_bound() {
        let mut patience = Patience::default();
        let waits: Vec<u64> = (0..6)
            .map(|n| {
                patience.lose(at(n * 1_000));
                patience.wait(at(n * 1_000), TIMEOUT).0 / TIMEOUT.0
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 8, 8]);
    }

    #[test]
    fn a_calm_ends_it() {
        let mut patience = Patience::default();
        patience.lose(at(0));
        patience.lose(at(1_000));
        assert_eq!(patience.wait(at(10_999), TIMEOUT), Span(2 * TIMEOUT.0));
        assert_eq!(patience.wait(at(11_000), TIMEOUT), TIMEOUT);
        patience.lose(at(12_000));
        assert_eq!(patience.wait(at(12_000), TIMEOUT), TIMEOUT);
    }
}
