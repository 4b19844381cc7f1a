//! The errors of each boundary: opening, reading, committing. Each text is one line that says what
//! is wrong, with which file, and how to mend it.

use std::io;
use std::path::{Path, PathBuf};

/// Why a store was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{} is in use by another process: stop that one first", dir.display())]
    Locked { dir: PathBuf },
    #[error(
        "{} was written by a newer version (format {found}; this one knows {known}): use that version",
        dir.display()
    )]
    NewerFormat { dir: PathBuf, found: u32, known: u32 },
    #[error("{} is not a store, and not empty: give another directory", dir.display())]
    Foreign { dir: PathBuf },
    #[error("{} holds no store", dir.display())]
    Missing { dir: PathBuf },
    #[error("{0}: refill this pod under a new disk id (move the directory away)")]
    Damaged(#[from] Damage),
    #[error("{}: {source}: mend the disk or its permissions", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{}: the database does not open: {}: {}",
        dir.display(), cause(source), remedy(source)
    )]
    Database { dir: PathBuf, source: fjall::Error },
    #[error("{}: {source}", dir.display())]
    Read { dir: PathBuf, source: ReadError },
}

impl OpenError {
    /// Whether there is no room on the disk for what opening writes. Unlike damage it passes, and
    /// nothing is lost by it.
    #[must_use]
    pub fn lacks_room(&self) -> bool {
        match self {
            Self::Io { source, .. } => lacks_room(source),
            Self::Database { source, .. } => io_of(source).is_some_and(lacks_room),
            Self::Locked { .. }
            | Self::NewerFormat { .. }
            | Self::Foreign { .. }
            | Self::Missing { .. }
            | Self::Damaged(_)
            | Self::Read { .. } => false,
        }
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        |source| Self::Io { path: path.to_owned(), source }
    }
}

/// What is not as it was written.
#[derive(Debug, thiserror::Error)]
#[error("{}, at byte {offset}: {what}", file.display())]
pub struct Damage {
    pub file: PathBuf,
    /// Bytes from the start of the file; 0 where the file as a whole is meant.
    pub offset: u64,
    pub what: String,
}

impl Damage {
    pub(crate) fn new(file: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self { file: file.to_owned(), offset, what: what.into() }
    }
}

/// Why something could not be read. The pod must stop: it may not go on from guessed state.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the database cannot be read: {0}: refill this pod under a new disk id")]
    Database(#[from] fjall::Error),
    #[error("acknowledged data is missing: {0}: refill this pod under a new disk id")]
    Missing(String),
}

/// Why a batch is not known to be durable. **Abort the process at once**: see the crate's top.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    #[error(
        "{}: the disk failed or is full: {}: stopping; mend the disk, then start this pod again",
        dir.display(), cause(source)
    )]
    Database { dir: PathBuf, source: fjall::Error },
    #[error("log position {got} does not follow {last}")]
    Position { last: u64, got: u64 },
    #[error("an earlier commit failed")]
    Failed,
}

/// Whether a write failed for want of room: a full disk, a quota, or a limit on the size of files.
#[must_use]
pub fn lacks_room(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

fn io_of(error: &fjall::Error) -> Option<&io::Error> {
    if let fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) = error {
        Some(error)
    } else {
        None
    }
}

/// What failed, for people: fjall shows its errors as they are in the source.
fn cause(error: &fjall::Error) -> String {
    if matches!(error, fjall::Error::Poisoned) {
        return "an earlier write in the background failed".to_owned();
    }
    io_of(error).map_or_else(|| error.to_string(), io::Error::to_string)
}

fn remedy(error: &fjall::Error) -> &'static str {
    if io_of(error).is_some() {
        "mend the disk, then start this pod again"
    } else {
        "refill this pod under a new disk id (move the directory away)"
    }
}
