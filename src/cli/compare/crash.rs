//! A pod is killed under load, kept away for a while, and started again.
//!
//! Nothing is staged: with many checkouts on their way, some are between prepare and commit at whatever moment the
//! pod dies. It coordinates a third of them, and holds a replica of everything.

use super::figures::Crash;
use super::load::Shop;
use super::plan::{HOT_REST_SECONDS, Plan};
use super::pods;
use super::waves::Tries;
use crate::cli::bench::books::{self, Books};
use crate::cli::bench::engine::{self, Live};
use crate::cli::bench::prepare::{self, UNITS};
use crate::cli::bench::random::Skew;
use crate::cli::bench::settings::{Pace, Settings};
use crate::cli::bench::tally::{Slice, Tally};
use crate::cli::crowd::{self, Ask};
use crate::cli::http::field;
use crate::cli::page::number::float;
use crate::cli::torture::cluster::Cluster;
use crate::cli::torture::schedule::Fault;
use anyhow::Context;
use kassa_protocols::placement::shard_of;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How finely sales are seen over time: well below what a failover takes, with dozens of sales each.
pub const SLICE: Duration = Duration::from_millis(50);
/// The same where buyers come at a given, lower rate.
pub const HOT_SLICE: Duration = Duration::from_millis(20);
/// Who is tried again: this long after the death, and then as often. A failover is over by the first.
const TRY_EVERY: Duration = Duration::from_secs(2);
/// A pod that has been started again is ready within that, and what waited for it has been settled.
const SETTLED_AFTER: Duration = Duration::from_secs(1);
/// What was on its way when a pod died is settled once it has returned, or else never.
const SETTLE_WITHIN: Duration = Duration::from_secs(20);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(250);
/// Of the buyers of the one item, all of the pod's own and every so many of the others.
const OTHERS_EVERY: usize = 12;
/// For so many orders that are wanted, this many are made.
const MADE_FOR: (u64, u64) = (18, 7);
/// The load comes from as many connections as the plan says, and orders are read by as many.
const READERS: usize = 64;

/// What a crash showed, and what stock and credit lack against what was told.
#[derive(Debug)]
pub struct Found {
    pub crash: Crash,
    pub disagreement: Option<String>,
}

/// All buy evenly, and a pod dies.
///
/// # Errors
/// Where the cluster cannot be loaded, asked or read.
pub async fn crash(
    cluster: &Cluster,
    shop: Shop<'_>,
    plan: &Plan,
    round: usize,
    watch: impl FnMut(Live),
) -> anyhow::Result<Found> {
    let seconds = plan.before_seconds + plan.away_seconds + plan.after_seconds;
    let victim = u16::try_from(shop.pods.len() - 1).context("few pods")?;
    let targets = without(cluster, shop, victim);
    let mut settings = Settings::new(targets, plan.clients, Duration::from_secs(seconds));
    settings.warm_up = plan.warm_up();
    settings.slice = SLICE;
    settings.items = plan.tried;
    settings.users = plan.tried;
    let loaded = Rc::new(prepare::load(&settings).await?);
    let away = Duration::from_secs(plan.away_seconds);
    let waves = away.as_secs().div_ceil(TRY_EVERY.as_secs()) + 2;
    let mut tries = Tries::load(shop.pods, &settings, &loaded, waves).await?;

    let began = Instant::now() + settings.warm_up;
    let breaking = async {
        let fault = Fault::Kill { pods: vec![victim] };
        let death = began + Duration::from_secs(plan.before_seconds);
        sleep_until(death.checked_sub(SETTLED_AFTER).unwrap_or(death)).await;
        tries.wave(death, false).await;
        sleep_until(death).await;
        cluster.begin(&fault).await;
        let died = Instant::now();
        // The last is over when the pod is started again.
        let mut next = died + SETTLED_AFTER;
        while next + SETTLED_AFTER <= died + away {
            sleep_until(next).await;
            tries.wave(died, false).await;
            next += TRY_EVERY;
        }
        sleep_until(died + away).await;
        cluster.end(&fault).await;
        let started = Instant::now();
        sleep_until(started + SETTLED_AFTER).await;
        tries.wave(died, true).await;
        (died, started)
    };
    let (tally, (died, started)) = tokio::join!(engine::run(&loaded, &settings, watch), breaking);
    let tally = tally?;
    let disagreement = agree(&loaded, &settings, &tally, &tries).await?;
    let waves = tries.told();
    let at_ms = |moment: Instant| moment.saturating_duration_since(began).as_secs_f64() * 1_000.0;
    let (died_at_ms, started_at_ms) = (at_ms(died), at_ms(started));
    let settled_ms = SETTLED_AFTER.as_secs_f64() * 1_000.0;
    let rate = |from_ms: f64, to_ms: f64| per_second(&tally.slices, SLICE, from_ms, to_ms);
    let whole_ms = float(seconds) * 1_000.0;
    let crash = Crash {
        round,
        before_per_second: rate(0.0, died_at_ms),
        away_per_second: rate(died_at_ms + settled_ms, started_at_ms),
        after_per_second: rate(started_at_ms + settled_ms, whole_ms),
        silence_ms: silence_ms(&tally.slices, SLICE, died_at_ms, whole_ms),
        died_at_ms,
        started_at_ms,
        slice_ms: SLICE.as_secs_f64() * 1_000.0,
        committed_by_slice: tally.slices.iter().map(|slice| slice.committed).collect(),
        waves,
    };
    Ok(Found { crash, disagreement })
}

