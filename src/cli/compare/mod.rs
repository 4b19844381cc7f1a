//! `kassa compare`: what each way to commit and to replicate costs, and what it bears, measured side by side.
//!
//! Each [`configuration`] runs on fresh clusters of real processes, in alternating rounds, so that a machine that is
//! slower for a while is so for all of them. What is done, and for how long, is the [`plan`]; the [`course`] does
//! it.
//!
//! # Layout
//! [`load`] measures throughput, latency and cost with the engine of `bench`; [`crash`] kills a pod of the cluster
//! that `torture` breaks, while [`waves`] try who can buy; [`pods`] reads what the pods count. All of that is
//! [`figures`], from which [`ratio`] and [`conclude`] tell what a reader may take from it, and what noise forbids;
//! shown as [`text`], as a [`page`] and as JSON.

mod conclude;
mod configuration;
mod course;
mod crash;
mod figures;
mod load;
mod page;
mod plan;
mod pods;
mod ratio;
mod text;
mod waves;

use super::fail::{self, Exit};
use super::print;
use anyhow::Context;
use clap::Args;
use configuration::Configuration;
use figures::Figures;
use plan::Plan;
use std::path::{Path, PathBuf};
use tokio::task::LocalSet;

const ROUNDS_MAX: u64 = 100;

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
It starts and ends clusters of three pods on this machine, one after the other, each on an emptied directory, and
changes one thing at a time against the default: how checkouts commit (by reservations, or by the textbook's two-phase
commit that locks), how payment is replicated, and how stock is. In each round every configuration is measured once:
checkouts a second and how long they take, under even, skewed (Zipf 0.99) and single-item demand; what sells while a
pod is dead, and which items and users nobody can buy with; messages and fsyncs for each checkout. Then `verify`.

Example:
  kassa compare --quick                                 about 4 minutes, with a wide spread
  kassa compare --out /tmp/compare                      up to 20 minutes, with a tight one
  kassa compare --only default,blocking --rounds 6      fewer things, more often

It writes DIR/compare.html, a page with everything for a browser, and DIR/compare.json for programs.
Use a release build on a quiet machine. Exit code 1 if anything does not verify, or could not be measured.")]
pub struct CompareArgs {
    /// Shorter and fewer rounds: at most 4 minutes
    #[arg(long)]
    pub quick: bool,
    /// Only as long as it takes to see that all of it works; says little of speed
    #[arg(long, conflicts_with = "quick")]
    pub glance: bool,
    /// Where the report is written, and the clusters' data kept meanwhile
    #[arg(long, default_value = "kassa-compare", value_name = "DIR")]
    pub out: PathBuf,
    /// What is compared [default: everything]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME,…")]
    pub only: Vec<Configuration>,
    /// How often each is measured; pods die in each of these rounds [default: 4, with --quick 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=ROUNDS_MAX))]
    pub rounds: Option<u64>,
    /// Pod n listens on this port + n
    #[arg(long, default_value_t = 8700, value_name = "PORT")]
    pub http_port: u16,
    /// The port of the nginx in front [default: http-port − 100, if there is an nginx]
    #[arg(long, value_name = "PORT")]
    pub nginx: Option<u16>,
    /// Print the JSON instead of the tables
    #[arg(long)]
    pub json: bool,
}

impl CompareArgs {
    fn plan(&self) -> Plan {
        let plan = match (self.glance, self.quick) {
            (true, _) => Plan::GLANCE,
            (false, true) => Plan::QUICK,
            (false, false) => Plan::FULL,
        };
        let Some(rounds) = self.rounds.and_then(|rounds| usize::try_from(rounds).ok()) else { return plan };
        Plan { rounds, rounds_with_crashes: rounds, ..plan }
    }

    /// Each once, in the order in which they are always shown.
    fn configurations(&self) -> Vec<Configuration> {
        let wanted =
            |configuration: &Configuration| self.only.is_empty() || self.only.contains(configuration);
        Configuration::ALL.into_iter().filter(wanted).collect()
    }

    /// What to type to do it again.
    fn again(&self) -> String {
        let mut again = "kassa compare".to_owned();
        for (flag, is_set) in [(" --quick", self.quick), (" --glance", self.glance)] {
            again.push_str(if is_set { flag } else { "" });
        }
        if !self.only.is_empty() {
            let keys: Vec<&str> = self.configurations().into_iter().map(Configuration::key).collect();
            again.push_str(&format!(" --only {}", keys.join(",")));
        }
        if let Some(rounds) = self.rounds {
            again.push_str(&format!(" --rounds {rounds}"));
        }
        again
    }
}

/// Measures all of it and reports.
///
/// # Errors
/// Wrong use, a cluster that cannot be started, or a report that cannot be written.
pub fn run(args: &CompareArgs) -> anyhow::Result<Exit> {
    let out = &args.out;
    std::fs::create_dir_all(out)
        .map_err(|error| fail::usage(format!("--out {}: it cannot be made ({error})", out.display())))?;
    let (page, json) = (out.join("compare.html"), out.join("compare.json"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    // All on this thread: the ends of the clusters' processes are tied to it.
    let figures =
        LocalSet::new().block_on(&runtime, course::run(args, args.plan(), &args.configurations()))?;
    let text = json_of(&figures)?;
    write(&json, &text)?;
    write(&page, &page::page(&figures))?;
    if args.json {
        print::line(&text);
    } else {
        print::line(&text::text(&figures));
        print::line(&format!("\nreport:  {}\nfigures: {}", page.display(), json.display()));
    }
    Ok(if figures.is_good() { Exit::Done } else { Exit::Wrong })
}

/// Everything that was measured, and what follows from it.
fn json_of(figures: &Figures) -> anyhow::Result<String> {
    let mut value = serde_json::to_value(figures).context("cannot write the figures as JSON")?;
    if let Some(object) = value.as_object_mut() {
        let conclusions = serde_json::to_value(conclude::conclude(figures));
        object.insert("conclusions".to_owned(), conclusions.context("cannot write the conclusions as JSON")?);
        object.insert("good".to_owned(), figures.is_good().into());
    }
    serde_json::to_string_pretty(&value).context("cannot write the figures as JSON")
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
