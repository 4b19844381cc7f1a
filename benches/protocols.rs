//! The ways of replication that sell: a round of commands, from the leader's call to its answer, through three
//! replicas wired in memory: Paxos, read/write quorums, and quorums whose writes need all replicas. No disk, no codec, no link: what is left is the cost of the steps.
//!
//! A batch is, on quorum, so many records in one write, as a round of a node makes one; in Paxos, so many
//! entries in flight at once, up to the most that a leader may have. (A node packs a round's commands of a
//! shard into one entry, into which replicas do not look: that costs what one entry does, however many
//! they are.) Applying them is the node's.

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kassa_protocols::effects::Effects;
use kassa_protocols::ids::{Module, PodId, Shard};
use kassa_protocols::tables::Change;
use kassa_protocols::time::{Span, Time};
use kassa_protocols::{paxos, quorum};
use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Duration;

/// Entries, or records, of a round.
const BATCHES: [usize; 4] = [1, 16, 64, 256];
const COMMAND_BYTES: usize = 100;
const PODS: [PodId; 3] = [PodId(0), PodId(1), PodId(2)];
/// Virtual time between two rounds: so short that heartbeats are as rare as they are under load.
const ROUND: Span = Span(200);
/// Every so many rounds the replicas are told that a checkpoint is done, as they are in a node.
const CHECKPOINT_EVERY: u64 = 1_000;

/// What the two have in common.
trait Replica {
    type Record;
    type Message;
    type Event;
    fn handle(&mut self, now: Time, from: PodId, message: Self::Message, fx: &mut Fx<Self>);
    fn tick(&mut self, now: Time, fx: &mut Fx<Self>);
    fn next_wakeup(&self) -> Time;
    fn checkpoint(&mut self);
}

type Fx<R> = Effects<<R as Replica>::Record, <R as Replica>::Message, <R as Replica>::Event>;

impl Replica for paxos::Replica {
    type Record = paxos::Record;
    type Message = paxos::Message;
    type Event = paxos::Event;
    fn handle(&mut self, now: Time, from: PodId, message: paxos::Message, fx: &mut Fx<Self>) {
        self.handle(now, from, message, fx);
    }
    fn tick(&mut self, now: Time, fx: &mut Fx<Self>) {
        self.tick(now, fx);
    }
    fn next_wakeup(&self) -> Time {
        self.next_wakeup()
    }
    fn checkpoint(&mut self) {
        self.checkpointed(self.applied());
    }
}

impl Replica for quorum::Replica {
    type Record = quorum::Record;
    type Message = quorum::Message;
    type Event = quorum::Event;
    fn handle(&mut self, now: Time, from: PodId, message: quorum::Message, fx: &mut Fx<Self>) {
        self.handle(now, from, message, fx);
    }
    fn tick(&mut self, now: Time, fx: &mut Fx<Self>) {
        self.tick(now, fx);
    }
    fn next_wakeup(&self) -> Time {
        self.next_wakeup()
    }
    fn checkpoint(&mut self) {
        self.checkpointed(self.committed());
    }
}

/// Three replicas of a shard; messages arrive in the order in which they were sent, to oneself too.
struct Trio<R: Replica> {
    now: Time,
    rounds: u64,
    replicas: Vec<R>,
    fx: Fx<R>,
    links: VecDeque<(PodId, PodId, R::Message)>,
    /// Of the leader, since the round began.
    events: Vec<R::Event>,
}

impl<R: Replica> Trio<R> {
    /// Starts them; the first stands for leader at once.
    fn start(make: impl Fn(PodId, Time) -> R, recovered: impl Fn(&mut R, Time, &mut Fx<R>)) -> Self {
        let now = Time(1_000_000);
        let mut trio = Self {
            now,
            rounds: 0,
            replicas: PODS.map(|me| make(me, now)).into(),
            fx: Effects::new(),
            links: VecDeque::new(),
            events: Vec::new(),
        };
        for me in PODS {
            trio.step(me, &recovered);
        }
        trio.settle();
        trio
    }

    fn step<T>(&mut self, me: PodId, step: impl FnOnce(&mut R, Time, &mut Fx<R>) -> T) -> T {
        let result = step(&mut self.replicas[usize::from(me.0)], self.now, &mut self.fx);
        // In memory everything is durable at once.
        black_box(&self.fx.persist);
        self.fx.persist.clear();
        let sent = self.fx.send_early.drain(..).chain(self.fx.send.drain(..));
        self.links.extend(sent.map(|(to, message)| (me, to, message)));
        if me == PODS[0] {
            self.events.append(&mut self.fx.events);
        } else {
            black_box(&self.fx.events);
            self.fx.events.clear();
        }
        result
    }

