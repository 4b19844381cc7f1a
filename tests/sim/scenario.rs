//! What a seed decides once, before anything happens: the size and the character of its run.

use crate::net::Delay;
use crate::setting::commit;
use kassa::histories::workload::Plan;
pub use kassa::node::config::Commit;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Copies of each shard, if there are as many pods.
pub const REPLICAS: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replication {
    Paxos,
    Quorum,
}

/// How much goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing: the strictest checks hold throughout.
    None,
    Some,
    Much,
}

#[derive(Clone, Debug)]
pub struct Scenario {
    pub pods: usize,
    /// So many of them hold each module.
    pub payment_pods: usize,
    pub stock_pods: usize,
    pub shards: u16,
    pub payment: Replication,
    pub stock: Replication,
    pub commit: Commit,
    /// Whether all replicas must accept a write, where a module runs on read and write quorums.
    pub write_all: bool,
    pub trouble: Trouble,
    pub clients: usize,
    /// Operations of the whole run, the last reads not counted.
    pub operations: usize,
    pub users: usize,
    pub items: usize,
    /// Entities of each batch; 0 for none.
    pub batch: u64,
    /// Batches loaded over the first ones in the middle of the run.
    pub reloads: u32,
    /// Users get this many items' worth of credit at a time, and items that many units.
    pub plenty: u64,
    pub delay: Delay,
    /// What a commit takes, with and without an fsync, in microseconds.
    pub fsync_us: u64,
    pub write_us: u64,
    /// When nginx gives up on a pod and asks another, in microseconds.
    pub proxy_timeout_us: u64,
    pub think_us: u64,
    /// When faults end and all is mended.
    pub faults_end_us: u64,
    /// Bytes that a link may have queued, if they are counted: one that is owed more is reset.
    pub backlog_bytes_max: Option<usize>,
}

impl Scenario {
    /// Whether a disk may be gone for good: in the blocking commit its pod's decisions would be gone with it, and
    /// what waits for them would wait for ever; and where there are fewer than three copies nobody has it all.
    pub fn may_lose_disks(&self) -> bool {
        self.commit == Commit::Reserve && self.replicas() == REPLICAS
    }

    pub const fn plan(&self) -> Plan {
        Plan {
            clients: self.clients,
            operations: self.operations,
            users: self.users,
            items: self.items,
            batch: self.batch,
            reloads: self.reloads,
            plenty: self.plenty,
        }
    }

    pub fn replicas(&self) -> usize {
        REPLICAS.min(self.pods)
    }

    /// Whether all goes on once a pod is gone for good, and nobody replaces it.
    pub fn bears_a_loss(&self) -> bool {
        self.may_lose_disks() && !self.write_all
    }

    /// Three pods with plenty to sell and steady load, and nothing drawn: runs of one purpose say where they differ.
    pub fn steady(payment: Replication, stock: Replication) -> Self {
        Self {
            pods: 3,
            payment_pods: 3,
            stock_pods: 3,
            shards: 2,
            payment,
            stock,
            commit: commit(),
            write_all: false,
            trouble: Trouble::None,
            clients: 6,
            operations: 100,
            users: 10,
            items: 10,
            batch: 0,
            reloads: 0,
            plenty: 1_000,
            delay: Delay { base_us: 500, jitter_us: 500 },
            fsync_us: 500,
            write_us: 20,
            proxy_timeout_us: 2_000_000,
            think_us: 5_000,
            faults_end_us: 12_000_000,
            backlog_bytes_max: None,
        }
    }

    pub fn of(rng: &mut ChaCha8Rng) -> Self {
        let pods = if rng.random_ratio(1, 5) { 5 } else { 3 };
        let pick = |rng: &mut ChaCha8Rng, usual, other| if rng.random_ratio(1, 6) { other } else { usual };
        let delay = match rng.random_range(0..6) {
            0 => Delay { base_us: 5_000, jitter_us: 20_000 },
            1 => Delay { base_us: 100, jitter_us: 20_000 },
            _ => Delay { base_us: 50, jitter_us: 400 },
        };
        let batch = if rng.random_bool(0.5) { rng.random_range(2..8) } else { 0 };
        // Drawn apart, so that all else is as it would be without.
        let mut apart = rng.clone();
        apart.set_stream(2);
        let mut some = || if apart.random_bool(0.5) { pods } else { apart.random_range(REPLICAS..=pods) };
        Self {
            pods,
            payment_pods: some(),
            stock_pods: some(),
            shards: rng.random_range(1..5),
            payment: pick(rng, Replication::Paxos, Replication::Quorum),
            stock: pick(rng, Replication::Quorum, Replication::Paxos),
            commit: Commit::Reserve,
            write_all: apart.random_ratio(1, 12),
            trouble: match rng.random_range(0..10) {
                0 => Trouble::None,
                1..=6 => Trouble::Some,
                _ => Trouble::Much,
            },
            clients: rng.random_range(3..9),
            operations: rng.random_range(150..400),
            users: rng.random_range(1..6),
            items: rng.random_range(1..6),
            batch,
            reloads: if batch > 0 { rng.random_range(0..4) } else { 0 },
            plenty: rng.random_range(3..30),
            delay,
            fsync_us: rng.random_range(50..2_000),
            write_us: rng.random_range(5..50),
            proxy_timeout_us: rng.random_range(1_000_000..3_000_000),
            think_us: rng.random_range(0..150_000),
            faults_end_us: rng.random_range(4_000_000..10_000_000),
            backlog_bytes_max: None,
        }
    }
}
