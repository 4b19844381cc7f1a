//! A whole checkout through three nodes in memory: routing, reservation, charge, receipt, confirmation, and
//! the packing of every log record, on all three replicas; for each way of replication and of
//! committing. No frame is encoded and no disk waits: what is
//! left is the CPU time that the pure code takes on all pods together.

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kassa::modules::money::Money;
use kassa::modules::request::{Answer, BATCH_MAX, Op, OrderId, Outcome, Request};
use kassa::node::config::{self, Config, Limits, Protocol, Timing};
use kassa::node::{ClientId, Commit, Input, Message, Node};
use kassa_protocols::ids::{OpId, PodId, Shard};
use kassa_protocols::tables;
use kassa_protocols::time::{Span, Time};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

/// Checkouts that are under way together: more of them share rounds, entries and writes.
const TOGETHER: [u64; 4] = [1, 16, 64, 256];
/// Name, payment, stock, replicas that must accept a write on read/write quorums.
const WAYS: [(&str, Protocol, Protocol, usize); 4] = [
    ("paxos-quorum", Protocol::Paxos, Protocol::Quorum, 2),
    ("paxos-write-all", Protocol::Paxos, Protocol::Quorum, 3),
    ("paxos-paxos", Protocol::Paxos, Protocol::Paxos, 2),
    ("quorum-quorum", Protocol::Quorum, Protocol::Quorum, 2),
];
const COMMITS: [(&str, config::Commit); 2] =
    [("reserve", config::Commit::Reserve), ("blocking", config::Commit::Blocking)];
const PODS: [PodId; 3] = [PodId(0), PodId(1), PodId(2)];
const ITEMS: u64 = 1_000;
const USERS: u64 = 1_000;
/// More than all orders of a batch ask for of one item or one user.
const PLENTY: u32 = 100_000_000;
/// Virtual time between two looks at a pod's inbox: that of a round and its fsync.
const ROUND: Span = Span(200);
const DEADLINE: Span = Span::from_millis(30_000);
/// A request that is not answered after so many rounds never will be.
const ROUNDS_MAX: u32 = 100_000;

/// The tables alone: nothing here restarts, so nobody reads the log.
#[derive(Default)]
struct Disk(BTreeMap<Shard, BTreeMap<Bytes, Bytes>>);

impl Disk {
    fn apply(&mut self, commit: Commit) {
        for (shard, (key, value)) in commit.tables {
            let table = self.0.entry(shard).or_default();
            match value {
                Some(value) => table.insert(key, value),
                None => table.remove(&key),
            };
        }
    }
}

impl tables::Disk for Disk {
    fn get(&self, shard: Shard, key: &[u8]) -> Option<Bytes> {
        self.0.get(&shard)?.get(key).cloned()
    }

    fn scan(&self, shard: Shard, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<(Bytes, Bytes)> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            Some(_) | None => Bound::Included(prefix),
        };
        let Some(table) = self.0.get(&shard) else { return Vec::new() };
        let records = table.range::<[u8], _>((start, Bound::Unbounded));
        let records = records.take_while(|(key, _)| key.starts_with(prefix)).take(limit);
        records.map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

struct Pod {
    node: Node,
    disk: Disk,
    /// Frames to itself: the first inputs of its next round.
    own: VecDeque<Input>,
    inbox: VecDeque<Input>,
}

struct Cluster {
    now: Time,
    pods: Vec<Pod>,
    asked: u64,
    next_order: u64,
    answers: Vec<Outcome>,
}

impl Cluster {
    /// Three pods that lead all of their shards, and a loaded shop in which no checkout is refused.
    fn start(config: impl Fn(PodId) -> Config) -> Self {
        let now = Time(1_000_000);
        let mut cluster = Self {
            now,
            pods: PODS.map(|me| Pod::start(config(me), now)).into(),
            asked: 0,
            next_order: 0,
            answers: Vec::new(),
        };
        for me in PODS {
            for peer in PODS.into_iter().filter(|peer| *peer != me) {
                cluster.pod(me).inbox.push_back(Input::Link { peer, up: true });
            }
        }
        cluster.run_until(|cluster| cluster.pods.iter().all(|pod| pod.node.status().not_ready.is_empty()));
        let price = Money::whole(1);
        for op in [
            Op::LoadItems { n: ITEMS, stock: u64::from(PLENTY), price },
            Op::LoadUsers { n: USERS, credit: Money::whole(PLENTY) },
            Op::LoadOrders { n: BATCH_MAX, n_items: ITEMS, n_users: USERS, item_price: price },
        ] {
            cluster.ask(op);
            cluster.run_until(|cluster| !cluster.answers.is_empty());
            let answers = std::mem::take(&mut cluster.answers);
            assert!(matches!(answers[..], [Outcome::Done(Answer::Loaded { .. })]), "{answers:?}");
        }
        cluster
    }

