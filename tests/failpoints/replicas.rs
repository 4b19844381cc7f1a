//! That the replicas of each shard hold the same, read off the disks of pods that have ended.
//!
//! What is chosen a pod knows from its peers. So the nodes are brought to life once more on their disks, without
//! clients and in one thread, and talk to each other until they stand at one position.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use kassa::fabric::identity::Identity;
use kassa::node::{Commit, Config, Held, Input, Message, Node, config};
use kassa::runtime::stores::{MODULES, Stores, number};
use kassa_protocols::ids::PodId;
use kassa_protocols::time::{Span, Time};
use kassa_storage::Batch;

use crate::pods::Plan;

/// Of virtual time, in steps: elections are over long before.
const STEP: Span = Span::from_millis(5);
const STEPS_MAX: u32 = 4_000;

struct Replica {
    id: PodId,
    node: Node,
    stores: Stores,
    inbox: VecDeque<(PodId, Vec<Message>)>,
}

impl Replica {
    fn new(plan: &Plan, pod: u8) -> Self {
        let id = PodId(pod);
        let identity = Identity::read(&plan.data(u16::from(pod))).unwrap().unwrap();
        let formed = identity.formed.unwrap();
        let stores = Stores::open(&plan.data(u16::from(pod)), id, true, Duration::from_secs(60)).unwrap();
        let config = Config {
            me: id,
            pods: (0..3).map(PodId).collect(),
            disks: formed.disks,
            replaced: formed.replaced,
            shards: 24,
            replicas: 3,
            payment_pods: 3,
            stock_pods: 3,
            payment: config::Protocol::Paxos,
            stock: config::Protocol::Quorum,
            write_quorum: 2,
            commit: kassa::node::config::Commit::Reserve,
            timing: config::Timing::default(),
            limits: config::Limits::default(),
            seed: u64::from(pod),
        };
        let mut node = Node::new(config, &stores, Time(0));
        for module in MODULES {
            for record in stores.of(module).log() {
                let (position, record) = record.unwrap();
                node.recover(module, position, &record, &stores).unwrap();
            }
        }
        node.recovered(Time(0), &stores);
        for peer in (0..3).map(PodId).filter(|peer| *peer != id) {
            node.step(Time(0), Input::Link { peer, up: true }, &stores);
        }
        Self { id, node, stores, inbox: VecDeque::new() }
    }

    /// One round; what it sends, in order.
    fn round(&mut self, now: Time) -> Vec<(PodId, Vec<Message>)> {
        for (from, messages) in std::mem::take(&mut self.inbox) {
            self.node.step(now, Input::Frame { from, messages }, &self.stores);
        }
        self.node.tick(now, &self.stores);
        let round = self.node.flush(now, &self.stores);
        for commit in &round.commits {
            write(&self.stores, commit);
        }
        round.early.into_iter().chain(round.late).collect()
    }
}

fn write(stores: &Stores, commit: &Commit) {
    let log = commit.log.as_ref().map(|(position, record)| (*position, &record[..]));
    let tables =
        commit.tables.iter().map(|(shard, (key, value))| (number(*shard), &key[..], value.as_deref()));
    let batch = Batch { log, tables, cut_below: commit.cut_below, sync: false };
    stores.of(commit.store).commit(batch).unwrap();
}

/// # Panics
/// If replicas at one position differ, or never come to one.
pub fn are_the_same(plan: &Plan) {
    let mut replicas: Vec<Replica> = (0..3).map(|pod| Replica::new(plan, pod)).collect();
    let mut now = Time(0);
    for _ in 0..STEPS_MAX {
        now = now + STEP;
        for at in 0..replicas.len() {
            let from = replicas[at].id;
            for (to, messages) in replicas[at].round(now) {
                replicas[usize::from(to.0)].inbox.push_back((from, messages));
            }
        }
        let all_lead = replicas.iter().all(|replica| replica.node.status().not_ready.is_empty());
        if all_lead && are_level(&replicas) {
            return;
        }
    }
    panic!("the replicas never come to the same positions");
}

/// Whether all stand at one position; asserts that those that do hold the same.
fn are_level(replicas: &[Replica]) -> bool {
    let mut seen: BTreeMap<_, Vec<(PodId, Held)>> = BTreeMap::new();
    for replica in replicas {
        for held in replica.node.held(&replica.stores) {
            seen.entry(held.shard).or_default().push((replica.id, held));
        }
    }
    assert_eq!(seen.len(), 49, "24 shards of stock and of payment, and the cluster group's");
    seen.iter().all(|(shard, held)| {
        let (_, first) = held[0];
        let level: Vec<_> = held.iter().filter(|(_, other)| other.position == first.position).collect();
        for (pod, other) in &level {
            assert_eq!(
                other.digest, first.digest,
                "{pod} holds of {shard} at {:?} not the same",
                first.position
            );
        }
        level.len() == replicas.len()
    })
}