    fn settle(&mut self) {
        while let Some((from, to, message)) = self.links.pop_front() {
            self.step(to, |replica, now, fx| replica.handle(now, from, message, fx));
        }
    }

    /// Lets a round's time pass, with the heartbeats and checkpoints that fall into it.
    fn begin_round(&mut self) {
        self.now = self.now + ROUND;
        self.rounds += 1;
        for me in PODS {
            if self.replicas[usize::from(me.0)].next_wakeup() <= self.now {
                self.step(me, R::tick);
            }
        }
        self.settle();
        if self.rounds.is_multiple_of(CHECKPOINT_EVERY) {
            self.replicas.iter_mut().for_each(R::checkpoint);
        }
        self.events.clear();
    }
}

fn paxos_trio() -> Trio<paxos::Replica> {
    let config = |me| paxos::Config {
        history_bytes_max: paxos::HISTORY_BYTES_MAX,
        shard: Shard::new(Module::Payment, 7),
        me,
        epoch: 1,
        joined: 0,
        voters: PODS.to_vec(),
        learners: Vec::new(),
        timing: paxos::Timing::default(),
    };
    let trio = Trio::start(
        |me, now| paxos::Replica::new(config(me), paxos::Durable::default(), now),
        paxos::Replica::recovered,
    );
    assert!(trio.replicas[0].is_leading(), "the preferred one leads");
    trio
}

/// So many entries are chosen, and the leader has them to apply: the moment at which it may answer.
fn paxos_round(trio: &mut Trio<paxos::Replica>, entries: u64, commands: &Bytes) {
    trio.begin_round();
    let mut last = 0;
    for n in 0..entries {
        if n > 0 && n % paxos::PROPOSALS_IN_FLIGHT_MAX == 0 {
            trio.settle();
        }
        let commands = commands.clone();
        let propose =
            |replica: &mut paxos::Replica, now, fx: &mut paxos::Fx| replica.propose(now, commands, fx);
        last = trio.step(PODS[0], propose).expect("it leads, and its window is open");
    }
    trio.settle();
    let chosen = |event: &paxos::Event| matches!(event, paxos::Event::Chosen { index, .. } if *index == last);
    assert!(trio.events.iter().any(chosen), "three that hear each other choose it");
}

fn quorum_trio(write_quorum: usize) -> Trio<quorum::Replica> {
    let config = |me| quorum::Config {
        write_quorum,
        read_quorum: PODS.len() - write_quorum + 1,
        ..quorum::Config::majority(Shard::new(Module::Stock, 7), me, 1, PODS.to_vec())
    };
    let trio = Trio::start(
        |me, now| quorum::Replica::new(config(me), quorum::Durable::default(), now),
        quorum::Replica::recovered,
    );
    assert!(trio.replicas[0].is_leading(), "the preferred one coordinates");
    trio
}

/// The records are committed, and the barrier behind them has passed: the coordinator may answer.
fn quorum_round(trio: &mut Trio<quorum::Replica>, records: Vec<Change>) {
    trio.begin_round();
    let ticket = trio.step(PODS[0], |replica, now, fx| {
        replica.write(now, records, fx).expect("it coordinates, and has nothing in flight");
        replica.barrier(now, fx).expect("no other barrier waits")
    });
    trio.settle();
    let passed = |event: &quorum::Event| matches!(event, quorum::Event::Passed { ticket: t } if *t == ticket);
    assert!(trio.events.iter().any(passed), "three that hear each other acknowledge it");
}

fn paxos_commands(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("protocols/paxos");
    for batch in BATCHES {
        let mut trio = paxos_trio();
        let commands = Bytes::from(vec![0xa5; COMMAND_BYTES]);
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::from_parameter(batch), |bencher| {
            bencher.iter(|| paxos_round(&mut trio, batch as u64, &commands));
        });
    }
    group.finish();
}

fn quorum_writes(criterion: &mut Criterion) {
    writes(criterion, "protocols/quorum", 2);
    writes(criterion, "protocols/write-all", PODS.len());
}

fn writes(criterion: &mut Criterion, name: &str, write_quorum: usize) {
    let mut group = criterion.benchmark_group(name);
    for batch in BATCHES {
        let mut trio = quorum_trio(write_quorum);
        let value = Bytes::from(vec![0x5a; COMMAND_BYTES]);
        let record = |n: usize| (Bytes::from(format!("item-{n:08}")), Some(value.clone()));
        let records: Vec<Change> = (0..batch).map(record).collect();
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::from_parameter(batch), |bencher| {
            bencher.iter_batched(
                || records.clone(),
                |records| quorum_round(&mut trio, records),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = paxos_commands, quorum_writes
}
criterion_main!(benches);
