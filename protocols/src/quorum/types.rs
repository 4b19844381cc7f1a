//! What replicas keep, log, say to each other and tell the layer above.

use crate::ids::{Ballot, PodId};
use crate::tables::Change;
use crate::time::ShardTime;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Names a write, and with it everything before it: a coordinator makes one write per `seq` of its
/// ballot, and a write names its predecessor. `seq` goes on over ballots, one more a write; ordered
/// by ballot first, so a version of a newer ballot is higher even if it replaces a longer tail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    pub ballot: Ballot,
    pub seq: u64,
}

impl Version {
    /// Before the first write.
    pub const ZERO: Self = Self { ballot: Ballot::ZERO, seq: 0 };

    /// The version of the write of `ballot` that follows `self`.
    #[must_use]
    pub const fn next(self, ballot: Ballot) -> Self {
        Self { ballot, seq: self.seq + 1 }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.ballot, self.seq)
    }
}

/// What one round of the coordinator changed: final values, at most one of a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Write {
    pub version: Version,
    /// The write that this one stands on: its predecessor's version.
    pub prev: Version,
    pub time: ShardTime,
    /// `None` deletes; the deletion is kept under `version` like any other value.
    pub records: Vec<Change>,
}

/// What a checkpoint stores beside the table records, in the same batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Durable {
    pub promised: Ballot,
    /// What the tables reflect, exactly.
    pub committed: Version,
    /// The shard time of that version.
    pub time: ShardTime,
    /// The newest version whose deletions were dropped from the tables.
    pub dropped: Version,
}

/// A log record of one replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Record {
    /// Nothing below this ballot is accepted any more.
    Promised { ballot: Ballot },
    /// A write on top of what was accepted; the tables may be restored up to `commit`.
    Write { write: Arc<Write>, commit: Version },
    /// What followed the first write's predecessor is cut and these stand in its place: one record,
    /// since the accepted version must not be lower in between.
    Splice { writes: Vec<Arc<Write>>, commit: Version },
}

/// What a replica holds, for another one to find what it lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Have {
    pub committed: Version,
    /// The versions accepted beyond it, in order.
    pub tail: Vec<Version>,
}

impl Have {
    #[must_use]
    pub fn accepted(&self) -> Version {
        self.tail.last().copied().unwrap_or(self.committed)
    }
}

/// What a coordinator says with every message that its replicas acknowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Beat {
    /// The coordinator's commit point.
    pub commit: Version,
    /// Every replica's durable table version has passed this one.
    pub floor: Version,
    /// Counts the coordinator's rounds within its ballot.
    pub round: u64,
}

/// | message | from → to | protocol |
/// |---|---|---|
/// | `Canvass`, `Canvassed` | would-be candidate ↔ replicas | election, before any ballot is used |
/// | `Prepare`, `Promise` | candidate ↔ replicas | takeover, phase 1 |
/// | `Write`, `Heartbeat`, `Ack` | coordinator ↔ replicas | replication |
/// | `CatchUp`, `Repair` | replica ↔ coordinator; candidate ↔ replica | repair |
/// | `Refuse` | replica → candidate or coordinator | a newer ballot is promised |
/// | `Handover` | coordinator → preferred one | gives the shard back |
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Message {
    /// Would you stand behind me? Binds nobody.
    Canvass {
        ballot: Ballot,
    },
    /// `lost`: this replica does not hear a coordinator either.
    Canvassed {
        ballot: Ballot,
        lost: bool,
        promised: Ballot,
    },
    Prepare {
        ballot: Ballot,
        have: Have,
    },
    /// `repair`: what the candidate lacks, if this replica has accepted more and still holds it.
    Promise {
        ballot: Ballot,
        have: Have,
        repair: Vec<Arc<Write>>,
    },
    Write {
        write: Arc<Write>,
        beat: Beat,
    },
    /// `tip` is the newest version sent before it.
    Heartbeat {
        ballot: Ballot,
        tip: Version,
        beat: Beat,
    },
    /// `durable`: the table version that this replica will recover, whatever happens to it.
    Ack {
        ballot: Ballot,
        accepted: Version,
        round: u64,
        durable: Version,
    },
    CatchUp {
        ballot: Ballot,
        have: Have,
    },
    Repair {
        ballot: Ballot,
        writes: Vec<Arc<Write>>,
        beat: Beat,
    },
    Refuse {
        promised: Ballot,
    },
    Handover {
        ballot: Ballot,
    },
}

impl Message {
    #[must_use]
    pub fn ballot(&self) -> Ballot {
        match self {
            Self::Canvass { ballot }
            | Self::Canvassed { ballot, .. }
            | Self::Prepare { ballot, .. }
            | Self::Promise { ballot, .. }
            | Self::Heartbeat { ballot, .. }
            | Self::Ack { ballot, .. }
            | Self::CatchUp { ballot, .. }
            | Self::Repair { ballot, .. }
            | Self::Refuse { promised: ballot }
            | Self::Handover { ballot } => *ballot,
            Self::Write { write, .. } => write.version.ballot,
        }
    }
}

/// For the layer above, in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// This pod's takeover is committed in its ballot, and all it inherited with it: it may serve.
    Leading { ballot: Ballot },
    /// No longer: what was queued, written and not committed, or waiting for a barrier is void here.
    Deposed,
    /// Goes into the tables, each record under the write's version: on every replica, in chain
    /// order, exactly once since the state given to `new` (or installed).
    Committed { write: Arc<Write> },
    /// The answers that waited for this ticket may leave.
    Passed { ticket: u64 },
    /// `peer` needs this pod's table records newer than `newer_than` (deletions included), or if
    /// `full` all of them, as of one committed version: see [`super::Snapshot`].
    Transfer { peer: PodId, newer_than: Version, full: bool },
}

/// Heads a transfer of table records; made by `snapshot` at the source, given to `install`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Snapshot {
    /// The committed version of the source that the records reflect, and its shard time.
    pub version: Version,
    pub time: ShardTime,
    /// The newest version whose deletions the source has dropped.
    pub dropped: Version,
    /// Records up to this version are left out, unless `full`: then they replace all that is there.
    pub newer_than: Version,
    pub full: bool,
}
