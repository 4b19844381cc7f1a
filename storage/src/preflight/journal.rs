//! Reading fjall's journals as fjall 3.1 writes them, and telling damage from a torn tail.
//!
//! A journal is a sequence of batches, then zeros or its end. A batch is a start marker (tag 1, count
//! of items u32, sequence number u64), its items (tag 2, value type u8, compression u8, keyspace u64,
//! key length u16, value length u32 twice, key, value) and an end marker (tag 3, xxh3 of the items
//! u64, four magic bytes); integers are little-endian. The checksum leaves out the start marker, so
//! the count is checked by counting, and the sequence number against what the headers say.
//!
//! # Torn or damaged
//!
//! A crash may leave the last batches unreadable, those that nothing had synced; they are cut off. An
//! unreadable batch is *damage*, and the store is refused, if any of these holds:
//!
//! - its journal is not the newest (fjall syncs a journal before it begins the next);
//! - the marker, or a readable batch behind it, says that it was synced;
//! - it was written in full: its end marker is there and none of its sectors reads as zeros. A write
//!   that was torn leaves out its end or whole sectors.
//!
//! So what rots is noticed even in the last batch, unless it rots into the very look of a torn write.

use super::file::Window;
use crate::error::{Damage, OpenError};
use crate::record::{HEAD_KEY, HEADER_BYTES, Header, LOG_ID, TABLES_ID};
use std::io;
use xxhash_rust::xxh3::Xxh3;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const MAGIC: [u8; 4] = *b"FJL\x03";
const START_BYTES: usize = 13;
const ITEM_BYTES: usize = 21;
const END_BYTES: usize = 13;
/// The unit in which a disk writes all or nothing.
const SECTOR_BYTES: u64 = 512;
/// Sequence numbers that flushes and compactions may take between a header's making and its commit:
/// each takes one, and takes milliseconds.
const SEQNO_SLACK: u64 = 4_096;

/// A batch that is whole.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    pub end: u64,
    pub seqno: u64,
    pub header: Header,
    pub changes_tables: bool,
}

/// Why there is no whole batch at a place.
#[derive(Debug)]
struct Unreadable {
    at: u64,
    what: &'static str,
    /// All is there and right but the last four bytes.
    lacks_magic: bool,
}

/// What the journals read so far hold.
#[derive(Debug, Default)]
pub struct Chain {
    /// The first batch of all.
    pub first: Option<Header>,
    pub last: Option<Batch>,
    /// The newest sequence number of a batch that changed tables.
    pub tables_seqno: u64,
}

/// The end of the newest journal, where a crash tore it.
#[derive(Clone, Debug)]
pub struct TornTail {
    pub bytes: u64,
}

/// Reads one journal to its end, behind those in `chain`. `synced` is a batch known to be synced.
/// Returns the length of what is whole, and what is torn behind it.
pub fn read_journal(
    window: &mut Window,
    newest: bool,
    synced: u64,
    chain: &mut Chain,
) -> Result<(u64, Option<TornTail>), OpenError> {
    let path = window.path.clone();
    let failed = |error| OpenError::io(&path)(error);
    let mut at = 0;
    loop {
        match read_batch(window, at).map_err(failed)? {
            Ok(batch) => {
                chain.append(batch).map_err(|what| Damage::new(&path, at, what))?;
                at = batch.end;
            }
            Err(unreadable) => {
                let end = window.end_of_data(at).map_err(failed)?;
                if end == at {
                    return Ok((at, None));
                }
                let damage = |what: String| Err(Damage::new(&path, unreadable.at, what).into());
                if !newest {
                    return damage(format!("{}, in a journal that had been closed", unreadable.what));
                }
                let behind = batches_behind(window, at, end, chain).map_err(failed)?;
                let lost = match (chain.last, &behind) {
                    (Some(last), _) => Some(last.header.commit + 1),
                    (None, Some(behind)) => Some(behind.first_commit - 1),
                    (None, None) => None,
                };
                if lost.is_some_and(|lost| lost <= synced) {
                    return damage(format!("{}, in a batch that was on the disk", unreadable.what));
                }
                if behind.as_ref().is_some_and(|behind| Some(behind.synced) >= lost) {
                    return damage(format!("{}, before batches that are whole", unreadable.what));
                }
                let region_end = behind.map_or(end, |behind| behind.start);
                if written_in_full(window, at, region_end, &unreadable).map_err(failed)? {
                    return damage(format!("{}, in a batch that was written in full", unreadable.what));
                }
                return Ok((at, Some(TornTail { bytes: end - at })));
            }
        }
    }
}

impl Chain {
    fn append(&mut self, batch: Batch) -> Result<(), String> {
        let Header { commit, seqno_floor, previous_seqno, .. } = batch.header;
        if batch.seqno < seqno_floor || batch.seqno - seqno_floor > SEQNO_SLACK {
            return Err(format!("batch {commit} has sequence number {}, not {seqno_floor}", batch.seqno));
        }
        if let Some(last) = self.last {
            if commit != last.header.commit + 1 {
                return Err(format!("batch {commit} follows batch {}", last.header.commit));
            }
            if batch.seqno <= last.seqno || previous_seqno > last.seqno {
                return Err(format!("sequence number {} follows {}", batch.seqno, last.seqno));
            }
        }
        self.first.get_or_insert(batch.header);
        if batch.changes_tables {
            self.tables_seqno = batch.seqno;
        }
        self.last = Some(batch);
        Ok(())
    }
}

