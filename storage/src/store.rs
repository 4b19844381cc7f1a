//! Opening a store, and reading from it.

use crate::check::Report;
use crate::error::{Damage, OpenError, ReadError};
use crate::failpoint;
use crate::marker::{self, Marker};
use crate::preflight::{self, Inventory};
use crate::record::{
    HEAD_KEY, HEADER_BYTES, Header, LOG, LOG_ID, SHARD_BYTES, TABLES, TABLES_HEAD_KEY, TABLES_ID, log_key,
    table_key,
};
use crate::watchdog::{Fault, Watchdog, Watched};
use bytes::Bytes;
use fjall::compaction::Leveled;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::io::Read;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How a store is kept. Memtable sizes are fixed when a store is created.
pub struct Options {
    /// The pod's number: spreads the points of flushes and journal rotations over the pods, so that
    /// not all replicas of a shard stall at once.
    pub pod: u8,
    /// A store that is not there is an error, not made anew: for a pod that has been formed.
    pub must_exist: bool,
    /// For blocks of table files, of both keyspaces together.
    pub cache_bytes: u64,
    /// A memtable of the log; there may be two for a while, and at most five.
    pub log_memtable_bytes: u64,
    /// The same of the tables.
    pub tables_memtable_bytes: u64,
    /// Journals kept beyond this are made dispensable by flushing what they alone hold. At least 64 MiB.
    pub journals_bytes: u64,
    /// A commit that takes longer than this is a fault.
    pub stall_max: Duration,
    /// Called at most once, on a thread of the store. Must end the process.
    pub on_fault: Box<dyn Fn(Fault) + Send>,
}

const MIB: u64 = 1024 * 1024;

impl Default for Options {
    /// Some 30 MiB of memory a store under load: a pod has three of them within 200 MiB.
    fn default() -> Self {
        Self {
            pod: 0,
            must_exist: false,
            cache_bytes: 6 * MIB,
            log_memtable_bytes: 6 * MIB,
            tables_memtable_bytes: 4 * MIB,
            journals_bytes: 128 * MIB,
            stall_max: Duration::from_secs(10),
            on_fault: Box::new(|fault| {
                tracing::error!("{fault}");
                std::process::abort();
            }),
        }
    }
}

/// A table file. The first level is four of them, each further one ten times the one before.
const TABLE_FILE_BYTES: u64 = 4 * MIB;

/// Pods above this number share a rotation point with a lower one.
const JITTER_STEPS: u64 = 8;

/// One module's store. Shared by `Arc`; commits from several threads run one after the other.
pub struct Store {
    watchdog: Option<Watchdog>,
    pub(crate) watched: Arc<Watched>,
    pub(crate) state: Mutex<State>,
    pub(crate) log: Keyspace,
    pub(crate) tables: Keyspace,
    pub(crate) db: Database,
    /// Held until all else is closed.
    _lock: File,
}

/// What a commit needs to know of those before it.
#[derive(Debug)]
pub struct State {
    /// The number of the last batch.
    pub commit: u64,
    pub previous_seqno: u64,
    pub tables_seqno: u64,
    pub tables_commit: u64,
    /// The lowest and the highest position in the log.
    pub positions: Option<(u64, u64)>,
    /// Positions below it may be deleted; some may not have been yet.
    pub cut_below: u64,
    pub failed: bool,
}

impl Store {
    /// Opens the store in `dir`, or makes one if the directory is empty or not there.
    ///
    /// Reads all files once, so its time grows with their size: some 0.5 s a GiB.
    pub fn open(dir: &Path, options: Options) -> Result<Self, OpenError> {
        Self::inspect(dir, options)?.open()
    }

    /// Locks the store and reads all its files: what is damaged or missing shows before anything is changed, here or
    /// in a store beside it.
    pub fn inspect(dir: &Path, options: Options) -> Result<Inspected, OpenError> {
        if !options.must_exist {
            fs::create_dir_all(dir).map_err(OpenError::io(dir))?;
        }
        let lock = lock(dir)?;
        let (marker, inventory) = match Marker::read(dir)? {
            Some(marker) => (marker, preflight::inspect(dir, marker, true)?),
            None => {
                clear_unfinished(dir, options.must_exist)?;
                Default::default()
            }
        };
        Ok(Inspected { dir: dir.to_owned(), options, lock, marker, inventory })
    }
}

