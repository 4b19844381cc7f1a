//! `kassa bench`: how many checkouts are committed a second, and how long each takes.
//!
//! Only a 200 for an order that is used once counts, and only if the books agree in the end: stock and
//! credit must have fallen by exactly what clients were told. An answer that is an error and a connection
//! that breaks are errors; no client retries.
//!
//! # Layout
//! The [`settings`] say what a run is. [`prepare`] loads a shop, the [`engine`] has [`client`]s load it, in a closed
//! loop or at a [`pace`], choosing by [`mix`] and [`random`] wishes; the [`tally`] counts, and the [`books`] are read
//! back. Other commands call [`measure`] for all of that. What came of it is the [`report`]; also as a [`page`] and as
//! [`hgrm`]; [`compare`] sets it beside an earlier one, by the [`stats`] of both.

pub mod books;
mod client;
mod compare;
pub mod engine;
mod hgrm;
mod live;
pub mod mix;
mod pace;
mod page;
pub mod prepare;
pub mod random;
pub mod report;
pub mod settings;
pub mod stats;
pub mod tally;
mod yardstick;

use super::fail::{self, Exit, Failure};
use super::{crowd, place, print};
use anyhow::Context;
use books::Books;
use clap::Args;
use compare::Comparison;
use engine::Live;
use mix::Mix;
use prepare::Source;
use random::Skew;
use report::Report;
use settings::Settings;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tally::Tally;

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Without --rate it is a closed loop: each client sends when it has its answer, so while the server stalls nobody
asks, and a stall of a second that would have kept thousands waiting counts as one slow answer a client. With --rate
requests come when they come, at random, and each is timed from when it was due, so that a stall shows in the percentiles.

Example:
  kassa bench --url http://127.0.0.1:7900 --clients 256 --seconds 30
  kassa bench --rate 2000 --warm-up 5 --report bench.html      open loop: what would 2,000 customers a second see
  kassa bench --mix checkout=8,edit=1,read=1 --skew zipf:0.99  a few items that many want, and window-shoppers
  kassa bench --hot                                            one item that everybody wants
  kassa bench --noop                                           what HTTP alone costs
  kassa bench --seconds 60 --json > before.json                then change something, and
  kassa bench --seconds 60 --compare before.json               faster, slower, or nothing that can be told

A comparison knows the noise within both runs, not what changed between them, such as another load on the machine or a
store that has grown: run old and new in turns, more than once, before you believe a small difference.

With orders from a batch (the default) it overwrites orders, items and users 0, 1, 2, …: use `--orders http`
where those are worth something. Exit code 1 if the books disagree, or with --fail-if-slower.")]
pub struct BenchArgs {
    /// Where the cluster is; clients are spread over all that are given [default: the one in ./kassa-data]
    #[arg(long, value_name = "URL")]
    pub url: Vec<String>,
    /// How many clients, each with a connection of its own; with --rate, how many requests may be on their way at
    /// once: more wait, and are timed all the same [default: 64, with --rate 512]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=8192))]
    pub clients: Option<u16>,
    /// Open loop: so many requests a second over all, at random moments (a Poisson process)
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = settings::rate)]
    pub rate: Option<f64>,
    /// For how long
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Load for so long before anything is counted
    #[arg(long, default_value_t = 0, value_name = "SECONDS", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub warm_up: u64,
    /// How many items the orders are spread over
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub items: u64,
    /// How many users the orders are spread over
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub users: u64,
    /// Where the orders come from [default: batch; http with --skew zipf]
    #[arg(long, value_enum)]
    pub orders: Option<Source>,
    /// How many orders are made; each is used once [default: more than can be sold]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub count: Option<u64>,
    /// How wishes are spread over the items: uniform, zipf:EXPONENT (0.99 is usual), or one for all
    #[arg(long, value_name = "HOW")]
    pub skew: Option<Skew>,
    /// Every buyer wants the same item: as --skew one
    #[arg(long, conflicts_with = "skew")]
    pub hot: bool,
    /// What clients do, by weight: checkout, edit (add to an order), read
    #[arg(long, default_value = "checkout=1", value_name = "KIND=WEIGHT,…")]
    pub mix: Mix,
    /// Measure a handler that does nothing too, behind an nginx set up the same way
    #[arg(long)]
    pub noop: bool,
    /// Write a page with the results over time, for a browser
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// Write the percentiles as HdrHistogram's plotters read them, in ms
    #[arg(long, value_name = "FILE.hgrm")]
    pub hdr: Option<PathBuf>,
    /// Set it beside what an earlier `--json` printed, and say whether it is faster or slower than both runs' noise
    #[arg(long, value_name = "OLD.json")]
    pub compare: Option<PathBuf>,
    /// Exit code 1 if anything compared is slower than before
    #[arg(long, requires = "compare")]
    pub fail_if_slower: bool,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    pub tally: Tally,
    pub books: Books,
}

/// Loads a shop, has it bought from, and reads it back. `watch` is called ten times a second while the load runs.
///
/// # Errors
/// Where the cluster cannot be loaded or read.
pub async fn measure(settings: &Settings, watch: impl FnMut(Live)) -> anyhow::Result<Outcome> {
    crowd::reach(&settings.targets).await?;
    let shop = Rc::new(prepare::load(settings).await?);
    let tally = engine::run(&shop, settings, watch).await?;
    let books = books::read_back(&shop, &tally, settings).await?;
    Ok(Outcome { tally, books })
}

/// Loads, measures, reads back and reports.
///
/// # Errors
/// Wrong use, or where the cluster cannot be loaded or read.
pub fn run(args: &BenchArgs) -> anyhow::Result<Exit> {
    let settings = Settings::of(args, place::shop(&args.url)?)?;
    // Whatever can be found wrong before the load is.
    let before = args.compare.as_deref().map(compare::read).transpose()?;
    let mut page = args.report.as_deref().map(|path| create("--report", path)).transpose()?;
    let mut hdr = args.hdr.as_deref().map(|path| create("--hdr", path)).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let (outcome, noop) = runtime.block_on(async {
        let line = live::Line::new(&settings);
        let outcome = measure(&settings, |live| line.show(live)).await;
        line.end();
        let duration = Duration::from_secs(args.seconds);
        let noop = if args.noop { Some(yardstick::measure(settings.clients, duration).await?) } else { None };
        anyhow::Ok((outcome?, noop))
    })?;
    let mut report = Report::new(&settings, &outcome.tally, outcome.books, noop);
    let with = args.compare.as_deref().zip(before.as_ref());
    report.comparison = with.map(|(path, before)| Comparison::of(path, before, &report));
    if let Some(file) = &mut page {
        file.write_all(page::page(&report, &outcome.tally).as_bytes()).context("cannot write the report")?;
    }
    if let Some(file) = &mut hdr {
        let text = hgrm::text(outcome.tally.main_latency_us());
        file.write_all(text.as_bytes()).context("cannot write the percentiles")?;
    }
    print::line(&if args.json { report.json()? } else { report.text() });
    let slower = report.comparison.as_ref().is_some_and(|comparison| comparison.slower);
    let good = report.is_good() && !(args.fail_if_slower && slower);
    Ok(if good { Exit::Done } else { Exit::Wrong })
}

fn create(flag: &str, path: &Path) -> Result<File, Failure> {
    File::create(path).map_err(|error| {
        fail::usage(format!(
            "{flag} {}: cannot write there ({error}); name a file in a directory that exists",
            path.display()
        ))
    })
}
