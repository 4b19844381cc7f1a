//! One pod: a replica, the tables above it, a disk below, and a node's rounds around them.

use crate::model::{Action, Command, Model, Value};
use bytes::Bytes;
use kassa_protocols::ids::PodId;
use kassa_protocols::quorum::{
    Config, Durable, Effects, Event, Have, Message, ReadState, ReadVerdict, Record, Replica, Snapshot,
    Version, judge,
};
use kassa_protocols::time::Time;
use std::collections::{BTreeMap, VecDeque};

/// Records with the version that they were last written at; deletions stay until they are dropped.
pub type Tables = BTreeMap<Bytes, (Version, Value)>;

#[derive(Clone, Debug)]
pub enum Frame {
    Protocol(Message),
    Transfer { head: Snapshot, records: Vec<(Bytes, Version, Value)> },
    Read { id: u64, key: Bytes },
    Answer { id: u64, state: ReadState, written: Version, value: Value },
}

/// What survives a crash.
#[derive(Default)]
pub struct Disk {
    pub durable: Durable,
    pub tables: Tables,
    pub log: Vec<Record>,
}

/// What a round has to make durable before its late frames leave.
pub struct Batch {
    records: Vec<Record>,
    checkpoint: Option<Checkpoint>,
    late: Vec<(PodId, Frame)>,
    promised: kassa_protocols::ids::Ballot,
    have: Have,
}

struct Checkpoint {
    durable: Durable,
    tables: Tables,
    retained: Vec<Record>,
    /// Whether older log goes, as it may, or stays for a while.
    cut: bool,
}

pub struct Pod {
    pub me: PodId,
    pub config: Config,
    pub replica: Option<Replica>,
    pub tables: Tables,
    pub disk: Disk,
    /// Rounds whose batches are on their way to the disk, in order.
    pub batches: VecDeque<Batch>,
    /// The durable table version that it has told others of.
    pub claimed: Version,
    /// What the disk is known to hold: the last batch written.
    pub synced: Have,
    /// What its disks held that were lost.
    pub lost: Vec<Have>,
    synced_promise: kassa_protocols::ids::Ballot,
    accepted: Version,
    queued: Vec<Command>,
    waiting: Vec<(u64, Command, Version, Value)>,
    reads: BTreeMap<u64, Read>,
    pub events: Vec<String>,
    /// Whether the next round writes a checkpoint, and whether that cuts the log.
    pub checkpoint: Option<bool>,
    was_leading: bool,
    /// What its disk says of the epoch, whatever it was told since.
    pub epoch_at_start: u32,
}

struct Read {
    command: Command,
    answers: Vec<(ReadState, Version)>,
    values: Vec<Value>,
}

impl Pod {
    pub fn new(config: Config) -> Self {
        Self {
            me: config.me,
            config,
            replica: None,
            tables: Tables::new(),
            disk: Disk::default(),
            batches: VecDeque::new(),
            claimed: Version::ZERO,
            synced: Have::default(),
            lost: Vec::new(),
            synced_promise: kassa_protocols::ids::Ballot::ZERO,
            accepted: Version::ZERO,
            queued: Vec::new(),
            waiting: Vec::new(),
            reads: BTreeMap::new(),
            events: Vec::new(),
            checkpoint: None,
            was_leading: false,
            epoch_at_start: 1,
        }
    }

    pub fn replica(&mut self) -> &mut Replica {
        self.replica.as_mut().expect("only pods that run take steps")
    }

    pub fn is_leading(&self) -> bool {
        self.replica.as_ref().is_some_and(Replica::is_leading)
    }

    /// Starts from the disk alone.
    pub fn start(&mut self, now: Time, round: &mut Round, model: &mut Model) {
        let mut replica = Replica::new(self.config.clone(), self.disk.durable, now);
        self.epoch_at_start = self.config.epoch;
        self.tables = self.disk.tables.clone();
        for record in &self.disk.log {
            let bytes = postcard::to_stdvec(record).unwrap();
            replica.recover(postcard::from_bytes(&bytes).unwrap());
        }
        let mut fx = Effects::new();
        replica.recovered(now, &mut fx);
        assert!(replica.ballot() >= self.synced_promise, "{}: a promise was forgotten", self.me);
        assert!(replica.accepted() >= self.synced.accepted(), "{}: an accepted write was forgotten", self.me);
        assert!(replica.committed() >= self.claimed, "{}: the durable table version was not", self.me);
        self.accepted = replica.accepted();
        self.was_leading = false;
        self.replica = Some(replica);
        self.take(fx, round, model);
    }

