//! This run beside an earlier one.

use super::report::{LatencyReport, Report};
use super::stats::{self, Difference, Good, Verdict};
use crate::cli::fail::{self, Failure};
use crate::cli::page::number::short;
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;

/// What is compared, and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    pub with: String,
    /// Settings in which the runs differ.
    pub differing: Vec<String>,
    pub measures: Vec<Measure>,
    pub slower: bool,
    pub faster: bool,
    #[serde(skip)]
    pub before: Before,
}

/// What a report draws of the earlier run.
#[derive(Clone, Debug, Default)]
pub struct Before {
    pub per_second: Vec<f64>,
    pub slice_ms: u64,
}

/// One figure of both runs. Change and margin are shares of the earlier one; null where too little was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Measure {
    pub name: &'static str,
    pub before: f64,
    pub after: f64,
    pub change: Option<f64>,
    pub margin: Option<f64>,
    pub verdict: &'static str,
}

/// Reads the report of an earlier run.
///
/// # Errors
/// A file that is none.
pub fn read(path: &Path) -> Result<Report, Failure> {
    let bad = |why: String| {
        fail::usage(format!(
            "--compare {}: {why}; it takes what `kassa bench --json` printed",
            path.display()
        ))
    };
    let text = std::fs::read_to_string(path).map_err(|error| bad(format!("cannot be read ({error})")))?;
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| bad(format!("is no JSON ({error})")))?;
    if value.get("samples").is_none() {
        return Err(bad("has no samples of each second".to_owned()));
    }
    serde_json::from_value(value).map_err(|error| bad(format!("is no report ({error})")))
}

impl Comparison {
    /// What can be told of the two, at the noise of both.
    #[must_use]
    pub fn of(with: &Path, before: &Report, after: &Report) -> Self {
        let mut measures = Vec::new();
        let mut differences = Vec::new();
        let mut add = |name, before: f64, after: f64, difference: Difference| {
            differences.push(difference.verdict);
            measures.push(Measure {
                name,
                before,
                after,
                change: difference.change.is_finite().then_some(difference.change),
                margin: difference.margin.is_finite().then_some(difference.margin),
                verdict: word(difference.verdict),
            });
        };
        let (one, other) = (rates(before), rates(after));
        let name = if after.has_checkouts() { "checkouts a second" } else { "requests a second" };
        add(name, mean(before), mean(after), stats::amounts(&one, &other, Good::More));
        let (one, other) = (&before.samples, &after.samples);
        let (low, high) = (main_latency(before), main_latency(after));
        add("p50 in ms", low.p50, high.p50, times(&one.p50_ms, &other.p50_ms));
        add("p99 in ms", low.p99, high.p99, times(&one.p99_ms, &other.p99_ms));
        Self {
            with: with.display().to_string(),
            differing: differing(before, after),
            slower: differences.contains(&Verdict::Slower),
            faster: differences.contains(&Verdict::Faster),
            measures,
            before: Before { per_second: rates(before), slice_ms: before.samples.slice_ms },
        }
    }

    /// All in a few words.
    #[must_use]
    pub fn verdict(&self) -> String {
        let told = self.told();
        if self.differing.is_empty() {
            told.to_owned()
        } else {
            format!("{told}, but not under the same load")
        }
    }

    fn told(&self) -> &'static str {
        match (self.faster, self.slower) {
            (true, false) => "faster",
            (false, true) => "slower",
            (true, true) => "faster in one way, slower in another",
            (false, false) if self.measures.iter().all(|measure| measure.change.is_none()) => {
                "too short to tell"
            }
            (false, false) => "no difference that can be told",
        }
    }

    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("compared with {}: {}\n", self.with, self.verdict());
        for measure in &self.measures {
            let (before, after) = (short(measure.before), short(measure.after));
            let _ = writeln!(text, "  {:<22}{before:>8} → {after:>8}   {}", measure.name, measure.told());
        }
        for difference in &self.differing {
            let _ = writeln!(text, "  differs               {difference}");
        }
        text
    }
}

impl Measure {
    /// What can be said of it.
    #[must_use]
    pub fn told(&self) -> String {
        match (self.change, self.margin) {
            (Some(change), Some(margin)) => {
                let sign = if change < 0.0 { "−" } else { "+" };
                // No line breaks within a figure.
                let told =
                    format!("{sign}{:.1}\u{a0}% (±\u{a0}{:.1}\u{a0}%)", change.abs() * 100.0, margin * 100.0);
                if self.verdict == word(Verdict::Same) {
                    format!("{} at this noise: {told}", self.verdict)
                } else {
                    format!("{}: {told}", self.verdict)
                }
            }
            (None, _) | (_, None) => format!("{}: fewer than {} samples", self.verdict, stats::SAMPLES_MIN),
        }
    }
}

const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Faster => "faster",
        Verdict::Slower => "slower",
        Verdict::Same => "no difference that can be told",
        Verdict::TooFew => "too short to tell",
    }
}

fn rates(report: &Report) -> Vec<f64> {
    let samples = &report.samples;
    samples.per_second(if report.has_checkouts() { &samples.committed } else { &samples.others })
}

fn mean(report: &Report) -> f64 {
    if report.has_checkouts() { report.committed_per_second } else { report.others_per_second }
}

fn main_latency(report: &Report) -> LatencyReport {
    if report.has_checkouts() { report.latency_ms } else { report.others_latency_ms }
}

fn times(before: &[Option<f64>], after: &[Option<f64>]) -> Difference {
    let known = |all: &[Option<f64>]| all.iter().flatten().copied().collect::<Vec<_>>();
    stats::times(&known(before), &known(after), Good::Less)
}

fn differing(before: &Report, after: &Report) -> Vec<String> {
    let rate = |report: &Report| report.open_loop.as_ref().map_or(0.0, |open| open.rate_per_second);
    let all = [
        ("mode", before.mode.clone(), after.mode.clone()),
        ("rate", short(rate(before)), short(rate(after))),
        ("clients", before.clients.to_string(), after.clients.to_string()),
        ("mix", before.mix.clone(), after.mix.clone()),
        ("skew", before.skew.clone(), after.skew.clone()),
        ("items", before.items.to_string(), after.items.to_string()),
        ("users", before.users.to_string(), after.users.to_string()),
        ("orders", before.orders.clone(), after.orders.clone()),
        ("warm-up", short(before.warm_up_seconds), short(after.warm_up_seconds)),
        ("machine", before.machine.line(), after.machine.line()),
    ];
    let differ = all.into_iter().filter(|(_, before, after)| before != after);
    differ.map(|(name, before, after)| format!("{name} {before} → {after}")).collect()
}