/// All want one item, and pods that coordinate most of the buyers die, one after the other; none of them leads the
/// item itself. Gives how long nobody bought it, each time.
///
/// # Errors
/// Where the cluster cannot be loaded, asked or read.
pub async fn hot_crash(
    cluster: &Cluster,
    shop: Shop<'_>,
    plan: &Plan,
    watch: impl FnMut(Live),
) -> anyhow::Result<(Vec<f64>, Option<String>)> {
    let status = pods::all(shop.pods).await;
    let leads = |module: &str, id: &str| {
        pods::leader(&status, module, shard_of(id.as_bytes(), pods::shards(&status, module)).0)
    };
    let item = "0";
    let seller = leads("stock", item);
    let victim = (0..shop.pods.len()).rev().filter_map(|pod| u8::try_from(pod).ok());
    let victim = victim.into_iter().find(|pod| Some(*pod) != seller).context("a single pod has no other")?;

    let targets = without(cluster, shop, u16::from(victim));
    let mut settings = Settings::new(targets, plan.clients, Duration::from_secs(plan.hot_seconds()));
    settings.warm_up = plan.warm_up();
    settings.slice = HOT_SLICE;
    settings.items = 1;
    settings.skew = Skew::One;
    settings.pace = Pace::Open { rate_per_second: float(plan.hot_rate) };
    let wanted = plan.hot_rate * (settings.whole().as_secs() + 1);
    settings.count = Some(wanted * MADE_FOR.0 / MADE_FOR.1);
    let mut loaded = prepare::load(&settings).await?;
    let asks = loaded.orders.iter().map(|order| Ask::get(format!("/orders/find/{order}"))).collect();
    let bodies = crowd::all_good(shop.pods, READERS, asks, |_| {}).await?;
    let mut others = 0;
    let mut chosen = Vec::new();
    for (order, body) in loaded.orders.iter().zip(&bodies) {
        let user = field(body, "user_id").with_context(|| format!("no user_id in {body}"))?;
        let own = leads("payment", user) == Some(victim);
        others += usize::from(!own);
        if own || others % OTHERS_EVERY == 0 {
            chosen.push(order.clone());
        }
    }
    loaded.orders = chosen;
    let loaded = Rc::new(loaded);

    let began = Instant::now() + settings.warm_up;
    let rest = Duration::from_secs(HOT_REST_SECONDS);
    let breaking = async {
        let fault = Fault::Kill { pods: vec![u16::from(victim)] };
        let mut deaths = Vec::new();
        let mut next = began + rest;
        for _ in 0..plan.hot_crashes {
            sleep_until(next).await;
            cluster.begin(&fault).await;
            let died = Instant::now();
            sleep_until(died + Duration::from_secs(plan.hot_away_seconds)).await;
            cluster.end(&fault).await;
            next = Instant::now() + rest;
            deaths.push((died, next));
        }
        deaths
    };
    let (tally, deaths) = tokio::join!(engine::run(&loaded, &settings, watch), breaking);
    let tally: Tally = tally?;
    let books: Books = books::read_back(&loaded, &tally, &settings).await?;
    let at_ms = |moment: Instant| moment.saturating_duration_since(began).as_secs_f64() * 1_000.0;
    let silences =
        deaths.iter().map(|(from, to)| silence_ms(&tally.slices, HOT_SLICE, at_ms(*from), at_ms(*to)));
    Ok((silences.collect(), disagreement(&books)))
}

