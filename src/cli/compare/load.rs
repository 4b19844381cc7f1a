//! Throughput, latency and cost without faults.

use super::figures::Load;
use super::plan::{Demand, Plan};
use super::pods;
use crate::cli::bench::books::{self, Books};
use crate::cli::bench::engine::{self, Live};
use crate::cli::bench::prepare::{self, Source};
use crate::cli::bench::random::Skew;
use crate::cli::bench::settings::Settings;
use crate::cli::http::Target;
use crate::cli::page::number::float;
use std::rc::Rc;
use std::time::Duration;

/// As is usual for what people want of a shop.
const SKEW: Skew = Skew::Zipf { exponent: 0.99 };

/// Who is asked: for sales, and of itself.
#[derive(Clone, Copy, Debug)]
pub struct Shop<'a> {
    pub fronts: &'a [Target],
    pub pods: &'a [Target],
}

#[must_use]
pub fn settings(plan: &Plan, demand: Demand, fronts: &[Target]) -> Settings {
    let whole = Duration::from_secs(plan.load_seconds);
    let mut settings = Settings::new(fronts.to_vec(), plan.clients, whole);
    settings.warm_up = plan.warm_up();
    match demand {
        Demand::Even => {}
        Demand::Skewed => {
            settings.skew = SKEW;
            settings.source = Source::Http;
            settings.count = Some(plan.skewed_orders);
            // Orders are dear; the cluster is warm from the even demand.
            settings.warm_up = Duration::ZERO;
        }
        Demand::Single => {
            settings.skew = Skew::One;
            settings.items = 1;
        }
    }
    settings
}

/// Loads a shop, has it bought from, and reads it back.
///
/// # Errors
/// Where the cluster cannot be loaded or read.
pub async fn measure(
    shop: Shop<'_>,
    plan: &Plan,
    round: usize,
    demand: Demand,
    watch: impl FnMut(Live),
) -> anyhow::Result<(Load, Books)> {
    let settings = settings(plan, demand, shop.fronts);
    let loaded = Rc::new(prepare::load(&settings).await?);
    let before = pods::cost(&pods::all(shop.pods).await);
    let tally = engine::run(&loaded, &settings, watch).await?;
    let after = pods::cost(&pods::all(shop.pods).await);
    let books = books::read_back(&loaded, &tally, &settings).await?;
    let ms = |quantile: f64| float(tally.latency_us.value_at_quantile(quantile)) / 1_000.0;
    let load = Load {
        round,
        demand,
        committed_per_second: float(tally.committed) / tally.elapsed.as_secs_f64().max(f64::EPSILON),
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        errors: tally.errors_total(),
        cost: pods::per_checkout(&before, &after, tally.committed + tally.committed_outside),
    };
    Ok((load, books))
}
