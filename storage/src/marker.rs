//! The store's own file, `kassa`: that there is a store, in which format, and what must be in it.
//!
//! One line of text with a checksum, replaced atomically when the store is opened, closed, or has a
//! new journal. It is the witness for what fjall's files cannot tell by themselves: that the newest
//! journal is missing, or that its end is.

use crate::error::{Damage, OpenError};
use crate::failpoint;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

pub const FILE: &str = "kassa";
const TEMPORARY: &str = "kassa.new";
/// The format of records and keys that this version writes.
pub const FORMAT: u32 = 1;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marker {
    /// The number of the newest journal known to exist.
    pub journal: u64,
    /// A batch known to be on the disk.
    pub commit: u64,
}

impl Marker {
    /// The marker of `dir`; `None` if there is none.
    pub fn read(dir: &Path) -> Result<Option<Self>, OpenError> {
        let path = dir.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(OpenError::io(&path)(error)),
        };
        let damaged = || Damage::new(&path, 0, "its checksum does not match");
        let line = str::from_utf8(&bytes).map_err(|_| damaged())?;
        let (body, checksum) =
            line.strip_suffix('\n').and_then(|line| line.rsplit_once(' ')).ok_or_else(damaged)?;
        if checksum != checksum_of(body) {
            return Err(damaged().into());
        }
        let words: Vec<&str> = body.split(' ').collect();
        let number = |n: usize| words.get(n).and_then(|word| word.parse::<u64>().ok()).ok_or_else(damaged);
        let format = u32::try_from(number(1)?).unwrap_or(u32::MAX);
        if format > FORMAT {
            return Err(OpenError::NewerFormat { dir: dir.to_owned(), found: format, known: FORMAT });
        }
        let marker = Self { journal: number(3)?, commit: number(5)? };
        if marker.line() != line {
            return Err(damaged().into());
        }
        Ok(Some(marker))
    }

    /// Replaces the marker of `dir`, durably.
    pub fn write(self, dir: &Path) -> io::Result<()> {
        failpoint::hit("marker.before");
        let temporary = dir.join(TEMPORARY);
        let mut file = File::create(&temporary)?;
        file.write_all(self.line().as_bytes())?;
        file.sync_all()?;
        failpoint::hit("marker.written");
        fs::rename(&temporary, dir.join(FILE))?;
        failpoint::hit("marker.renamed");
        File::open(dir)?.sync_all()?;
        failpoint::hit("marker.after");
        Ok(())
    }

    fn line(self) -> String {
        let body = format!("kassa-store {FORMAT} journal {} commit {}", self.journal, self.commit);
        let checksum = checksum_of(&body);
        format!("{body} {checksum}\n")
    }
}

fn checksum_of(body: &str) -> String {
    format!("{:016x}", xxh3_64(body.as_bytes()))
}

/// The number of a journal file by its name; `None` if it is something else.
pub fn journal_number(name: &str) -> Option<u64> {
    name.strip_suffix(".jnl")?.parse().ok()
}

/// The newest journal in `dir`, by number.
pub fn newest_journal(dir: &Path) -> io::Result<Option<u64>> {
    let mut newest = None;
    for entry in fs::read_dir(dir)? {
        newest = newest.max(entry?.file_name().to_str().and_then(journal_number));
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_survives_and_no_flipped_byte_does() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Marker::read(dir.path()).unwrap(), None);
        let marker = Marker { journal: 3, commit: 1_234 };
        marker.write(dir.path()).unwrap();
        assert_eq!(Marker::read(dir.path()).unwrap(), Some(marker));
        let path = dir.path().join(FILE);
        let bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            for flip in [1, 0x20, 0x80] {
                let mut bad = bytes.clone();
                bad[at] ^= flip;
                fs::write(&path, &bad).unwrap();
                assert!(Marker::read(dir.path()).is_err(), "byte {at} flipped by {flip:#x}");
            }
        }
        for length in 0..bytes.len() {
            fs::write(&path, &bytes[..length]).unwrap();
            assert!(Marker::read(dir.path()).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn a_newer_format_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let body = format!("kassa-store {} something else", FORMAT + 1);
        fs::write(dir.path().join(FILE), format!("{body} {}\n", checksum_of(&body))).unwrap();
        let error = Marker::read(dir.path()).unwrap_err();
        assert!(matches!(error, OpenError::NewerFormat { found, .. } if found == FORMAT + 1), "{error}");
    }
}