/// A store that is whole, or not made yet, and not open.
pub struct Inspected {
    dir: PathBuf,
    options: Options,
    lock: File,
    marker: Marker,
    inventory: Inventory,
}

impl Inspected {
    /// Opens the store, or makes it.
    pub fn open(self) -> Result<Store, OpenError> {
        let Self { dir, options, lock, marker, inventory } = self;
        let dir = dir.as_path();
        let database = |source| OpenError::Database { dir: dir.to_owned(), source };
        let (db, log, tables) = open_database(dir, &options).map_err(database)?;
        if marker == Marker::default() {
            failpoint::hit("store.made");
        }
        let (header, positions) = read_newest(&log, &tables, marker, &inventory)
            .map_err(|source| OpenError::Read { dir: dir.to_owned(), source })?;

        let journal = marker::newest_journal(dir).map_err(OpenError::io(dir))?.unwrap_or(0);
        let marker = Marker { journal, commit: header.commit };
        marker.write(dir).map_err(OpenError::io(dir))?;
        let watched = Arc::new(Watched::new(dir.to_owned(), marker, options.stall_max));
        let watchdog = Watchdog::start(watched.clone(), options.on_fault).map_err(OpenError::io(dir))?;
        let state = State {
            commit: header.commit,
            previous_seqno: inventory.seqno,
            tables_seqno: inventory.tables_seqno,
            tables_commit: header.tables_commit,
            positions,
            cut_below: 0,
            failed: false,
        };
        let (watchdog, state) = (Some(watchdog), Mutex::new(state));
        Ok(Store { watchdog, watched, state, log, tables, db, _lock: lock })
    }
}

impl Store {
    /// The log records still there, in order of position. A record that a cut has covered may still
    /// be among them; the newest always is.
    pub fn log(&self) -> impl Iterator<Item = Result<(u64, Bytes), ReadError>> + use<> {
        let snapshot = self.db.snapshot();
        snapshot.range(&self.log, ..=log_key(u64::MAX)).map(|guard| {
            let (key, value) = guard.into_inner()?;
            let payload = value
                .get(HEADER_BYTES..)
                .ok_or_else(|| ReadError::Missing("a log record's content".into()))?;
            Ok((position(&key)?, Bytes::copy_from_slice(payload)))
        })
    }

    /// The value of `key` in `shard`, as last committed.
    pub fn get(&self, shard: u16, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        // Copied: what fjall returns may hold on to a block of a table file.
        Ok(self.tables.get(table_key(shard, key))?.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// Up to `limit` records of `shard` whose key starts with `prefix` and is greater than `after`, in
    /// key order, all as of one moment between two commits.
    pub fn scan(
        &self,
        shard: u16,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
        let start = table_key(shard, prefix);
        let end = end_of_prefix(&start);
        let lower = match after.map(|after| table_key(shard, after)) {
            Some(after) if after >= end => return Ok(Vec::new()),
            Some(after) if after >= start => Bound::Excluded(after),
            Some(_) | None => Bound::Included(start),
        };
        let snapshot = self.db.snapshot();
        let mut found = Vec::new();
        for guard in snapshot.range(&self.tables, (lower, Bound::Excluded(end))).take(limit) {
            let (key, value) = guard.into_inner()?;
            found.push((Bytes::copy_from_slice(&key[SHARD_BYTES..]), Bytes::copy_from_slice(&value)));
        }
        Ok(found)
    }
}

impl Drop for Store {
    /// Makes durable what was committed without a sync, and notes what must be there when it is
    /// opened again. After a failure it does nothing: the process must have been aborted by then.
    fn drop(&mut self) {
        self.watchdog = None;
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if state.failed {
            return;
        }
        failpoint::hit("close.before");
        match self.db.persist(PersistMode::SyncAll) {
            Ok(()) => self.watched.synced.store(state.commit, Ordering::Release),
            Err(error) => {
                tracing::error!("what was committed last may not be on the disk: {error}");
                return;
            }
        }
        if let Err(error) = self.watched.update_marker(true) {
            tracing::warn!("the store's marker was not written on closing: {error}");
        }
        failpoint::hit("close.after");
    }
}

/// Takes the lock of `dir`, which no two processes hold at a time.
pub fn lock(dir: &Path) -> Result<File, OpenError> {
    let file = File::open(dir).map_err(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            OpenError::Missing { dir: dir.to_owned() }
        } else {
            OpenError::io(dir)(error)
        }
    })?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Locked { dir: dir.to_owned() }),
        Err(error) => Err(OpenError::io(dir)(error.into())),
    }
}

