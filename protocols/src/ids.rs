//! Names of things, as types that cannot be mixed up.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// One process of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodId(pub u8);

/// Whose shard it is: the three modules, and the cluster group (batch records, cluster map).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Module {
    Order,
    Stock,
    Payment,
    Cluster,
}

/// The number of a shard within its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardNo(pub u16);

/// A fixed slice of one module's key space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Shard {
    pub module: Module,
    pub no: ShardNo,
}

/// Fences the leaders of a shard against each other: totally ordered, epoch first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// The shard's epoch in the cluster map; 1 for the map a cluster forms with.
    pub epoch: u32,
    pub round: u64,
    pub pod: u8,
}

/// Names one pod's disk for ever: random, drawn when its directory was first used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DiskId(pub u128);

/// A disk that took the place of a lost one of its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Replacement {
    pub disk: DiskId,
    /// The how-many-th new disk of its pod it is, from 1 on.
    pub count: u32,
}

/// A checkout attempt: unique, and ordered within its payment shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TxnId {
    pub shard: ShardNo,
    pub ballot: Ballot,
    pub n: u64,
}

/// Which life of an id this is: 0 for a created one, else the cluster log index of the batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

/// Hash of (idempotency key, method, path): what makes a repeated request the same request.
///
/// Serialized as 16 bytes: a hash is uniform, and as a varint would take 19.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u128);

impl Shard {
    #[must_use]
    pub const fn new(module: Module, no: u16) -> Self {
        Self { module, no: ShardNo(no) }
    }
    /// The one group that holds the cluster map and the batch records.
    pub const CLUSTER: Self = Self::new(Module::Cluster, 0);
}

impl Ballot {
    /// Below every ballot that is ever used.
    pub const ZERO: Self = Self { epoch: 0, round: 0, pod: 0 };

    #[must_use]
    pub const fn new(epoch: u32, round: u64, pod: PodId) -> Self {
        Self { epoch, round, pod: pod.0 }
    }
    #[must_use]
    pub const fn pod(self) -> PodId {
        PodId(self.pod)
    }
    /// The lowest ballot of `pod` above `self` in the same epoch.
    #[must_use]
    pub const fn next(self, pod: PodId) -> Self {
        Self { epoch: self.epoch, round: self.round + 1, pod: pod.0 }
    }
}

impl Serialize for OpId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.to_be_bytes().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for OpId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <[u8; 16]>::deserialize(deserializer).map(|bytes| Self(u128::from_be_bytes(bytes)))
    }
}

impl fmt::Display for PodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Order => "order",
            Self::Stock => "stock",
            Self::Payment => "payment",
            Self::Cluster => "cluster",
        })
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.module, self.no.0)
    }
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.p{}", self.epoch, self.round, self.pod)
    }
}

impl fmt::Display for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}:{}:{}", self.shard.0, self.ballot, self.n)
    }
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
