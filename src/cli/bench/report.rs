//! What `bench` says in the end, to people and to programs.

use super::clients::Tally;
use super::prepare::Source;
use super::{BenchArgs, Books};
use crate::cli::http::Target;
use anyhow::Context;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Units are in the names; latencies are of committed checkouts.
#[derive(Debug, Serialize)]
pub struct Report {
    urls: Vec<String>,
    clients: u16,
    seconds: f64,
    items: u64,
    orders: &'static str,
    committed: u64,
    committed_per_second: f64,
    others_per_second: f64,
    latency_ms: Latency,
    errors: BTreeMap<String, u64>,
    errors_total: u64,
    longest_silence_ms: f64,
    orders_ran_out: bool,
    books: BookReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    noop: Option<NoopReport>,
}

#[derive(Debug, Serialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    p99_9: f64,
    max: f64,
}

#[derive(Debug, Serialize)]
struct BookReport {
    agree: bool,
    paid_but_untold: u64,
    units_told: i64,
    units_gone: i64,
    credit_told: i64,
    credit_gone: i64,
}

#[derive(Debug, Serialize)]
struct NoopReport {
    behind_nginx: bool,
    requests_per_second: f64,
    /// Committed checkouts a second over this.
    ratio: f64,
}

/// What a handler that does nothing was measured at.
#[derive(Clone, Copy, Debug)]
pub struct Noop {
    pub behind_nginx: bool,
    pub requests_per_second: f64,
}

impl Report {
    pub fn new(
        args: &BenchArgs,
        targets: &[Target],
        tally: &Tally,
        books: Books,
        noop: Option<Noop>,
    ) -> Self {
        let seconds = tally.elapsed.as_secs_f64();
        let per_second = |count: u64| float(count) / seconds.max(f64::EPSILON);
        let ms = |us: u64| float(us) / 1000.0;
        let at = |quantile: f64| ms(tally.latency_us.value_at_quantile(quantile));
        let count = |number: i128| i64::try_from(number).unwrap_or(i64::MAX);
        let committed_per_second = per_second(tally.committed);
        Self {
            urls: targets.iter().map(Target::url).collect(),
            clients: args.clients,
            seconds,
            items: if args.hot { 1 } else { args.items },
            orders: match args.orders {
                Source::Batch => "batch",
                Source::Http => "http",
            },
            committed: tally.committed,
            committed_per_second,
            others_per_second: per_second(tally.others),
            latency_ms: Latency {
                p50: at(0.5),
                p90: at(0.9),
                p99: at(0.99),
                p99_9: at(0.999),
                max: ms(tally.latency_us.max()),
            },
            errors: tally.errors.clone(),
            errors_total: tally.errors.values().sum(),
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
            noop: noop.map(|noop| NoopReport {
                behind_nginx: noop.behind_nginx,
                requests_per_second: noop.requests_per_second,
                ratio: committed_per_second / noop.requests_per_second.max(f64::EPSILON),
            }),
        }
    }

    /// Something was measured, and the books agree.
    pub const fn is_good(&self) -> bool {
        self.books.agree && (self.committed > 0 || self.others_per_second > 0.0)
    }

    pub fn json(&self) -> anyhow::Result<String> {
        serde_json::to_string_pretty(self).context("cannot write the report as JSON")
    }

    pub fn text(&self) -> String {
        let mut text = format!(
            "bench - {} clients for {:.1} s on {}, {} {}, orders by {}\n",
            self.clients,
            self.seconds,
            self.urls.join(" "),
            self.items,
            if self.items == 1 { "item" } else { "items" },
            self.orders
        );
        let mut row = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:<22}{value}");
        };
        row(
            "committed checkouts",
            format!("{}  ({:.0} a second)", self.committed, self.committed_per_second),
        );
        if self.others_per_second > 0.0 {
            row("edits and reads", format!("{:.0} a second", self.others_per_second));
        }
        let Latency { p50, p90, p99, p99_9, max } = self.latency_ms;
        row(
            "latency in ms",
            format!("p50 {p50:.1}  p90 {p90:.1}  p99 {p99:.1}  p99.9 {p99_9:.1}  max {max:.1}"),
        );
        row("errors", if self.errors.is_empty() { "none".to_owned() } else { list(&self.errors) });
        row("longest silence", format!("{:.0} ms", self.longest_silence_ms));
        if let Some(noop) = &self.noop {
            let how = if noop.behind_nginx { "behind an nginx set up the same way" } else { "without nginx" };
            let NoopReport { requests_per_second, ratio, .. } = noop;
            row(
                "doing nothing",
                format!("{requests_per_second:.0} a second {how}: checkouts are {ratio:.2} of it"),
            );
        }
        let books = &self.books;
        row(
            "books",
            if books.agree && books.paid_but_untold == 0 {
                "stock and credit fell by exactly what clients were told".to_owned()
            } else if books.agree {
                format!(
                    "stock and credit agree, with {} paid orders whose answer was lost",
                    books.paid_but_untold
                )
            } else {
                format!(
                    "DISAGREE: {} units told sold, {} gone; {} credit told spent, {} gone",
                    books.units_told, books.units_gone, books.credit_told, books.credit_gone
                )
            },
        );
        if self.orders_ran_out {
            row("note", "the orders ran out before the time did: ask for more with --count".to_owned());
        }
        text.trim_end().to_owned()
    }
}

fn list(errors: &BTreeMap<String, u64>) -> String {
    errors.iter().map(|(code, count)| format!("{code} {count}")).collect::<Vec<_>>().join(", ")
}

/// Counts of a benchmark are far below 2^53, where this would begin to round.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
const fn float(count: u64) -> f64 {
    count as f64
}