/// Opens the private copy of a store in `dir`, and counts what is in it.
pub fn count(
    dir: &Path,
    options: &Options,
    marker: Marker,
    inventory: &Inventory,
    report: &mut Report,
) -> Result<(), OpenError> {
    let (db, log, tables) =
        open_database(dir, options).map_err(|source| OpenError::Database { dir: dir.to_owned(), source })?;
    let mut read = || {
        let (newest, positions) = read_newest(&log, &tables, marker, inventory)?;
        report.commits = newest.commit;
        report.log_positions = positions;
        let snapshot = db.snapshot();
        for guard in snapshot.range(&log, ..=log_key(u64::MAX)) {
            report.log_bytes += u64::from(guard.size()?) - HEADER_BYTES as u64;
        }
        for guard in snapshot.range(&tables, ..TABLES_HEAD_KEY) {
            let (key, value) = guard.into_inner()?;
            let (shard, key) =
                key.split_first_chunk().ok_or_else(|| ReadError::Missing("the shard of a record".into()))?;
            let shard = report.shards.entry(u16::from_be_bytes(*shard)).or_default();
            shard.records += 1;
            shard.bytes += (key.len() + value.len()) as u64;
        }
        Ok(())
    };
    read().map_err(|source| OpenError::Read { dir: dir.to_owned(), source })
}

/// Empties a directory in which a store's creation was interrupted: there was no batch in it yet, as
/// the marker is written last. Refuses anything else.
fn clear_unfinished(dir: &Path, must_exist: bool) -> Result<(), OpenError> {
    if must_exist {
        return Err(unmarked(dir)?);
    }
    let unmarked = || no_marker(dir);
    let mut leftovers = Vec::new();
    for entry in fs::read_dir(dir).map_err(OpenError::io(dir))? {
        let entry = entry.map_err(OpenError::io(dir))?;
        let name = entry.file_name();
        match name.to_str() {
            Some("keyspaces" | "lock" | "version" | "kassa.new") => {}
            Some(name) if marker::journal_number(name).is_some() => {
                let mut first = [0];
                let mut journal = File::open(entry.path()).map_err(OpenError::io(dir))?;
                let read = journal.read(&mut first).map_err(OpenError::io(dir))?;
                if read > 0 && first != [0] {
                    return Err(unmarked().into());
                }
            }
            _ => return Err(OpenError::Foreign { dir: dir.to_owned() }),
        }
        leftovers.push(entry.path());
    }
    for id in [LOG_ID, TABLES_ID] {
        let tables = dir.join("keyspaces").join(id.to_string()).join("tables");
        if fs::read_dir(tables).is_ok_and(|mut files| files.next().is_some()) {
            return Err(unmarked().into());
        }
    }
    for path in leftovers {
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(OpenError::io(&path))?;
    }
    Ok(())
}

/// What is wrong with a directory without a marker, in which there should be a store.
pub fn unmarked(dir: &Path) -> Result<OpenError, OpenError> {
    let is_empty = fs::read_dir(dir).map_err(OpenError::io(dir))?.next().is_none();
    Ok(if is_empty { OpenError::Missing { dir: dir.to_owned() } } else { no_marker(dir).into() })
}

fn no_marker(dir: &Path) -> Damage {
    Damage::new(&dir.join(marker::FILE), 0, "it is missing, and the store is not empty")
}

