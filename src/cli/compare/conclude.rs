//! What a reader should take from the figures, in words; computed, so that noise and gaps are told as such.

use super::configuration::Configuration;
use super::crash::{HOT_SLICE, SLICE};
use super::figures::{Crash, Figures, Load, Measured, Spread, Wave};
use super::plan::Demand;
use super::ratio::{Ratio, Says};
use crate::cli::page::number::{float, short};
use serde::Serialize;

/// Waiting for what is locked is a difference in kind, and should show as one.
const IN_KIND: f64 = 5.0;
#[expect(clippy::cast_precision_loss, reason = "a few ms")]
const SLICE_MS: f64 = SLICE.as_millis() as f64;
#[expect(clippy::cast_precision_loss, reason = "a few ms")]
const HOT_SLICE_MS: f64 = HOT_SLICE.as_millis() as f64;
/// An interval that ends at so many times its beginning tells nothing, not even as numbers.
const TOO_WIDE: f64 = 20.0;
/// A silence as long as this share of the pod's absence has ended with it.
const STOOD_STILL: f64 = 0.8;
/// Where so many of those tried were stuck before anybody died, the machine was too busy to tell.
const BUSY_SHARE: f64 = 0.1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    Clear,
    /// Measured, and noise does not let it be concluded.
    Unclear,
    /// Not measured.
    Missing,
    /// Something is wrong.
    Wrong,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Conclusion {
    pub topic: &'static str,
    pub told: Told,
    pub text: String,
}

/// Everything that follows.
#[must_use]
pub fn conclude(figures: &Figures) -> Vec<Conclusion> {
    let mut all = vec![books(figures)];
    let default = figures.of(Configuration::Default);
    if let Some((default, blocking)) = default.zip(figures.of(Configuration::Blocking)) {
        let rates =
            Demand::ALL.map(|demand| rates("commit", demand, ["reserving", "locking"], default, blocking));
        all.extend(rates);
        all.extend([death(figures, default, blocking), hot(figures, default, blocking)]);
    }
    if let Some((default, quorum)) = default.zip(figures.of(Configuration::PaymentQuorum)) {
        all.push(rates("payment", Demand::Even, ["payment on Paxos", "payment on quorums"], default, quorum));
    }
    let stock =
        [(Configuration::StockWriteAll, "stock on write-all"), (Configuration::StockPaxos, "stock on Paxos")];
    for (configuration, name) in stock {
        if let Some((default, other)) = default.zip(figures.of(configuration)) {
            all.extend(
                [Demand::Even, Demand::Single].map(|demand| {
                    rates("stock", demand, ["stock on read/write quorums", name], default, other)
                }),
            );
        }
    }
    all.extend([dead_replica(figures), costs(figures)].into_iter().flatten());
    all
}

/// For a heading: by how much the two ways to commit differ.
#[must_use]
pub fn verdict(figures: &Figures) -> String {
    if !figures.is_good() {
        return "something is wrong".to_owned();
    }
    let both = figures.of(Configuration::Default).zip(figures.of(Configuration::Blocking));
    let Some((default, blocking)) = both else { return "all books agree".to_owned() };
    let ratio = ratio(Demand::Single, default, blocking);
    match ratio.says() {
        Says::More | Says::Less => {
            format!(
                "one item: reserving sells {} × as much as locking",
                short(ratio.mean().unwrap_or(f64::NAN))
            )
        }
        Says::Once | Says::Unclear | Says::Nothing => "all books agree".to_owned(),
    }
}

fn ratio(demand: Demand, over: &Measured, under: &Measured) -> Ratio {
    let rate = |load: &Load| load.committed_per_second;
    Ratio::of(&over.by_round(demand, rate), &under.by_round(demand, rate))
}

