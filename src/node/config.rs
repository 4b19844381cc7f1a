//! What a node is told: who it is, who the others are, how each module is replicated.

use kassa_protocols::ids::{DiskId, PodId, Replacement};
use kassa_protocols::time::Span;
use kassa_protocols::{paxos, quorum};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How a module is replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Paxos,
    Quorum,
}

impl Protocol {
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "paxos" => Some(Self::Paxos),
            "quorum" => Some(Self::Quorum),
            _ => None,
        }
    }
}

/// How checkouts commit; the same on all pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Commit {
    /// By reservations, with the decision in the payment shard's log.
    Reserve,
    /// The textbook's two-phase commit, for comparison: it locks, and waits for its coordinator.
    Blocking,
}

impl Commit {
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "reserve" => Some(Self::Reserve),
            "blocking" => Some(Self::Blocking),
            _ => None,
        }
    }
}

/// The most pods that vote in the cluster group; the others follow its log.
pub const CLUSTER_VOTERS_MAX: usize = 5;

#[derive(Clone, Debug)]
pub struct Config {
    pub me: PodId,
    /// All pods of the cluster, this one included.
    pub pods: Vec<PodId>,
    /// The disks that the cluster formed with.
    pub disks: BTreeMap<PodId, DiskId>,
    /// Of a pod whose disk took the place of a lost one: what was replaced by then, itself included. The
    /// cluster group says what was replaced since, and to all others.
    pub replaced: BTreeMap<PodId, Replacement>,
    pub shards: u16,
    pub replicas: usize,
    /// So many of the pods hold payment and orders: the first ones ...
    pub payment_pods: usize,
    /// ... and so many hold stock: the last ones.
    pub stock_pods: usize,
    pub payment: Protocol,
    pub stock: Protocol,
    /// Replicas that must accept a write on read/write quorums.
    pub write_quorum: usize,
    pub commit: Commit,
    pub timing: Timing,
    pub limits: Limits,
    /// Makes the pod's own choices (jitter, keys of internal requests) differ between pods and runs.
    pub seed: u64,
}

/// Intervals; they decide when to ask, retry or suspect, never what is true.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    pub heartbeat: Span,
    pub election: Span,
    /// How long a question waits for an answer before it is asked again.
    pub ask_again: Span,
    /// How long a quorum of replicas is waited for before a read is asked of the coordinator.
    pub read_patience: Span,
    /// How long an order's operation waits for a leader before any replica takes it.
    pub anywhere_after: Span,
    /// The beat on which the confirmations gathered by then are sent.
    pub confirm_after: Span,
    /// The beat on which the charges finished by then are logged.
    pub finish_after: Span,
    /// How often a changed watermark is sent to a stock shard that hears nothing else.
    pub watermark_every: Span,
}

/// Bounds; each sheds or defers what is beyond it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Client requests that one pod holds at a time: past it, 429.
    pub requests_max: usize,
    /// Log bytes of a store beyond which the shard that needs the oldest is checkpointed.
    pub log_bytes_max: usize,
    /// Records of a shard in memory beyond which it is checkpointed.
    pub dirty_max: usize,
    /// Confirmations of one stock shard sent in one message at the most.
    pub confirm_batch_max: usize,
    /// What a shard keeps in memory of its log, on Paxos and on read/write quorums, for replicas that lag:
    /// those that lag further get a copy.
    pub paxos_history_bytes_max: usize,
    pub quorum_history_bytes_max: usize,
    /// Record bytes in one part of a shard's copy, about.
    pub copy_part_bytes: usize,
    /// Parts of a copy sent and not acknowledged.
    pub copy_window: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Span::from_millis(50),
            election: Span::from_millis(250),
            ask_again: Span::from_millis(500),
            // Some round trips and fsyncs: a replica that takes longer is ill.
            read_patience: Span::from_millis(20),
            anywhere_after: Span::from_millis(1_500),
            confirm_after: Span::from_millis(25),
            finish_after: Span::from_millis(50),
            watermark_every: Span::from_millis(500),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests_max: 8_192,
            log_bytes_max: 8 << 20,
            dirty_max: 6_144,
            confirm_batch_max: 512,
            paxos_history_bytes_max: paxos::HISTORY_BYTES_MAX,
            quorum_history_bytes_max: quorum::HISTORY_BYTES_MAX,
            // Together 2 MiB: far below what a link may have queued, and nothing beside it waits for
            // more than 20 ms on a link of 1 Gbit/s; enough to keep one busy over a round trip.
            copy_part_bytes: 256 << 10,
            copy_window: 8,
        }
    }
}