fn open_database(dir: &Path, options: &Options) -> Result<(Database, Keyspace, Keyspace), fjall::Error> {
    let db = Database::builder(dir)
        .cache_size(options.cache_bytes)
        .max_journaling_size(options.journals_bytes.max(64 * MIB))
        // Flushes and compactions of two small keyspaces; more threads would only take turns.
        .worker_threads(1)
        .open()?;
    // Journals rotate at the first flush above 64 MB, so other flush points are other rotation points.
    let jittered = |bytes: u64| bytes + bytes / JITTER_STEPS * (u64::from(options.pod) % JITTER_STEPS) / 4;
    // The one worker flushes memtables as well, and commits wait once four of them do: so no single compaction
    // may take long. With fjall's 64 MiB one of them rewrites up to 256 MiB.
    let leveled = || Arc::new(Leveled::default().with_table_target_size(TABLE_FILE_BYTES));
    let keyspace = |bytes: u64| {
        KeyspaceCreateOptions::default().max_memtable_size(jittered(bytes)).compaction_strategy(leveled())
    };
    let log = db.keyspace(LOG, || keyspace(options.log_memtable_bytes))?;
    let tables = db.keyspace(TABLES, || keyspace(options.tables_memtable_bytes))?;
    assert_eq!((log.id(), tables.id()), (LOG_ID, TABLES_ID), "keyspaces are numbered as they are created");
    Ok((db, log, tables))
}

/// The newest header and the positions of the log, which must have no hole; both must be what the
/// files were found to hold.
fn read_newest(
    log: &Keyspace,
    tables: &Keyspace,
    marker: Marker,
    inventory: &Inventory,
) -> Result<(Header, Option<(u64, u64)>), ReadError> {
    let (newest, positions) = read_log_state(log)?;
    if let Some((first, _)) = positions
        && first != newest.first
    {
        return Err(ReadError::Missing(format!("the log begins at {first}, not at {}", newest.first)));
    }
    let expected = inventory.commit.unwrap_or(newest.commit);
    if newest.commit != expected || newest.commit < marker.commit {
        let expected = expected.max(marker.commit);
        return Err(ReadError::Missing(format!("it ends with batch {}, not {expected}", newest.commit)));
    }
    let head = tables.get(TABLES_HEAD_KEY)?;
    let tables_commit = head.and_then(|head| head.first_chunk().copied()).map_or(0, u64::from_be_bytes);
    if tables_commit != newest.tables_commit {
        return Err(ReadError::Missing(format!(
            "the tables end with batch {tables_commit}, not {}",
            newest.tables_commit
        )));
    }
    Ok((newest, positions))
}

fn read_log_state(log: &Keyspace) -> Result<(Header, Option<(u64, u64)>), ReadError> {
    let mut newest = Header::default();
    if let Some(head) = log.get(HEAD_KEY)? {
        newest = header(&head)?;
    }
    let mut positions: Option<(u64, u64)> = None;
    for guard in log.range(..=log_key(u64::MAX)) {
        let (key, value) = guard.into_inner()?;
        let at = position(&key)?;
        positions = match positions {
            None => Some((at, at)),
            Some((first, last)) if last + 1 == at => Some((first, at)),
            Some((_, last)) => {
                return Err(ReadError::Missing(format!(
                    "the log has no positions {} to {}",
                    last + 1,
                    at - 1
                )));
            }
        };
        let header = header(&value)?;
        if header.commit > newest.commit {
            newest = header;
        }
    }
    Ok((newest, positions))
}

fn header(value: &[u8]) -> Result<Header, ReadError> {
    Header::decode(value).ok_or_else(|| ReadError::Missing("the header of a batch".into()))
}

fn position(key: &[u8]) -> Result<u64, ReadError> {
    let bytes = key.try_into().map_err(|_| ReadError::Missing("the position of a log record".into()))?;
    Ok(u64::from_be_bytes(bytes))
}

/// The first key behind all that start with `prefix`, which begins with a shard below 65,535.
fn end_of_prefix(prefix: &[u8]) -> Vec<u8> {
    let keep = prefix.iter().rposition(|&byte| byte != 0xff).expect("no shard has the number 65,535");
    let mut end = prefix[..=keep].to_vec();
    end[keep] += 1;
    end
}
