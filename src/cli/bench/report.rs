//! What `bench` says in the end, to people and to programs.

use super::books::Books;
use super::compare::Comparison;
use super::prepare::Source;
use super::settings::{Pace, Settings};
use super::tally::{Slice, Tally};
use crate::cli::http::Target;
use crate::cli::machine::Machine;
use crate::cli::page::number::{float, grouped, short};
use anyhow::Context;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Units are in the names; `latency_ms` is of committed checkouts.
#[derive(Debug, Deserialize, Serialize)]
pub struct Report {
    pub urls: Vec<String>,
    /// `closed` or `open`.
    pub mode: String,
    pub clients: usize,
    pub warm_up_seconds: f64,
    pub seconds: f64,
    pub items: u64,
    pub users: u64,
    pub orders: String,
    pub mix: String,
    pub skew: String,
    pub committed: u64,
    pub committed_per_second: f64,
    pub others_per_second: f64,
    pub latency_ms: LatencyReport,
    pub others_latency_ms: LatencyReport,
    pub errors: BTreeMap<String, u64>,
    pub errors_total: u64,
    pub errors_in_warm_up: u64,
    pub longest_silence_ms: f64,
    pub orders_ran_out: bool,
    pub books: BookReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_loop: Option<OpenReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noop: Option<NoopReport>,
    #[serde(skip_serializing_if = "Option::is_none", skip_deserializing)]
    pub comparison: Option<Comparison>,
    pub machine: Machine,
    pub samples: Samples,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct LatencyReport {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub max: f64,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct BookReport {
    pub agree: bool,
    pub paid_but_untold: u64,
    pub units_told: i64,
    pub units_gone: i64,
    pub credit_told: i64,
    pub credit_gone: i64,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct NoopReport {
    pub behind_nginx: bool,
    pub requests_per_second: f64,
    /// Committed checkouts a second over this.
    pub ratio: f64,
}

/// Whether what was asked for was offered.
#[derive(Debug, Deserialize, Serialize)]
pub struct OpenReport {
    pub rate_per_second: f64,
    pub rate_reached: bool,
    pub due: u64,
    pub never_sent: u64,
    pub waited_for_a_connection: u64,
    pub latest_ms: f64,
}

/// One value a slice, in order; latencies are null where nothing was answered.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Samples {
    pub slice_ms: u64,
    pub committed: Vec<u64>,
    pub others: Vec<u64>,
    pub errors: Vec<u64>,
    pub p50_ms: Vec<Option<f64>>,
    pub p99_ms: Vec<Option<f64>>,
    pub max_ms: Vec<Option<f64>>,
}

/// What a handler that does nothing was measured at.
#[derive(Clone, Copy, Debug)]
pub struct Noop {
    pub behind_nginx: bool,
    pub requests_per_second: f64,
}

impl LatencyReport {
    fn of(latency_us: &Histogram<u64>) -> Self {
        let ms = |us: u64| float(us) / 1000.0;
        let at = |quantile: f64| ms(latency_us.value_at_quantile(quantile));
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p99_9: at(0.999), max: ms(latency_us.max()) }
    }

    fn text(&self) -> String {
        let Self { p50, p90, p99, p99_9, max } = self;
        format!("p50 {p50:.1}  p90 {p90:.1}  p99 {p99:.1}  p99.9 {p99_9:.1}  max {max:.1}")
    }
}

impl Samples {
    fn of(slices: &[Slice], settings: &Settings) -> Self {
        let ms = |pick: fn(super::tally::Latency) -> u64| {
            slices.iter().map(|slice| slice.latency.map(|latency| float(pick(latency)) / 1000.0)).collect()
        };
        Self {
            slice_ms: u64::try_from(settings.slice.as_millis()).unwrap_or(u64::MAX),
            committed: slices.iter().map(|slice| slice.committed).collect(),
            others: slices.iter().map(|slice| slice.others).collect(),
            errors: slices.iter().map(|slice| slice.errors).collect(),
            p50_ms: ms(|latency| latency.p50_us),
            p99_ms: ms(|latency| latency.p99_us),
            max_ms: ms(|latency| latency.max_us),
        }
    }

    /// Counts as rates.
    #[must_use]
    pub fn per_second(&self, counts: &[u64]) -> Vec<f64> {
        let seconds = (float(self.slice_ms) / 1000.0).max(f64::EPSILON);
        counts.iter().map(|&count| float(count) / seconds).collect()
    }
}

impl Report {
    #[must_use]
    pub fn new(settings: &Settings, tally: &Tally, books: Books, noop: Option<Noop>) -> Self {
        let seconds = tally.elapsed.as_secs_f64();
        let per_second = |count: u64| float(count) / seconds.max(f64::EPSILON);
        let count = |number: i128| i64::try_from(number).unwrap_or(i64::MAX);
        let committed_per_second = per_second(tally.committed);
        let open_loop = match (settings.pace, tally.offered) {
            (Pace::Open { rate_per_second }, Some(offered)) => Some(OpenReport {
                rate_per_second,
                rate_reached: offered.is_reached(),
                due: offered.due,
                never_sent: offered.unsent,
                waited_for_a_connection: offered.waited,
                latest_ms: offered.late_max.as_secs_f64() * 1000.0,
            }),
            (Pace::Open { .. } | Pace::Closed, _) => None,
        };
        Self {
            urls: settings.targets.iter().map(Target::url).collect(),
            mode: if open_loop.is_some() { "open" } else { "closed" }.to_owned(),
            clients: settings.clients,
            warm_up_seconds: settings.warm_up.as_secs_f64(),
            seconds,
            items: settings.items,
            users: settings.users,
            orders: match settings.source {
                Source::Batch => "batch".to_owned(),
                Source::Http => "http".to_owned(),
            },
            mix: settings.mix.to_string(),
            skew: settings.skew.to_string(),
            committed: tally.committed,
            committed_per_second,
            others_per_second: per_second(tally.others),
            latency_ms: LatencyReport::of(&tally.latency_us),
            others_latency_ms: LatencyReport::of(&tally.others_latency_us),
            errors: tally.errors.clone(),
            errors_total: tally.errors_total(),
            errors_in_warm_up: tally.errors_before,
            longest_silence_ms: tally.silence.as_secs_f64() * 1000.0,
            orders_ran_out: tally.ran_out,
            books: BookReport {
                agree: books.agree(),
                paid_but_untold: books.untold,
                units_told: count(books.units_told),
                units_gone: count(books.units_gone),
                credit_told: count(books.credit_told),
                credit_gone: count(books.credit_gone),
            },
            open_loop,
            noop: noop.map(|noop| NoopReport {
                behind_nginx: noop.behind_nginx,
                requests_per_second: noop.requests_per_second,
                ratio: committed_per_second / noop.requests_per_second.max(f64::EPSILON),
            }),
            comparison: None,
            machine: Machine::this(),
            samples: Samples::of(&tally.slices, settings),
        }
    }