    /// The disk is gone with the process; the pod waits for a new one to be agreed on.
    pub fn lose_disk(&mut self) {
        self.crash();
        self.disk = Disk::default();
        self.tables.clear();
        self.claimed = Version::ZERO;
        self.lost.push(std::mem::take(&mut self.synced));
        self.synced_promise = kassa_protocols::ids::Ballot::ZERO;
        self.config.joined = u32::MAX;
    }

    /// Whether its disk is lost and not replaced.
    pub const fn waits(&self) -> bool {
        self.config.joined == u32::MAX
    }

    /// Whether it counts for nothing: its disk is lost, or new and not whole.
    pub fn is_missing(&self) -> bool {
        match &self.replica {
            Some(replica) => replica.is_joining(),
            None => self.synced.accepted().ballot.epoch < self.config.joined,
        }
    }

    pub fn raise_epoch(&mut self, now: Time, epoch: u32, round: &mut Round, model: &mut Model) {
        let mut fx = Effects::new();
        self.replica().raise_epoch(now, epoch, &mut fx);
        self.take(fx, round, model);
    }

    pub fn crash(&mut self) {
        self.replica = None;
        self.batches.clear();
        self.queued.clear();
        self.waiting.clear();
        self.reads.clear();
        self.checkpoint = None;
    }

    pub fn step(&mut self, now: Time, from: PodId, frame: Frame, round: &mut Round, model: &mut Model) {
        let mut fx = Effects::new();
        match frame {
            Frame::Protocol(message) => self.replica().handle(now, from, message, &mut fx),
            Frame::Transfer { head, records } => {
                if self.replica().install(now, &head, &mut fx) {
                    if head.full {
                        self.tables.clear();
                    }
                    self.tables
                        .extend(records.into_iter().map(|(key, version, value)| (key, (version, value))));
                    self.checkpoint = Some(true);
                    self.events.push(format!("installed {} full={}", head.version, head.full));
                }
            }
            // It has not caught up with its past.
            Frame::Read { .. } if self.replica().is_joining() => {}
            Frame::Read { id, key } => {
                let (written, value) = self.newest(&key);
                let state = self.replica().read_state();
                round.late.push((from, Frame::Answer { id, state, written, value }));
            }
            Frame::Answer { id, state, written, value } => self.answered(id, state, written, value, model),
        }
        self.take(fx, round, model);
    }

    pub fn tick(&mut self, now: Time, round: &mut Round, model: &mut Model) {
        if now >= self.replica().next_wakeup() {
            let mut fx = Effects::new();
            self.replica().tick(now, &mut fx);
            self.take(fx, round, model);
        }
    }

    pub fn link(&mut self, now: Time, peer: PodId, up: bool, round: &mut Round, model: &mut Model) {
        let mut fx = Effects::new();
        self.replica().link(now, peer, up, &mut fx);
        self.take(fx, round, model);
    }

    /// A client's command; only the coordinator keeps it.
    pub fn ask(&mut self, command: Command) {
        if self.is_leading() {
            self.queued.push(command);
        }
    }

    /// A read that asks all replicas.
    pub fn read(&mut self, id: u64, command: Command, round: &mut Round) {
        for &pod in &self.config.replicas {
            round.late.push((pod, Frame::Read { id, key: command.key.clone() }));
        }
        self.reads.insert(id, Read { command, answers: Vec::new(), values: Vec::new() });
    }

    /// Ends a round: evaluates what is queued, writes what came of it, and leaves the rest to the disk.
    pub fn flush(&mut self, now: Time, mut round: Round, model: &mut Model) -> Vec<(PodId, Frame)> {
        self.evaluate(now, &mut round, model);
        let replica = self.replica.as_mut().expect("only pods that run take steps");
        let checkpoint = self.checkpoint.take().map(|cut| Checkpoint {
            durable: replica.durable(),
            tables: self.tables.clone(),
            retained: replica.retained_log(),
            cut,
        });
        let have = Have {
            committed: replica.committed(),
            tail: replica.tail().map(|write| write.version).collect(),
        };
        self.batches.push_back(Batch {
            records: round.persist,
            checkpoint,
            late: round.late,
            promised: replica.ballot(),
            have,
        });
        round.early
    }

