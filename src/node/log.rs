//! The packed log record of a round, and when a shard is checkpointed so that older ones can be cut.

pub use super::message::Record;
use crate::modules::machine::encode_as;
use bytes::Bytes;
use kassa_protocols::ids::{Module, Shard};
use std::collections::VecDeque;

/// The format of a round's log record. A newer one is refused before anything of it is believed. 2 adds the blocking
/// commit's commands and decisions.
const LOG_VERSION: u8 = 2;
/// What this kassa reads: version 2 takes nothing away.
const LOG_VERSION_OLDEST: u8 = 1;

/// One store's log: positions, and how much of it is not covered by checkpoints.
#[derive(Debug)]
pub struct StoreLog {
    /// The position of the next record.
    pub next: u64,
    /// Positions still on disk with their sizes.
    kept: VecDeque<(u64, usize)>,
    bytes: usize,
}

impl StoreLog {
    #[must_use]
    pub const fn new(next: u64) -> Self {
        Self { next, kept: VecDeque::new(), bytes: 0 }
    }
    /// A record that was found on disk, or is about to be written.
    pub fn keep(&mut self, position: u64, size: usize) {
        self.next = self.next.max(position + 1);
        self.kept.push_back((position, size));
        self.bytes += size;
    }
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
    /// Everything below `position` is covered: it may be cut. `None` if nothing is below.
    pub fn cut(&mut self, position: u64) -> Option<u64> {
        let mut cut = None;
        while let Some(&(first, size)) = self.kept.front()
            && first < position
        {
            self.kept.pop_front();
            self.bytes -= size;
            cut = Some(position);
        }
        cut
    }
}

/// Packs a round's records of one store.
///
/// # Panics
/// Never: log records serialize.
#[must_use]
pub fn pack(records: &[(Shard, Record)]) -> Bytes {
    encode_as(LOG_VERSION, records)
}

/// Why a log record is not to be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    #[error(
        "log record {position} of the {store} store has format version {found}, and this kassa knows {LOG_VERSION}: \
         start the pod with the kassa that wrote it"
    )]
    Version { store: Module, position: u64, found: u8 },
    #[error(
        "log record {position} of the {store} store does not decode: refill this pod under a new disk id"
    )]
    Undecodable { store: Module, position: u64 },
}

/// The records that [`pack`] packed.
///
/// # Errors
/// If the record is of another version, or does not decode.
pub fn unpack(store: Module, position: u64, packed: &[u8]) -> Result<Vec<(Shard, Record)>, LogError> {
    match packed.split_first() {
        Some((LOG_VERSION_OLDEST..=LOG_VERSION, body)) => {
            postcard::from_bytes(body).map_err(|_| LogError::Undecodable { store, position })
        }
        Some((&found, _)) => Err(LogError::Version { store, position, found }),
        None => Err(LogError::Undecodable { store, position }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_kassa_logged_is_read_and_what_a_newer_one_did_is_refused() {
        let read = |version| {
            let mut packed = pack(&[]).to_vec();
            packed[0] = version;
            unpack(Module::Payment, 7, &packed)
        };
        for version in LOG_VERSION_OLDEST..=LOG_VERSION {
            assert_eq!(read(version).map(|records| records.len()), Ok(0));
        }
        for found in [LOG_VERSION_OLDEST - 1, LOG_VERSION + 1] {
            let refused = LogError::Version { store: Module::Payment, position: 7, found };
            assert_eq!(read(found).map(|records| records.len()), Err(refused));
        }
    }
}
