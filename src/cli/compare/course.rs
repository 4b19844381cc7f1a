//! One run: round after round, in each every configuration on a fresh cluster.

use super::CompareArgs;
use super::configuration::Configuration;
use super::crash::{self, Found};
use super::figures::{Figures, Measured};
use super::load::{self, Shop};
use super::plan::{Plan, Step};
use crate::cli::bench::engine::Live;
use crate::cli::machine::Machine;
use crate::cli::page::number::{float, short};
use crate::cli::torture::cluster::Cluster;
use crate::cli::up::{self, UpArgs};
use crate::cli::verify::{self, VerifyArgs};
use crate::cli::{fail, print};
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::Path;
use std::time::{Duration, Instant};

/// A cluster on one machine starts within that, and is whole again after a death.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Pods of each cluster: as many as hold a replica of everything.
const PODS: u16 = 3;

/// What is seen while it runs.
struct Progress {
    bar: ProgressBar,
    began: Instant,
    /// Of what is over, in planned seconds, and of all.
    done: u64,
    whole: u64,
    doing: String,
    step_began: Instant,
    step: u64,
}

impl Progress {
    fn new(whole: u64, is_quiet: bool) -> Self {
        let bar = if is_quiet { ProgressBar::hidden() } else { ProgressBar::new(whole) };
        if let Ok(style) = ProgressStyle::with_template("{bar:20} {wide_msg}") {
            bar.set_style(style);
        }
        let now = Instant::now();
        Self { bar, began: now, done: 0, whole, doing: String::new(), step_began: now, step: 0 }
    }

    fn begin(&mut self, doing: String, step: u64) {
        (self.doing, self.step, self.step_began) = (doing, step, Instant::now());
        self.show("");
    }

    fn end(&mut self) {
        self.done += self.step;
        self.step = 0;
    }

    /// The time left is what was planned, times how much longer than planned it has taken so far.
    fn show(&self, more: &str) {
        let at = self.done + self.step_began.elapsed().as_secs().min(self.step);
        let slower = if self.done > 0 {
            (self.began.elapsed().as_secs_f64() / float(at.max(1))).max(1.0)
        } else {
            1.0
        };
        let left = float(self.whole.saturating_sub(at)) * slower;
        let left = Duration::from_secs_f64(left).as_secs();
        self.bar.set_position(at);
        self.bar.set_message(format!("{}:{:02} left · {}{more}", left / 60, left % 60, self.doing));
    }

    fn watch(&self, live: Live) {
        if self.bar.is_hidden() {
            return;
        }
        let seconds = live.counted.as_secs_f64();
        let rate = if seconds > 0.0 { float(live.committed) / seconds } else { 0.0 };
        self.show(&format!(" · {}/s", short(rate)));
    }
}

/// # Errors
/// Where a cluster cannot be started or stopped.
pub async fn run(
    args: &CompareArgs,
    plan: Plan,
    configurations: &[Configuration],
) -> anyhow::Result<Figures> {
    let began = Instant::now();
    let whole = plan.whole_seconds(configurations);
    if !args.json {
        let things = if configurations.len() == 1 { "configuration" } else { "configurations" };
        print::line(&format!(
            "compare - {} {things}, {} rounds, about {} min; report in {}",
            configurations.len(),
            plan.rounds,
            whole.div_ceil(60),
            args.out.display()
        ));
    }
    let mut progress = Progress::new(whole, args.json);
    let mut all: Vec<Measured> = configurations.iter().copied().map(Measured::new).collect();
    let mut behind_nginx = false;
    for round in 0..plan.rounds {
        for measured in &mut all {
            let mut one = Once { args, plan, round, progress: &mut progress };
            behind_nginx = one.run(measured).await?;
        }
    }
    progress.bar.finish_and_clear();
    remove(&args.out.join("cluster"));
    Ok(Figures {
        command: args.again(),
        machine: Machine::this(),
        behind_nginx,
        plan,
        took_seconds: began.elapsed().as_secs_f64(),
        configurations: all,
    })
}

/// The last cluster's data: nobody asks for it any more. If it cannot be removed the next run empties it.
fn remove(data: &Path) {
    let _ = std::fs::remove_dir_all(data);
}

