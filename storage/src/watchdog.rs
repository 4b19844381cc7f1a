//! A thread that watches one store: commits that hang, and new journals to note in the marker.
//!
//! fjall's `commit` waits while too many memtables await their flush, and goes on waiting when the
//! flush has failed for good. Nothing inside the process could tell such a wait from a slow disk but
//! its length.

use crate::marker::{Marker, newest_journal};
use std::io;
use std::path::PathBuf;
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

/// How often the watchdog looks. A stall is reported at most this long after its bound; a journal
/// that goes missing within this time of its creation, in a crash, might not be missed.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What the committing side tells the watchdog.
#[derive(Debug)]
pub struct Watched {
    dir: PathBuf,
    base: Instant,
    /// When the running commit is overdue, in ms after `base`; 0 if none runs.
    deadline_ms: AtomicU64,
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
            base: Instant::now(),
            deadline_ms: AtomicU64::new(0),
            synced: AtomicU64::new(marker.commit),
            marker: Mutex::new(marker),
            stall_max,
        }
    }

    pub fn begin(&self) {
        let deadline = self.now_ms() + millis(self.stall_max);
        self.deadline_ms.store(deadline.max(1), Ordering::Release);
    }

    pub fn end(&self) {
        self.deadline_ms.store(0, Ordering::Release);
    }

    fn now_ms(&self) -> u64 {
        millis(self.base.elapsed())
    }

    fn overdue(&self) -> Option<Duration> {
        let deadline = self.deadline_ms.load(Ordering::Acquire);
        let late = self.now_ms().checked_sub(deadline)?;
        (deadline > 0).then(|| self.stall_max + Duration::from_millis(late))
    }

    /// Writes the marker if there is a newer journal than it names, or at once if `closing`.
    pub fn update_marker(&self, closing: bool) -> io::Result<()> {
        let mut marker = self.marker.lock().unwrap_or_else(PoisonError::into_inner);
        let journal = newest_journal(&self.dir)?.unwrap_or(0).max(marker.journal);
        if closing || journal > marker.journal {
            let next = Marker { journal, commit: self.synced.load(Ordering::Acquire) };
            next.write(&self.dir)?;
            *marker = next;
        }
        Ok(())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
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
            while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                if let Some(waited) = watched.overdue() {
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
        assert_eq!(watched.overdue(), None);
        watched.begin();
        let fault = faults.recv().unwrap();
        assert!(matches!(fault, Fault::CommitStalled { waited, .. } if waited >= Duration::from_millis(1)));
        drop(watchdog);
        assert!(faults.recv().is_err(), "reported once");
    }
}
