//! What a module is to the layer that replicates it: commands in, outcomes and record changes out.

use bytes::Bytes;
use kassa_protocols::ids::Ballot;
use kassa_protocols::tables::View;
use kassa_protocols::time::ShardTime;
use serde::{Serialize, de::DeserializeOwned};
use std::cell::RefCell;

/// What a command may know besides the records: all of it replicated, none of it a clock.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The shard's time of the entry that holds the command.
    pub time: ShardTime,
    /// The highest `Lead` applied before it; on read/write quorums the coordinator's own ballot.
    pub lead: Ballot,
}

/// One module's transition function: pure and deterministic in its arguments and the records.
///
/// What it keeps besides the records is derived from them, and made anew by [`Machine::rebuild`].
pub trait Machine: Default {
    type Command: Clone + std::fmt::Debug + Serialize + DeserializeOwned;
    type Outcome: Clone + std::fmt::Debug;

    /// Runs one command. All checks come before the first change: a refusal changes nothing.
    fn execute(&mut self, context: Context, command: &Self::Command, view: &mut View<'_>) -> Self::Outcome;

    /// Derives what is kept besides the records from the records, as `view` sees them.
    fn rebuild(&mut self, view: &View<'_>);
}

/// The format of every record below; a reader of an older version must still read it.
const RECORD_VERSION: u8 = 1;

/// What the buffer below keeps between two uses at the most; a larger record is rare.
const SCRATCH_BYTES_MAX: usize = 1 << 20;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A record as stored: its version, then postcard.
///
/// # Panics
/// Never: postcard serializes every type used here into a growing buffer.
#[must_use]
pub fn encode<T: Serialize + ?Sized>(record: &T) -> Bytes {
    encode_as(RECORD_VERSION, record)
}

/// A record of a format of its own: its version, then postcard. Serialized into a buffer that is used again
/// and again, since to grow a new one for every record costs more than to copy it once.
///
/// # Panics
/// Never: postcard serializes every type used here into a growing buffer.
#[must_use]
pub fn encode_as<T: Serialize + ?Sized>(version: u8, record: &T) -> Bytes {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = std::mem::take(scratch);
        buffer.clear();
        buffer.push(version);
        let buffer = postcard::to_extend(record, buffer).expect("records serialize");
        let bytes = Bytes::copy_from_slice(&buffer);
        if buffer.capacity() <= SCRATCH_BYTES_MAX {
            *scratch = buffer;
        }
        bytes
    })
}

/// The record that [`encode`] made.
///
/// # Panics
/// If it is of another version or does not decode: storage has verified its checksum and the store's
/// format, so that this is a bug, and serving on from a guess would be worse.
#[must_use]
pub fn decode<T: DeserializeOwned>(stored: &[u8]) -> T {
    let (version, body) = stored.split_first().expect("a stored record is not empty");
    assert!(
        *version == RECORD_VERSION,
        "a record has format version {version}, and this kassa knows {RECORD_VERSION}: start the pod with the kassa \
         that wrote it"
    );
    postcard::from_bytes(body).expect("a record that passed its checksum decodes")
}
