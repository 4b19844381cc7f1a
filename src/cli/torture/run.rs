//! One run: the faults at their times, the load through all of it, and what is found on the way.

use super::clients::Load;
use super::cluster::Cluster;
use super::ends::{self, Ends};
use super::judge::{self, Judged};
use super::report::{Finding, Part, Report};
use super::schedule::{Fault, Kind, Spell, schedule};
use super::weather::Weather;
use super::{Order, timeline};
use crate::cli::up;
use crate::cli::{fail, print};
use crate::exit::say;
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;

/// A cluster on one machine starts within that.
const START_WITHIN: Duration = Duration::from_secs(30);
/// How often the bar moves, and pods that are to be ready again are looked at.
const TICK: Duration = Duration::from_millis(100);
/// Scenes are read back so many at a time.
const READERS: usize = 4;

/// What a run has found, and where it stands.
pub struct Run<'a> {
    pub order: &'a Order,
    pub cluster: Rc<Cluster>,
    pub load: Rc<Load>,
    pub weather: Rc<Weather>,
    pub spells: Vec<Spell>,
    pub judged: UnboundedReceiver<Judged>,
    pub sum: Judged,
    pub findings: Vec<Finding>,
    pub bar: ProgressBar,
    /// Faults that have begun and not ended.
    active: Rc<Cell<usize>>,
    interrupts: [Signal; 2],
    interrupted: bool,
}

/// Runs the torture to its end.
///
/// # Errors
/// Where the cluster cannot be started, or not be looked at in the end.
pub async fn run(order: &Order) -> anyhow::Result<Report> {
    let interrupts = [SignalKind::interrupt(), SignalKind::terminate()];
    let [interrupt, terminate] = interrupts.map(signal);
    let interrupts = [interrupt, terminate].map(|signal| signal.context("cannot listen for signals"));
    let [interrupt, terminate] = interrupts;
    let prepared = up::prepare(&order.up()).await?;
    let cluster = Rc::new(Cluster::start(prepared));
    cluster.ready(START_WITHIN).await.map_err(fail::impossible)?;

    let mut kinds = order.kinds.clone();
    if !cluster.has_nginx() {
        kinds.retain(|&kind| kind != Kind::Nginx);
    }
    let spells = schedule(order.seed, &kinds, order.length_ms, order.args.pods);
    announce(order, &cluster, &spells);
    let weather = Rc::new(Weather::new(spells.iter().map(|spell| spell.from_ms * 1_000).collect()));
    let (scenes, to_judge) = mpsc::channel();
    let (told, judged) = tokio::sync::mpsc::unbounded_channel();
    std::thread::Builder::new()
        .name("judge".to_owned())
        .spawn(move || judge::run(&to_judge, &told))
        .context("no thread for the judge")?;
    let fronts = (cluster.fronts.clone(), cluster.has_nginx());
    let clients = usize::from(order.args.clients);
    let load =
        Rc::new(Load::new(order.seed, fronts, cluster.pods.clone(), clients, Rc::clone(&weather), scenes));
    for number in 0..clients {
        tokio::task::spawn_local(Rc::clone(&load).client(number));
    }
    for number in 0..READERS {
        tokio::task::spawn_local(Rc::clone(&load).reader(number));
    }
    let mut run = Run {
        order,
        cluster,
        load,
        weather,
        spells,
        judged,
        sum: Judged::default(),
        findings: Vec::new(),
        bar: bar(order),
        active: Rc::new(Cell::new(0)),
        interrupts: [interrupt?, terminate?],
        interrupted: false,
    };
    tokio::task::spawn_local(watch(
        Rc::clone(&run.cluster),
        Rc::clone(&run.load),
        Rc::clone(&run.weather),
        Rc::clone(&run.active),
    ));
    run.lead().await;
    let ends = run.end().await?;
    run.bar.finish_and_clear();
    let report = Report::new(&run, ends);
    report.write_evidence(&run)?;
    let page = run.cluster.data.join("torture.html");
    std::fs::write(&page, timeline::page(&report))
        .with_context(|| format!("cannot write {}", page.display()))?;
    Ok(report)
}

/// What will be broken when.
fn announce(order: &Order, cluster: &Cluster, spells: &[Spell]) {
    if order.args.json {
        return;
    }
    let how = if cluster.has_nginx() { "behind nginx" } else { "without an nginx: that fault is off" };
    print::line(&format!(
        "torture - seed {}: {} pods {how}, {} clients, {} faults in {} min, data in {}",
        order.seed,
        order.args.pods,
        order.args.clients,
        spells.len(),
        order.args.minutes,
        cluster.data.display()
    ));
    for spell in spells {
        print::line(&format!("  {}", line(spell)));
    }
}

/// One fault and its time.
#[must_use]
pub fn line(spell: &Spell) -> String {
    let seconds = |ms: u64| format!("{}.{}", ms / 1_000, ms % 1_000 / 100);
    format!("{:>6} to {:>6} s  {}", seconds(spell.from_ms), seconds(spell.to_ms), spell.fault)
}

