//! What is broken when: a pure function of the seed.
//!
//! Storms alternate with calm. In most storms one pod alone is ill, in one way after the other or in several
//! at once: clients should not notice. In the others it is a majority, up to all pods: then requests may fail,
//! and still nothing may be lost or wrong.

use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use std::fmt;

/// Before the first storm: the throughput of a healthy cluster is measured.
pub const WARM_MS: u64 = 6_000;
/// Between two storms. All that lingers of one is over by the half of it, and then the checks are strictest.
const CALM_MS: u64 = 9_000;
const STORM_MS: std::ops::Range<u64> = 5_000..14_000;
/// Storms in which a majority may be ill, among all.
const MAJORITY: (u32, u32) = (3, 10);

/// A way in which something is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A pod is killed (SIGKILL) and started again later
    Kill,
    /// A pod is stopped (SIGSTOP) and goes on later
    Stop,
    /// A pod hears nobody and nobody hears it, or two pods do not hear each other
    Partition,
    /// A pod does not hear another, which hears it
    Oneway,
    /// What a pod sends, to all or to one, is on its way for longer
    SlowLink,
    /// A pod's fsyncs take longer
    SlowDisk,
    /// Every write of a pod to its disk fails, until it is started again
    FullDisk,
    /// A pod's data is gone, and the pod is refilled by `kassa replace`
    LostDisk,
    /// A pod's clock jumps ahead, or runs at another rate
    Clock,
    /// nginx is killed, reloaded, or stopped for a while
    Nginx,
}

impl Kind {
    /// Everything that this kassa can do, by default.
    pub const DEFAULT: [Self; 10] = [
        Self::Kill,
        Self::Stop,
        Self::Partition,
        Self::Oneway,
        Self::SlowLink,
        Self::SlowDisk,
        Self::FullDisk,
        Self::LostDisk,
        Self::Clock,
        Self::Nginx,
    ];

    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Partition => "partition",
            Self::Oneway => "oneway",
            Self::SlowLink => "slow-link",
            Self::SlowDisk => "slow-disk",
            Self::FullDisk => "full-disk",
            Self::LostDisk => "lost-disk",
            Self::Clock => "clock",
            Self::Nginx => "nginx",
        }
    }
}

/// What is done, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    Kill {
        pods: Vec<u16>,
    },
    Stop {
        pods: Vec<u16>,
    },
    /// Each of them is cut off from all others.
    Alone {
        pods: Vec<u16>,
    },
    /// The two do not hear each other; a third hears both.
    Apart {
        pods: [u16; 2],
    },
    OneWay {
        from: u16,
        to: u16,
    },
    /// What it sends to all, or to one alone, who then lags behind the others.
    SlowLink {
        pod: u16,
        to: Option<u16>,
        ms: u64,
    },
    SlowDisk {
        pod: u16,
        ms: u64,
    },
    FullDisk {
        pod: u16,
    },
    LostDisk {
        pod: u16,
    },
    ClockJump {
        pod: u16,
        ms: u64,
    },
    ClockRate {
        pod: u16,
        percent: u64,
    },
    NginxDown {
        killed: bool,
    },
    NginxReload,
}

