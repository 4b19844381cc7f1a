//! What goes wrong and when: a schedule drawn from the seed before the run.

use crate::net::Delay;
use crate::pod::CrashPoint;
use crate::scenario::{Scenario, Trouble};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The process dies; with `power`, so does what was not synced.
    Kill {
        pod: usize,
        power: bool,
    },
    /// Dies at that moment of its next round that writes.
    CrashAt {
        pod: usize,
        point: CrashPoint,
    },
    /// All pods lose power at once.
    Blackout,
    /// Stopped, as by SIGSTOP, and continued later: its clock goes on.
    Pause {
        pod: usize,
    },
    /// One direction between two pods carries nothing; with `reset`, the link breaks as well.
    Cut {
        from: usize,
        to: usize,
        reset: bool,
    },
    /// A pod hears nobody, or is heard by nobody, or both.
    Isolate {
        pod: usize,
        hears: bool,
        heard: bool,
    },
    /// Cut off, and stopped for the first half: when it goes on, others have long done without it, and it
    /// has not heard of them. What clients asked it meanwhile is the first that it takes.
    Adrift {
        pod: usize,
    },
    /// What is queued on a link is lost.
    Reset {
        from: usize,
        to: usize,
    },
    SlowLink {
        from: usize,
        to: usize,
        delay: Delay,
    },
    SlowDisk {
        pod: usize,
        times: u64,
    },
    /// The next persist fails: the process aborts.
    FailDisk {
        pod: usize,
    },
    /// The disk is lost with the process. The pod starts again, empty, and is refilled.
    LostDisk {
        pod: usize,
    },
    /// A byte on the disk changes, and the pod dies: its next start finds out.
    Rot {
        pod: usize,
    },
}

#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub at_us: u64,
    /// How long it lasts: a dead pod is down for that long.
    pub for_us: u64,
    pub kind: Kind,
}

/// How long the effects of a fault linger once it has ended: elections, questions in doubt, a delayed
/// answer of a link that was slow to notice. Nothing counts as calm until then.
pub const AFTERMATH_US: u64 = 6_000_000;
/// A disk that is lost is noticed, replaced and refilled within that long besides.
const REFILL_US: u64 = 8_000_000;
/// A cluster that has just formed has leaders after that long.
pub const SETTLING_US: u64 = 3_000_000;

/// When something was broken, or might still be.
pub struct Weather {
    storms: Vec<Storm>,
}

struct Storm {
    from_us: u64,
    to_us: u64,
    /// A pod is gone for good, and all that lingers of it is that it is missing.
    for_good: bool,
}

impl Weather {
    pub fn new(faults: &[Fault]) -> Self {
        let mut storms = vec![Storm { from_us: 0, to_us: SETTLING_US, for_good: false }];
        storms.extend(faults.iter().map(|fault| Storm {
            from_us: fault.at_us,
            to_us: fault.at_us + fault.for_us + AFTERMATH_US + refill_us(fault.kind),
            // A disk that is lost takes edits with it that were on no other: that is no calm any more.
            for_good: matches!(fault.kind, Kind::Rot { .. } | Kind::LostDisk { .. }),
        }));
        Self { storms }
    }

    /// Whether nothing was broken between the two moments.
    pub fn calm(&self, from_us: u64, to_us: u64) -> bool {
        let over = |storm: &Storm| !storm.for_good && from_us > storm.to_us;
        self.storms.iter().all(|storm| to_us < storm.from_us || over(storm))
    }

    /// Whether all pods that still live heard each other between the two moments: none is behind.
    pub fn connected(&self, from_us: u64, to_us: u64) -> bool {
        self.storms.iter().all(|storm| to_us < storm.from_us || from_us > storm.to_us)
    }
}

const fn refill_us(kind: Kind) -> u64 {
    if matches!(kind, Kind::LostDisk { .. }) { REFILL_US } else { 0 }
}

pub fn schedule(scenario: &Scenario, rng: &mut ChaCha8Rng) -> Vec<Fault> {
    let count = match scenario.trouble {
        Trouble::None => 0,
        Trouble::Some => rng.random_range(1..5),
        Trouble::Much => rng.random_range(5..20),
    };
    let mut rotten = false;
    let mut faults: Vec<Fault> = (0..count)
        .map(|_| {
            let at_us = rng.random_range(100_000..scenario.faults_end_us);
            let longest = (scenario.faults_end_us - at_us).clamp(20_000, 4_000_000);
            let kind = kind(scenario, &mut rotten, rng);
            Fault { at_us, for_us: rng.random_range(10_000..=longest), kind }
        })
        .collect();
    if !rotten && !faults.is_empty() && scenario.may_lose_disks() {
        faults.extend(lost_disks(scenario, rng.clone()));
    }
    let stalls = stalls(scenario, &faults, rng.clone());
    faults.extend(stalls);
    faults.sort_by_key(|fault| fault.at_us);
    faults
}

