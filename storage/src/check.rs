//! What a store holds, without changing it.

use crate::error::OpenError;
use crate::marker::Marker;
use crate::preflight::{self, Inventory};
use crate::store::{self, Options};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The contents of a store that is whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Batches committed in the store's life.
    pub commits: u64,
    /// The lowest and the highest position in the log; without a hole between them.
    pub log_positions: Option<(u64, u64)>,
    pub log_bytes: u64,
    pub shards: BTreeMap<u16, ShardReport>,
    pub journals: u64,
    pub table_files: u64,
    pub table_file_bytes: u64,
    /// Bytes that a crash tore at the end of the newest journal; the next start cuts them off.
    pub torn_bytes: u64,
}

/// The records of one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardReport {
    pub records: u64,
    /// Of keys and values.
    pub bytes: u64,
}

/// Reads all files of the store in `dir` as [`Store::open`](crate::Store::open) does before the storage engine
/// sees them. Writes nothing.
///
/// # Errors
/// What is wrong, and where.
pub fn inspect(dir: &Path) -> Result<(), OpenError> {
    let _lock = store::lock(dir)?;
    match Marker::read(dir)? {
        Some(marker) => preflight::inspect(dir, marker, false).map(drop),
        None => Err(store::unmarked(dir)?),
    }
}

/// Checks the store in `dir` as [`Store::open`](crate::Store::open) does, and counts what is in it.
///
/// Writes nothing in `dir`. fjall cannot open a database without writing to it, so it is given a
/// private one among the temporary files: links to the table files, copies of the rest.
pub fn check(dir: &Path) -> Result<Report, OpenError> {
    let _lock = store::lock(dir)?;
    let marker = match Marker::read(dir)? {
        Some(marker) => marker,
        None => return Err(store::unmarked(dir)?),
    };
    let inventory = preflight::inspect(dir, marker, false)?;
    let copy = Copy::of(dir, &inventory)?;
    let mut report = Report {
        journals: inventory.journals.len() as u64,
        table_files: inventory.files,
        table_file_bytes: inventory.bytes,
        torn_bytes: inventory.torn.as_ref().map_or(0, |torn| torn.bytes),
        ..Report::default()
    };
    store::count(&copy.dir, &Options::default(), marker, &inventory, &mut report)?;
    Ok(report)
}

/// A private database with the contents of another; deleted when dropped.
struct Copy {
    dir: PathBuf,
}

impl Copy {
    fn of(dir: &Path, inventory: &Inventory) -> Result<Self, OpenError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("kassa-check-{}-{number}", std::process::id());
        let copy = Self { dir: std::env::temp_dir().join(name) };
        let files = preflight::files_of(dir)?;
        let failed = |error| OpenError::io(&copy.dir)(error);
        for (linked, path) in
            files.linked.iter().map(|path| (true, path)).chain(files.copied.iter().map(|path| (false, path)))
        {
            let to = copy.dir.join(path.strip_prefix(dir).expect("a file of the store lies in it"));
            fs::create_dir_all(to.parent().expect("it lies in the copy's directory")).map_err(failed)?;
            let from = fs::canonicalize(path).map_err(OpenError::io(path))?;
            if linked { std::os::unix::fs::symlink(from, &to) } else { fs::copy(from, &to).map(drop) }
                .map_err(failed)?;
        }
        for (path, bytes) in &inventory.journals {
            let to = copy.dir.join(path.file_name().expect("a journal has a name"));
            let from = File::open(path).map_err(OpenError::io(path))?;
            let mut to = File::create(to).map_err(failed)?;
            io::copy(&mut from.take(*bytes), &mut to).map_err(failed)?;
        }
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            tracing::warn!("{}: not deleted: {error}", self.dir.display());
        }
    }
}