impl Fault {
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Kill { .. } => Kind::Kill,
            Self::Stop { .. } => Kind::Stop,
            Self::Alone { .. } | Self::Apart { .. } => Kind::Partition,
            Self::OneWay { .. } => Kind::Oneway,
            Self::SlowLink { .. } => Kind::SlowLink,
            Self::SlowDisk { .. } => Kind::SlowDisk,
            Self::FullDisk { .. } => Kind::FullDisk,
            Self::LostDisk { .. } => Kind::LostDisk,
            Self::ClockJump { .. } | Self::ClockRate { .. } => Kind::Clock,
            Self::NginxDown { .. } | Self::NginxReload => Kind::Nginx,
        }
    }

    /// The pods that are ill with it.
    #[must_use]
    pub fn pods(&self) -> Vec<u16> {
        match self {
            Self::Kill { pods } | Self::Stop { pods } | Self::Alone { pods } => pods.clone(),
            Self::Apart { pods } => pods.to_vec(),
            Self::OneWay { from, to } => vec![*from, *to],
            Self::SlowLink { pod, .. }
            | Self::SlowDisk { pod, .. }
            | Self::FullDisk { pod }
            | Self::LostDisk { pod }
            | Self::ClockJump { pod, .. }
            | Self::ClockRate { pod, .. } => vec![*pod],
            Self::NginxDown { .. } | Self::NginxReload => Vec::new(),
        }
    }

    /// The lines by which `pod` is given its part of it; none where it is done from outside.
    #[must_use]
    pub fn lines(&self, pod: u16, all: u16) -> Vec<String> {
        let cut = |other: u16| [format!("cut-out {other}"), format!("cut-in {other}")];
        let others = || (0..all).filter(move |&other| other != pod);
        match self {
            Self::Alone { pods } if pods.contains(&pod) => others().flat_map(cut).collect(),
            Self::Apart { pods: [a, b] } if *a == pod => cut(*b).into(),
            Self::Apart { pods: [a, b] } if *b == pod => cut(*a).into(),
            Self::OneWay { from, to } if *from == pod => vec![format!("cut-out {to}")],
            Self::OneWay { from, to } if *to == pod => vec![format!("cut-in {from}")],
            Self::SlowLink { pod: ill, to, ms } if *ill == pod => others()
                .filter(|other| to.is_none_or(|to| to == *other))
                .map(|other| format!("slow-link {other} {ms}"))
                .collect(),
            Self::SlowDisk { pod: ill, ms } if *ill == pod => vec![format!("slow-disk {ms}")],
            Self::ClockRate { pod: ill, percent } if *ill == pod => vec![format!("clock-rate {percent}")],
            Self::Kill { .. }
            | Self::Stop { .. }
            | Self::Alone { .. }
            | Self::Apart { .. }
            | Self::OneWay { .. }
            | Self::SlowLink { .. }
            | Self::SlowDisk { .. }
            | Self::FullDisk { .. }
            | Self::LostDisk { .. }
            | Self::ClockJump { .. }
            | Self::ClockRate { .. }
            | Self::NginxDown { .. }
            | Self::NginxReload => Vec::new(),
        }
    }
}

fn named(pods: &[u16]) -> String {
    let numbers: Vec<String> = pods.iter().map(u16::to_string).collect();
    match &numbers[..] {
        [one] => format!("pod {one}"),
        [most @ .., last] => format!("pods {} and {last}", most.join(", ")),
        [] => "nobody".to_owned(),
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill { pods } => write!(f, "{} killed", named(pods)),
            Self::Stop { pods } => write!(f, "{} stopped", named(pods)),
            Self::Alone { pods } => write!(f, "{} cut off", named(pods)),
            Self::Apart { pods: [a, b] } => write!(f, "pods {a} and {b} cut apart"),
            Self::OneWay { from, to } => write!(f, "pod {to} deaf to pod {from}"),
            Self::SlowLink { pod, to: None, ms } => write!(f, "pod {pod} sends {ms} ms late"),
            Self::SlowLink { pod, to: Some(to), ms } => write!(f, "pod {pod} sends {ms} ms late to pod {to}"),
            Self::SlowDisk { pod, ms } => write!(f, "pod {pod} fsyncs {ms} ms slower"),
            Self::FullDisk { pod } => write!(f, "pod {pod} has a full disk"),
            Self::LostDisk { pod } => write!(f, "pod {pod} loses its disk"),
            Self::ClockJump { pod, ms } => write!(f, "pod {pod}'s clock {ms} ms ahead"),
            Self::ClockRate { pod, percent } => write!(f, "pod {pod}'s clock at {percent} %"),
            Self::NginxDown { killed: true } => write!(f, "nginx killed"),
            Self::NginxDown { killed: false } => write!(f, "nginx stopped"),
            Self::NginxReload => write!(f, "nginx reloaded"),
        }
    }
}

