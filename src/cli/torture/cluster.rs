//! The cluster under torture: real processes, and everything that can be done to them without being root.

use super::refill;
use super::schedule::Fault;
use crate::cli::http::Target;
use crate::cli::up::children::{self, Spec};
use crate::cli::up::{Prepared, layout};
use crate::exit::{BROKEN, say};
use anyhow::Context;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::sync::Notify;

/// A process that ended though nobody ended it is started again after this.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// A pod that is told to end has this long.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// How often a pod that is not ready is asked again.
const READY_POLL: Duration = Duration::from_millis(50);
/// Lines of a log that are shown where its process ended by itself.
const LAST_WORDS: usize = 12;

/// Why a process is allowed to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    None,
    /// It was killed, or told to end.
    Killed,
    /// Its disk is full: it stops itself.
    FullDisk,
}

/// One process of the cluster.
pub struct Process {
    spec: Spec,
    /// Whether it ought to run.
    wanted: Cell<bool>,
    leave: Cell<Leave>,
    pid: Cell<Option<Pid>>,
    stdin: RefCell<Option<ChildStdin>>,
    /// What is wrong with it now, told to it again when it starts anew.
    lines: RefCell<Vec<String>>,
    changed: Notify,
}

/// What ended by itself, and its last words.
pub type Ends = Rc<RefCell<Vec<String>>>;

impl Process {
    fn new(spec: Spec) -> Rc<Self> {
        Rc::new(Self {
            spec,
            wanted: Cell::new(true),
            leave: Cell::new(Leave::None),
            pid: Cell::new(None),
            stdin: RefCell::new(None),
            lines: RefCell::default(),
            changed: Notify::new(),
        })
    }

    /// Runs it whenever it is wanted, until it ends for good.
    async fn tend(self: Rc<Self>, ends: Ends, found: Rc<Notify>) {
        loop {
            while !self.wanted.get() {
                self.changed.notified().await;
            }
            self.leave.set(Leave::None);
            let mut child = match children::spawn(&self.spec) {
                Ok(child) => child,
                Err(error) => {
                    ends.borrow_mut().push(format!("{error:#}"));
                    found.notify_waiters();
                    return;
                }
            };
            let pid = children::pid(&child);
            self.pid.set(pid);
            *self.stdin.borrow_mut() = child.stdin.take();
            let lines = self.lines.borrow().clone();
            self.tell(&lines).await;
            let status = child.wait().await;
            self.pid.set(None);
            *self.stdin.borrow_mut() = None;
            // A worker of nginx may be left.
            children::signal(pid, Signal::KILL);
            self.changed.notify_waiters();
            let status = match status {
                Ok(status) => status,
                Err(error) => {
                    ends.borrow_mut().push(format!("cannot wait for {}: {error}", self.spec.name));
                    return;
                }
            };
            if let Some(what) = self.unasked(status) {
                ends.borrow_mut().push(what);
                found.notify_waiters();
                if children::is_final(status) {
                    return;
                }
                tokio::time::sleep(RESTART_AFTER).await;
            }
        }
    }

