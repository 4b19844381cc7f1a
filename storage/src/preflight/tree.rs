//! Checking the files of one keyspace, as lsm-tree 3.1 writes them.
//!
//! The file `current` names the version file and its checksum (xxh3, 128 bits, of the whole file);
//! the version file names each table file and its checksum. lsm-tree keeps these checksums and does
//! not compare them at open. With them compared, no byte of a file that is in use can have changed,
//! and none can be missing. Files that no version names are leftovers; lsm-tree deletes them.

use super::Files;
use super::file::Window;
use super::journal::{u32_at, u64_at};
use crate::error::{Damage, OpenError};
use std::fs;
use std::path::Path;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// What the table files of a keyspace hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tree {
    /// The highest sequence number of a record; 0 if there is none.
    pub seqno_max: u64,
    pub files: u64,
    pub bytes: u64,
}

/// Version id u64, checksum u128, kind of checksum u8.
const CURRENT_BYTES: usize = 25;
/// A version file lists some 33 bytes for each table file.
const VERSION_BYTES_MAX: u64 = 64 * 1024 * 1024;
const TRAILER_BYTES: usize = 38;
const BLOCK_HEADER_BYTES: usize = 33;
/// The table of contents and the metadata of a table file: a few hundred bytes, and two keys.
const META_BYTES_MAX: u64 = 200 * 1024;

/// Checks every file of the keyspace in `dir`.
pub fn check_tree(dir: &Path) -> Result<Tree, OpenError> {
    let current_path = dir.join("current");
    let current = read_small(&current_path, CURRENT_BYTES as u64)?;
    let (Some(id), Some(checksum), Some(0), CURRENT_BYTES) =
        (u64_at(&current, 0), u128_at(&current, 8), current.get(24), current.len())
    else {
        return Err(Damage::new(&current_path, 0, "it is not what it should be").into());
    };
    let version_path = dir.join(format!("v{id}"));
    let version = match read_small(&version_path, VERSION_BYTES_MAX) {
        Ok(version) if xxh3_128(&version) == checksum => version,
        Ok(_) => {
            return Err(Damage::new(&version_path, 0, "it does not match its checksum in 'current'").into());
        }
        Err(error) => return Err(error),
    };
    let mut tree = Tree::default();
    for table in tables_of(&version).ok_or_else(|| Damage::new(&version_path, 0, "it does not decode"))? {
        let path = dir.join("tables").join(table.id.to_string());
        let (bytes, seqno_max) = check_table(&path, table.checksum)?;
        tree.files += 1;
        tree.bytes += bytes;
        tree.seqno_max = tree.seqno_max.max(seqno_max + table.seqno_offset);
    }
    Ok(tree)
}

/// Adds the files of the keyspace in `dir` that are in use.
pub fn files_of(dir: &Path, files: &mut Files) -> Result<(), OpenError> {
    let current_path = dir.join("current");
    let current = read_small(&current_path, CURRENT_BYTES as u64)?;
    let damaged = || Damage::new(&current_path, 0, "it is not what it should be");
    let version_path = dir.join(format!("v{}", u64_at(&current, 0).ok_or_else(damaged)?));
    let version = read_small(&version_path, VERSION_BYTES_MAX)?;
    for table in tables_of(&version).ok_or_else(damaged)? {
        files.linked.push(dir.join("tables").join(table.id.to_string()));
    }
    files.copied.extend([current_path, version_path]);
    Ok(())
}

struct Table {
    id: u64,
    checksum: u128,
    /// Added to the sequence numbers in the file.
    seqno_offset: u64,
}

/// The table files that a version names.
fn tables_of(version: &[u8]) -> Option<Vec<Table>> {
    let contents = contents_at(version)?;
    let sections = sections_of(version.get(contents..)?)?;
    let section = |name: &[u8]| {
        let (_, at, len) = sections.iter().find(|(found, _, _)| found == name)?;
        version.get(*at..at.checked_add(*len)?)
    };
    if u32_at(section(b"blob_files")?, 0)? != 0 {
        return None;
    }
    let mut bytes = section(b"tables")?;
    let mut tables = Vec::new();
    for _level in 0..take::<1>(&mut bytes)?[0] {
        for _run in 0..take::<1>(&mut bytes)?[0] {
            for _table in 0..u32::from_le_bytes(*take(&mut bytes)?) {
                let id = u64::from_le_bytes(*take(&mut bytes)?);
                if take(&mut bytes)? != &[0] {
                    return None;
                }
                let checksum = u128::from_le_bytes(*take(&mut bytes)?);
                let seqno_offset = u64::from_le_bytes(*take(&mut bytes)?);
                tables.push(Table { id, checksum, seqno_offset });
            }
        }
    }
    bytes.is_empty().then_some(tables)
}

