//! The seam to the node: everything that the simulator knows of it by name.

use crate::disk::{Disk, STORES};
use crate::scenario::{Replication, Scenario};
pub use kassa::modules::request::{Outcome, Request};
use kassa::node::config::{Config, Limits, Protocol, Timing};
pub use kassa::node::{ClientId, Commit, Held, Input, Message, Node, Replace, Status};
use kassa_protocols::ids::{DiskId, PodId, Replacement};
use kassa_protocols::time::Time;
use std::collections::BTreeMap;

/// A replica that was away for a second needs a copy.
const HISTORY_BYTES_MAX: usize = 4_096;
/// Of a copy a few records go in a part, and a few parts at a time.
const COPY_PART_BYTES: usize = 512;
const COPY_WINDOW: u32 = 3;

const fn protocol(replication: Replication) -> Protocol {
    match replication {
        Replication::Paxos => Protocol::Paxos,
        Replication::Quorum => Protocol::Quorum,
    }
}

/// The disks that the cluster forms with.
pub fn first_disks(pods: usize) -> BTreeMap<PodId, DiskId> {
    let id = |pod| PodId(u8::try_from(pod).expect("a handful of pods"));
    (0..pods).map(|pod| (id(pod), DiskId(pod as u128))).collect()
}

/// A node on what its disk holds, as `serve` starts one. `replaced`: what was when its own disk joined.
pub fn start(
    pod: PodId,
    replaced: BTreeMap<PodId, Replacement>,
    scenario: &Scenario,
    disk: &Disk,
    now: Time,
) -> Node {
    let replicas = scenario.replicas();
    let pods = (0..scenario.pods).map(|i| PodId(u8::try_from(i).expect("a handful of pods"))).collect();
    let config = Config {
        me: pod,
        pods,
        disks: first_disks(scenario.pods),
        replaced,
        shards: scenario.shards,
        replicas,
        payment_pods: scenario.payment_pods,
        stock_pods: scenario.stock_pods,
        payment: protocol(scenario.payment),
        stock: protocol(scenario.stock),
        write_quorum: if scenario.write_all { replicas } else { replicas / 2 + 1 },
        commit: scenario.commit,
        timing: Timing::default(),
        // Small enough that checkpoints and cuts happen all the time, and copies come in many parts.
        limits: Limits {
            log_bytes_max: 4_096,
            dirty_max: 64,
            paxos_history_bytes_max: HISTORY_BYTES_MAX,
            quorum_history_bytes_max: HISTORY_BYTES_MAX,
            copy_part_bytes: COPY_PART_BYTES,
            copy_window: COPY_WINDOW,
            ..Limits::default()
        },
        seed: u64::from(pod.0) << 32 | now.0,
    };
    let mut node = Node::new(config, disk, now);
    for store in STORES {
        for (position, record) in disk.records(store) {
            node.recover(store, position, record, disk).expect("a record that was written decodes");
        }
    }
    node.recovered(now, disk);
    node
}
