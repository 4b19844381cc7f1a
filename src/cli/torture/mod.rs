//! `kassa torture`: a real cluster, under load, broken on purpose, and its books checked.
//!
//! # Layout
//! The [`schedule`] draws what is broken when from the seed, and the [`run`] does it to the [`cluster`], while
//! [`clients`] play one [`scene`] after the other through nginx (operations become HTTP in [`wire`]). What was
//! broken when is the [`weather`], and what was answered the [`tally`]; a pod that loses its disk is given another
//! ([`refill`]). A scene whose clients have left is
//! read back ([`reading`]) and judged ([`judge`]) by the books that the simulator is judged by. What must hold
//! when all is over is in [`ends`]; [`report`] and [`timeline`] tell the rest. `kassa compare` kills pods of the same
//! [`cluster`].

mod clients;
pub(super) mod cluster;
mod ends;
mod judge;
mod reading;
mod refill;
mod report;
mod run;
mod scene;
pub(super) mod schedule;
mod tally;
mod timeline;
mod weather;
mod wire;

use super::fail::Exit;
use super::up::UpArgs;
use super::{crowd, print};
use anyhow::Context;
use clap::Args;
use schedule::Kind;
use std::path::PathBuf;
use tokio::task::LocalSet;

/// As many as the checks, nginx and three pods leave room for on a machine of two cores.
const CLIENTS: u16 = 24;
const MINUTES_MAX: f64 = 600.0;
/// Shorter runs have no room for a fault.
const MINUTES_MIN: f64 = 0.1;

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  kassa torture --minutes 3 --faults kill,stop,partition

It starts a cluster of its own, on an emptied directory, lets clients loose on it through nginx, and breaks
pods, links, disks, clocks and nginx, as the seed says: the same seed, the same faults at the same times. Every
request and answer is kept. While it runs and when it is over it checks that no answer can have been untrue,
that nothing was lost, that all pods agree, and that all is well again soon after the last fault.

Exit code 0 if all holds; 1 if anything is off: the evidence is then in a file under the data directory.
Next: open kassa-torture/torture.html to see it; `kassa verify` does less, to a cluster that is in use.")]
pub struct TortureArgs {
    /// How long faults go on; the checks at the end take up to a minute more
    #[arg(long, default_value_t = 5.0, value_parser = minutes)]
    pub minutes: f64,
    /// Decides what is broken when [default: another each time]
    #[arg(long)]
    pub seed: Option<u64>,
    /// What may be broken [default: everything]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND,…")]
    pub faults: Vec<Kind>,
    /// How many clients at once
    #[arg(long, default_value_t = CLIENTS, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub clients: u16,
    /// How many pods
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(3..=7))]
    pub pods: u16,
    /// Where everything is kept; emptied first, if kassa made it
    #[arg(long, default_value = "kassa-torture", value_name = "DIR")]
    pub data: PathBuf,
    /// Pod n listens on this port + n
    #[arg(long, default_value_t = 8300, value_name = "PORT")]
    pub http_port: u16,
    /// The port of the nginx in front [default: http-port − 100, if there is an nginx]
    #[arg(long, value_name = "PORT")]
    pub nginx: Option<u16>,
    /// Configuration that all pods share, as in `up`
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Go on to the end even if something was found
    #[arg(long)]
    pub keep_going: bool,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|_| "it is no number of minutes".to_owned())?;
    if (MINUTES_MIN..=MINUTES_MAX).contains(&minutes) {
        Ok(minutes)
    } else {
        Err(format!("from {MINUTES_MIN} to {MINUTES_MAX} minutes"))
    }
}

/// What is to be done, once the arguments are found good.
#[derive(Clone, Debug)]
struct Order {
    args: TortureArgs,
    seed: u64,
    kinds: Vec<Kind>,
    length_ms: u64,
}

impl Order {
    fn of(args: &TortureArgs) -> Self {
        let kinds = if args.faults.is_empty() { Kind::DEFAULT.to_vec() } else { args.faults.clone() };
        let seed = args.seed.unwrap_or_else(|| {
            // Short enough to be typed.
            xxhash_rust::xxh3::xxh3_64(crowd::run_word().as_bytes()) % 1_000_000
        });
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a bounded, positive time"
        )]
        let length_ms = (args.minutes * 60_000.0) as u64;
        Self { args: args.clone(), seed, kinds, length_ms }
    }

    /// The cluster that is tortured: as `up` makes it, and always a new one.
    fn up(&self) -> UpArgs {
        UpArgs {
            pods: Some(self.args.pods),
            payment_pods: None,
            stock_pods: None,
            http_port: self.args.http_port,
            data: self.args.data.clone(),
            nginx: self.args.nginx,
            fresh: true,
            config: self.args.config.clone(),
            no_restart: true,
        }
    }

    /// What to type to have the same faults again.
    fn again(&self) -> String {
        let args = &self.args;
        let mut again = format!("kassa torture --seed {} --minutes {}", self.seed, args.minutes);
        if !args.faults.is_empty() {
            let words: Vec<&str> = args.faults.iter().map(|kind| kind.word()).collect();
            again.push_str(&format!(" --faults {}", words.join(",")));
        }
        if args.clients != CLIENTS {
            again.push_str(&format!(" --clients {}", args.clients));
        }
        if args.pods != 3 {
            again.push_str(&format!(" --pods {}", args.pods));
        }
        if let Some(config) = &args.config {
            again.push_str(&format!(" --config {}", config.display()));
        }
        again
    }
}

/// Tortures a cluster and tells how it bore it.
///
/// # Errors
/// Wrong use, or a cluster that cannot be started.
pub fn run(args: &TortureArgs) -> anyhow::Result<Exit> {
    let order = Order::of(args);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    // All on this thread: the ends of the cluster's processes are tied to it.
    let report = LocalSet::new().block_on(&runtime, run::run(&order))?;
    print::line(&if args.json { report.json()? } else { report.text() });
    Ok(if report.is_good() { Exit::Done } else { Exit::Wrong })
}