    fn pod(&mut self, pod: PodId) -> &mut Pod {
        &mut self.pods[usize::from(pod.0)]
    }

    /// Asks one pod after the other, as nginx does.
    fn ask(&mut self, op: Op) {
        let client = ClientId(self.asked);
        // Keys are hashes: spread them as those are.
        let key = OpId(u128::from(self.asked + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        let deadline = self.now + DEADLINE;
        let to = PODS[usize::try_from(self.asked % 3).expect("less than three")];
        self.asked += 1;
        self.pod(to).inbox.push_back(Input::Request { client, request: Request { op, key }, deadline });
    }

    /// Checks out the next so many orders, all at once, until each is answered.
    fn check_out(&mut self, together: u64) {
        assert!(self.next_order + together <= BATCH_MAX, "the orders ran out: a repeat is no checkout");
        for _ in 0..together {
            let order = OrderId::from(self.next_order.to_string());
            self.next_order += 1;
            self.ask(Op::Checkout { order });
        }
        self.run_until(|cluster| cluster.answers.len() as u64 == together);
        for answer in self.answers.drain(..) {
            assert!(matches!(answer, Outcome::Done(Answer::CheckedOut { .. })), "{answer:?}");
        }
    }

    fn run_until(&mut self, done: impl Fn(&Self) -> bool) {
        for _ in 0..ROUNDS_MAX {
            if done(self) {
                return;
            }
            self.now = self.now + ROUND;
            for me in PODS {
                self.round(me);
            }
        }
        panic!("nothing comes of it");
    }

    fn round(&mut self, me: PodId) {
        let now = self.now;
        let pod = &mut self.pods[usize::from(me.0)];
        if pod.own.is_empty() && pod.inbox.is_empty() && pod.node.next_wakeup() > now {
            return;
        }
        while let Some(input) = pod.own.pop_front().or_else(|| pod.inbox.pop_front()) {
            pod.node.step(now, input, &pod.disk);
        }
        pod.node.tick(now, &pod.disk);
        let round = pod.node.flush(now, &pod.disk);
        for commit in round.commits {
            pod.disk.apply(commit);
        }
        self.answers.extend(round.replies.into_iter().map(|(_, outcome)| outcome));
        for (to, messages) in round.early.into_iter().chain(round.late) {
            self.deliver(me, to, messages);
        }
    }

    fn deliver(&mut self, from: PodId, to: PodId, messages: Vec<Message>) {
        let pod = self.pod(to);
        let queue = if from == to { &mut pod.own } else { &mut pod.inbox };
        queue.push_back(Input::Frame { from, messages });
    }
}

impl Pod {
    fn start(config: Config, now: Time) -> Self {
        let disk = Disk::default();
        let mut node = Node::new(config, &disk, now);
        node.recovered(now, &disk);
        Self { node, disk, own: VecDeque::new(), inbox: VecDeque::new() }
    }
}

fn checkouts(criterion: &mut Criterion) {
    for (by, commit) in COMMITS {
        ways(criterion, by, commit);
    }
}

fn ways(criterion: &mut Criterion, by: &str, commit: config::Commit) {
    for (name, payment, stock, write_quorum) in WAYS {
        let config = |me: PodId| Config {
            me,
            pods: PODS.to_vec(),
            disks: BTreeMap::new(),
            replaced: BTreeMap::new(),
            shards: 24,
            replicas: 3,
            payment_pods: 3,
            stock_pods: 3,
            payment,
            stock,
            write_quorum,
            commit,
            timing: Timing::default(),
            limits: Limits::default(),
            seed: u64::from(me.0),
        };
        let mut group = criterion.benchmark_group(format!("node/{by}/{name}"));
        for together in TOGETHER {
            let mut cluster = Cluster::start(config);
            group.throughput(Throughput::Elements(together));
            group.bench_function(BenchmarkId::from_parameter(together), |bencher| {
                bencher.iter(|| cluster.check_out(together));
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = checkouts
}
criterion_main!(benches);