    /// Whether nothing has to reach the disk for the next late frames to leave.
    pub fn is_light(&self) -> bool {
        let light = |batch: &Batch| batch.records.is_empty() && batch.checkpoint.is_none();
        self.batches.front().is_some_and(light)
    }

    /// The disk has the batch: its late frames leave.
    pub fn sync(&mut self) -> Vec<(PodId, Frame)> {
        let batch = self.batches.pop_front().expect("a round is under way");
        self.write(batch)
    }

    fn write(&mut self, batch: Batch) -> Vec<(PodId, Frame)> {
        match batch.checkpoint {
            Some(Checkpoint { durable, tables, retained, cut }) => {
                if let Some(replica) = &mut self.replica {
                    replica.checkpointed(durable.committed);
                }
                if cut {
                    self.disk.log.clear();
                } else {
                    self.disk.log.extend(batch.records);
                }
                self.disk.log.extend(retained);
                self.disk.durable = durable;
                self.disk.tables = tables;
            }
            None => self.disk.log.extend(batch.records),
        }
        self.synced = batch.have;
        self.synced_promise = batch.promised;
        batch.late
    }

    /// The disk has the next `batches`, but the crash comes before anything leaves.
    pub fn sync_and_crash(&mut self, batches: usize) {
        for _ in 0..batches.min(self.batches.len()) {
            drop(self.sync());
        }
        self.crash();
    }

    /// Drops deletions up to `bound`, or as far as all replicas allow.
    pub fn drop_deletions(&mut self, bound: Option<Version>) -> usize {
        let Some(replica) = &mut self.replica else { return 0 };
        let bound = bound.unwrap_or_else(|| replica.drop_deletions_below()).min(replica.committed());
        let gone = |(version, value): &(Version, Value)| value.is_none() && *version <= bound;
        let newest = self.tables.values().filter(|record| gone(record)).map(|record| record.0).max();
        let before = self.tables.len();
        self.tables.retain(|_, record| !gone(record));
        if let Some(newest) = newest {
            replica.deletions_dropped(newest);
            self.checkpoint = Some(true);
        }
        before - self.tables.len()
    }

    /// The record as of the accepted version.
    fn newest(&self, key: &Bytes) -> (Version, Value) {
        let replica = self.replica.as_ref().expect("only pods that run take steps");
        let tail: Vec<_> = replica.tail().collect();
        for write in tail.iter().rev() {
            if let Some((_, value)) = write.records.iter().find(|(written, _)| written == key) {
                return (write.version, value.clone());
            }
        }
        self.tables.get(key).cloned().unwrap_or_default()
    }

    fn evaluate(&mut self, now: Time, round: &mut Round, model: &mut Model) {
        if self.queued.is_empty() || !self.is_leading() {
            self.queued.clear();
            return;
        }
        let mut records: BTreeMap<Bytes, (Command, Value)> = BTreeMap::new();
        let mut reads = Vec::new();
        let mut later = Vec::new();
        for command in std::mem::take(&mut self.queued) {
            if records.contains_key(&command.key) {
                later.push(command);
                continue;
            }
            let value = self.newest(&command.key).1;
            match &command.action {
                Action::Get => reads.push((command, value)),
                Action::Set(_) => drop(records.insert(command.key.clone(), (command, value))),
            }
        }
        let mut fx = Effects::new();
        let changes = records.values().map(|(command, _)| {
            let Action::Set(value) = &command.action else { panic!("only writes are here") };
            (command.key.clone(), value.clone())
        });
        let changes: Vec<_> = changes.collect();
        let version = if changes.is_empty() { None } else { self.replica().write(now, changes, &mut fx) };
        // Nothing to answer, nothing to wait for.
        let wanted = version.is_some() || !reads.is_empty();
        let ticket = if wanted { self.replica().barrier(now, &mut fx) } else { None };
        assert!(ticket.is_some() || !wanted, "one that leads takes barriers");
        let ticket = ticket.unwrap_or_default();
        for (command, value) in reads {
            self.waiting.push((ticket, command, Version::ZERO, value));
        }
        match version {
            Some(version) => {
                let written = records.into_values();
                self.waiting.extend(written.map(|(command, before)| (ticket, command, version, before)));
            }
            None => later.extend(records.into_values().map(|(command, _)| command)),
        }
        self.queued = later;
        self.take(fx, round, model);
    }

