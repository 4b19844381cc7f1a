//! What clients ask and what they are told: the contract's operations, free of HTTP.

use super::disks::NotReplaced;
use super::money::Money;
use kassa_protocols::ids::{DiskId, OpId, PodId, Replacement};
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub Box<str>);
        impl $name {
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
            /// The batch index that this id names, if it is one: plain decimal, no leading zero.
            #[must_use]
            pub fn index(&self) -> Option<u64> {
                batch_index(&self.0)
            }
        }
        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }
        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(/** A user's id. */ UserId);
id!(/** An item's id. */ ItemId);
id!(/** An order's id: of a created one, its shard and a hash; of a batch, its index. */ OrderId);

/// The largest count of stock or units: what a JSON number carries exactly, 2^53−1.
pub const UNITS_MAX: u64 = (1 << 53) - 1;
/// The most entities of one `batch_init`.
pub const BATCH_MAX: u64 = 1_000_000;
/// The longest id in bytes.
pub const ID_BYTES_MAX: usize = 128;

/// One operation of the contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    CreateOrder {
        user: UserId,
    },
    RemoveOrder {
        order: OrderId,
    },
    AddItem {
        order: OrderId,
        item: ItemId,
        units: u64,
    },
    RemoveItem {
        order: OrderId,
        item: ItemId,
        units: u64,
    },
    FindOrder {
        order: OrderId,
    },
    Checkout {
        order: OrderId,
    },
    LoadOrders {
        n: u64,
        n_items: u64,
        n_users: u64,
        item_price: Money,
    },
    CreateItem {
        price: Money,
    },
    FindItem {
        item: ItemId,
    },
    AddStock {
        item: ItemId,
        units: u64,
    },
    SubtractStock {
        item: ItemId,
        units: u64,
    },
    LoadItems {
        n: u64,
        stock: u64,
        price: Money,
    },
    CreateUser,
    FindUser {
        user: UserId,
    },
    AddFunds {
        user: UserId,
        amount: Money,
    },
    /// A plain debit.
    Pay {
        user: UserId,
        amount: Money,
    },
    /// Pays one order.
    PayOrder {
        user: UserId,
        order: OrderId,
        amount: Money,
    },
    /// Refunds what was paid for one order.
    CancelPayment {
        user: UserId,
        order: OrderId,
    },
    PaymentStatus {
        user: UserId,
        order: OrderId,
    },
    LoadUsers {
        n: u64,
        credit: Money,
    },
    /// An operator's: the disk of a pod is lost, and an empty one takes its place.
    Replace {
        pod: PodId,
        old: DiskId,
        new: DiskId,
    },
}

/// A client's request: the operation, and the identity under which it takes effect once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub op: Op,
    /// Hash of idempotency key, method and path; of no meaning to a read.
    pub key: OpId,
}

/// An order as `find` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderView {
    pub order: OrderId,
    pub user: UserId,
    pub paid: bool,
    /// One pair per item, in order of first adding.
    pub items: Vec<(ItemId, u64)>,
    pub total_cost: Money,
}

/// What a request that took effect is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    OrderCreated {
        order: OrderId,
    },
    OrderRemoved {
        order: OrderId,
    },
    Order(OrderView),
    CheckedOut {
        order: OrderId,
        total_cost: Money,
    },
    ItemCreated {
        item: ItemId,
    },
    Item {
        item: ItemId,
        stock: u64,
        price: Money,
    },
    Stock {
        item: ItemId,
        stock: u64,
    },
    UserCreated {
        user: UserId,
    },
    User {
        user: UserId,
        credit: Money,
    },
    /// `add_funds`.
    Funds {
        user: UserId,
        credit: Money,
    },
    /// `pay` and `cancel`.
    Credit {
        user: UserId,
        credit: Money,
    },
    PaymentStatus {
        paid: bool,
    },
    Loaded {
        n: u64,
    },
    Replaced(Replacement),
}

/// Why nothing was changed: an outcome of its own, not an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The text says what is wrong with the amount, for people.
    BadAmount(String),
    OrderNotFound(OrderId),
    ItemNotFound(ItemId),
    UserNotFound(UserId),
    PaymentNotFound,
    OutOfStock(ItemId),
    InsufficientCredit,
    OrderPaid(OrderId),
    PaymentMismatch,
    NotReplaced(NotReplaced),
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Done(Answer),
    Refused(Refusal),
    /// Shed at once because a bound was reached; nothing was done.
    Overloaded,
    /// No majority could be reached before the deadline, and nothing was sent on; nothing was done.
    Unavailable,
    /// The deadline passed after the request was sent on; a repeat with the same key tells.
    Unknown,
}

impl Op {
    /// The order that an operation names, if any.
    #[must_use]
    pub const fn order(&self) -> Option<&OrderId> {
        match self {
            Self::RemoveOrder { order }
            | Self::AddItem { order, .. }
            | Self::RemoveItem { order, .. }
            | Self::FindOrder { order }
            | Self::Checkout { order }
            | Self::PayOrder { order, .. }
            | Self::CancelPayment { order, .. }
            | Self::PaymentStatus { order, .. } => Some(order),
            Self::CreateOrder { .. }
            | Self::LoadOrders { .. }
            | Self::CreateItem { .. }
            | Self::FindItem { .. }
            | Self::AddStock { .. }
            | Self::SubtractStock { .. }
            | Self::LoadItems { .. }
            | Self::CreateUser
            | Self::FindUser { .. }
            | Self::AddFunds { .. }
            | Self::Pay { .. }
            | Self::LoadUsers { .. }
            | Self::Replace { .. } => None,
        }
    }

    /// Whether it changes nothing.
    #[must_use]
    pub const fn is_read(&self) -> bool {
        matches!(
            self,
            Self::FindOrder { .. }
                | Self::FindItem { .. }
                | Self::FindUser { .. }
                | Self::PaymentStatus { .. }
        )
    }
    /// Whether it loads a batch (and so has the longer deadline).
    #[must_use]
    pub const fn is_load(&self) -> bool {
        matches!(self, Self::LoadOrders { .. } | Self::LoadItems { .. } | Self::LoadUsers { .. })
    }
}

/// The index that a batch id names: plain decimal without a leading zero, below [`BATCH_MAX`].
#[must_use]
pub fn batch_index(id: &str) -> Option<u64> {
    let plain = !id.is_empty() && id.len() <= 7 && id.bytes().all(|b| b.is_ascii_digit());
    if !plain || (id.len() > 1 && id.starts_with('0')) {
        return None;
    }
    id.parse().ok().filter(|&i| i < BATCH_MAX)
}
