//! Reading a store's files from the disk before fjall opens them.
//!
//! fjall repairs what it finds: it cuts journals at the first thing that does not decode, deletes
//! keyspaces without a `current` file, makes missing files anew. Each of that may be the silent end
//! of acknowledged data. So everything is read here first, and fjall opens only what is whole:
//!
//! - journals: every batch decodes and matches its checksum, and the batches are numbered without
//!   gaps from the oldest journal to the newest (`journal` says how a torn tail is told from damage);
//! - what came before the oldest journal is in the table files: the oldest batch's header names the
//!   sequence numbers that they must reach, and none may be beyond the newest batch;
//! - what is in the table files: each matches its checksum, from `current` down (`tree`);
//! - the newest journal that the marker names is there, and so is the batch.
//!
//! After fjall has opened, `store` compares the newest batch and looks for holes in the log. The only
//! write here is the cut of a torn tail.

mod file;
mod journal;
mod tree;

use crate::error::{Damage, OpenError};
use crate::failpoint;
use crate::marker::{Marker, journal_number};
use crate::record::{LOG_ID, META_ID, TABLES_ID};
use file::Window;
use journal::{Chain, TornTail, read_journal};
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use tree::{Tree, check_folders, check_tree, read_small};

/// What the files hold.
#[derive(Debug, Default)]
pub struct Inventory {
    /// The number of the newest batch; `None` if no journal holds one.
    pub commit: Option<u64>,
    /// The sequence number of the newest batch, and of the newest that changed tables; 0 for none.
    pub seqno: u64,
    pub tables_seqno: u64,
    /// Journals from the oldest to the newest, with the length of what is whole in each.
    pub journals: Vec<(PathBuf, u64)>,
    /// What a crash left at the end of the newest journal.
    pub torn: Option<TornTail>,
    pub files: u64,
    pub bytes: u64,
}

/// The files of a store besides its journals.
#[derive(Debug, Default)]
pub struct Files {
    /// Those that never change.
    pub linked: Vec<PathBuf>,
    pub copied: Vec<PathBuf>,
}

const VERSION: &[u8] = b"FJL\x03";

/// Reads all files of the store in `dir`. With `repair`, syncs the journals first and cuts a torn tail.
pub fn inspect(dir: &Path, marker: Marker, repair: bool) -> Result<Inventory, OpenError> {
    let version_path = dir.join("version");
    if read_small(&version_path, VERSION.len() as u64)? != VERSION {
        return Err(Damage::new(&version_path, 0, "it is not what it should be").into());
    }
    read_small(&dir.join("lock"), 0)?;
    let keyspaces = dir.join("keyspaces");
    check_folders(&keyspaces, &[META_ID, LOG_ID, TABLES_ID])?;
    let meta = check_tree(&keyspaces.join(META_ID.to_string()))?;
    let log = check_tree(&keyspaces.join(LOG_ID.to_string()))?;
    let tables = check_tree(&keyspaces.join(TABLES_ID.to_string()))?;

    let paths = journals_of(dir, marker)?;
    let count = paths.len();
    let mut journals = Vec::with_capacity(count);
    let mut chain = Chain::default();
    let mut torn = None;
    for (index, path) in paths.into_iter().enumerate() {
        let newest = index + 1 == count;
        let mut window = Window::open(&path, repair).map_err(OpenError::io(&path))?;
        let whole;
        (whole, torn) = read_journal(&mut window, newest, marker.commit, &mut chain)?;
        if let (Some(torn), true) = (&torn, repair) {
            cut(&path, whole, torn)?;
        }
        journals.push((path, whole));
    }
    if let (Some(last), Some((path, whole))) = (chain.last, journals.last())
        && last.header.commit < marker.commit
    {
        let what = format!(
            "it ends with batch {}, and batch {} was on the disk: acknowledged data is missing",
            last.header.commit, marker.commit
        );
        return Err(Damage::new(path, *whole, what).into());
    }
    check_tables_reach(dir, &chain, log, tables)?;
    Ok(Inventory {
        commit: chain.last.map(|last| last.header.commit),
        seqno: chain.last.map_or(log.seqno_max, |last| last.seqno),
        tables_seqno: match (chain.tables_seqno, chain.first) {
            (0, Some(first)) => first.tables_seqno,
            (0, None) => tables.seqno_max,
            (seqno, _) => seqno,
        },
        journals,
        torn,
        files: meta.files + log.files + tables.files,
        bytes: meta.bytes + log.bytes + tables.bytes,
    })
}

/// The files that a store in `dir` consists of, besides its journals.
pub fn files_of(dir: &Path) -> Result<Files, OpenError> {
    let mut files = Files { linked: Vec::new(), copied: vec![dir.join("version"), dir.join("lock")] };
    for id in [META_ID, LOG_ID, TABLES_ID] {
        tree::files_of(&dir.join("keyspaces").join(id.to_string()), &mut files)?;
    }
    Ok(files)
}

/// The journals in order. fjall deletes the oldest and appends at the other end, so their numbers
/// have no gap.
fn journals_of(dir: &Path, marker: Marker) -> Result<Vec<PathBuf>, OpenError> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(OpenError::io(dir))? {
        let name = entry.map_err(OpenError::io(dir))?.file_name();
        if let Some(number) = name.to_str().and_then(journal_number) {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    let path = |number: u64| dir.join(format!("{number}.jnl"));
    let missing = |number| Damage::new(&path(number), 0, "it is missing");
    if numbers.last().is_none_or(|&newest| newest < marker.journal) {
        return Err(missing(marker.journal).into());
    }
    for pair in numbers.windows(2) {
        if pair[0] + 1 != pair[1] {
            return Err(missing(pair[0] + 1).into());
        }
    }
    Ok(numbers.into_iter().map(path).collect())
}

/// Whether journals and table files fit together without a gap.
fn check_tables_reach(dir: &Path, chain: &Chain, log: Tree, tables: Tree) -> Result<(), OpenError> {
    let missing =
        |what: String| Err(Damage::new(dir, 0, format!("acknowledged data is missing: {what}")).into());
    let (Some(first), Some(last)) = (chain.first, chain.last) else {
        return Ok(());
    };
    if first.commit > 1 && log.seqno_max < first.previous_seqno {
        return missing(format!(
            "the journals begin with batch {}, and no file has the one before",
            first.commit
        ));
    }
    if tables.seqno_max < first.tables_seqno {
        return missing(format!("no file has the tables as they were before batch {}", first.commit));
    }
    if log.seqno_max.max(tables.seqno_max) > last.seqno {
        return missing(format!(
            "the journals end with batch {}, and table files are newer",
            last.header.commit
        ));
    }
    Ok(())
}

fn cut(path: &Path, whole: u64, torn: &TornTail) -> Result<(), OpenError> {
    tracing::warn!(
        "{}: cut {} bytes at byte {} that a crash tore; nothing there was acknowledged",
        path.display(),
        torn.bytes,
        whole
    );
    failpoint::hit("tail.before-cut");
    let file = OpenOptions::new().write(true).open(path).map_err(OpenError::io(path))?;
    file.set_len(whole).and_then(|()| file.sync_all()).map_err(OpenError::io(path))?;
    failpoint::hit("tail.after-cut");
    Ok(())
}