/// Whole batches behind an unreadable one.
#[derive(Debug)]
struct Behind {
    start: u64,
    first_commit: u64,
    /// The newest batch that one of them says was synced.
    synced: u64,
}

/// Searches for whole batches from behind `from`, where one that follows `chain` is unreadable, to `end`.
fn batches_behind(window: &mut Window, from: u64, end: u64, chain: &Chain) -> io::Result<Option<Behind>> {
    let mut found: Option<Behind> = None;
    let mut at = from + 1;
    while at < end {
        let looks_so = {
            let bytes = window.bytes(at, START_BYTES + 1)?;
            bytes.first() == Some(&START) && bytes.get(START_BYTES) == Some(&ITEM)
        };
        if looks_so
            && let Ok(batch) = read_batch(window, at)?
            && chain.last.is_none_or(|last| batch.header.commit > last.header.commit)
        {
            let Header { commit, synced, .. } = batch.header;
            let behind = found.get_or_insert(Behind { start: at, first_commit: commit, synced });
            behind.synced = behind.synced.max(synced);
            at = batch.end;
        } else {
            at += 1;
        }
    }
    Ok(found)
}

/// Whether what is at `from` was written to its end once.
fn written_in_full(window: &mut Window, from: u64, end: u64, unreadable: &Unreadable) -> io::Result<bool> {
    let magic_at = end.saturating_sub(MAGIC.len() as u64).max(from);
    let ended = window.bytes(magic_at, MAGIC.len())? == MAGIC;
    if !ended && !unreadable.lacks_magic {
        return Ok(false);
    }
    let mut at = from;
    while at < end {
        let next = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
        let mut zero = true;
        window.each(at, next, |piece| zero &= piece.iter().all(|&byte| byte == 0))?;
        if zero {
            return Ok(false);
        }
        at = next;
    }
    Ok(true)
}

/// The batch at `start`, if there is a whole one.
fn read_batch(window: &mut Window, start: u64) -> io::Result<Result<Batch, Unreadable>> {
    let no = |at, what| Ok(Err(Unreadable { at, what, lacks_magic: false }));
    let bytes = window.bytes(start, START_BYTES)?;
    let (Some(&tag), Some(count), Some(seqno)) = (bytes.first(), u32_at(bytes, 1), u64_at(bytes, 5)) else {
        return no(start, "a batch begins and the file ends");
    };
    if tag != START || count == 0 {
        return no(start, "no batch begins here");
    }
    let mut at = start + START_BYTES as u64;
    let mut hasher = Xxh3::new();
    let mut header = None;
    let mut changes_tables = false;
    for index in 0..count {
        let bytes = window.bytes(at, ITEM_BYTES)?;
        let Some(item) = Item::decode(bytes) else {
            return no(at, "an item is expected and not there");
        };
        hasher.update(bytes);
        let key_at = at + ITEM_BYTES as u64;
        let value_at = key_at + u64::from(item.key_bytes);
        let end = value_at + u64::from(item.value_bytes);
        if end > window.len {
            return no(at, "an item begins and the file ends");
        }
        if index == 0 {
            let key = window.bytes(key_at, usize::from(item.key_bytes))?;
            let known = item.keyspace == LOG_ID && item.is_value && (key.len() == 8 || key == HEAD_KEY);
            let found = if known { Header::decode(window.bytes(value_at, HEADER_BYTES)?) } else { None };
            let (Some(found), true) = (found, item.value_bytes as usize >= HEADER_BYTES) else {
                return no(at, "a batch begins without a header");
            };
            header = Some(found);
        }
        window.each(key_at, end, |piece| hasher.update(piece))?;
        changes_tables |= item.keyspace == TABLES_ID;
        at = end;
    }
    let bytes = window.bytes(at, END_BYTES)?;
    let Some(checksum) = u64_at(bytes, 1).filter(|_| bytes[0] == END) else {
        return no(at, "the end of a batch is expected and not there");
    };
    if checksum != hasher.digest() {
        return no(at, "a batch does not match its checksum");
    }
    if bytes.len() < END_BYTES || bytes[9..] != MAGIC {
        // A torn end is a part of the magic bytes, then zeros. This one is something else.
        let magic = &bytes[9..];
        let right = magic.iter().zip(MAGIC).take_while(|&(&byte, right)| byte == right).count();
        let lacks_magic = magic[right..].iter().any(|&byte| byte != 0);
        return Ok(Err(Unreadable { at, what: "the end of a batch is not as it should be", lacks_magic }));
    }
    let header = header.expect("a batch has at least one item, and the first has the header");
    Ok(Ok(Batch { end: at + END_BYTES as u64, seqno, header, changes_tables }))
}

struct Item {
    is_value: bool,
    keyspace: u64,
    key_bytes: u16,
    value_bytes: u32,
}

impl Item {
    /// The fixed part of an item, if it is one that this crate writes.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; ITEM_BYTES] = bytes.try_into().ok()?;
        let keyspace = u64_at(bytes, 3)?;
        let key_bytes = u16::from_le_bytes([bytes[11], bytes[12]]);
        let value_bytes = u32_at(bytes, 13)?;
        let is_value = bytes[1] == 0;
        let good = bytes[0] == ITEM
            && (is_value || (bytes[1] == 1 && value_bytes == 0))
            && bytes[2] == 0
            && (keyspace == LOG_ID || keyspace == TABLES_ID)
            && key_bytes > 0
            && u32_at(bytes, 17)? == value_bytes;
        good.then_some(Self { is_value, keyspace, key_bytes, value_bytes })
    }
}

pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
