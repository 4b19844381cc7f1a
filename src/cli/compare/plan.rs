//! How long everything is done: for a tight spread, quickly, or only to see that it works.

use super::configuration::Configuration;
use serde::Serialize;
use std::time::Duration;

/// One thing that is measured on a fresh cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Start,
    Load(Demand),
    /// A pod dies under load on many items.
    Crash,
    /// A pod dies while all want one item.
    HotCrash,
    Verify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Demand {
    Even,
    Skewed,
    Single,
}

impl Demand {
    pub const ALL: [Self; 3] = [Self::Even, Self::Skewed, Self::Single];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Even => "1,000 items, all wanted alike",
            Self::Skewed => "1,000 items, wanted as Zipf 0.99",
            Self::Single => "one item, wanted by all",
        }
    }

    #[must_use]
    pub const fn short(self) -> &'static str {
        match self {
            Self::Even => "even",
            Self::Skewed => "skewed",
            Self::Single => "one item",
        }
    }
}

impl Step {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "a fresh cluster",
            Self::Load(demand) => demand.name(),
            Self::Crash => "a pod dies under load",
            Self::HotCrash => "a coordinator dies, one item",
            Self::Verify => "verify",
        }
    }
}

/// The lengths of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Throughput and latency are measured in each.
    pub rounds: usize,
    /// Pods die in the first so many of them.
    pub rounds_with_crashes: usize,
    pub clients: usize,
    pub warm_up_seconds: u64,
    pub load_seconds: u64,
    /// Orders for skewed demand are made one by one, so there are no more than this.
    pub skewed_orders: u64,
    /// Load before the pod dies, while it is away, and after.
    pub before_seconds: u64,
    pub away_seconds: u64,
    pub after_seconds: u64,
    /// Items, and users, of which every one is tried while the pod is away.
    pub tried: u64,
    /// The pods that die while all want one item, one after the other, each away for so long.
    pub hot_crashes: u64,
    pub hot_away_seconds: u64,
    /// Buyers of the one item that come each second.
    pub hot_rate: u64,
    pub verify_orders: u32,
    /// Whether the single item's crashes are measured for the two ways to commit alone.
    pub hot_for_commits_only: bool,
}

/// A load of few items alternates with a second of rest between two deaths.
pub const HOT_REST_SECONDS: u64 = 2;
/// Until all pods are ready.
const START_SECONDS: u64 = 2;
/// What loading and reading back take beside the load itself.
const AROUND_SECONDS: u64 = 1;
/// Orders made one by one, three requests each, are made at about this rate.
const MADE_PER_SECOND: u64 = 4_000;

impl Plan {
    pub const FULL: Self = Self {
        rounds: 4,
        rounds_with_crashes: 3,
        clients: 64,
        warm_up_seconds: 1,
        load_seconds: 6,
        skewed_orders: 20_000,
        before_seconds: 3,
        away_seconds: 10,
        after_seconds: 4,
        tried: 200,
        hot_crashes: 4,
        hot_away_seconds: 2,
        hot_rate: 400,
        verify_orders: 2_000,
        hot_for_commits_only: false,
    };
    pub const QUICK: Self = Self {
        rounds: 2,
        rounds_with_crashes: 1,
        warm_up_seconds: 1,
        load_seconds: 2,
        skewed_orders: 4_000,
        before_seconds: 2,
        away_seconds: 4,
        after_seconds: 2,
        hot_crashes: 3,
        verify_orders: 500,
        hot_for_commits_only: true,
        ..Self::FULL
    };
    /// To see that everything works; its figures say little.
    pub const GLANCE: Self = Self {
        rounds: 1,
        rounds_with_crashes: 1,
        warm_up_seconds: 0,
        load_seconds: 1,
        skewed_orders: 300,
        before_seconds: 1,
        away_seconds: 2,
        after_seconds: 1,
        tried: 20,
        hot_crashes: 1,
        hot_away_seconds: 1,
        verify_orders: 100,
        ..Self::QUICK
    };

    /// What is done with a configuration in a round.
    #[must_use]
    pub fn steps(&self, round: usize, configuration: Configuration) -> Vec<Step> {
        let mut steps = vec![Step::Start];
        steps.extend(Demand::ALL.map(Step::Load));
        if round < self.rounds_with_crashes {
            steps.push(Step::Crash);
            let commits = [Configuration::Default, Configuration::Blocking];
            if !self.hot_for_commits_only || commits.contains(&configuration) {
                steps.push(Step::HotCrash);
            }
        }
        if round + 1 == self.rounds {
            steps.push(Step::Verify);
        }
        steps
    }

    #[must_use]
    pub const fn warm_up(&self) -> Duration {
        Duration::from_secs(self.warm_up_seconds)
    }

    /// From the first order of one item to the last.
    #[must_use]
    pub const fn hot_seconds(&self) -> u64 {
        self.hot_crashes * (self.hot_away_seconds + HOT_REST_SECONDS) + HOT_REST_SECONDS
    }

    /// How long it will take, as far as is known before.
    #[must_use]
    pub const fn seconds(&self, step: Step) -> u64 {
        let warm_up = self.warm_up_seconds;
        match step {
            Step::Start => START_SECONDS,
            Step::Load(Demand::Even | Demand::Single) => AROUND_SECONDS + warm_up + self.load_seconds,
            // It ends when the orders do.
            Step::Load(Demand::Skewed) => AROUND_SECONDS + self.skewed_orders / MADE_PER_SECOND + 2,
            Step::Crash => {
                2 * AROUND_SECONDS + warm_up + self.before_seconds + self.away_seconds + self.after_seconds
            }
            Step::HotCrash => 2 * AROUND_SECONDS + warm_up + self.hot_seconds(),
            Step::Verify => 2 * AROUND_SECONDS,
        }
    }

    /// All of it.
    #[must_use]
    pub fn whole_seconds(&self, configurations: &[Configuration]) -> u64 {
        let each = (0..self.rounds).flat_map(|round| {
            configurations.iter().flat_map(move |&configuration| self.steps(round, configuration))
        });
        each.map(|step| self.seconds(step)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_as_long_as_they_may_be() {
        for (plan, minutes) in [(Plan::FULL, 20), (Plan::QUICK, 4), (Plan::GLANCE, 2)] {
            let seconds = plan.whole_seconds(&Configuration::ALL);
            assert!(seconds <= minutes * 60, "{seconds} s: {plan:?}");
        }
    }

    #[test]
    fn pods_die_in_the_first_rounds_alone() {
        let steps = Plan::QUICK.steps(0, Configuration::StockPaxos);
        assert!(steps.contains(&Step::Crash) && !steps.contains(&Step::HotCrash));
        assert!(Plan::QUICK.steps(0, Configuration::Blocking).contains(&Step::HotCrash));
        let last = Plan::QUICK.steps(1, Configuration::Blocking);
        assert!(!last.contains(&Step::Crash) && last.ends_with(&[Step::Verify]));
        assert!(Plan::FULL.steps(0, Configuration::StockPaxos).contains(&Step::HotCrash));
    }
}