    /// Something was measured, and the books agree.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.books.agree && (self.committed > 0 || self.others_per_second > 0.0)
    }

    #[must_use]
    pub fn has_checkouts(&self) -> bool {
        self.mix.contains("checkout")
    }

    /// # Errors
    /// None in practice: all of it has a JSON form.
    pub fn json(&self) -> anyhow::Result<String> {
        serde_json::to_string_pretty(self).context("cannot write the report as JSON")
    }

    /// How it was loaded, in one line.
    #[must_use]
    pub fn load(&self) -> String {
        let things = |count: u64, one: &str| {
            let end = if count == 1 { "" } else { "s" };
            format!("{} {one}{end}", grouped(count))
        };
        let who = match &self.open_loop {
            Some(open) => format!(
                "{} requests a second (open loop, at most {} on their way)",
                short(open.rate_per_second),
                self.clients
            ),
            None => format!("{} clients (closed loop)", self.clients),
        };
        let warm_up = if self.warm_up_seconds > 0.0 {
            format!(" after {:.0} s of warm-up", self.warm_up_seconds)
        } else {
            String::new()
        };
        let skew =
            if self.skew.starts_with("zipf") { format!(" wanted as {}", self.skew) } else { String::new() };
        format!(
            "{who} for {:.1} s{warm_up} on {}, {}{skew}, orders by {}",
            self.seconds,
            self.urls.join(" "),
            things(self.items, "item"),
            self.orders
        )
    }

    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("bench - {}\n", self.load());
        for (name, value) in self.rows() {
            let _ = writeln!(text, "  {name:<22}{value}");
        }
        if let Some(comparison) = &self.comparison {
            let _ = write!(text, "\n{}", comparison.text());
        }
        text.trim_end().to_owned()
    }

    /// The results, each with its name.
    #[must_use]
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = Vec::new();
        let mut row = |name, value| rows.push((name, value));
        if self.has_checkouts() {
            let (count, rate) = (self.committed, self.committed_per_second);
            row("committed checkouts", format!("{count}  ({rate:.0} a second)"));
        }
        if self.others_per_second > 0.0 {
            row("edits and reads", format!("{:.0} a second", self.others_per_second));
        }
        if self.has_checkouts() {
            row("latency in ms", self.latency_ms.text());
        }
        if self.others_per_second > 0.0 {
            let name = if self.has_checkouts() { "of edits and reads" } else { "latency in ms" };
            row(name, self.others_latency_ms.text());
        }
        row("errors", if self.errors.is_empty() { "none".to_owned() } else { list(&self.errors) });
        row("longest silence", format!("{:.0} ms", self.longest_silence_ms));
        if let Some(open) = &self.open_loop {
            row(if open.rate_reached { "offered" } else { "NOT OFFERED" }, self.offered(open));
        }
        if let Some(NoopReport { behind_nginx, requests_per_second, ratio }) = &self.noop {
            let how = if *behind_nginx { "behind an nginx set up the same way" } else { "without nginx" };
            let done = format!("{requests_per_second:.0} a second {how}: checkouts are {ratio:.2} of it");
            row("doing nothing", done);
        }
        row("books", self.books.text());
        if self.orders_ran_out {
            row("note", "the orders ran out before the time did: ask for more with --count".to_owned());
        }
        rows
    }

    fn offered(&self, open: &OpenReport) -> String {
        if open.rate_reached {
            format!(
                "all of {} a second; {} of {} had to wait for a connection, the latest was sent {} ms late",
                short(open.rate_per_second),
                grouped(open.waited_for_a_connection),
                grouped(open.due),
                short(open.latest_ms)
            )
        } else {
            format!(
                "{} of {} requests were due and never sent: all {} connections were waiting for answers, so that the latencies are too low",
                grouped(open.never_sent),
                grouped(open.due),
                self.clients
            )
        }
    }
}

impl BookReport {
    #[must_use]
    pub fn text(&self) -> String {
        if self.agree && self.paid_but_untold == 0 {
            "stock and credit fell by exactly what clients were told".to_owned()
        } else if self.agree {
            format!("stock and credit agree, with {} paid orders whose answer was lost", self.paid_but_untold)
        } else {
            format!(
                "DISAGREE: {} units told sold, {} gone; {} credit told spent, {} gone",
                self.units_told, self.units_gone, self.credit_told, self.credit_gone
            )
        }
    }
}

fn list(errors: &BTreeMap<String, u64>) -> String {
    errors.iter().map(|(code, count)| format!("{code} {count}")).collect::<Vec<_>>().join(", ")
}