/// One fault and its time, in milliseconds since the load began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spell {
    pub from_ms: u64,
    pub to_ms: u64,
    pub fault: Fault,
    /// In its storm a majority may be ill.
    pub majority: bool,
}

/// Every fault of a run, by its beginning.
#[must_use]
pub fn schedule(seed: u64, kinds: &[Kind], length_ms: u64, pods: u16) -> Vec<Spell> {
    let mut draw = Draw { rng: StdRng::seed_from_u64(seed), kinds: kinds.to_vec(), left: Vec::new(), pods };
    draw.kinds.sort_unstable();
    draw.kinds.dedup();
    let mut spells = Vec::new();
    let mut from_ms = WARM_MS.min(length_ms / 3);
    while !draw.kinds.is_empty() && from_ms + STORM_MS.start / 2 < length_ms {
        let to_ms = (from_ms + draw.rng.random_range(STORM_MS)).min(length_ms);
        draw.storm(from_ms, to_ms, &mut spells);
        from_ms = to_ms + CALM_MS;
    }
    spells.sort_by_key(|spell| spell.from_ms);
    spells
}

struct Draw {
    rng: StdRng,
    kinds: Vec<Kind>,
    /// Those that have not come up since all had.
    left: Vec<Kind>,
    pods: u16,
}

impl Draw {
    /// Each kind comes up as often as any other, in any order.
    fn kind(&mut self) -> Kind {
        if self.left.is_empty() {
            self.left.clone_from(&self.kinds);
        }
        let at = self.rng.random_range(0..self.left.len());
        self.left.swap_remove(at)
    }

    fn storm(&mut self, from_ms: u64, to_ms: u64, spells: &mut Vec<Spell>) {
        let majority = self.rng.random_ratio(MAJORITY.0, MAJORITY.1);
        let victim = self.pod();
        let mut at_ms = from_ms;
        let mut disk_lost = false;
        while at_ms < to_ms {
            let victim = if majority { self.pod() } else { victim };
            let mut kind = self.kind();
            // The disks of a majority cannot be lost; one that is refilled counts as lost until it is whole.
            if kind == Kind::LostDisk && std::mem::replace(&mut disk_lost, true) {
                kind = Kind::Kill;
            }
            let fault = self.fault(kind, victim, majority);
            let lasts_ms = self.lasts_ms(kind);
            let end_ms = (at_ms + lasts_ms).min(to_ms);
            spells.push(Spell { from_ms: at_ms, to_ms: end_ms, fault, majority });
            // Now and then the next one comes before this one has ended.
            let next = if self.rng.random_ratio(1, 3) { lasts_ms / 2 } else { lasts_ms };
            at_ms += next + self.rng.random_range(200..1_500);
        }
    }

    fn pod(&mut self) -> u16 {
        self.rng.random_range(0..self.pods)
    }

    fn other(&mut self, than: u16) -> u16 {
        if self.pods < 2 { than } else { (than + self.rng.random_range(1..self.pods)) % self.pods }
    }

    /// One pod, or where a majority may be ill, more of them.
    fn some(&mut self, victim: u16, majority: bool) -> Vec<u16> {
        let count = if majority { self.rng.random_range(1..=self.pods) } else { 1 };
        let mut pods: Vec<u16> = (0..count).map(|step| (victim + step) % self.pods).collect();
        pods.sort_unstable();
        pods
    }

