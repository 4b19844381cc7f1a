//! Ids that are derived, never drawn: a retry finds what the first attempt made.

use crate::modules::request::{OrderId, UserId};
use kassa_protocols::ids::{OpId, ShardNo, TxnId};
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Keeps hashes of different kinds apart.
const CREATED_SEED: u64 = 1;
const ORDER_SEED: u64 = 2;
const RECEIPT_SEED: u64 = 3;
const REFUND_SEED: u64 = 4;
const LINE_SEED: u64 = 5;

/// Hexadecimal digits of a hash in an id.
const HASH_DIGITS: usize = 32;

/// The id of a created user or item: never a batch index, which has at most seven characters.
#[must_use]
pub fn mint_id(key: OpId) -> String {
    format!("{:032x}", xxh3_128_with_seed(&key.0.to_be_bytes(), CREATED_SEED))
}

/// The id of a created order: the number of its user's shard, so that any pod can route by it, and a hash.
#[must_use]
pub fn mint_order_id(shard: ShardNo, user: &UserId, key: OpId) -> OrderId {
    let mut input = Vec::with_capacity(16 + user.0.len());
    input.extend_from_slice(&key.0.to_be_bytes());
    input.extend_from_slice(user.0.as_bytes());
    OrderId(format!("{:02}-{:032x}", shard.0, xxh3_128_with_seed(&input, ORDER_SEED)).into())
}

/// The shard that a created order's id names; `None` if no order was ever created under such an id.
#[must_use]
pub fn parse_order_id(id: &str) -> Option<ShardNo> {
    let (shard, hash) = id.split_once('-')?;
    let digits = |text: &str, digit: fn(&u8) -> bool| text.as_bytes().iter().all(digit);
    let hex = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    let plain = match shard.len() {
        2 => true,
        3..=5 => !shard.starts_with('0'),
        _ => false,
    };
    if !plain || !digits(shard, u8::is_ascii_digit) || hash.len() != HASH_DIGITS || !digits(hash, hex) {
        return None;
    }
    shard.parse().ok().map(ShardNo)
}

/// The id of an order's removal, of which there is one.
pub const CLOSE_ID: OpId = OpId(u128::MAX);

/// The id of the receipt of a charge: the same on every replica that derives it.
#[must_use]
pub fn receipt_id(txn: TxnId) -> OpId {
    txn_hash(txn, 0, RECEIPT_SEED)
}

/// The id of the refund of a charge.
#[must_use]
pub fn refund_id(txn: TxnId) -> OpId {
    txn_hash(txn, 0, REFUND_SEED)
}

/// The name, for removals, of a line of the receipt that a generation builds on.
#[must_use]
pub fn line_id(txn: TxnId, line: u32) -> OpId {
    txn_hash(txn, line, LINE_SEED)
}

fn txn_hash(txn: TxnId, k: u32, seed: u64) -> OpId {
    let mut input = [0; 27];
    input[..2].copy_from_slice(&txn.shard.0.to_be_bytes());
    input[2..6].copy_from_slice(&txn.ballot.epoch.to_be_bytes());
    input[6..14].copy_from_slice(&txn.ballot.round.to_be_bytes());
    input[14] = txn.ballot.pod;
    input[15..23].copy_from_slice(&txn.n.to_be_bytes());
    input[23..].copy_from_slice(&k.to_be_bytes());
    OpId(xxh3_128_with_seed(&input, seed))
}

/// The name, for removals, of one of the two additions that a batch makes to its order.
pub(super) const fn batch_line_id(k: u128) -> OpId {
    OpId(k)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::request::batch_index;

    #[test]
    fn created_ids_are_no_batch_ids_and_name_their_shard() {
        for i in 0..1_000_u128 {
            let id = mint_order_id(ShardNo(23), &"u".into(), OpId(i));
            assert_eq!(parse_order_id(id.as_str()), Some(ShardNo(23)), "{id}");
            assert_eq!(id.index(), None);
            assert_eq!(batch_index(&mint_id(OpId(i))), None);
        }
        let id = mint_order_id(ShardNo(1_234), &"u".into(), OpId(1));
        assert_eq!(parse_order_id(id.as_str()), Some(ShardNo(1_234)));
        assert_eq!(id, mint_order_id(ShardNo(1_234), &"u".into(), OpId(1)));
        assert_ne!(id, mint_order_id(ShardNo(1_234), &"v".into(), OpId(1)));
        assert_ne!(id, mint_order_id(ShardNo(1_234), &"u".into(), OpId(2)));
    }

    #[test]
    fn other_texts_are_no_created_order() {
        let hash = "0".repeat(32);
        for (text, shard) in [
            (format!("07-{hash}"), Some(ShardNo(7))),
            (format!("7-{hash}"), None),
            (format!("007-{hash}"), None),
            (format!("99999-{hash}"), None),
            (format!("+7-{hash}"), None),
            (format!("07-{}", &hash[1..]), None),
            (format!("07-{}A", &hash[1..]), None),
            (format!("07{hash}"), None),
            ("17".to_owned(), None),
            (String::new(), None),
            (format!("-{hash}"), None),
        ] {
            assert_eq!(parse_order_id(&text), shard, "{text}");
        }
    }
}
