//! What `kassa torture` may do to a pod while it runs: cut and slow links, a slow disk, a bent clock.
//!
//! A pod takes such orders on its standard input alone, and only if it was started with
//! `--faults-from-stdin`, so that nobody but the process that started it can give them. All is done where
//! the world would do it: below the protocols, at the socket, before an fsync, in the clock's reading.
//!
//! | order | effect, until `heal` |
//! |---|---|
//! | `cut-out N` | nothing from this pod reaches pod N: what is sent waits, dials fail |
//! | `cut-in N` | nothing from pod N is heard |
//! | `slow-link N MS` | what is sent to N is on its way for MS to twice MS milliseconds longer |
//! | `slow-disk MS` | every commit that syncs takes MS milliseconds longer |
//! | `clock-rate PERCENT` | the pod's clock runs at this rate |
//! | `clock-jump MS` | the pod's clock is ahead by so much more; that stays, as clocks do not go back |
//! | `heal` | all is well again |

use super::clock::Clock;
use crate::fabric;
use crate::fabric::faults::Illness;
use kassa_protocols::ids::PodId;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Far more than any fault that teaches something; keeps sums of times far from their ends.
const MILLIS_MAX: u64 = 3_600_000;
/// A clock faster than this is broken, and says nothing of a protocol.
const RATE_PERCENT_MAX: u64 = 10_000;
const RATE_PERCENT: u64 = 100;

/// What is wrong with one pod on purpose; at first nothing. Clones are of the same pod.
#[derive(Clone, Debug)]
pub struct Faults {
    pub links: Arc<fabric::faults::Faults>,
    pub disk: SlowDisk,
    pub clock: Clock,
}

/// How much longer every commit that syncs takes.
#[derive(Clone, Debug, Default)]
pub struct SlowDisk(Arc<AtomicU64>);

impl SlowDisk {
    /// Waits as long as a slow disk would.
    pub fn delay(&self) {
        let millis = self.0.load(Ordering::Relaxed);
        if millis > 0 {
            std::thread::sleep(Duration::from_millis(millis));
        }
    }

    fn set(&self, millis: u64) {
        self.0.store(millis, Ordering::Relaxed);
    }
}

impl Faults {
    /// None, of a pod that has these `peers` and this `clock`.
    pub fn none(peers: impl IntoIterator<Item = PodId>, clock: Clock) -> Self {
        Self { links: Arc::new(fabric::faults::Faults::none(peers)), disk: SlowDisk::default(), clock }
    }

    /// Does what one line says.
    ///
    /// # Errors
    /// What is wrong with the line; nothing is changed then.
    pub fn obey(&self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["cut-out", peer] => self.change(peer, |link| link.cut_out = true),
            ["cut-in", peer] => self.change(peer, |link| link.cut_in = true),
            ["slow-link", peer, millis] => {
                let delay = Duration::from_millis(number(millis, MILLIS_MAX)?);
                self.change(peer, |link| link.delay = delay)
            }
            ["slow-disk", millis] => {
                self.disk.set(number(millis, MILLIS_MAX)?);
                Ok(())
            }
            ["clock-jump", millis] => {
                self.clock.jump(Duration::from_millis(number(millis, MILLIS_MAX)?));
                Ok(())
            }
            ["clock-rate", percent] => {
                self.clock.run_at(number(percent, RATE_PERCENT_MAX)?);
                Ok(())
            }
            ["heal"] => {
                self.links.heal();
                self.disk.set(0);
                self.clock.run_at(RATE_PERCENT);
                Ok(())
            }
            _ => Err(format!("`{line}` is no fault that a pod can be given")),
        }
    }

    fn change(&self, peer: &str, change: impl FnOnce(&mut Illness)) -> Result<(), String> {
        let known = peer.parse().is_ok_and(|number| self.links.change(PodId(number), change));
        if known { Ok(()) } else { Err(format!("there is no peer {peer}")) }
    }
}

fn number(word: &str, max: u64) -> Result<u64, String> {
    let number = word.parse().ok().filter(|&number| number <= max);
    number.ok_or_else(|| format!("{word} is not a number from 0 to {max}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults() -> Faults {
        Faults::none([PodId(1), PodId(2)], Clock::start())
    }

    #[test]
    fn a_slow_disk_is_slow_until_it_is_healed() {
        let faults = faults();
        faults.obey("slow-disk 7").unwrap();
        assert_eq!(faults.disk.0.load(Ordering::Relaxed), 7);
        faults.obey("heal").unwrap();
        assert_eq!(faults.disk.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_is_no_order_is_refused() {
        let faults = faults();
        for line in ["", "cut-out", "cut-out 0", "cut-in x", "slow-disk -1", "slow-disk 3600001", "explode"] {
            assert!(faults.obey(line).is_err(), "{line}");
        }
        faults.obey("cut-out 1").unwrap();
    }
}
