//! What pods say to each other. ARCHITECTURE.md has the table of who sends what to whom.

use super::Refill;
use crate::modules::batch::{BatchRecord, Load};
use crate::modules::payment::OrderRef;
use crate::modules::request::{ItemId, OrderId, Outcome, Refusal, Request};
use crate::modules::stock::{self, ReservedLine};
use kassa_protocols::ids::{Ballot, DiskId, Incarnation, OpId, PodId, Shard, ShardNo, TxnId};
use kassa_protocols::tables::Change;
use kassa_protocols::time::{ShardTime, Span, Time};
use kassa_protocols::{eventual, paxos, quorum};
use serde::{Deserialize, Serialize};

/// Everything that pods say to each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    Paxos {
        shard: Shard,
        message: paxos::Message,
    },
    Quorum {
        shard: Shard,
        message: quorum::Message,
    },
    Order {
        shard: ShardNo,
        message: eventual::Message,
    },
    /// A request to a shard's leader, on behalf of a client of the sender.
    Ask(Box<Question>),
    /// Its answer.
    Tell {
        id: AskId,
        stamp: Stamp,
        tell: Tell,
    },
    /// Coordinator of a checkout → coordinator of a stock shard.
    Reserve {
        shard: ShardNo,
        txn: TxnId,
        lines: Vec<(ItemId, u64)>,
        wait: bool,
        watermark: TxnId,
    },
    /// Its answer.
    Vote {
        shard: ShardNo,
        txn: TxnId,
        vote: Vote,
    },
    /// Coordinator of checkouts → coordinator of a stock shard: outcomes, many at a time.
    Resolve {
        shard: ShardNo,
        confirm: Vec<TxnId>,
        release: Vec<TxnId>,
        watermark: TxnId,
    },
    /// Its answer.
    Resolved {
        shard: ShardNo,
        txns: Vec<TxnId>,
        watermark: TxnId,
    },
    /// The receiver does not coordinate this stock shard: what was sent to it is to be sent elsewhere.
    NotCoordinator {
        shard: ShardNo,
        payment: ShardNo,
        leader: Option<PodId>,
    },
    /// Coordinator of a stock shard → a replica of the payment shard: what became of these?
    Doubt {
        payment: ShardNo,
        stock: ShardNo,
        txns: Vec<TxnId>,
        asked_by: PodId,
    },
    /// Its answer, of the leader, after a round of its own ballot that began after the question.
    Fate {
        stock: ShardNo,
        fates: Vec<(TxnId, Fate)>,
    },
    /// To be passed on to `to`, whose link to the sender is down: one hop.
    Relay {
        to: PodId,
        from: PodId,
        message: Box<Message>,
    },
    /// A part of a copy of a shard: its records, or none where there is none any more; a later part
    /// stands above an earlier. With the last, the position that all parts together are of.
    Copy {
        shard: Shard,
        copy: u64,
        part: u32,
        records: Vec<Change>,
        position: Option<Position>,
    },
    /// Its answer: all parts below this one are here, with the last of them durably taken in; or none:
    /// what came before it is not, so it has to begin anew.
    Copied {
        shard: Shard,
        copy: u64,
        next: Option<u32>,
    },
    /// Any pod → a replica of a stock shard on read/write quorums: this item as of what you have accepted?
    Read {
        shard: Shard,
        id: AskId,
        item: ItemId,
    },
    /// Its answer.
    ReadAnswer {
        id: AskId,
        shown: Box<Shown>,
    },
    /// Any pod → any pod: say something, behind the fsync of your round; with how long the sender waited for
    /// each pod that it asked before. `sent` is the sender's time.
    Ping {
        sent: Time,
        waits: Vec<(PodId, Span)>,
    },
    /// Its answer.
    Pong {
        sent: Time,
    },
    /// A pod on a new disk → all: how far it has come.
    Refilling(Box<Refill>),
    /// Coordinator of a blocking commit → itself: this decision is on the disk now.
    Decided {
        txn: TxnId,
    },
    /// Leader of a payment shard → the pod that coordinated these, which have voted yes: what became of them?
    Inquire {
        payment: ShardNo,
        txns: Vec<TxnId>,
    },
    /// Its answer, of what it knows: whether they were committed.
    Outcomes {
        payment: ShardNo,
        told: Vec<(TxnId, bool)>,
    },
}

/// An item as of what a replica has accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    pub state: quorum::ReadState,
    /// The version that last wrote any record that says what the item is.
    pub written: quorum::Version,
    pub item: Option<stock::Item>,
}

/// A question's number, unique on the pod that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AskId(pub u64);

/// What the asking pod had last heard of the shard when the request came in: fences attempts that wake
/// up late (see `node::admission`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    pub ballot: Ballot,
    /// The refusals that the leader of that ballot had made.
    pub refusals: u64,
    pub time: ShardTime,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    pub id: AskId,
    pub shard: Shard,
    pub stamp: Stamp,
    /// How long the asker will wait yet.
    pub remaining_ms: u32,
    /// For people who follow a request through the logs of several pods.
    pub trace: u64,
    pub ask: Ask,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// A client's operation. `incarnation` is that of the order it names, as its pod knows it.
    Op { request: Request, incarnation: Incarnation },
    /// `AddItem` with the price that was read.
    Add { request: Request, incarnation: Incarnation, price: crate::modules::money::Money },
    /// `pay`, `cancel` or `status` of an order by a user: the order was found where it lives.
    OfOrder { request: Request, order: OrderRef, removed: bool },
    /// Whose order is this?
    Owner { order: OrderId, incarnation: Incarnation },
    /// An order operation at any replica, since no leader can be reached.
    Anywhere { request: Request, incarnation: Incarnation, price: Option<crate::modules::money::Money> },
    /// Cluster group: log this batch.
    Load { key: OpId, load: Load },
    /// Cluster group: every shard has logged it.
    Loaded { incarnation: Incarnation },
    /// Cluster group: a read-index round, then the newest batch of orders that covers the index.
    OrderBatch { index: u64 },
    /// A shard of a module: log this batch if you have not.
    Log { batch: BatchRecord },
    /// Cluster group: the pod holds all of its shards on this disk.
    Whole { pod: PodId, disk: DiskId },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tell {
    Outcome(Outcome),
    /// Ask the leader, if the receiver knows one.
    NotLeader {
        leader: Option<PodId>,
    },
    /// Stamp it anew, if its client is still there.
    Stale,
    /// A newer batch covers the order: look again.
    Overwritten {
        batch: Option<BatchRecord>,
    },
    Owner {
        order: OrderRef,
        removed: bool,
    },
    Batch(BatchRecord),
    NoBatch,
    Done,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Vote {
    Granted(Vec<ReservedLine>),
    Busy,
    Refused(Refusal),
    Fenced,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// Charged: confirm.
    Charged,
    InFlight,
    /// Never charged: release.
    Aborted,
}

/// Where a copy of a shard was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Position {
    Paxos(paxos::Durable),
    Quorum(quorum::Snapshot),
}

/// A log record of one shard, as it lies on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    Paxos(paxos::Record),
    Quorum(quorum::Record),
    Order(eventual::Record),
    /// A commit that this pod has decided, alone: of no other replica.
    Decided(TxnId),
}
