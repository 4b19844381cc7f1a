//! The group commit: the one place that writes.

use crate::error::CommitError;
use crate::record::{HEAD_KEY, HEADER_BYTES, Header, SHARD_BYTES, TABLES_HEAD_KEY, log_key};
use crate::store::{State, Store};
use fjall::{OwnedWriteBatch, PersistMode, Slice, UserKey};
use std::io::Read;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What one commit writes, all or nothing.
#[derive(Debug)]
pub struct Batch<'a, T> {
    /// The round's log record, with its position: one above the last.
    pub log: Option<(u64, &'a [u8])>,
    /// Shard, key, and value or `None` to delete. A key occurs at most once.
    pub tables: T,
    /// Log records below this position are covered by checkpoints, this batch included, and may go.
    /// They go a few at a time, with this and later batches.
    pub cut_below: Option<u64>,
    /// Whether it must be on the disk when the commit returns.
    pub sync: bool,
}

/// A commit that takes this long is worth a line: everything on this pod that changes anything waited for it.
const SLOW: Duration = Duration::from_millis(500);

/// Log records deleted in one commit: so few that they do not show in its time, and so many that the
/// log, which grows by at most one a commit, always shrinks.
const CUT_MAX: u64 = 64;

/// fjall stores the length of a key in 16 bits.
const KEY_BYTES_MAX: usize = u16::MAX as usize - SHARD_BYTES;

impl Store {
    /// Commits one batch. On an error the caller **aborts the process at once**.
    ///
    /// # Panics
    ///
    /// If a key is longer than 65,533 bytes or a shard's number is 65,535.
    pub fn commit<'a, T>(&self, batch: Batch<'a, T>) -> Result<(), CommitError>
    where
        T: IntoIterator<Item = (u16, &'a [u8], Option<&'a [u8]>)>,
    {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.failed {
            return Err(CommitError::Failed);
        }
        // Cleared at the end alone, so that an early return or a panic counts as a failure.
        state.failed = true;
        self.watched.begin();
        let (sync, began) = (batch.sync, Instant::now());
        let header = self.write(&mut state, batch)?;
        self.watched.end();
        let took = began.elapsed();
        if took >= SLOW {
            tracing::warn!("a commit in {} took {} ms", self.watched.dir().display(), took.as_millis());
        }
        state.commit = header.commit;
        state.tables_commit = header.tables_commit;
        state.failed = false;
        if sync {
            self.watched.synced.store(header.commit, Ordering::Release);
        }
        Ok(())
    }

    fn write<'a, T>(&self, state: &mut State, batch: Batch<'a, T>) -> Result<Header, CommitError>
    where
        T: IntoIterator<Item = (u16, &'a [u8], Option<&'a [u8]>)>,
    {
        if let (Some((got, _)), Some((_, last))) = (batch.log, state.positions)
            && got != last + 1
        {
            return Err(CommitError::Position { last, got });
        }
        let previous = state.positions;
        state.positions = extend_and_cut(state, batch.log.map(|(position, _)| position), batch.cut_below);
        let mut tables = batch.tables.into_iter().peekable();
        let commit = state.commit + 1;
        let changes_tables = tables.peek().is_some();
        let header = Header {
            commit,
            synced: self.watched.synced.load(Ordering::Acquire),
            first: state.positions.map_or(0, |(first, _)| first),
            // No record gets a lower number than this one, and only commits give numbers to records.
            seqno_floor: self.db.seqno(),
            previous_seqno: state.previous_seqno,
            tables_seqno: state.tables_seqno,
            tables_commit: if changes_tables { commit } else { state.tables_commit },
        };

        let mut writes = OwnedWriteBatch::with_capacity(self.db.clone(), tables.size_hint().0 + 3)
            .durability(batch.sync.then_some(PersistMode::SyncData));
        // The header comes first: the preflight looks for it there.
        match batch.log {
            Some((position, payload)) => {
                writes.insert(&self.log, log_key(position), with_header(&header, payload));
            }
            None => writes.insert(&self.log, HEAD_KEY, header.encode()),
        }
        if let (Some((old, _)), Some((new, _))) = (previous, state.positions) {
            for position in old..new {
                writes.remove(&self.log, log_key(position));
            }
        }
        if changes_tables {
            self.write_tables(&mut writes, tables);
            writes.insert(&self.tables, TABLES_HEAD_KEY, commit.to_be_bytes());
        }

        writes
            .commit()
            .map_err(|source| CommitError::Database { dir: self.watched.dir().to_owned(), source })?;
        state.previous_seqno = header.seqno_floor;
        if changes_tables {
            state.tables_seqno = header.seqno_floor;
        }
        Ok(header)
    }

    fn write_tables<'a>(
        &self,
        writes: &mut OwnedWriteBatch,
        changes: impl Iterator<Item = (u16, &'a [u8], Option<&'a [u8]>)>,
    ) {
        let mut full_key = Vec::new();
        for (shard, key, value) in changes {
            assert!(shard != u16::MAX, "shard 65,535 is kept for the tables' head");
            assert!(key.len() <= KEY_BYTES_MAX, "a key of {} bytes is too long", key.len());
            full_key.clear();
            full_key.extend_from_slice(&shard.to_be_bytes());
            full_key.extend_from_slice(key);
            let key = UserKey::from(&full_key[..]);
            match value {
                Some(value) => writes.insert(&self.tables, key, value),
                None => writes.remove(&self.tables, key),
            }
        }
    }
}

/// The positions after a batch with a record at `appended`. The newest record always stays: it says
/// where the log goes on.
fn extend_and_cut(state: &mut State, appended: Option<u64>, cut_below: Option<u64>) -> Option<(u64, u64)> {
    state.cut_below = state.cut_below.max(cut_below.unwrap_or(0));
    let (first, last) = match (state.positions, appended) {
        (None, None) => return None,
        (None, Some(position)) => (position, position),
        (Some((first, _)), Some(position)) => (first, position),
        (Some(positions), None) => positions,
    };
    let cut = state.cut_below.min(last).min(first.saturating_add(CUT_MAX)).max(first);
    Some((cut, last))
}

/// A log record's value, without an intermediate copy of what may be large.
fn with_header(header: &Header, payload: &[u8]) -> Slice {
    let header = header.encode();
    Slice::from_reader(&mut header.chain(payload), HEADER_BYTES + payload.len())
        .expect("reading from memory does not fail")
}