    fn unasked(&self, status: ExitStatus) -> Option<String> {
        let stopped_itself = status.code() == Some(i32::from(BROKEN));
        match self.leave.get() {
            Leave::Killed => None,
            Leave::FullDisk if stopped_itself => None,
            Leave::None | Leave::FullDisk => {
                let words = last_words(&self.spec.log);
                let how = children::describe(status);
                let own = words.iter().rev().find(|line| line.starts_with("kassa:"));
                let last = own.or(words.last()).map_or("nothing", String::as_str);
                let name = &self.spec.name;
                let all = words.join("\n    ");
                Some(format!("{name} ended by itself ({how}) and said: {last}\n  Its last words:\n    {all}"))
            }
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid.get() {
            // An error means that it has just ended.
            let _ = kill_process(pid, signal);
        }
    }

    fn kill(&self) {
        self.wanted.set(false);
        self.leave.set(Leave::Killed);
        children::signal(self.pid.get(), Signal::KILL);
    }

    fn start(&self) {
        self.wanted.set(true);
        self.changed.notify_one();
    }

    /// No file that it writes may grow from now on: every write to its disk fails.
    fn fill_disk(&self) {
        self.leave.set(Leave::FullDisk);
        self.wanted.set(false);
        if let Some(pid) = self.pid.get() {
            let none = Rlimit { current: Some(0), maximum: getrlimit(Resource::Fsize).maximum };
            if let Err(error) = prlimit(Some(pid), Resource::Fsize, none) {
                say(&format!("{} cannot be given a full disk: {error}", self.spec.name));
            }
        }
    }

    async fn tell(&self, lines: &[String]) {
        let Some(mut stdin) = self.stdin.borrow_mut().take() else { return };
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        // One that has just died does not hear it.
        let heard = stdin.write_all(text.as_bytes()).await.is_ok();
        if heard && self.pid.get().is_some() {
            *self.stdin.borrow_mut() = Some(stdin);
        }
    }

    async fn stop(&self) -> Result<(), String> {
        self.wanted.set(false);
        self.leave.set(Leave::Killed);
        self.signal(Signal::CONT);
        self.signal(Signal::TERM);
        let by = Instant::now() + STOP_WITHIN;
        while self.pid.get().is_some() {
            if Instant::now() > by {
                children::signal(self.pid.get(), Signal::KILL);
                return Err(format!("{} did not end within {} s", self.spec.name, STOP_WITHIN.as_secs()));
            }
            tokio::time::sleep(READY_POLL).await;
        }
        Ok(())
    }
}

fn last_words(log: &Path) -> Vec<String> {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_WORDS)..].iter().map(|line| (*line).to_owned()).collect()
}

/// All of its processes; they are tended on the local set that it is started on.
pub struct Cluster {
    pub data: PathBuf,
    pub pods: Vec<Target>,
    /// Where clients go: nginx, or without one a pod each.
    pub fronts: Vec<Target>,
    processes: Vec<Rc<Process>>,
    nginx: Option<Rc<Process>>,
    /// What is wrong now, as it was begun.
    active: RefCell<Vec<Fault>>,
    /// Pods that are being refilled.
    refilling: Rc<Cell<usize>>,
    pub ends: Ends,
    /// Told when something ended by itself.
    pub found: Rc<Notify>,
    /// The lock on the directory.
    _directory: layout::Directory,
}

impl Cluster {
    /// Starts everything; on a local set, on the main thread.
    #[must_use]
    pub fn start(prepared: Prepared) -> Self {
        let Prepared { directory, http_ports, pods, front, replicas: _ } = prepared;
        let targets: Vec<Target> = http_ports.iter().map(|&port| Target::local(port)).collect();
        let fronts = front.as_ref().map_or_else(|| targets.clone(), |front| vec![Target::local(front.port)]);
        let (ends, found) = (Ends::default(), Rc::new(Notify::new()));
        let begin = |spec: Spec| {
            let process = Process::new(spec);
            tokio::task::spawn_local(Rc::clone(&process).tend(Rc::clone(&ends), Rc::clone(&found)));
            process
        };
        let hears = |mut spec: Spec| {
            spec.hears = true;
            spec.arguments.push("--faults-from-stdin".to_owned());
            spec
        };
        let processes = pods.into_iter().map(hears).map(begin).collect();
        let nginx = front.map(|front| begin(front.spec));
        Self {
            data: directory.path.clone(),
            pods: targets,
            fronts,
            processes,
            nginx,
            active: RefCell::default(),
            refilling: Rc::default(),
            ends,
            found,
            _directory: directory,
        }
    }

    #[must_use]
    pub const fn has_nginx(&self) -> bool {
        self.nginx.is_some()
    }

    fn count(&self) -> u16 {
        u16::try_from(self.processes.len()).unwrap_or(u16::MAX)
    }