    fn answered(&mut self, id: u64, state: ReadState, written: Version, value: Value, model: &mut Model) {
        let (r, w) = (self.config.read_quorum, self.config.write_quorum);
        let Some(read) = self.reads.get_mut(&id) else { return };
        read.answers.push((state, written));
        read.values.push(value);
        match judge(&read.answers, r, w) {
            ReadVerdict::Wait => {}
            ReadVerdict::AskCoordinator => {
                self.events.push("read: ask the coordinator".into());
                self.reads.remove(&id);
            }
            ReadVerdict::Return(i) => {
                let value = &read.values[i];
                self.events.push(format!("read: {value:?} written at {}", read.answers[i].1));
                model.answer_quorum_read(&read.command, read.answers[i].1, value);
                self.reads.remove(&id);
            }
        }
    }

    /// Follows the events of a step and adds its effects to the round's.
    fn take(&mut self, fx: Effects, round: &mut Round, model: &mut Model) {
        round.persist.extend(fx.persist);
        round.early.extend(fx.send_early.into_iter().map(|(to, m)| (to, Frame::Protocol(m))));
        round.late.extend(fx.send.into_iter().map(|(to, m)| (to, Frame::Protocol(m))));
        for event in fx.events {
            match event {
                Event::Leading { ballot } => {
                    assert!(!self.was_leading, "Leading and Deposed alternate");
                    self.was_leading = true;
                    self.events.push(format!("leading {ballot}"));
                }
                Event::Deposed => {
                    assert!(self.was_leading, "Leading and Deposed alternate");
                    self.was_leading = false;
                    self.events.push("deposed".into());
                    self.queued.clear();
                    self.waiting.clear();
                }
                Event::Committed { write } => {
                    self.events.push(format!("committed {}", write.version));
                    if model.committed(&write) {
                        round.first_committed.push(write.version);
                    }
                    for (key, value) in &write.records {
                        self.tables.insert(key.clone(), (write.version, value.clone()));
                    }
                }
                Event::Passed { ticket } => self.pass(ticket, model),
                Event::Transfer { peer, newer_than, full } => {
                    self.events.push(format!("transfer to {peer} newer than {newer_than} full={full}"));
                    self.replica().transfer_taken(peer);
                    let head = self.replica().snapshot(newer_than, full);
                    let newer = self.tables.iter().filter(|(_, (version, _))| full || *version > newer_than);
                    let records = newer.map(|(key, (version, value))| (key.clone(), *version, value.clone()));
                    round.late.push((peer, Frame::Transfer { head, records: records.collect() }));
                }
            }
        }
        let accepted = self.replica().accepted();
        assert!(accepted >= self.accepted, "{}: the accepted version decreased", self.me);
        self.accepted = accepted;
        assert_eq!(self.was_leading, self.is_leading(), "{}: the events say who leads", self.me);
    }

    fn pass(&mut self, ticket: u64, model: &mut Model) {
        self.events.push(format!("passed {ticket}"));
        let (passed, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(|w| w.0 == ticket);
        self.waiting = waiting;
        let passed: Vec<(u64, Command, Version, Value)> = passed;
        for (_, command, version, value) in passed {
            match command.action {
                Action::Get => model.answer_read(&command, &value),
                Action::Set(_) => model.answer_write(&command, version, &value),
            }
        }
    }
}

/// What the steps of one round have asked for.
#[derive(Default)]
pub struct Round {
    pub persist: Vec<Record>,
    pub early: Vec<(PodId, Frame)>,
    pub late: Vec<(PodId, Frame)>,
    /// Versions that this round was the first to call committed.
    pub first_committed: Vec<Version>,
}
