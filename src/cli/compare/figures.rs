//! What was measured: one value a round, or a crash, so that its spread can be told.

use super::configuration::Configuration;
use super::plan::{Demand, Plan};
use crate::cli::machine::Machine;
use serde::Serialize;

/// Everything that one run of the comparison found.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    pub command: String,
    pub machine: Machine,
    pub behind_nginx: bool,
    pub plan: Plan,
    pub took_seconds: f64,
    pub configurations: Vec<Measured>,
}

/// One configuration.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    pub configuration: Configuration,
    pub loads: Vec<Load>,
    pub crashes: Vec<Crash>,
    /// For how long nobody bought the one item that all wanted, a value a death.
    pub hot_silences_ms: Vec<f64>,
    /// The four lines of `verify`, summed over the rounds; none where it never ran to its end.
    pub verified: Option<[usize; 4]>,
    /// What stock and credit lack against what clients were told, by load.
    pub disagreements: Vec<String>,
    /// What could not be measured, and why.
    pub failures: Vec<String>,
}

/// A load without faults, of one round.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Load {
    pub round: usize,
    pub demand: Demand,
    pub committed_per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub errors: u64,
    pub cost: Option<CostPerCheckout>,
}

/// Counted by the pods, over all of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CostPerCheckout {
    pub messages: f64,
    pub frames: f64,
    pub sent_bytes: f64,
    pub fsyncs: f64,
    pub written_bytes: f64,
}

/// A pod that dies under load, is away, and returns.
#[derive(Clone, Debug, Serialize)]
pub struct Crash {
    pub round: usize,
    pub before_per_second: f64,
    /// Once a second has passed since it died, and while it is away.
    pub away_per_second: f64,
    pub after_per_second: f64,
    /// The longest time without a committed checkout.
    pub silence_ms: f64,
    /// When it died, and when it was started again, on the timeline.
    pub died_at_ms: f64,
    pub started_at_ms: f64,
    pub slice_ms: f64,
    pub committed_by_slice: Vec<u64>,
    pub waves: Vec<Wave>,
}

/// Every item and every user tried at once: who cannot buy within a second?
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Wave {
    /// Below 0 before the pod died.
    pub after_death_ms: f64,
    pub is_back: bool,
    pub items_tried: u64,
    pub items_stuck: u64,
    pub users_tried: u64,
    pub users_stuck: u64,
    /// As the pods' own counters say, of the blocking commit.
    pub items_locked: u64,
    pub users_locked: u64,
    pub in_doubt: u64,
}

impl Figures {
    #[must_use]
    pub fn of(&self, configuration: Configuration) -> Option<&Measured> {
        self.configurations.iter().find(|measured| measured.configuration == configuration)
    }

    /// Everything was measured, verified, and agrees.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.configurations.iter().all(Measured::is_good)
    }
}

impl Measured {
    #[must_use]
    pub const fn new(configuration: Configuration) -> Self {
        Self {
            configuration,
            loads: Vec::new(),
            crashes: Vec::new(),
            hot_silences_ms: Vec::new(),
            verified: None,
            disagreements: Vec::new(),
            failures: Vec::new(),
        }
    }

    #[must_use]
    pub fn is_good(&self) -> bool {
        self.verified == Some([0; 4]) && self.disagreements.is_empty() && self.failures.is_empty()
    }

    /// One value a round, of the rounds in which it was measured.
    #[must_use]
    pub fn by_round(&self, demand: Demand, value: fn(&Load) -> f64) -> Vec<(usize, f64)> {
        let loads = self.loads.iter().filter(|load| load.demand == demand);
        loads.map(|load| (load.round, value(load))).collect()
    }

    #[must_use]
    pub fn spread(&self, demand: Demand, value: fn(&Load) -> f64) -> Option<Spread> {
        let values: Vec<f64> = self.by_round(demand, value).into_iter().map(|(_, value)| value).collect();
        Spread::of(&values)
    }

    /// Of its crashes.
    #[must_use]
    pub fn crash(&self, value: fn(&Crash) -> f64) -> Option<Spread> {
        Spread::of(&self.crashes.iter().map(value).collect::<Vec<_>>())
    }

    /// Messages and the like, of evenly spread demand.
    #[must_use]
    pub fn cost(&self, value: fn(&CostPerCheckout) -> f64) -> Option<Spread> {
        let costs = self.loads.iter().filter(|load| load.demand == Demand::Even);
        Spread::of(&costs.filter_map(|load| load.cost.as_ref().map(value)).collect::<Vec<_>>())
    }
}

impl Crash {
    /// How it was at the end of the pod's absence.
    #[must_use]
    pub fn last_away(&self) -> Option<&Wave> {
        self.waves.iter().rfind(|wave| wave.after_death_ms >= 0.0 && !wave.is_back)
    }

    /// How it was before anybody died: what noise alone makes of it.
    #[must_use]
    pub fn first(&self) -> Option<&Wave> {
        self.waves.iter().find(|wave| wave.after_death_ms < 0.0)
    }

    /// Throughput with the pod away, as a share of that before.
    #[must_use]
    pub fn share(&self) -> f64 {
        if self.before_per_second > 0.0 { self.away_per_second / self.before_per_second } else { f64::NAN }
    }
}

/// The middle of some values, and from where to where they reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub middle: f64,
    pub low: f64,
    pub high: f64,
}

impl Spread {
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut values: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        values.sort_unstable_by(f64::total_cmp);
        let (low, high) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let middle = if values.len().is_multiple_of(2) {
            f64::midpoint(values[half - 1], values[half])
        } else {
            values[half]
        };
        Some(Self { middle, low, high })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_the_median() {
        let spread = |values: &[f64]| Spread::of(values).map(|all| (all.low, all.middle, all.high));
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[f64::NAN]), None);
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some((1.0, 2.0, 3.0)));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]), Some((1.0, 2.5, 4.0)));
    }
}