    fn of<'a>(&'a self, pods: &'a [u16]) -> impl Iterator<Item = &'a Rc<Process>> {
        pods.iter().filter_map(|&pod| self.processes.get(usize::from(pod)))
    }

    /// Makes somebody ill.
    pub async fn begin(&self, fault: &Fault) {
        self.active.borrow_mut().push(fault.clone());
        match fault {
            Fault::Kill { pods } => self.of(pods).for_each(|pod| pod.kill()),
            Fault::Stop { pods } => self.of(pods).for_each(|pod| pod.signal(Signal::STOP)),
            Fault::FullDisk { pod } => self.of(&[*pod]).for_each(|pod| pod.fill_disk()),
            Fault::NginxDown { killed: true } => self.nginx.iter().for_each(|nginx| nginx.kill()),
            Fault::NginxDown { killed: false } => {
                if let Some(nginx) = &self.nginx {
                    nginx.wanted.set(false);
                    nginx.leave.set(Leave::Killed);
                    nginx.signal(Signal::TERM);
                }
            }
            Fault::NginxReload => self.nginx.iter().for_each(|nginx| nginx.signal(Signal::HUP)),
            Fault::ClockJump { pod, ms } => {
                for pod in self.of(&[*pod]) {
                    pod.tell(&[format!("clock-jump {ms}")]).await;
                }
            }
            Fault::Alone { .. }
            | Fault::Apart { .. }
            | Fault::OneWay { .. }
            | Fault::SlowLink { .. }
            | Fault::SlowDisk { .. }
            | Fault::ClockRate { .. } => self.tell_all().await,
            Fault::LostDisk { pod } => self.lose_disk(*pod).await,
        }
    }

    /// Ends one illness; others of the same pod go on.
    pub async fn end(&self, fault: &Fault) {
        {
            let mut active = self.active.borrow_mut();
            if let Some(at) = active.iter().position(|other| other == fault) {
                active.remove(at);
            }
        }
        match fault {
            Fault::Stop { pods } => {
                let held = |pod: u16| {
                    self.is_active(|other| matches!(other, Fault::Stop { pods } if pods.contains(&pod)))
                };
                let free: Vec<u16> = pods.iter().copied().filter(|&pod| !held(pod)).collect();
                self.of(&free).for_each(|pod| pod.signal(Signal::CONT));
            }
            Fault::Kill { .. } | Fault::FullDisk { .. } => self.start_wanted(),
            Fault::NginxDown { .. } => {
                if let Some(nginx) = &self.nginx
                    && !self.is_active(|other| matches!(other, Fault::NginxDown { .. }))
                {
                    nginx.start();
                }
            }
            // What a lost disk held takes as long to come back as it takes.
            Fault::ClockJump { .. } | Fault::NginxReload | Fault::LostDisk { .. } => {}
            Fault::Alone { .. }
            | Fault::Apart { .. }
            | Fault::OneWay { .. }
            | Fault::SlowLink { .. }
            | Fault::SlowDisk { .. }
            | Fault::ClockRate { .. } => self.tell_all().await,
        }
    }

    fn is_active(&self, like: impl Fn(&Fault) -> bool) -> bool {
        self.active.borrow().iter().any(like)
    }

    /// Starts every pod that no fault keeps down. One that is to stop itself, and had nothing to write, is
    /// killed: its limit must not stay.
    fn start_wanted(&self) {
        for (process, pod) in self.processes.iter().zip(0_u16..) {
            let down = |fault: &Fault| match fault {
                Fault::Kill { pods } => pods.contains(&pod),
                Fault::FullDisk { pod: full } => *full == pod,
                Fault::LostDisk { .. }
                | Fault::Stop { .. }
                | Fault::Alone { .. }
                | Fault::Apart { .. }
                | Fault::OneWay { .. }
                | Fault::SlowLink { .. }
                | Fault::SlowDisk { .. }
                | Fault::ClockJump { .. }
                | Fault::ClockRate { .. }
                | Fault::NginxDown { .. }
                | Fault::NginxReload => false,
            };
            if !process.wanted.get() && !self.is_active(down) {
                if process.leave.get() == Leave::FullDisk {
                    process.kill();
                }
                process.start();
            }
        }
    }

