//! The form of records and keys.
//!
//! Every batch begins with its [`Header`], in front of the log record or, where a batch has none, in
//! a record of its own, the head. It numbers the batches without gaps, so that a lost one is noticed,
//! and says what else must be there. Table values carry nothing of ours: they are covered by the
//! checksums of the journal's batches, of whole table files (checked at open) and of their blocks
//! (checked at each read).

/// Keyspaces, and the ids fjall gives them in a database that creates them in this order.
pub const LOG: &str = "log";
pub const TABLES: &str = "tables";
pub const META_ID: u64 = 0;
pub const LOG_ID: u64 = 1;
pub const TABLES_ID: u64 = 2;

/// The key of the head in `log`, behind all positions.
pub const HEAD_KEY: [u8; 9] = [0xff; 9];

/// The key in `tables` of the number of the last batch that changed them. A value, and never deleted:
/// a batch of deletions alone would leave no trace of its sequence number after a compaction.
/// No shard has the number 65,535.
pub const TABLES_HEAD_KEY: [u8; 2] = [0xff; 2];

/// What precedes each log record, and is all of a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The batch's number: 1, 2, 3 …
    pub commit: u64,
    /// The newest batch known to be on the disk when this one was written.
    pub synced: u64,
    /// The lowest position that the log holds after this batch; what is below has been cut.
    pub first: u64,
    /// A sequence number of fjall above those of all earlier batches, and not above this one's own.
    pub seqno_floor: u64,
    /// The same of the previous batch: a file that reaches it holds that batch. 0 if there was none.
    pub previous_seqno: u64,
    /// The same of the newest earlier batch that changed tables.
    pub tables_seqno: u64,
    /// The newest batch that changed tables, this one included; 0 if there was none.
    pub tables_commit: u64,
}

const FIELDS: usize = 7;
pub const HEADER_BYTES: usize = 8 * FIELDS;

impl Header {
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let fields: [u64; FIELDS] = [
            self.commit,
            self.synced,
            self.first,
            self.seqno_floor,
            self.previous_seqno,
            self.tables_seqno,
            self.tables_commit,
        ];
        for (slot, field) in bytes.chunks_exact_mut(8).zip(fields) {
            slot.copy_from_slice(&field.to_be_bytes());
        }
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let (fields, _) = bytes.as_chunks::<8>();
        let field = |n: usize| u64::from_be_bytes(fields[n]);
        Some(Self {
            commit: field(0),
            synced: field(1),
            first: field(2),
            seqno_floor: field(3),
            previous_seqno: field(4),
            tables_seqno: field(5),
            tables_commit: field(6),
        })
    }
}

/// The key of a log record.
pub fn log_key(position: u64) -> [u8; 8] {
    position.to_be_bytes()
}

/// The key of a table record: shard, then key, so that a shard's records lie together.
pub fn table_key(shard: u16, key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SHARD_BYTES + key.len());
    bytes.extend_from_slice(&shard.to_be_bytes());
    bytes.extend_from_slice(key);
    bytes
}

pub const SHARD_BYTES: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_header_survives_its_encoding(fields: [u64; FIELDS]) {
            let bytes = fields.map(u64::to_be_bytes).concat();
            prop_assert_eq!(&Header::decode(&bytes).unwrap().encode()[..], &bytes[..]);
        }

        #[test]
        fn table_keys_order_as_shard_and_key(a: (u16, Vec<u8>), b: (u16, Vec<u8>)) {
            prop_assert_eq!(table_key(a.0, &a.1).cmp(&table_key(b.0, &b.1)), a.cmp(&b));
        }

        #[test]
        fn log_keys_order_as_positions_and_before_the_head(a: u64, b: u64) {
            prop_assert_eq!(log_key(a).cmp(&log_key(b)), a.cmp(&b));
            prop_assert!(log_key(a)[..] < HEAD_KEY[..]);
        }
    }
}
