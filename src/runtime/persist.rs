//! Makes a round's commits durable: the one way to the disk.
//!
//! The stores are written side by side, since one database cannot overlap two fsyncs and three can: a
//! thread for each store, and the event loop's own thread for the last commit of a run, so that a
//! round that changes one store wakes nobody.

use super::faults::SlowDisk;
use super::stores::{MODULES, Stores, number};
use crate::exit::fail_stop;
use crate::failpoint::{hit, hit_in};
use crate::node::Commit;
use crossbeam_channel::{Receiver, Sender, bounded};
use kassa_protocols::ids::Module;
use std::io;
use std::thread::JoinHandle;

/// A store's thread has one commit at a time.
const QUEUE: usize = 1;

/// The threads that write.
pub struct Writers {
    stores: Stores,
    disk: SlowDisk,
    threads: Vec<Writer>,
    done: Receiver<()>,
}

struct Writer {
    store: Module,
    commits: Option<Sender<Commit>>,
    thread: Option<JoinHandle<()>>,
}

impl Writers {
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(stores: Stores, disk: SlowDisk) -> io::Result<Self> {
        let (finished, done) = bounded(MODULES.len());
        let mut threads = Vec::with_capacity(MODULES.len());
        for store in MODULES {
            let (commits, queue) = bounded::<Commit>(QUEUE);
            let (stores, disk, finished) = (stores.clone(), disk.clone(), finished.clone());
            let thread = std::thread::Builder::new().name(format!("kassa-{store}")).spawn(move || {
                for commit in queue {
                    write(&stores, &disk, &commit);
                    if finished.send(()).is_err() {
                        return;
                    }
                }
            })?;
            threads.push(Writer { store, commits: Some(commits), thread: Some(thread) });
        }
        Ok(Self { stores, disk, threads, done })
    }

    /// Returns once every commit that syncs is on the disk. Commits of one store are written in order;
    /// one that is `after_others` begins when all before it are done. Stops the process if one fails.
    pub fn persist(&self, commits: Vec<Commit>) {
        let mut run = Vec::with_capacity(MODULES.len());
        for commit in commits {
            let store = stored_in(commit.store);
            let depends = commit.after_others;
            if depends || run.iter().any(|earlier: &Commit| stored_in(earlier.store) == store) {
                self.write_side_by_side(std::mem::take(&mut run));
            }
            if depends {
                hit("order.durable-payment-not");
            }
            run.push(commit);
        }
        self.write_side_by_side(run);
    }

    /// Writes commits of different stores.
    fn write_side_by_side(&self, commits: Vec<Commit>) {
        // Without an fsync there is nothing to wait for, and handing it over would cost more.
        let (synced, others): (Vec<_>, Vec<_>) = commits.into_iter().partition(|commit| commit.sync);
        let mut synced = synced.into_iter();
        let own = synced.next_back();
        let handed_over = synced.map(|commit| self.hand_over(commit)).count();
        for commit in others.iter().chain(&own) {
            write(&self.stores, &self.disk, commit);
        }
        for _ in 0..handed_over {
            self.done.recv().expect("the writers live as long as this");
        }
    }

    fn hand_over(&self, commit: Commit) {
        let store = stored_in(commit.store);
        let writer = self.threads.iter().find(|writer| writer.store == store);
        let commits = writer.and_then(|writer| writer.commits.as_ref()).expect("every store has a writer");
        commits.send(commit).expect("a writer lives as long as this");
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        for writer in &mut self.threads {
            writer.commits = None;
            if let Some(thread) = writer.thread.take() {
                // A panic of the thread has ended the process.
                let _ = thread.join();
            }
        }
    }
}

const fn stored_in(module: Module) -> Module {
    match module {
        Module::Order | Module::Stock | Module::Payment => module,
        Module::Cluster => Module::Payment,
    }
}

fn write(stores: &Stores, disk: &SlowDisk, commit: &Commit) {
    if commit.sync {
        disk.delay();
    }
    let batch = kassa_storage::Batch {
        log: commit.log.as_ref().map(|(position, record)| (*position, &record[..])),
        tables: commit
            .tables
            .iter()
            .map(|(shard, (key, value))| (number(*shard), &key[..], value.as_deref())),
        cut_below: commit.cut_below,
        sync: commit.sync,
    };
    before(commit);
    if let Err(error) = stores.of(commit.store).commit(batch) {
        fail_stop(&format!("{}: {error}", commit.store));
    }
    after(commit);
}

fn before(commit: &Commit) {
    hit_in(commit.store, "before-commit");
    if !commit.tables.is_empty() {
        hit_in(commit.store, "before-checkpoint");
    }
    if commit.cut_below.is_some() {
        hit_in(commit.store, "before-cut");
    }
}

fn after(commit: &Commit) {
    hit_in(commit.store, "after-commit");
    if !commit.tables.is_empty() {
        hit_in(commit.store, "after-checkpoint");
    }
    if commit.cut_below.is_some() {
        hit_in(commit.store, "after-cut");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use kassa_protocols::ids::{PodId, Shard};
    use kassa_protocols::tables::Disk;
    use std::time::Duration;

    const STALL: Duration = Duration::from_secs(60);

    fn commit(store: Module, position: u64, value: &'static str, sync: bool) -> Commit {
        let change = (Bytes::from_static(b"key"), Some(Bytes::from_static(value.as_bytes())));
        Commit {
            store,
            log: Some((position, Bytes::from(format!("record {position}")))),
            tables: vec![(Shard::new(store, 3), change)],
            cut_below: None,
            sync,
            after_others: false,
        }
    }

    #[test]
    fn commits_reach_their_stores_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let stores = Stores::open(directory.path(), PodId(0), false, STALL).unwrap();
        assert!(stores.are_empty().unwrap());
        let writers = Writers::start(stores.clone(), SlowDisk::default()).unwrap();
        let mut checkpoint = commit(Module::Payment, 2, "payment 2", true);
        checkpoint.after_others = true;
        let cluster = (Bytes::from_static(b"key"), Some(Bytes::from_static(b"cluster")));
        checkpoint.tables.push((Shard::CLUSTER, cluster));
        writers.persist(vec![
            commit(Module::Payment, 1, "payment 1", true),
            commit(Module::Order, 1, "order 1", true),
            commit(Module::Stock, 1, "stock 1", false),
            checkpoint,
        ]);
        writers.persist(Vec::new());
        writers.persist(vec![
            commit(Module::Order, 2, "order 2", false),
            commit(Module::Order, 3, "order 3", true),
        ]);

        let read = |shard: Shard| stores.get(shard, b"key").unwrap();
        assert_eq!(read(Shard::new(Module::Payment, 3)), "payment 2");
        assert_eq!(read(Shard::new(Module::Order, 3)), "order 3");
        assert_eq!(read(Shard::new(Module::Stock, 3)), "stock 1");
        assert_eq!(read(Shard::CLUSTER), "cluster");
        assert_eq!(stores.scan(Shard::new(Module::Stock, 4), b"", None, 9), []);
        let log: Vec<_> = stores.of(Module::Order).log().map(|record| record.unwrap().0).collect();
        assert_eq!(log, [1, 2, 3]);
        assert!(!stores.are_empty().unwrap());
    }
}
