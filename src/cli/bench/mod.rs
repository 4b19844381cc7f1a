//! `kassa bench`: how many checkouts are committed a second.
//!
//! Only a 200 for an order that is used once counts, and only if the books agree in the end: stock and
//! credit must have fallen by exactly what clients were told. An answer that is an error and a connection
//! that breaks are errors; no client retries.

mod clients;
mod mix;
mod prepare;
mod report;
mod yardstick;

use super::fail::Exit;
use super::http::Target;
use super::{crowd, place, print};
use anyhow::Context;
use clap::Args;
use clients::Tally;
use mix::Mix;
use prepare::{Shop, Source, UNITS};
use report::Report;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Charges whose answer was lost may still be on their way when the clock stops; books that do not agree
/// after this never will.
const SETTLE_WITHIN: Duration = Duration::from_secs(15);
/// The same where every outcome is known: a refused checkout gives back its units before it is answered.
const SETTLE_KNOWN_WITHIN: Duration = Duration::from_secs(1);
const SETTLE_POLL: Duration = Duration::from_millis(250);

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  kassa bench --url http://127.0.0.1:7900 --clients 256 --seconds 30

With orders from a batch (the default) it overwrites orders, items and users 0, 1, 2, …: use
`--orders http` where those are worth something. Exit code 1 if the books disagree.
Next: `kassa bench --hot` for the one item that everybody wants, `--noop` for what HTTP alone costs.")]
pub struct BenchArgs {
    /// Where the cluster is; clients are spread over all that are given [default: the one in ./kassa-data]
    #[arg(long, value_name = "URL")]
    pub url: Vec<String>,
    /// How many clients, each with a connection of its own
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=8192))]
    pub clients: u16,
    /// For how long
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// How many items the orders are spread over
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub items: u64,
    /// How many users the orders are spread over
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub users: u64,
    /// Where the orders come from
    #[arg(long, value_enum, default_value_t = Source::Batch)]
    pub orders: Source,
    /// How many orders are made; each is used once [default: more than can be sold]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub count: Option<u64>,
    /// Every buyer wants the same item
    #[arg(long)]
    pub hot: bool,
    /// What clients do, by weight: checkout, edit (add to an order), read
    #[arg(long, default_value = "checkout=1", value_name = "KIND=WEIGHT,…")]
    pub mix: Mix,
    /// Measure a handler that does nothing too, behind an nginx set up the same way
    #[arg(long)]
    pub noop: bool,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

/// Loads, measures, reads back and reports.
///
/// # Errors
/// Where the cluster cannot be loaded or read.
pub fn run(args: &BenchArgs) -> anyhow::Result<Exit> {
    let targets = place::shop(&args.url)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    runtime.block_on(async {
        let clients = usize::from(args.clients);
        let duration = Duration::from_secs(args.seconds);
        crowd::reach(&targets).await?;
        let shop = Rc::new(prepare::load(args, &targets).await?);
        let tally = clients::run(&shop, args.mix, &targets, clients, duration).await?;
        let books = read_back(&shop, &tally, &targets, clients).await?;
        let noop = if args.noop { Some(yardstick::measure(clients, duration).await?) } else { None };
        let report = Report::new(args, &targets, &tally, books, noop);
        print::line(&if args.json { report.json()? } else { report.text() });
        Ok(if report.is_good() { Exit::Done } else { Exit::Wrong })
    })
}

/// What the stores hold, against what clients were told.
#[derive(Clone, Copy, Debug)]
struct Books {
    /// Paid orders whose client got no answer that said so.
    untold: u64,
    units_told: i128,
    units_gone: i128,
    credit_told: i128,
    credit_gone: i128,
}

impl Books {
    const fn agree(&self) -> bool {
        self.units_told == self.units_gone && self.credit_told == self.credit_gone
    }
}

async fn read_back(shop: &Shop, tally: &Tally, targets: &[Target], clients: usize) -> anyhow::Result<Books> {
    let started = Instant::now();
    let patience = if tally.open.is_empty() { SETTLE_KNOWN_WITHIN } else { SETTLE_WITHIN };
    loop {
        let untold = shop.paid(&tally.open, targets, clients).await?;
        let fall = shop.fall(targets, clients).await?;
        // Every unit costs 1.
        let sold = i128::from(tally.committed + tally.committed_late + untold) * i128::from(UNITS);
        let books = Books {
            untold,
            units_told: sold,
            units_gone: fall.units,
            credit_told: sold,
            credit_gone: fall.credit,
        };
        if books.agree() || started.elapsed() > patience {
            return Ok(books);
        }
        tokio::time::sleep(SETTLE_POLL).await;
    }
}

/// xorshift64*: which item is next needs no better randomness, and costs nothing.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    #[must_use]
    pub fn seeded() -> Self {
        Self(RandomState::new().build_hasher().finish() | 1)
    }

    /// A number below `bound`, which is not 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) % bound
    }

    /// One of them; there is at least one.
    pub fn of<'a>(&mut self, all: &'a [String]) -> &'a str {
        let at = self.below(u64::try_from(all.len()).unwrap_or(u64::MAX));
        &all[usize::try_from(at).unwrap_or_default()]
    }
}
