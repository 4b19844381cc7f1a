//! Words and messages.

use crate::ids::{Ballot, OpId, PodId};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// One operation of a set. What its body means is nothing to its replication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    pub id: OpId,
    pub body: Bytes,
}

/// What merging did to an entity's set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merged {
    pub changed: bool,
    /// The entity's digest before and after; 0 for an empty set.
    pub before: u64,
    pub after: u64,
}

/// The sets of one shard, as their keeper holds them. Merging must be commutative, associative and
/// idempotent, and a digest independent of the order of merging.
pub trait Sets {
    fn merge(&mut self, entity: &[u8], items: &[Item]) -> Merged;
    /// All items of the entity: merged into a set, they make it no less than this one.
    fn items(&mut self, entity: &[u8]) -> Vec<Item>;
    /// The entity's digest; 0 for an empty set.
    fn digest(&mut self, entity: &[u8]) -> u64;
    /// The entities of a bucket (see [`bucket_of`]) and their digests, in order of entity.
    fn list(&mut self, bucket: u8) -> Vec<(Bytes, u64)>;
}

/// Buckets of entities by which replicas compare their sets.
pub const BUCKETS: u8 = 64;

const BUCKET_SEED: u64 = 0x6275_636b;

/// The bucket that an entity is in.
#[must_use]
pub fn bucket_of(entity: &[u8]) -> u8 {
    let bucket = xxh3_64_with_seed(entity, BUCKET_SEED) % u64::from(BUCKETS);
    u8::try_from(bucket).expect("there are fewer than 256 buckets")
}

/// What the digests of an entity's items start from. `life` keeps sets apart that replace each other.
#[must_use]
pub fn entity_seed(entity: &[u8], life: u64) -> u64 {
    xxh3_64_with_seed(entity, life)
}

/// One item's part in its entity's digest, which is the wrapping sum over all items.
#[must_use]
pub fn item_digest(entity_seed: u64, id: OpId, body: &[u8]) -> u64 {
    xxh3_64_with_seed(body, xxh3_64_with_seed(&id.0.to_be_bytes(), entity_seed))
}

/// What replicas say to each other.
///
/// | message | from → to | says |
/// |---|---|---|
/// | Update | journal's owner → peer | whoever holds my journal up to `prev` now holds it up to `seq` |
/// | Ack | peer → journal's owner | I hold your journal up to `seq`, on disk |
/// | Behind | journal's owner → peer | my journal no longer has what you lack of it: compare |
/// | Stored | to itself | the edits up to here, and so many merges of others', are on disk |
/// | Compare | any → any | my digests of these buckets; which differ from yours? |
/// | Compared | answer | the entities of those that do, and which buckets are left; under which ballot I own |
/// | NotUnder | answer | I have not promised that ballot, or a newer one |
/// | Want | any → any | send me these entities |
/// | Contents | answer | their items, of the first ones asked for |
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    Update { seq: u64, prev: u64, sets: Vec<(Bytes, Vec<Item>)> },
    Ack { seq: u64, under: Ballot },
    Behind { seq: u64 },
    Stored { seq: u64, merged: u64 },
    Compare { round: u64, ballot: Option<Ballot>, buckets: Vec<(u8, u64)> },
    Compared { round: u64, seq: u64, owning: Option<Ballot>, entities: Vec<(Bytes, u64)>, more: Vec<u8> },
    NotUnder { round: u64, promised: Ballot },
    Want { round: u64, entities: Vec<Bytes> },
    Contents { round: u64, sets: Vec<(Bytes, Vec<Item>)> },
}

/// What goes to the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// This replica began to run for the so-many-th time.
    Started { start: u64 },
    /// An edit taken here, with its place in the journal.
    Edited { seq: u64, entity: Bytes, items: Vec<Item> },
    /// What a peer's journal has up to `seq`, from where it was held before.
    Taken { from: PodId, seq: u64, sets: Vec<(Bytes, Vec<Item>)> },
    /// Items that came out of the order of their journal, or by comparison.
    Merged { entity: Bytes, items: Vec<Item> },
    /// After a comparison: the peer's journal up to here is held.
    Compared { from: PodId, seq: u64 },
    /// This replica joined, and holds all that was acknowledged before this epoch.
    Whole { epoch: u32 },
}

/// For the layer above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The edit may be answered: a majority has it on disk, each under no newer ballot than its owner's;
    /// or no majority can be reached, and this pod has it on disk.
    Durable { seq: u64 },
    /// The edit was taken by an owner that has been replaced: it is here, and will spread, but must
    /// not be answered as an owner's. To be asked of the new owner, under the same id.
    Fenced { seq: u64 },
    /// What was read when this ticket was given is durable.
    Passed { ticket: u64 },
    /// The owner that read has been replaced: the new one is to be asked.
    Void { ticket: u64 },
    /// The union of a majority is here, each at or after its promise: the owner may serve.
    Owning { ballot: Ballot },
}

/// What a checkpoint of the sets stores with them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durable {
    pub start: u64,
    /// The epoch in which this replica became whole, if it once joined. Stored apart, by whoever joined.
    #[serde(skip)]
    pub whole: u32,
    pub seq: u64,
    /// Entries up to this one are no longer in the journal.
    pub journal_floor: u64,
    pub journal: Vec<(u64, Bytes)>,
    pub cursors: Vec<Cursor>,
    pub digests: Vec<u64>,
}

/// Where this replica stands with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    pub peer: PodId,
    /// Which disk of the peer acknowledged: 0 for its first. Stored apart, where disks were replaced.
    #[serde(skip)]
    pub disk: u32,
    /// Up to where this replica holds the peer's journal.
    pub received: u64,
    /// Up to where the peer has acknowledged this replica's journal.
    pub acked: u64,
}
