//! Child processes: started, watched, started again, and ended together with us.
//!
//! Each child leads a process group of its own, so that Ctrl-C in a terminal reaches `kassa up` alone and
//! what a child leaves behind can be ended with it. Children are spawned on the main thread only: the
//! kernel ties their end to that thread's.

use super::layout::write_whole;
use super::pods::is_own_variable;
use crate::exit::{BROKEN, say};
use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process_group};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tokio::sync::watch;

/// A child that ended is started again after this.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// One that stops itself again and again waits twice as long each time, up to this: a disk that is full
/// stays so for a while, and a pod reads all of its files before it notices.
const RESTART_AFTER_MAX: Duration = Duration::from_secs(8);
/// A child that has lived for this long had started well.
const SETTLED_AFTER: Duration = Duration::from_secs(10);
/// Children have this long to end by themselves: all must be down within 5 s.
const STOP_WITHIN: Duration = Duration::from_millis(4500);

/// What to run, and where to write down that it runs.
#[derive(Clone, Debug)]
pub struct Spec {
    /// As people know it: `pod 1`, `nginx`.
    pub name: String,
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub log: PathBuf,
    /// A file that it reads, and what is in it: made anew at each start, should its directory be gone.
    pub config: Option<(PathBuf, String)>,
    /// Written here; `None` where the child does it itself.
    pub pid_file: Option<PathBuf>,
    pub restart: bool,
    /// Whether we may speak to it, on its standard input.
    pub hears: bool,
}

/// Runs the child until it ends for good or `stop` becomes true; the status of its last end.
///
/// # Errors
/// Where it cannot be started the first time, or its log cannot be written.
pub async fn keep(spec: Spec, mut stop: watch::Receiver<bool>) -> anyhow::Result<Option<ExitStatus>> {
    let mut wait = RESTART_AFTER;
    let mut child = spawn(&spec)?;
    loop {
        let began = Instant::now();
        let group = pid(&child);
        let ended = tokio::select! {
            status = child.wait() => Some(status.with_context(|| format!("cannot wait for {}", spec.name))?),
            _ = stop.wait_for(|&stop| stop) => None,
        };
        if ended.is_none() {
            signal(group, Signal::TERM);
            if tokio::time::timeout(STOP_WITHIN, child.wait()).await.is_err() {
                say(&format!("{} did not end by itself and was killed", spec.name));
            }
        }
        // What it may have left behind, a worker of nginx for one, goes with it.
        signal(group, Signal::KILL);
        let _ = child.wait().await;
        if let Some(file) = &spec.pid_file {
            let _ = std::fs::remove_file(file);
        }
        let Some(status) = ended else { return Ok(None) };
        let again = spec.restart && !is_final(status);
        let next = if again { "; it is started again" } else { "; it is not started again" };
        say(&format!("{} ended ({}){next}, see {}", spec.name, describe(status), spec.log.display()));
        if !again {
            return Ok(Some(status));
        }
        let stopped_itself = status.code() == Some(i32::from(BROKEN)) && began.elapsed() < SETTLED_AFTER;
        wait = if stopped_itself { (wait * 2).min(RESTART_AFTER_MAX) } else { RESTART_AFTER };
        child = loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = stop.wait_for(|&stop| stop) => return Ok(None),
            }
            match spawn(&spec) {
                Ok(child) => break child,
                Err(error) => say(&format!("{error:#}; it is tried again")),
            }
            wait = (wait * 2).min(RESTART_AFTER_MAX);
        };
    }
}

/// Its process, and the group that it leads, while it runs.
#[must_use]
pub fn pid(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
}

/// A pod that refuses its configuration (2) or its disk (3) would do so again.
#[must_use]
pub fn is_final(status: ExitStatus) -> bool {
    matches!(status.code(), Some(2 | 3))
}

/// How it ended, for people.
#[must_use]
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) if code == i32::from(BROKEN) => {
            format!("exit code {code}: it stopped itself, its disk or an invariant failed")
        }
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// Starts it. On the main thread only: the child's end is tied to that thread's.
///
/// # Errors
/// Where it cannot be started, or its log cannot be written.
pub fn spawn(spec: &Spec) -> anyhow::Result<Child> {
    if let Some((file, text)) = &spec.config {
        let dir = file.parent().unwrap_or(file);
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        write_whole(file, text)?;
    }
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&spec.log)
        .with_context(|| format!("cannot write {}", spec.log.display()))?;
    let error_log = log.try_clone().with_context(|| format!("cannot write {}", spec.log.display()))?;
    let mut command = Command::new(&spec.program);
    let stdin = if spec.hears { Stdio::piped() } else { Stdio::null() };
    command.args(&spec.arguments).stdin(stdin).stdout(log).stderr(error_log).process_group(0);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_own_variable) {
            command.env_remove(name);
        }
    }
    let child = command
        .spawn()
        .with_context(|| format!("cannot start {} ({})", spec.name, spec.program.display()))?;
    if let (Some(file), Some(pid)) = (&spec.pid_file, child.id()) {
        // On a full disk the pod itself says so, better than this could.
        if let Err(error) = write_whole(file, &format!("{pid}\n")) {
            say(&format!("{error:#}"));
        }
    }
    Ok(child)
}

/// To the child and whatever it has started.
pub fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // An error means that no process of the group is left.
        let _ = kill_process_group(group, signal);
    }
}