/// Before some of the losses of power everywhere all disks stall: what was written then is on none of them, and
/// whoever said too early that it was is found out. Drawn apart, as lost disks are.
fn stalls(scenario: &Scenario, faults: &[Fault], mut rng: ChaCha8Rng) -> Vec<Fault> {
    rng.set_stream(2);
    let mut stalls = Vec::new();
    for blackout in faults.iter().filter(|fault| fault.kind == Kind::Blackout) {
        if rng.random_bool(0.5) {
            let for_us = rng.random_range(20_000..400_000).min(blackout.at_us);
            let times = rng.random_range(20..400);
            stalls.extend((0..scenario.pods).map(|pod| Fault {
                at_us: blackout.at_us - for_us,
                for_us,
                kind: Kind::SlowDisk { pod, times },
            }));
        }
    }
    stalls
}

/// In some seeds disks are lost, one after the other. Drawn apart, so that all else is as it would be without.
fn lost_disks(scenario: &Scenario, mut rng: ChaCha8Rng) -> Vec<Fault> {
    rng.set_stream(1);
    if !rng.random_ratio(1, 6) {
        return Vec::new();
    }
    (0..rng.random_range(1..4))
        .map(|_| Fault {
            at_us: rng.random_range(100_000..scenario.faults_end_us),
            for_us: rng.random_range(10_000..1_500_000),
            kind: Kind::LostDisk { pod: rng.random_range(0..scenario.pods) },
        })
        .collect()
}

fn kind(scenario: &Scenario, rotten: &mut bool, rng: &mut ChaCha8Rng) -> Kind {
    let pod = rng.random_range(0..scenario.pods);
    let other = (pod + rng.random_range(1..scenario.pods.max(2))) % scenario.pods;
    match rng.random_range(0..100) {
        0..18 => Kind::Kill { pod, power: rng.random_bool(0.6) },
        18..36 => {
            let points = [CrashPoint::Before, CrashPoint::Amid, CrashPoint::After];
            Kind::CrashAt { pod, point: points[rng.random_range(0..3)] }
        }
        36..40 => Kind::Blackout,
        40..46 => Kind::Pause { pod },
        46..54 => Kind::Adrift { pod },
        54..64 => Kind::Cut { from: pod, to: other, reset: rng.random_bool(0.5) },
        64..74 => {
            let (hears, heard) = [(false, false), (true, false), (false, true)][rng.random_range(0..3)];
            Kind::Isolate { pod, hears, heard }
        }
        74..82 => Kind::Reset { from: pod, to: other },
        82..88 => {
            let delay = Delay { base_us: rng.random_range(1_000..100_000), jitter_us: 50_000 };
            Kind::SlowLink { from: pod, to: other, delay }
        }
        88..93 => Kind::SlowDisk { pod, times: rng.random_range(10..200) },
        93..97 => Kind::FailDisk { pod },
        _ if !*rotten && scenario.bears_a_loss() => {
            // One is a minority of any cluster; a second might not be.
            *rotten = true;
            Kind::Rot { pod }
        }
        _ => Kind::FailDisk { pod },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Commit;
    use rand::SeedableRng;

    #[test]
    fn every_kind_comes_up_and_at_most_one_disk_rots() {
        let mut kinds = std::collections::BTreeSet::new();
        let mut lost = 0;
        for seed in 0..300 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let scenario = Scenario { commit: Commit::Reserve, ..Scenario::of(&mut rng) };
            let faults = schedule(&scenario, &mut rng);
            assert_eq!(faults.is_empty(), scenario.trouble == Trouble::None);
            let rotten = faults.iter().filter(|fault| matches!(fault.kind, Kind::Rot { .. })).count();
            let lose = faults.iter().filter(|fault| matches!(fault.kind, Kind::LostDisk { .. })).count();
            assert!(rotten <= 1 && (rotten == 0 || lose == 0));
            lost += usize::from(lose > 0);
            assert!(faults.iter().all(|fault| fault.at_us < scenario.faults_end_us));
            for fault in &faults {
                kinds.insert(format!("{:?}", fault.kind).split([' ', '{']).next().unwrap().to_owned());
            }
        }
        assert_eq!(kinds.len(), 13, "{kinds:?}");
        assert!((20..80).contains(&lost), "{lost} seeds of 300 lose disks");
    }

    #[test]
    fn it_is_calm_only_well_after_a_fault() {
        let kind = Kind::Pause { pod: 0 };
        let weather = Weather::new(&[Fault { at_us: 10_000_000, for_us: 1_000_000, kind }]);
        assert!(!weather.calm(1, 2));
        assert!(weather.calm(4_000_000, 5_000_000));
        assert!(!weather.calm(4_000_000, 10_000_001));
        assert!(!weather.calm(12_000_000, 13_000_000));
        assert!(weather.calm(18_000_000, 19_000_000));
    }

    #[test]
    fn a_lost_disk_ends_the_calm_for_good_and_not_the_connection() {
        let kind = Kind::Rot { pod: 0 };
        let weather = Weather::new(&[Fault { at_us: 10_000_000, for_us: 1_000_000, kind }]);
        assert!(!weather.calm(30_000_000, 31_000_000));
        assert!(!weather.connected(16_000_000, 16_000_001));
        assert!(weather.connected(30_000_000, 31_000_000));
    }
}