fn rates(
    topic: &'static str,
    demand: Demand,
    [over, under]: [&str; 2],
    one: &Measured,
    other: &Measured,
) -> Conclusion {
    let ratio = ratio(demand, one, other);
    let (with, mean) = (demand.name(), short(ratio.mean().unwrap_or(f64::NAN)));
    let (told, text) = match (ratio, ratio.says()) {
        (Ratio::Between { low, high, .. }, Says::More | Says::Less) => (
            Told::Clear,
            format!(
                "With {with}: {over} sells {mean} × as much as {under} ({} to {} × at 95 %).",
                short(low),
                short(high)
            ),
        ),
        (Ratio::Between { low, high, .. }, _) if high > TOO_WIDE * low => (
            Told::Unclear,
            format!(
                "With {with}, the rounds lie too far apart to tell {over} from {under}: {mean} × in the middle."
            ),
        ),
        (Ratio::Between { low, high, .. }, _) => (
            Told::Unclear,
            format!(
                "With {with}, these rounds tell no difference between {over} and {under}: {mean} ×, and anything from {} to {} × would fit.",
                short(low),
                short(high)
            ),
        ),
        (Ratio::Once(_), _) => (
            Told::Unclear,
            format!(
                "With {with}, {over} sold {mean} × as much as {under}; one round does not tell how much of that is noise."
            ),
        ),
        (Ratio::Missing, _) => {
            (Told::Missing, format!("With {with}, {over} and {under} were not both measured."))
        }
    };
    Conclusion { topic, told, text }
}

fn books(figures: &Figures) -> Conclusion {
    let wrong: Vec<&str> = figures
        .configurations
        .iter()
        .filter(|measured| !measured.is_good())
        .map(|measured| measured.configuration.name())
        .collect();
    let (told, text) = if wrong.is_empty() {
        (
            Told::Clear,
            "Every configuration kept its books, deaths included: stock and credit fell by what clients were told, and kassa verify found nothing.".to_owned(),
        )
    } else {
        (Told::Wrong, format!("Not all went well with: {}. See below what was found.", wrong.join(", ")))
    };
    Conclusion { topic: "books", told, text }
}

/// Those that could not buy at the end of the pod's absence, items and users together.
fn stuck(crash: &Crash) -> f64 {
    crash.last_away().map_or(f64::NAN, |wave| float(wave.items_stuck + wave.users_stuck))
}

/// Those that could not buy before anybody died, at the most.
fn stuck_before(measured: &Measured) -> f64 {
    let stuck = |wave: &Wave| float(wave.items_stuck + wave.users_stuck);
    measured.crashes.iter().filter_map(Crash::first).map(stuck).fold(0.0, f64::max)
}

fn death(figures: &Figures, default: &Measured, blocking: &Measured) -> Conclusion {
    let topic = "death";
    let both = default.crash(stuck).zip(blocking.crash(stuck));
    let silences = default.crash(|crash| crash.silence_ms).zip(blocking.crash(|crash| crash.silence_ms));
    let (Some((reserving, locking)), Some((quiet, silent))) = (both, silences) else {
        let text = "No coordinator died under both ways to commit.".to_owned();
        return Conclusion { topic, told: Told::Missing, text };
    };
    let of = 2 * figures.plan.tried;
    let before = [default, blocking].map(stuck_before);
    let measured = format!(
        "A pod died under load and stayed away for {} s. Reserving, at the end of its absence {} of the {of} items and users could not buy within a second ({} before anybody died), and nothing at all was sold for {}; locking, {} ({} before), and {}.",
        figures.plan.away_seconds,
        range(&reserving),
        short(before[0]),
        seconds(quiet.middle, SLICE_MS),
        range(&locking),
        short(before[1]),
        seconds(silent.middle, SLICE_MS),
    );
    let most = reserving.high.max(before[1]);
    let held = blocking.crashes.iter().filter(|crash| stuck(crash) > most).count();
    let (told, more) = if before[0] > BUSY_SHARE * float(of) {
        (
            Told::Unclear,
            "The machine was too busy to tell: many could not buy though nothing was wrong.".to_owned(),
        )
    } else if held > 0 {
        let deaths = blocking.crashes.len();
        let what = "What the dead coordinator alone knows stays locked until it returns, and what waits for that keeps locks of its own";
        (Told::Clear, format!("{what}: so it was in {held} of {deaths} deaths."))
    } else {
        (
            Told::Unclear,
            "None of these deaths fell between a vote and its outcome, or none that shows.".to_owned(),
        )
    };
    Conclusion { topic, told, text: format!("{measured} {more}") }
}