fn bar(order: &Order) -> ProgressBar {
    if order.args.json {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(order.length_ms / 1_000);
    if let Ok(style) = ProgressStyle::with_template("{pos:>4}/{len} s {bar:20} {wide_msg}") {
        bar.set_style(style);
    }
    bar
}

/// Says that it is clear again once no fault is active and every pod is ready.
async fn watch(cluster: Rc<Cluster>, load: Rc<Load>, weather: Rc<Weather>, active: Rc<Cell<usize>>) {
    loop {
        if weather.is_broken() && active.get() == 0 && cluster.ready(TICK).await.is_ok() && active.get() == 0
        {
            weather.clears(load.now_us());
        }
        tokio::time::sleep(TICK).await;
    }
}

impl Run<'_> {
    /// Breaks and mends as the schedule says, until its end or the first finding.
    async fn lead(&mut self) {
        let mut moments: Vec<(u64, bool, Fault, bool)> = Vec::new();
        for spell in &self.spells {
            let severe = spell.majority || spell.fault.kind() == Kind::Nginx;
            moments.push((spell.from_ms, true, spell.fault.clone(), severe));
            moments.push((spell.to_ms, false, spell.fault.clone(), severe));
        }
        moments.sort_by_key(|(at_ms, begins, ..)| (*at_ms, *begins));
        for (at_ms, begins, fault, severe) in moments {
            if !self.until(at_ms).await {
                return;
            }
            if begins {
                self.active.set(self.active.get() + 1);
                self.weather.breaks(self.load.now_us(), severe);
                if fault.kind() == Kind::LostDisk {
                    self.weather.disk_lost.set(true);
                }
                self.cluster.begin(&fault).await;
            } else {
                self.cluster.end(&fault).await;
                self.active.set(self.active.get() - 1);
            }
        }
        self.until(self.order.length_ms).await;
    }

    /// Lets the load go on until that moment; false if the run has to end before.
    pub async fn until(&mut self, at_ms: u64) -> bool {
        loop {
            let now_ms = self.load.now_us() / 1_000;
            self.notice();
            if self.has_enough() {
                return false;
            }
            let Some(left_ms) = at_ms.checked_sub(now_ms).filter(|&left| left > 0) else { return true };
            self.show(now_ms);
            let [interrupt, terminate] = &mut self.interrupts;
            tokio::select! {
                () = tokio::time::sleep(TICK.min(Duration::from_millis(left_ms))) => {}
                () = self.cluster.found.notified() => {}
                () = self.load.news.notified() => {}
                _ = interrupt.recv() => self.interrupted = true,
                _ = terminate.recv() => self.interrupted = true,
            }
        }
    }

    /// Whether the run ends here: interrupted, or with something found.
    #[must_use]
    pub fn has_enough(&self) -> bool {
        self.interrupted || (!self.findings.is_empty() && !self.order.args.keep_going)
    }

    #[must_use]
    pub const fn is_interrupted(&self) -> bool {
        self.interrupted
    }

    /// Takes in what was found meanwhile.
    pub fn notice(&mut self) {
        while let Ok(judged) = self.judged.try_recv() {
            self.sum.add(&judged);
            for finding in judged.findings {
                self.found(Part::Book(finding.book), finding.what, finding.evidence);
            }
        }
        let ended: Vec<String> = self.cluster.ends.borrow_mut().drain(..).collect();
        for what in ended {
            self.weather.breaks(self.load.now_us(), true);
            let first = what.lines().next().unwrap_or_default().to_owned();
            self.found(Part::Processes, first, what);
        }
        let strange: Vec<String> = self.load.strange.borrow_mut().drain(..).collect();
        for what in strange {
            self.found(Part::Answers, what.clone(), what);
        }
    }

    pub fn found(&mut self, part: Part, what: String, evidence: String) {
        // A scene is judged when its clients leave it, and again when it has been read back.
        if self.findings.iter().any(|known| known.what == what) {
            return;
        }
        let at_ms = self.load.now_us() / 1_000;
        if !self.order.args.json {
            let text = format!("found after {} s: {what}", at_ms / 1_000);
            self.bar.suspend(|| say(&text));
        }
        let during = self.cluster.shown();
        self.findings.push(Finding { part, at_ms, during, what, evidence, file: None });
    }

    fn show(&self, now_ms: u64) {
        self.bar.set_position(now_ms / 1_000);
        let now_us = now_ms * 1_000;
        let rate = self.load.tally.borrow().rate(now_us.saturating_sub(2_000_000), now_us);
        self.bar.set_message(format!(
            "{} · {rate}/s · {} histories right, {} wrong",
            self.cluster.shown(),
            self.sum.histories,
            self.findings.len()
        ));
    }

    async fn end(&mut self) -> anyhow::Result<Ends> {
        ends::check(self).await
    }
}