/// nginx, or the pods that stay alive.
fn without(cluster: &Cluster, shop: Shop<'_>, victim: u16) -> Vec<crate::cli::http::Target> {
    if cluster.has_nginx() {
        return shop.fronts.to_vec();
    }
    let others = shop.pods.iter().enumerate().filter(|(pod, _)| *pod != usize::from(victim));
    others.map(|(_, target)| target.clone()).collect()
}

/// What does not agree, in words.
#[must_use]
pub fn disagreement(books: &Books) -> Option<String> {
    let Books { units_told, units_gone, credit_told, credit_gone, .. } = books;
    (!books.agree()).then(|| {
        format!("{units_told} units told sold, {units_gone} gone; {credit_told} credit told spent, {credit_gone} gone")
    })
}

/// Reads stock and credit until they agree with what was told, or never will.
async fn agree(
    shop: &prepare::Shop,
    settings: &Settings,
    tally: &Tally,
    tries: &Tries,
) -> anyhow::Result<Option<String>> {
    let began = Instant::now();
    loop {
        let untold = shop.paid(&tally.open, &settings.targets, READERS).await?;
        // Every order of the load holds so many units at a price of 1; those that try an item are paid by others.
        let credit_told = i128::from(tally.committed + tally.committed_outside + untold) * i128::from(UNITS);
        let units_told = credit_told + i128::from(tries.bought().await?);
        let fall = shop.fall(&settings.targets, READERS).await?;
        let (units_gone, credit_gone) = (fall.units, fall.credit);
        let books = Books { untold, units_told, units_gone, credit_told, credit_gone };
        if books.agree() || began.elapsed() > SETTLE_WITHIN {
            return Ok(disagreement(&books));
        }
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}

async fn sleep_until(moment: Instant) {
    tokio::time::sleep_until(tokio::time::Instant::from_std(moment)).await;
}

/// Slices that lie wholly between two moments, with when they began.
fn between(slices: &[Slice], slice: Duration, from_ms: f64, to_ms: f64) -> impl Iterator<Item = &Slice> {
    let ms = slice.as_secs_f64() * 1_000.0;
    let begins = (0..).map(move |number: u32| f64::from(number) * ms);
    let timed = slices.iter().zip(begins);
    timed.filter(move |(_, begin)| *begin >= from_ms && begin + ms <= to_ms).map(|(slice, _)| slice)
}

fn per_second(slices: &[Slice], slice: Duration, from_ms: f64, to_ms: f64) -> f64 {
    let rates = between(slices, slice, from_ms, to_ms).map(|one| float(one.committed) / slice.as_secs_f64());
    let rates: Vec<f64> = rates.collect();
    let count = u32::try_from(rates.len()).unwrap_or(u32::MAX);
    // Nothing, where there was no time for it.
    if count == 0 { f64::NAN } else { rates.iter().sum::<f64>() / f64::from(count) }
}

/// The longest stretch of slices in which nothing was sold.
fn silence_ms(slices: &[Slice], slice: Duration, from_ms: f64, to_ms: f64) -> f64 {
    let (mut longest, mut current) = (0_u32, 0_u32);
    for one in between(slices, slice, from_ms, to_ms) {
        current = if one.committed == 0 { current + 1 } else { 0 };
        longest = longest.max(current);
    }
    f64::from(longest) * slice.as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slices(committed: &[u64]) -> Vec<Slice> {
        committed.iter().map(|&committed| Slice { committed, ..Slice::default() }).collect()
    }

    #[test]
    fn a_silence_is_the_longest_after_the_death() {
        let told = slices(&[0, 0, 0, 0, 9, 9, 0, 0, 9, 0, 9]);
        let silence = |from_ms, to_ms| silence_ms(&told, SLICE, from_ms, to_ms);
        assert!((silence(0.0, 1e9) - 200.0).abs() < 1e-6);
        assert!((silence(200.0, 1e9) - 100.0).abs() < 1e-6);
        assert!((silence(400.0, 450.0)).abs() < 1e-6, "one slice, with sales");
    }

    #[test]
    fn rates_are_of_whole_slices() {
        let told = slices(&[10, 20, 30]);
        assert!((per_second(&told, SLICE, 0.0, 100.0) - 300.0).abs() < 1e-6);
        // The first is cut off.
        assert!((per_second(&told, SLICE, 10.0, 100.0) - 400.0).abs() < 1e-6);
        assert!(per_second(&told, SLICE, 120.0, 140.0).is_nan());
    }
}