/// A silence; one that is shorter than what can be told apart is said to be so.
fn seconds(ms: f64, slice_ms: f64) -> String {
    if ms < slice_ms {
        format!("less than {} s", short(slice_ms / 1_000.0))
    } else {
        format!("{} s", short(ms / 1_000.0))
    }
}

fn range(spread: &Spread) -> String {
    if (spread.high - spread.low).abs() < f64::EPSILON {
        short(spread.middle)
    } else {
        format!("{} ({} to {})", short(spread.middle), short(spread.low), short(spread.high))
    }
}

fn hot(figures: &Figures, default: &Measured, blocking: &Measured) -> Conclusion {
    let topic = "death, one item";
    let both = Spread::of(&default.hot_silences_ms).zip(Spread::of(&blocking.hot_silences_ms));
    let Some((reserving, locking)) = both else {
        let text = "No coordinator died while all wanted one item.".to_owned();
        return Conclusion { topic, told: Told::Missing, text };
    };
    let s = |ms: f64| seconds(ms, HOT_SLICE_MS);
    let away_ms = float(figures.plan.hot_away_seconds) * 1_000.0;
    // Others buy it until the pod's last votes are found out, and again only when it is back.
    let held = |all: &[f64]| all.iter().filter(|ms| **ms >= STOOD_STILL * away_ms).count();
    let (held_reserving, held_locking) = (held(&default.hot_silences_ms), held(&blocking.hot_silences_ms));
    let measured = format!(
        "While all wanted one item, most of its buyers' coordinator died, {} times for each. Reserving, nobody bought it for {} in the middle and {} at the most; locking, for {} in the middle and {} at the most: in {held_locking} of them until the pod had returned.",
        blocking.hot_silences_ms.len(),
        s(reserving.middle),
        s(reserving.high),
        s(locking.middle),
        s(locking.high),
    );
    let (told, more) = if held_locking > 0 && held_reserving == 0 {
        let times = locking.high / reserving.high.max(HOT_SLICE_MS);
        let at_least = if reserving.high < HOT_SLICE_MS { "at least " } else { "" };
        let kind = if times >= IN_KIND { "" } else { ", less than is to be expected" };
        (Told::Clear, format!("The worst is {at_least}{} × as long{kind}.", short(times)))
    } else if held_locking == 0 {
        (Told::Unclear, "None of these deaths fell between a vote and its outcome.".to_owned())
    } else {
        (Told::Unclear, "These deaths do not tell the two apart.".to_owned())
    };
    Conclusion { topic, told, text: format!("{measured} {more}") }
}

fn dead_replica(figures: &Figures) -> Option<Conclusion> {
    let shares: Vec<String> = figures
        .configurations
        .iter()
        .filter_map(|measured| {
            let share = measured.crash(Crash::share)?;
            Some(format!("{} × ({})", range(&share), measured.configuration.name()))
        })
        .collect();
    (!shares.is_empty()).then(|| Conclusion {
        topic: "dead replica",
        told: Told::Clear,
        text: format!(
            "With one of three pods dead, from a second after its death on, sold as a share of what was sold before: {}.",
            shares.join(", ")
        ),
    })
}

fn costs(figures: &Figures) -> Option<Conclusion> {
    let costs: Vec<String> = figures
        .configurations
        .iter()
        .filter_map(|measured| {
            let (messages, fsyncs) =
                (measured.cost(|cost| cost.messages)?, measured.cost(|cost| cost.fsyncs)?);
            let name = measured.configuration.name();
            Some(format!("{} and {} ({name})", short(messages.middle), short(fsyncs.middle)))
        })
        .collect();
    (!costs.is_empty()).then(|| Conclusion {
        topic: "cost",
        told: Told::Clear,
        text: format!(
            "Messages between pods and fsyncs for each checkout, over all pods, as they count them with evenly spread demand: {}. Load shares both: with fewer clients each checkout costs more.",
            costs.join(", ")
        ),
    })
}

#[cfg(test)]
mod tests;
