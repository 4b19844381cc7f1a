//! Orders: carts that are always writable, also in a partition, since nothing is sold here.
//!
//! An order is a *set of operations* (a state-based CRDT after Shapiro et al., 2011): replicas merge by
//! union, what a reader sees is a pure fold of the set. An operation's id is the hash of idempotency key,
//! method and path, so that a repeated or twice-delivered one counts once by construction; of two with one
//! id the bytewise smaller wins.
//!
//! # Generations
//! An edit names its *generation*: the refunded charge it builds on, or none. A receipt closes its
//! generation: it carries the lines that were charged and lists the edits that it covers; the other edits
//! of the generation are void for ever. After the refund, the next generation starts from its lines.
//!
//! # The normal form
//! Since receipts of an order come in the order of their transaction ids, the newest one says all there is
//! to know of the generations up to its own: of their edits only the ids are kept, and those only as long
//! as idempotency keys are. [`OrderSet`] holds nothing else, so merging is the union followed by dropping
//! what the newest receipt has made irrelevant. That is a closure, so merging stays commutative,
//! associative and idempotent, and an order's record does not grow with its history. There is no
//! waiting until all replicas hold a receipt: the merge law voids whatever a replica without it still sends.
//!
//! # Batches
//! What a batch says of an order is never stored: it is put in when an order is loaded ([`OrderStore`]).
//! Its two additions need no ids in a receipt, since no client's key can repeat them.
//!
//! # Layout
//! `set` (the lattice and its record), `fold` (what it says), `commands` (edits), `ids`, `store` (sets in a
//! shard's records, as the replication of sets wants them).

mod commands;
mod fold;
mod ids;
mod set;
mod store;
#[cfg(test)]
mod tests;

pub use commands::{ADDITIONS_MAX, EDITS_MAX, add_item, create, remove_item, view};
pub use fold::{CheckoutLines, Chunk, Line, OrderState, checkout_lines, fold};
pub use ids::{CLOSE_ID, line_id, mint_id, mint_order_id, parse_order_id, receipt_id, refund_id};
pub use set::{FORGET_AFTER, OrderSet, TIME_UNKNOWN};
pub use store::{ORDERS, OrderStore, decode_body, item_of};

use super::money::Money;
use super::receipt::{Generation, Receipt, ReceiptLine};
use super::request::{ItemId, UserId};
use kassa_protocols::ids::{OpId, TxnId};
use serde::{Deserialize, Serialize};

/// One operation on an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    Created {
        user: UserId,
    },
    Edit(Edit),
    /// The order was charged. Derived from the payment shard's state on every replica.
    Receipt(Receipt),
    /// That charge was refunded.
    Refunded {
        txn: TxnId,
    },
    /// The order was removed.
    Closed,
    /// The id alone of an edit that a receipt covers.
    Covered,
    /// The id alone of an edit that came too late for its generation.
    Void,
}

/// A change of the lines of one generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edit {
    pub generation: Generation,
    pub change: EditKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EditKind {
    Added {
        /// One more than the highest that its maker saw: with the operation's id, the order of adding.
        position: u32,
        item: ItemId,
        units: u64,
        /// Of one unit, as read when it was added.
        price: Money,
    },
    Removed {
        item: ItemId,
        /// How many units of which additions (or lines of the receipt built on), newest first.
        taken: Vec<(OpId, u64)>,
    },
}
