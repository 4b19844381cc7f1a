//! The words of the protocol: what is agreed on, what is logged, what is said, what is reported.

use crate::effects::Effects;
use crate::ids::{Ballot, PodId};
use crate::time::ShardTime;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// What a step of a [`super::Replica`] asks for.
pub type Fx = Effects<Record, Message, Event>;

/// One value of the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// The shard's time at this entry, as its proposer stamped it.
    pub time: ShardTime,
    /// The ballot that first proposed it. A later leader that recovers the entry keeps it, so an entry
    /// whose origin is below the highest `Lead` applied comes from a leader deposed in between.
    pub origin: Ballot,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Body {
    /// A leader's first entry of its own. Everything that it recovered lies before it.
    Lead(Ballot),
    /// What the layer above proposed; empty where a gap was filled.
    Commands(Bytes),
}

/// A replica's position, stored with a checkpoint and handed on with a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Durable {
    /// Nothing below it is promised or accepted any more.
    pub promised: Ballot,
    /// The index of the last entry that the tables reflect.
    pub applied: u64,
    /// The shard's time at `applied`.
    pub time: ShardTime,
    /// The highest `Lead` at or below `applied`.
    pub lead: Ballot,
}

/// What goes into the pod's log, and comes back by `recover`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Record {
    Promised {
        ballot: Ballot,
    },
    /// `applied` is what this replica had applied by then, so what it last accepted up to there is
    /// chosen: it lets a restart apply at once, and costs no record of its own.
    Accepted {
        ballot: Ballot,
        index: u64,
        applied: u64,
        entry: Entry,
    },
    /// An entry learnt as chosen from a peer's log; all before it was applied by then.
    Chosen {
        index: u64,
        entry: Entry,
    },
    /// A snapshot at this position replaced the tables; logged in the same batch as the last of it.
    Installed(Durable),
}

/// What replicas of one shard say to each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Message {
    /// A voter that lost the leader asks whether the others have, too. `ballot`: its highest promise.
    Canvass {
        ballot: Ballot,
        poll: u64,
        applied: u64,
    },
    /// `ballot` is the answering voter's highest promise; `leader` whom it hears, if it refuses.
    Canvassed {
        ballot: Ballot,
        poll: u64,
        granted: bool,
        applied: u64,
        leader: Option<PodId>,
    },
    /// Phase 1: promise `ballot`, and say what you accepted from index `from` on.
    Prepare {
        ballot: Ballot,
        from: u64,
    },
    /// All up to `applied` is chosen; `tail` is what is accepted above it (index, ballot, entry) from
    /// the index asked for, up to `next` if it did not fit one message.
    Promise {
        ballot: Ballot,
        applied: u64,
        tail: Vec<(u64, Ballot, Entry)>,
        next: Option<u64>,
    },
    /// A message of `ballot` was refused.
    Reject {
        ballot: Ballot,
        promised: Ballot,
    },
    /// Phase 2. `start` is the first index proposed in `ballot`: all before it is chosen. Also a
    /// heartbeat.
    Accept {
        ballot: Ballot,
        start: u64,
        index: u64,
        committed: u64,
        entry: Entry,
    },
    /// Everything of `ballot` up to `accepted` is on this replica's disk. Also answers a heartbeat.
    Accepted {
        ballot: Ballot,
        accepted: u64,
        applied: u64,
    },
    /// `Accepted` of a replica that joins: what it says of its disk is true and counts for nothing.
    Joining {
        ballot: Ballot,
        accepted: u64,
        applied: u64,
    },
    /// An `Accept` came that does not follow on `accepted`: something was lost on the way.
    Missing {
        ballot: Ballot,
        accepted: u64,
    },
    Heartbeat {
        ballot: Ballot,
        committed: u64,
    },
    /// A read-index round: is `ballot` still the highest that you have promised?
    Read {
        ballot: Ballot,
        round: u64,
    },
    /// Yes, for this round and all before it.
    ReadOk {
        ballot: Ballot,
        round: u64,
    },
    /// Send the chosen entries from index `from` on.
    CatchUp {
        ballot: Ballot,
        from: u64,
    },
    /// Chosen entries from index `from` on, as many as fit; the sender has applied up to `applied`.
    Chosen {
        ballot: Ballot,
        from: u64,
        entries: Vec<Entry>,
        applied: u64,
    },
    /// The leader of `ballot` would give its office to the receiver, which is preferred.
    Offer {
        ballot: Ballot,
    },
    /// The preferred leader reaches a majority and would take it.
    Ready {
        ballot: Ballot,
    },
    /// The leader of `ballot` steps down for the receiver, which should stand at once.
    Handover {
        ballot: Ballot,
        committed: u64,
    },
}

/// For the layer above, in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The `Lead` of this ballot is applied: this replica serves from now on.
    Leading { ballot: Ballot },
    /// No longer leads or stands: what it had queued, proposed or asked is void or in doubt. Once a fall.
    Deposed,
    /// Apply it. In order, exactly once and without gaps since the checkpoint or the last snapshot.
    Chosen { index: u64, entry: Entry },
    /// The read-index round of this ticket is done, and everything it must see has been reported.
    Passed { ticket: u64 },
    /// `peer` is behind what this replica still has of the log: send it a snapshot.
    SnapshotWanted { peer: PodId },
    /// This replica joined and is whole from now on: to be checkpointed before anything that it sends.
    Whole,
}

impl Message {
    /// The ballot that the message speaks of; its epoch is the sender's.
    #[must_use]
    pub const fn ballot(&self) -> Ballot {
        match self {
            Self::Canvass { ballot, .. }
            | Self::Canvassed { ballot, .. }
            | Self::Prepare { ballot, .. }
            | Self::Promise { ballot, .. }
            | Self::Reject { ballot, .. }
            | Self::Accept { ballot, .. }
            | Self::Accepted { ballot, .. }
            | Self::Joining { ballot, .. }
            | Self::Missing { ballot, .. }
            | Self::Heartbeat { ballot, .. }
            | Self::Read { ballot, .. }
            | Self::ReadOk { ballot, .. }
            | Self::CatchUp { ballot, .. }
            | Self::Chosen { ballot, .. }
            | Self::Offer { ballot }
            | Self::Ready { ballot }
            | Self::Handover { ballot, .. } => *ballot,
        }
    }
}

impl Entry {
    /// What it takes in memory and in a message, about.
    #[must_use]
    pub const fn weight_bytes(&self) -> usize {
        match &self.body {
            Body::Lead(_) => ENTRY_OVERHEAD_BYTES,
            Body::Commands(commands) => ENTRY_OVERHEAD_BYTES + commands.len(),
        }
    }
}

const ENTRY_OVERHEAD_BYTES: usize = 96;
