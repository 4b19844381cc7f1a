//! The receipt: what a checkout charged. Payment keeps it with the charge, and every replica of the order
//! gets it from there.

use super::money::Money;
use super::request::ItemId;
use kassa_protocols::ids::{Incarnation, OpId, ShardNo, TxnId};
use serde::{Deserialize, Serialize};

/// The refunded charge that edits build on; `None` before the first.
pub type Generation = Option<TxnId>;

/// What was charged, as it was when it was charged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub txn: TxnId,
    /// The generation that it closes.
    pub generation: Generation,
    /// In order of adding; an item that was added at two prices has a line for each.
    pub lines: Vec<ReceiptLine>,
    pub total: Money,
    /// The edits that the charge covers. Last, so that of two copies the one that has forgotten them is
    /// the bytewise smaller, and wins.
    pub covered: Vec<OpId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptLine {
    pub item: ItemId,
    pub incarnation: Incarnation,
    pub units: u64,
    pub price: Money,
    pub stock_shard: ShardNo,
}
