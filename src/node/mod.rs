//! One pod as a pure composition: `(input, time) → effects`.
//!
//! The same code runs in the binary, under `runtime`'s event loop, and in the simulator. The loop
//! around it, wherever it runs, does this and nothing else:
//!
//! 1. wait for input until `next_wakeup`, drain what is there, *then* read the clock;
//! 2. `step` each input (frames to oneself first), `tick`, then `flush` into one [`Round`];
//! 3. hand `early` to the links and `replies` to the clients: they rest on what was durable before this
//!    round; make `commits` durable, in order (stores may be written side by side unless a commit is
//!    `after_others`); abort the process if that fails;
//! 4. hand `late` to the links; a frame to oneself is the first input of the next round.
//!
//! After each step it asks `take_replaced`: from then on frames of a disk that was replaced are not handed over.

mod admission;
mod blocking;
mod checkout;
mod checkpoint;
mod cluster;
pub mod config;
mod copy;
mod copying;
mod group;
mod ingress;
mod locks;
pub mod log;
mod message;
mod orders;
mod outbox;
mod pace;
mod parked;
mod payment;
mod pod;
mod questions;
mod reads;
mod recover;
mod replace;
mod requests;
mod resolve;
mod routes;
mod status;
mod stock;

pub use config::Config;
pub use message::Message;
pub use pod::Node;
pub use replace::Replace;

use crate::modules::request::{Outcome, Request};
use bytes::Bytes;
use kassa_protocols::ids::{Ballot, Module, PodId, Shard};
use kassa_protocols::tables::Change;
use kassa_protocols::time::Time;
use serde::{Deserialize, Serialize};

/// A client's request on this pod, as the api numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClientId(pub u64);

/// What can happen to a pod.
#[derive(Debug)]
pub enum Input {
    /// A client asks; `deadline` is when its wait ends.
    Request { client: ClientId, request: Request, deadline: Time },
    /// A client went away: its wait ends, what it began does not.
    Gone { client: ClientId },
    /// One frame of a peer (or of this pod itself), in the order sent.
    Frame { from: PodId, messages: Vec<Message> },
    /// The outgoing link to a peer came up or went down; on down, what was queued on it is lost.
    Link { peer: PodId, up: bool },
}

/// What one store has to make durable in a round, as one atomic batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Order, Stock or Payment; the cluster group lives in the payment store.
    pub store: Module,
    /// The packed log record of this round, with its position (grows by one a record).
    pub log: Option<(u64, Bytes)>,
    /// Checkpointed table records.
    pub tables: Vec<(Shard, Change)>,
    /// Log records below this position are covered by checkpoints (this batch included).
    pub cut_below: Option<u64>,
    /// Whether anything waits for it: if not, it may reach the disk with a later one.
    pub sync: bool,
    /// Whether it may only begin once the commits before it in the round are durable: a payment shard's
    /// checkpoint never passes what the order store has of its receipts.
    pub after_others: bool,
}

/// What a round leaves to be done. See the module's top for the order.
#[derive(Debug, Default)]
pub struct Round {
    pub early: Vec<(PodId, Vec<Message>)>,
    pub commits: Vec<Commit>,
    pub late: Vec<(PodId, Vec<Message>)>,
    pub replies: Vec<(ClientId, Outcome)>,
}

/// What a pod knows of itself, for `status`, readiness and people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub pod: u8,
    /// This pod cannot keep up with the others: it leads nothing for long, and puts clients off to them.
    pub aside: bool,
    /// The pods that cannot, as this one sees it.
    pub lagging: Vec<u8>,
    /// Empty once the pod can answer; else why not.
    pub not_ready: Vec<String>,
    pub peers: Vec<PeerStatus>,
    pub shards: Vec<ShardStatus>,
    /// Client requests that this pod holds.
    pub requests: u64,
    /// Checkouts in flight that this pod coordinates, and charges not yet finished.
    pub checkouts: u64,
    pub unfinished: u64,
    /// Checkouts committed by this pod as coordinator since it started.
    pub committed: u64,
    /// Of the blocking commit; all 0 otherwise.
    #[serde(default)]
    pub locks: Locks,
    /// Reads that a quorum of replicas has settled for this pod since it started.
    pub reads_settled: u64,
    /// What all of it has cost. The node itself leaves it at 0: whoever carries out its rounds counts.
    #[serde(default)]
    pub cost: Cost,
    /// Pods whose disks were replaced.
    #[serde(default)]
    pub disks: Vec<DiskStatus>,
}

/// What the blocking commit keeps from others, in the shards that a pod leads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locks {
    /// Items and users that nobody else can buy, or buy with.
    pub items: u64,
    pub users: u64,
    /// Transactions among them whose outcome only another pod knows, and the pods that are waited for.
    pub in_doubt: u64,
    pub waits_for: Vec<u8>,
    /// Decisions that are on this pod's disk alone, and that others may ask for yet.
    pub decisions: u64,
}

/// What a pod has sent and written since it started; what it says to itself is not in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Frames to other pods, each of one round's messages to one of them.
    pub frames: u64,
    pub messages: u64,
    pub sent_bytes: u64,
    /// Commits that were forced to the disk, each by one fsync of one store.
    pub fsyncs: u64,
    /// What was handed to the stores, log records and tables, keys included; the stores add their own to it.
    pub written_bytes: u64,
}

/// A pod whose disk took the place of a lost one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatus {
    pub pod: u8,
    pub disk: String,
    /// How many of its disks were replaced so far.
    pub replaced: u32,
    /// Whether it holds all of its shards again.
    pub whole: bool,
    /// How far it has come, as it last said to this pod.
    pub refill: Option<Refill>,
}

/// How far a pod on a new disk has come: shards that are whole and all, by module, and what it has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refill {
    pub order: (u16, u16),
    pub stock: (u16, u16),
    pub payment: (u16, u16),
    pub cluster: (u16, u16),
    pub records: u64,
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    pub pod: u8,
    pub up: bool,
}

/// What one replica holds: at one position all of a shard's replicas have the same digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub shard: Shard,
    /// The index, or the version, that the records reflect.
    pub position: (Ballot, u64),
    pub digest: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardStatus {
    pub module: String,
    pub shard: u16,
    pub replicas: Vec<u8>,
    pub leader: Option<u8>,
    pub ballot: String,
    /// The position applied here, and the newest this pod knows to be committed.
    pub applied: u64,
    pub committed: u64,
    /// Reservations held (stock) or charges unfinished (payment).
    pub open: u64,
}