/// The length of a table file and the highest sequence number in it.
fn check_table(path: &Path, checksum: u128) -> Result<(u64, u64), OpenError> {
    let mut window = Window::open(path, false).map_err(missing_or_io(path))?;
    let mut hasher = Xxh3::new();
    let len = window.len;
    window.each(0, len, |piece| hasher.update(piece)).map_err(OpenError::io(path))?;
    if hasher.digest128() != checksum {
        return Err(Damage::new(path, 0, "it does not match its checksum in the version file").into());
    }
    let seqno_max = seqno_max_of(&mut window).map_err(OpenError::io(path))?;
    let seqno_max = seqno_max.ok_or_else(|| Damage::new(path, 0, "its metadata does not decode"))?;
    Ok((len, seqno_max))
}

/// Reads `seqno#max` from the metadata of a table file.
fn seqno_max_of(window: &mut Window) -> std::io::Result<Option<u64>> {
    let len = window.len;
    let tail_at = len.saturating_sub(META_BYTES_MAX);
    let mut tail = Vec::new();
    window.each(tail_at, len, |piece| tail.extend_from_slice(piece))?;
    Ok(seqno_max_in(&tail, usize::try_from(tail_at).expect("table files are far below 4 GiB")))
}

fn seqno_max_in(tail: &[u8], tail_at: usize) -> Option<u64> {
    let contents = contents_at(tail)?.checked_sub(tail_at)?;
    let sections = sections_of(tail.get(contents..)?)?;
    let (_, at, len) = sections.iter().find(|(name, _, _)| name == b"meta")?;
    let at = at.checked_sub(tail_at)?;
    let mut block = tail.get(at + BLOCK_HEADER_BYTES..at.checked_add(*len)?)?;
    // Entries with full keys, up to a terminator: value type, seqno, key and value with their lengths.
    while *take::<1>(&mut block)? != [255] {
        varint(&mut block)?;
        let key = prefixed(&mut block)?;
        let value = prefixed(&mut block)?;
        if key == b"seqno#max" {
            return u64_at(value, 0);
        }
    }
    None
}

/// Where the table of contents begins, by the trailer at the end of `bytes`.
fn contents_at(bytes: &[u8]) -> Option<usize> {
    let trailer = bytes.get(bytes.len().checked_sub(TRAILER_BYTES)?..)?;
    let magic = trailer.starts_with(b"SFA!\x01\x00");
    usize::try_from(u64_at(trailer, 22)?).ok().filter(|_| magic)
}

/// Names, positions and lengths of the sections in a table of contents.
fn sections_of(mut bytes: &[u8]) -> Option<Vec<(Vec<u8>, usize, usize)>> {
    if take(&mut bytes)? != b"TOC!" {
        return None;
    }
    let mut sections = Vec::new();
    for _ in 0..u32::from_le_bytes(*take(&mut bytes)?) {
        let at = u64::from_le_bytes(*take(&mut bytes)?);
        let len = u64::from_le_bytes(*take(&mut bytes)?);
        let name_bytes = usize::from(u16::from_le_bytes(*take(&mut bytes)?));
        let (name, rest) = bytes.split_at_checked(name_bytes)?;
        bytes = rest;
        sections.push((name.to_vec(), usize::try_from(at).ok()?, usize::try_from(len).ok()?));
    }
    Some(sections)
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(head)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let [byte] = *take(bytes)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn prefixed<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(varint(bytes)?).ok()?;
    let (head, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(head)
}

fn u128_at(bytes: &[u8], at: usize) -> Option<u128> {
    Some(u128::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A whole file from the disk; one that is missing or too long is damage.
pub fn read_small(path: &Path, bytes_max: u64) -> Result<Vec<u8>, OpenError> {
    let mut window = Window::open(path, false).map_err(missing_or_io(path))?;
    if window.len > bytes_max {
        return Err(Damage::new(path, bytes_max, "it is longer than it can be").into());
    }
    let mut content = Vec::new();
    let len = window.len;
    window.each(0, len, |piece| content.extend_from_slice(piece)).map_err(OpenError::io(path))?;
    Ok(content)
}

fn missing_or_io(path: &Path) -> impl FnOnce(std::io::Error) -> OpenError + '_ {
    |error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            Damage::new(path, 0, "it is missing").into()
        } else {
            OpenError::io(path)(error)
        }
    }
}

/// Whether the keyspaces folder holds these keyspaces and nothing else: fjall panics over a name that
/// is no number, and deletes a keyspace that it does not know.
pub fn check_folders(keyspaces: &Path, ids: &[u64]) -> Result<(), OpenError> {
    for entry in fs::read_dir(keyspaces).map_err(missing_or_io(keyspaces))? {
        let entry = entry.map_err(OpenError::io(keyspaces))?;
        let name = entry.file_name();
        if !ids.iter().any(|id| name == *id.to_string()) {
            return Err(Damage::new(&entry.path(), 0, "it does not belong here").into());
        }
    }
    Ok(())
}
