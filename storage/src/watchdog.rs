//! A thread that watches one store: commits that hang, and new journals to note in the marker.
//!
//! fjall's `commit` waits while too many memtables await their flush, and goes on waiting when the
//! flush has failed for good. Nothing inside the process could tell such a wait from a slow disk but
//! its length.

use crate::failpoint;
use crate::marker::{Marker, newest_journal};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What the watchdog found. The process must abort at once.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("a commit in {} has not returned for {} ms: stopping; mend the disk, then start this pod again", dir.display(), waited.as_millis())]
    CommitStalled { dir: PathBuf, waited: Duration },
    #[error("{}: {source}: stopping; mend the disk, then start this pod again", dir.display())]
    Marker { dir: PathBuf, source: io::Error },
}

/// How often the watchdog looks. A stall is reported at most two looks after its bound; a journal
/// that goes missing within this time of its creation, in a crash, might not be missed.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What the committing side tells the watchdog.
#[derive(Debug)]
pub struct Watched {
    dir: PathBuf,
    /// The number of the running commit, and 0 if none runs.
    running: AtomicU64,
    begun: AtomicU64,
    /// The newest batch known to be on the disk.
    pub synced: AtomicU64,
    /// The marker last written.
    marker: Mutex<Marker>,
    stall_max: Duration,
}

impl Watched {
    pub fn new(dir: PathBuf, marker: Marker, stall_max: Duration) -> Self {
        Self {
            dir,
            running: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            synced: AtomicU64::new(marker.commit),
            marker: Mutex::new(marker),
            stall_max,
        }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn begin(&self) {
        let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        self.running.store(number, Ordering::Release);
    }

    pub fn end(&self) {
        self.running.store(0, Ordering::Release);
    }

    /// Writes the marker if there is a newer journal than it names, or at once if `closing`.
    pub fn update_marker(&self, closing: bool) -> io::Result<()> {
        let mut marker = self.marker.lock().unwrap_or_else(PoisonError::into_inner);
        let journal = newest_journal(&self.dir)?.unwrap_or(0).max(marker.journal);
        let is_new = journal > marker.journal;
        if is_new {
            failpoint::hit("journal.before-noted");
        }
        if closing || is_new {
            let next = Marker { journal, commit: self.synced.load(Ordering::Acquire) };
            next.write(&self.dir)?;
            *marker = next;
        }
        if is_new {
            failpoint::hit("journal.after-noted");
        }
        Ok(())
    }
}

/// How long the running commit has been seen to run. Counted in looks: a process that was stopped, and goes
/// on, did not wait for its disk meanwhile, and no clock can tell it so.
#[derive(Debug, Default)]
struct Waiting {
    number: u64,
    waited: Duration,
}

impl Waiting {
    /// Takes a look, `passed` after the last one.
    fn look(&mut self, running: u64, passed: Duration) -> Duration {
        if running == 0 || running != self.number {
            *self = Self { number: running, waited: Duration::ZERO };
        } else {
            self.waited += passed.min(2 * LOOK_EVERY);
        }
        self.waited
    }
}

/// The running thread; ends when dropped.
#[derive(Debug)]
pub struct Watchdog {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    pub fn start(watched: Arc<Watched>, on_fault: Box<dyn Fn(Fault) + Send>) -> io::Result<Self> {
        let (stop, stopped) = sync_channel::<()>(0);
        let thread = std::thread::Builder::new().name("store-watchdog".into()).spawn(move || {
            let reported = AtomicBool::new(false);
            let report = |fault| {
                if !reported.swap(true, Ordering::Relaxed) {
                    on_fault(fault);
                }
            };
            let mut seen = 0;
            let (mut waiting, mut looked) = (Waiting::default(), Instant::now());
            while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                let passed = std::mem::replace(&mut looked, Instant::now()).elapsed();
                let waited = waiting.look(watched.running.load(Ordering::Acquire), passed);
                if waited >= watched.stall_max {
                    report(Fault::CommitStalled { dir: watched.dir.clone(), waited });
                }
                let synced = watched.synced.load(Ordering::Acquire);
                if synced != std::mem::replace(&mut seen, synced)
                    && let Err(source) = watched.update_marker(false)
                {
                    report(Fault::Marker { dir: watched.dir.clone(), source });
                }
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic in the callback has been reported by the thread itself.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_that_hangs_is_reported_and_one_that_ends_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let marker = Marker { journal: 0, commit: 0 };
        let watched = Arc::new(Watched::new(dir.path().to_owned(), marker, Duration::from_millis(1)));
        let (sender, faults) = std::sync::mpsc::channel();
        let watchdog =
            Watchdog::start(watched.clone(), Box::new(move |fault| sender.send(fault).unwrap())).unwrap();
        watched.begin();
        watched.end();
        watched.begin();
        let fault = faults.recv().unwrap();
        assert!(matches!(fault, Fault::CommitStalled { waited, .. } if waited >= Duration::from_millis(1)));
        drop(watchdog);
        assert!(faults.recv().is_err(), "reported once");
    }

    #[test]
    fn what_passes_while_the_process_is_stopped_is_not_waited() {
        let mut waiting = Waiting::default();
        assert_eq!(waiting.look(7, LOOK_EVERY), Duration::ZERO);
        assert_eq!(waiting.look(7, LOOK_EVERY), LOOK_EVERY);
        assert_eq!(waiting.look(7, Duration::from_secs(20)), 3 * LOOK_EVERY);
        // A commit that ended and the next one are not one that hangs.
        assert_eq!(waiting.look(8, LOOK_EVERY), Duration::ZERO);
        assert_eq!(waiting.look(0, LOOK_EVERY), Duration::ZERO);
    }
}
