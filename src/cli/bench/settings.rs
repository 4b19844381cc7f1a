//! What a run is: the arguments once they are found good, or what another command asks for.

use super::BenchArgs;
use super::mix::Mix;
use super::prepare::Source;
use super::random::Skew;
use crate::cli::fail::{self, Failure};
use crate::cli::http::Target;
use std::time::Duration;

/// As `wrk` users take on two cores: enough to keep a cluster busy.
const CLIENTS: u16 = 64;
/// Open loop: requests that may be on their way at once. Enough for a tenth of a second without answers at 5,000 a
/// second; few enough that a cluster's front has a connection for each.
const OUTSTANDING: u16 = 512;
/// Samples are of this long, unless the run is for another purpose: long enough that neighbours differ by chance
/// alone, short enough that a run of 10 s has ten.
pub const SLICE: Duration = Duration::from_secs(1);

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Each client sends when it has its answer.
    Closed,
    /// Requests come at this rate over all, like customers who know nothing of each other (a Poisson process),
    /// however long the answers take.
    Open { rate_per_second: f64 },
}

/// Everything that a run needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub targets: Vec<Target>,
    pub pace: Pace,
    /// Closed loop: how many send at a time. Open loop: how many requests may be on their way at once.
    pub clients: usize,
    /// Load that is not counted, before the clock runs.
    pub warm_up: Duration,
    pub duration: Duration,
    /// How long each sample of throughput and latency is.
    pub slice: Duration,
    pub mix: Mix,
    pub skew: Skew,
    pub items: u64,
    pub users: u64,
    pub source: Source,
    /// How many orders are made; none for more than can be sold.
    pub count: Option<u64>,
}

impl Settings {
    /// A closed loop of checkouts of batch orders: what `kassa bench` does by default.
    #[must_use]
    pub const fn new(targets: Vec<Target>, clients: usize, duration: Duration) -> Self {
        Self {
            targets,
            pace: Pace::Closed,
            clients,
            warm_up: Duration::ZERO,
            duration,
            slice: SLICE,
            mix: Mix::CHECKOUTS,
            skew: Skew::Uniform,
            items: 1000,
            users: 1000,
            source: Source::Batch,
            count: None,
        }
    }

    /// # Errors
    /// Arguments that do not go together.
    pub fn of(args: &BenchArgs, targets: Vec<Target>) -> Result<Self, Failure> {
        let pace = args.rate.map_or(Pace::Closed, |rate_per_second| Pace::Open { rate_per_second });
        let clients = args.clients.unwrap_or(match pace {
            Pace::Closed => CLIENTS,
            Pace::Open { .. } => OUTSTANDING,
        });
        let skew = if args.hot { Skew::One } else { args.skew.unwrap_or(Skew::Uniform) };
        let source = match (skew, args.orders) {
            (Skew::Zipf { .. }, Some(Source::Batch)) => {
                return Err(fail::usage(
                    "--skew zipf: the orders of a batch want all items alike; leave out `--orders batch`, and they are made one by one",
                ));
            }
            (Skew::Zipf { .. }, None) => Source::Http,
            (Skew::Zipf { .. } | Skew::Uniform | Skew::One, source) => source.unwrap_or(Source::Batch),
        };
        Ok(Self {
            pace,
            warm_up: Duration::from_secs(args.warm_up),
            mix: args.mix,
            skew,
            items: if skew == Skew::One { 1 } else { args.items },
            users: args.users,
            source,
            count: args.count,
            ..Self::new(targets, usize::from(clients), Duration::from_secs(args.seconds))
        })
    }

    /// From the first request to the last.
    #[must_use]
    pub fn whole(&self) -> Duration {
        self.warm_up + self.duration
    }
}

/// For `--rate`.
///
/// # Errors
/// What is wrong with it.
pub fn rate(text: &str) -> Result<f64, String> {
    const RATE_MAX: f64 = 1_000_000.0;
    let rate = text.parse().ok().filter(|&rate: &f64| rate > 0.0 && rate <= RATE_MAX);
    rate.ok_or_else(|| format!("it is no number of requests a second above 0, up to {RATE_MAX}"))
}