    /// Tells every pod what is wrong with it now.
    async fn tell_all(&self) {
        for (process, pod) in self.processes.iter().zip(0_u16..) {
            let mut lines = vec!["heal".to_owned()];
            lines.extend(self.active.borrow().iter().flat_map(|fault| fault.lines(pod, self.count())));
            process.lines.replace(lines[1..].to_vec());
            process.tell(&lines).await;
        }
    }

    /// What is wrong now, for people.
    #[must_use]
    pub fn shown(&self) -> String {
        let active = self.active.borrow();
        let shown: Vec<String> = active.iter().map(ToString::to_string).collect();
        if shown.is_empty() { "all is well".to_owned() } else { shown.join(", ") }
    }

    /// Takes a pod's data away, starts it on nothing, and has it refilled.
    async fn lose_disk(&self, pod: u16) {
        // Not a second disk before the first is whole again: that would be the loss of a majority.
        let Some(process) = self.processes.get(usize::from(pod)).filter(|_| self.refilling.get() == 0) else {
            return;
        };
        self.refilling.set(1);
        process.kill();
        while process.pid.get().is_some() {
            tokio::time::sleep(READY_POLL).await;
        }
        if let Err(error) = refill::wipe(&self.data.join(format!("pod-{pod}"))) {
            self.ends.borrow_mut().push(format!("the data of pod {pod} cannot be taken away: {error}"));
            self.found.notify_waiters();
        }
        self.start_wanted();
        let pods = self.pods.clone();
        let (refilling, ends, found) =
            (Rc::clone(&self.refilling), Rc::clone(&self.ends), Rc::clone(&self.found));
        tokio::task::spawn_local(async move {
            if let Err(why) = refill::refill(pod, &pods).await {
                ends.borrow_mut().push(why);
                found.notify_waiters();
            }
            refilling.set(0);
        });
    }

    /// Waits until every pod, and nginx, answers that it is ready, and no disk is being refilled.
    ///
    /// # Errors
    /// Who is not, and why, after `patience`.
    pub async fn ready(&self, patience: Duration) -> Result<(), String> {
        let by = Instant::now() + patience;
        for target in self.pods.iter().chain(&self.fronts) {
            while let Err(why) = refill::is_ready(target).await {
                if Instant::now() > by {
                    return Err(format!("{} is not ready: {why}", target.url()));
                }
                tokio::time::sleep(READY_POLL).await;
            }
        }
        while self.refilling.get() > 0 {
            if Instant::now() > by {
                return Err("a pod that lost its disk is not refilled".to_owned());
            }
            tokio::time::sleep(READY_POLL).await;
        }
        Ok(())
    }

    /// Ends everything in good order.
    ///
    /// # Errors
    /// Who did not end.
    pub async fn stop(&self) -> Result<(), String> {
        for process in self.nginx.iter().chain(&self.processes) {
            process.stop().await?;
        }
        Ok(())
    }

    /// Runs the command that looks at disks on each pod's.
    ///
    /// # Errors
    /// If it cannot be run.
    pub async fn check_disks(&self) -> anyhow::Result<Vec<String>> {
        let this = std::env::current_exe().context("cannot find the kassa binary itself")?;
        let mut wrong = Vec::new();
        for pod in 0..self.count() {
            let dir = self.data.join(format!("pod-{pod}"));
            let output = tokio::process::Command::new(&this).arg("check").arg(&dir).output().await;
            let output = output.context("cannot run `kassa check`")?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                wrong.push(format!("kassa check {}: {said}", dir.display()));
            }
        }
        Ok(wrong)
    }
}