    fn fault(&mut self, kind: Kind, pod: u16, majority: bool) -> Fault {
        match kind {
            Kind::Kill => Fault::Kill { pods: self.some(pod, majority) },
            Kind::Stop => Fault::Stop { pods: self.some(pod, majority) },
            Kind::Partition if self.pods > 2 && self.rng.random_ratio(1, 3) => {
                Fault::Apart { pods: [pod, self.other(pod)] }
            }
            Kind::Partition => Fault::Alone { pods: self.some(pod, majority) },
            Kind::Oneway if self.rng.random_bool(0.5) => Fault::OneWay { from: pod, to: self.other(pod) },
            Kind::Oneway => Fault::OneWay { from: self.other(pod), to: pod },
            Kind::SlowLink => {
                let to = self.rng.random_bool(0.5).then(|| self.other(pod));
                Fault::SlowLink { pod, to, ms: self.rng.random_range(10..300) }
            }
            Kind::SlowDisk => Fault::SlowDisk { pod, ms: self.rng.random_range(10..300) },
            Kind::FullDisk => Fault::FullDisk { pod },
            Kind::LostDisk => Fault::LostDisk { pod },
            Kind::Clock if self.rng.random_bool(0.5) => {
                Fault::ClockJump { pod, ms: self.rng.random_range(100..60_000) }
            }
            Kind::Clock => Fault::ClockRate { pod, percent: [20, 50, 200, 400][self.rng.random_range(0..4)] },
            Kind::Nginx => match self.rng.random_range(0..3) {
                0 => Fault::NginxReload,
                1 => Fault::NginxDown { killed: true },
                _ => Fault::NginxDown { killed: false },
            },
        }
    }

    fn lasts_ms(&mut self, kind: Kind) -> u64 {
        match kind {
            Kind::Kill => self.rng.random_range(200..4_000),
            // Most are short, some are longer than anybody's patience.
            Kind::Stop => {
                let longest = [300, 1_000, 4_000, 20_000][self.rng.random_range(0..4)];
                self.rng.random_range(100..longest)
            }
            Kind::Partition | Kind::Oneway => {
                let longest = [1_000, 4_000, 10_000][self.rng.random_range(0..3)];
                self.rng.random_range(200..longest)
            }
            Kind::SlowLink | Kind::SlowDisk | Kind::Clock => self.rng.random_range(1_000..6_000),
            Kind::FullDisk | Kind::LostDisk => self.rng.random_range(1_000..4_000),
            Kind::Nginx => self.rng.random_range(100..1_500),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: u64 = 60_000;

    #[test]
    fn a_seed_gives_the_same_faults_at_the_same_times() {
        let of = |seed| schedule(seed, &Kind::DEFAULT, 5 * MINUTE_MS, 3);
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
        let kinds: std::collections::BTreeSet<Kind> =
            (0..5).flat_map(of).map(|spell| spell.fault.kind()).collect();
        assert_eq!(kinds.len(), Kind::DEFAULT.len(), "{kinds:?}");
    }

    #[test]
    fn a_longer_run_begins_as_a_shorter_one() {
        let (short, long) = (schedule(3, &Kind::DEFAULT, 60_000, 3), schedule(3, &Kind::DEFAULT, 120_000, 3));
        let whole = short.iter().filter(|spell| spell.to_ms < 60_000).count();
        assert!(whole > 3 && short[..whole] == long[..whole]);
    }

    #[test]
    fn in_most_storms_one_pod_is_ill_and_calm_is_between_them() {
        let (mut one, mut more) = (0, 0);
        for seed in 0..20 {
            let mut ends_ms = 0;
            let mut ill: Vec<u16> = Vec::new();
            for spell in schedule(seed, &Kind::DEFAULT, 5 * MINUTE_MS, 3) {
                if spell.from_ms >= ends_ms + CALM_MS / 2 {
                    ill.clear();
                }
                ends_ms = ends_ms.max(spell.to_ms);
                assert!(spell.from_ms >= WARM_MS && spell.from_ms < spell.to_ms);
                // Of two that do not hear each other, one is the victim.
                let two = matches!(spell.fault, Fault::Apart { .. } | Fault::OneWay { .. });
                if spell.majority {
                    more += 1;
                } else {
                    one += 1;
                    ill.extend(if two { Vec::new() } else { spell.fault.pods() });
                }
                ill.dedup();
                assert!(spell.majority || ill.len() <= 1, "seed {seed}: {ill:?}");
            }
        }
        assert!(one > more && more > 50, "{one} and {more}");
    }

    #[test]
    fn short_runs_have_a_storm_too() {
        for seed in 0..20 {
            let spells = schedule(seed, &[Kind::Kill, Kind::Stop], 12_000, 3);
            assert!(!spells.is_empty() && spells.iter().all(|spell| spell.to_ms <= 12_000), "{seed}");
        }
    }
}