/// One configuration in one round.
struct Once<'a> {
    args: &'a CompareArgs,
    plan: Plan,
    round: usize,
    progress: &'a mut Progress,
}

impl Once<'_> {
    /// Whether there was an nginx in front.
    async fn run(&mut self, measured: &mut Measured) -> anyhow::Result<bool> {
        let configuration = measured.configuration;
        self.begin(configuration, Step::Start);
        let cluster = self.start(configuration).await?;
        self.progress.end();
        for step in self.plan.steps(self.round, configuration).into_iter().filter(|step| *step != Step::Start)
        {
            self.begin(configuration, step);
            if let Err(error) = self.step(&cluster, step, measured).await {
                measured.failures.push(format!("round {}, {}: {error:#}", self.round + 1, step.name()));
            }
            measured.failures.extend(cluster.ends.borrow_mut().drain(..));
            self.progress.end();
        }
        cluster.stop().await.map_err(fail::impossible)?;
        Ok(cluster.has_nginx())
    }

    fn begin(&mut self, configuration: Configuration, step: Step) {
        let doing = format!(
            "round {} of {} · {} · {}",
            self.round + 1,
            self.plan.rounds,
            configuration.name(),
            step.name()
        );
        self.progress.begin(doing, self.plan.seconds(step));
    }

    async fn start(&self, configuration: Configuration) -> anyhow::Result<Cluster> {
        let config = self.args.out.join(format!("{}.toml", configuration.key()));
        let text = format!("# {}\n{}", configuration.what(), configuration.toml());
        std::fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let prepared = up::prepare(&UpArgs {
            pods: Some(PODS),
            payment_pods: None,
            stock_pods: None,
            http_port: self.args.http_port,
            data: self.args.out.join("cluster"),
            nginx: self.args.nginx,
            fresh: true,
            config: Some(config),
            no_restart: true,
        })
        .await?;
        let cluster = Cluster::start(prepared);
        cluster.ready(READY_WITHIN).await.map_err(|why| {
            let ends = cluster.ends.borrow().join("\n");
            fail::impossible(format!("{}: {why}\n{ends}", configuration.name()))
        })?;
        Ok(cluster)
    }

    async fn step(&self, cluster: &Cluster, step: Step, measured: &mut Measured) -> anyhow::Result<()> {
        let shop = Shop { fronts: &cluster.fronts, pods: &cluster.pods };
        let (plan, round, progress) = (&self.plan, self.round, &*self.progress);
        let watch = |live: Live| progress.watch(live);
        match step {
            Step::Start => {}
            Step::Load(demand) => {
                let (load, books) = load::measure(shop, plan, round, demand, watch).await?;
                measured.loads.push(load);
                let wrong = crash::disagreement(&books);
                measured.disagreements.extend(wrong.map(|wrong| format!("{}: {wrong}", demand.name())));
            }
            Step::Crash => {
                let Found { crash, disagreement } = crash::crash(cluster, shop, plan, round, watch).await?;
                measured.crashes.push(crash);
                measured.disagreements.extend(disagreement.map(|wrong| format!("{}: {wrong}", step.name())));
                cluster.ready(READY_WITHIN).await.map_err(fail::impossible)?;
            }
            Step::HotCrash => {
                let (silences, disagreement) = crash::hot_crash(cluster, shop, plan, watch).await?;
                measured.hot_silences_ms.extend(silences);
                measured.disagreements.extend(disagreement.map(|wrong| format!("{}: {wrong}", step.name())));
                cluster.ready(READY_WITHIN).await.map_err(fail::impossible)?;
            }
            Step::Verify => {
                let url = shop.fronts.iter().map(|front| front.url()).collect();
                let args = VerifyArgs { url, orders: plan.verify_orders, clients: 64, seed: None };
                let report = verify::verify(shop.fronts.to_vec(), &args).await?;
                let mut sums = measured.verified.unwrap_or_default();
                sums.iter_mut().zip(report.lines()).for_each(|(sum, (_, count))| *sum += count);
                measured.verified = Some(sums);
                measured
                    .disagreements
                    .extend(report.books.all().take(1).map(|fault| format!("verify: {fault}")));
            }
        }
        Ok(())
    }
}
