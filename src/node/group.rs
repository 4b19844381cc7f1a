//! One replicated shard: a protocol, a module's transition function, and the records between them.
//!
//! On Paxos, commands are logged and run in log order on every replica; their outcome is known when they
//! are applied. On read/write quorums the coordinator runs a command at once on its newest state, what a
//! round changed leaves as one write of records, and the outcome is held until a round that began after
//! it has been acknowledged. Either way `submit` and `read` give an outcome later, or none if the leader
//! is deposed: whoever asked asks the next one.

#![expect(clippy::too_many_arguments, reason = "a step carries its time, the disk and the outbox besides")]

use super::config::{Config, Protocol};
use super::copy::{Durable, META, Meta};
use super::message::{Message, Record};
use super::outbox::Outbox;
use super::replace::Epoch;
use crate::modules::machine::{Context, Machine, decode, encode};
use kassa_protocols::ids::{Ballot, PodId, Shard};
use kassa_protocols::tables::{Disk, State, VersionBytes, View};
use kassa_protocols::time::{ShardTime, Time};
use kassa_protocols::{paxos, quorum};
use std::collections::{BTreeMap, VecDeque};

pub(super) enum Replica {
    Paxos(Box<paxos::Replica>),
    Quorum(Box<quorum::Replica>),
}

type PaxosFx = paxos::Fx;
type QuorumFx = quorum::Effects;

/// What the service above a group is told.
#[derive(Debug)]
pub enum Output<O, T> {
    Outcome(T, O),
    /// It may serve under this ballot.
    Leading(Ballot),
    /// What was submitted and has no outcome yet will get none here.
    Deposed(Vec<T>),
    /// A peer needs a copy of the records.
    Copy {
        peer: PodId,
        newer_than: Option<quorum::Version>,
    },
}

/// A replicated shard of module `M`, whose askers are `T`s.
pub struct Group<M: Machine, T> {
    pub(super) shard: Shard,
    replicas: Vec<PodId>,
    pub(super) replica: Replica,
    pub state: State,
    pub machine: M,
    /// Paxos: commands for the next entry.
    queued: Vec<(M::Command, T)>,
    /// Paxos: who waits for the commands of an entry, by index.
    proposed: BTreeMap<u64, Vec<T>>,
    /// Quorum: outcomes that wait for this round's ticket, and by ticket.
    evaluated: Vec<(T, M::Outcome)>,
    held: BTreeMap<u64, Vec<(T, M::Outcome)>>,
    /// Paxos: reads for the next read-index round, and by ticket.
    reads: Vec<(M::Command, T)>,
    reading: BTreeMap<u64, Vec<(M::Command, T)>>,
    outputs: VecDeque<Output<M::Outcome, T>>,
    /// The log position below which this shard's records are covered, and the oldest that is not.
    pub(super) covered: u64,
    pub oldest_needed: Option<u64>,
    /// Paxos: the highest `Lead` among the entries run so far.
    pub(super) lead: Ballot,
    pub(super) paxos_fx: PaxosFx,
    pub(super) quorum_fx: QuorumFx,
    /// It has become whole, and no checkpoint says so yet.
    pub(super) became_whole: bool,
}

impl<M: Machine, T> Group<M, T> {
    /// From the shard's checkpoint on disk, if there is one. `watched`: the table whose changes are told.
    pub fn new(
        shard: Shard,
        config: &Config,
        protocol: Protocol,
        Epoch { now: epoch, joined }: Epoch,
        voters: Vec<PodId>,
        learners: Vec<PodId>,
        watched: Option<u8>,
        disk: &dyn Disk,
        now: Time,
    ) -> Self {
        let meta: Option<Meta> = disk.get(shard, META).map(|stored| decode(&stored));
        let covered = meta.as_ref().map_or(0, |meta| meta.position);
        let replicas = voters.iter().chain(&learners).copied().collect();
        let mut lead = Ballot::ZERO;
        let replica = match protocol {
            Protocol::Paxos => {
                let durable = match meta.map(|meta| meta.durable) {
                    Some(Durable::Paxos(durable)) => durable,
                    Some(Durable::Quorum(_)) => {
                        panic!("{shard} was written by read/write quorums, not by Paxos")
                    }
                    None => paxos::Durable::default(),
                };
                lead = durable.lead;
                let timing = paxos::Timing {
                    heartbeat: config.timing.heartbeat,
                    election_timeout: config.timing.election,
                    ..paxos::Timing::default()
                };
                let history_bytes_max = config.limits.paxos_history_bytes_max;
                let me = config.me;
                let config =
                    paxos::Config { shard, me, epoch, joined, voters, learners, timing, history_bytes_max };
                Replica::Paxos(Box::new(paxos::Replica::new(config, durable, now)))
            }
            Protocol::Quorum => {
                let durable = match meta.map(|meta| meta.durable) {
                    Some(Durable::Quorum(durable)) => durable,
                    Some(Durable::Paxos(_)) => {
                        panic!("{shard} was written by Paxos, not by read/write quorums")
                    }
                    None => quorum::Durable::default(),
                };
                let timing = quorum::Timing {
                    heartbeat: config.timing.heartbeat,
                    election: config.timing.election,
                    ..quorum::Timing::default()
                };
                let write_quorum = config.write_quorum.min(voters.len());
                let read_quorum = voters.len() - write_quorum + 1;
                let config = quorum::Config {
                    shard,
                    me: config.me,
                    epoch,
                    joined,
                    replicas: voters,
                    write_quorum,
                    read_quorum,
                    timing,
                    history_bytes_max: config.limits.quorum_history_bytes_max,
                };
                Replica::Quorum(Box::new(quorum::Replica::new(config, durable, now)))
            }
        };
        let mut state = State::new(shard, protocol == Protocol::Quorum, watched);
        let mut machine = M::default();
        machine.rebuild(&View { state: &mut state, disk });
        Self {
            shard,
            replicas,
            replica,
            state,
            machine,
            queued: Vec::new(),
            proposed: BTreeMap::new(),
            evaluated: Vec::new(),
            held: BTreeMap::new(),
            reads: Vec::new(),
            reading: BTreeMap::new(),
            outputs: VecDeque::new(),
            covered,
            oldest_needed: None,
            lead,
            paxos_fx: PaxosFx::new(),
            quorum_fx: QuorumFx::new(),
            became_whole: false,
        }
    }

    /// A record of the pod's log, in order of position.
    pub fn recover(&mut self, position: u64, record: Record) {
        if position < self.covered {
            return;
        }
        self.oldest_needed.get_or_insert(position);
        match (&mut self.replica, record) {
            (Replica::Paxos(replica), Record::Paxos(record)) => replica.recover(record),
            (Replica::Quorum(replica), Record::Quorum(record)) => replica.recover(record),
            (Replica::Paxos(_), Record::Quorum(_) | Record::Order(_) | Record::Decided(_))
            | (Replica::Quorum(_), Record::Paxos(_) | Record::Order(_) | Record::Decided(_)) => {
                panic!("the log holds a record of another protocol for {}", self.shard)
            }
        }
    }

    /// The log is read: the replica takes part from here on.
    pub fn recovered(&mut self, now: Time, disk: &dyn Disk, out: &mut Outbox) {
        match &mut self.replica {
            Replica::Paxos(replica) => replica.recovered(now, &mut self.paxos_fx),
            Replica::Quorum(replica) => replica.recovered(now, &mut self.quorum_fx),
        }
        self.drain(disk, out);
        self.machine.rebuild(&View { state: &mut self.state, disk });
    }

    pub fn handle_paxos(
        &mut self,
        now: Time,
        from: PodId,
        message: paxos::Message,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) {
        if let Replica::Paxos(replica) = &mut self.replica {
            replica.handle(now, from, message, &mut self.paxos_fx);
            self.drain(disk, out);
        }
    }
    pub fn handle_quorum(
        &mut self,
        now: Time,
        from: PodId,
        message: quorum::Message,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) {
        if let Replica::Quorum(replica) = &mut self.replica {
            replica.handle(now, from, message, &mut self.quorum_fx);
            self.drain(disk, out);
        }
    }
    pub fn tick(&mut self, now: Time, disk: &dyn Disk, out: &mut Outbox) {
        match &mut self.replica {
            Replica::Paxos(replica) => replica.tick(now, &mut self.paxos_fx),
            Replica::Quorum(replica) => replica.tick(now, &mut self.quorum_fx),
        }
        self.drain(disk, out);
    }
    #[must_use]
    pub fn next_wakeup(&self) -> Time {
        match &self.replica {
            Replica::Paxos(replica) => replica.next_wakeup(),
            Replica::Quorum(replica) => replica.next_wakeup(),
        }
    }
    pub fn link(&mut self, now: Time, peer: PodId, up: bool, disk: &dyn Disk, out: &mut Outbox) {
        match &mut self.replica {
            Replica::Paxos(replica) => replica.link(now, peer, up, &mut self.paxos_fx),
            Replica::Quorum(replica) => replica.link(now, peer, up, &mut self.quorum_fx),
        }
        self.drain(disk, out);
    }

    #[must_use]
    pub const fn shard(&self) -> Shard {
        self.shard
    }
    #[must_use]
    pub fn replicas(&self) -> &[PodId] {
        &self.replicas
    }
    #[must_use]
    pub fn leader(&self) -> Option<PodId> {
        match &self.replica {
            Replica::Paxos(replica) => replica.leader(),
            Replica::Quorum(replica) => replica.leader(),
        }
    }
    /// Whether this pod leads and may serve.
    #[must_use]
    pub fn is_leading(&self) -> bool {
        match &self.replica {
            Replica::Paxos(replica) => replica.is_leading(),
            Replica::Quorum(replica) => replica.is_leading(),
        }
    }
    /// The highest ballot promised; of a leader: its own.
    #[must_use]
    pub fn ballot(&self) -> Ballot {
        match &self.replica {
            Replica::Paxos(replica) => replica.ballot(),
            Replica::Quorum(replica) => replica.ballot(),
        }
    }
    #[must_use]
    pub fn time(&self) -> ShardTime {
        match &self.replica {
            Replica::Paxos(replica) => replica.time(),
            Replica::Quorum(replica) => replica.time(),
        }
    }
    /// The position that the records here reflect, and the newest known to be committed.
    #[must_use]
    pub fn positions(&self) -> (u64, u64) {
        match &self.replica {
            Replica::Paxos(replica) => (replica.applied(), replica.committed()),
            Replica::Quorum(replica) => (replica.committed().seq, replica.accepted().seq),
        }
    }
    /// The index, or the version, that the records here reflect: it names one state of the shard.
    #[must_use]
    pub fn position(&self) -> (Ballot, u64) {
        match &self.replica {
            Replica::Paxos(replica) => (Ballot::ZERO, replica.applied()),
            Replica::Quorum(replica) => (replica.committed().ballot, replica.committed().seq),
        }
    }
    fn context(&self) -> Context {
        match &self.replica {
            Replica::Paxos(replica) => Context { time: replica.time(), lead: self.lead },
            Replica::Quorum(replica) => Context { time: replica.time(), lead: replica.ballot() },
        }
    }

    /// Submits a command at the leader; gives the asker back if this pod may not serve.
    pub fn submit(&mut self, command: M::Command, asker: T, disk: &dyn Disk) -> Result<(), T> {
        if !self.is_leading() {
            return Err(asker);
        }
        match &self.replica {
            Replica::Paxos(_) => self.queued.push((command, asker)),
            Replica::Quorum(_) => self.evaluate(&command, asker, disk),
        }
        Ok(())
    }

    /// Submits a command that changes nothing: it is not logged.
    pub fn read(&mut self, command: M::Command, asker: T, disk: &dyn Disk) -> Result<(), T> {
        if !self.is_leading() {
            return Err(asker);
        }
        match &self.replica {
            Replica::Paxos(_) => self.reads.push((command, asker)),
            Replica::Quorum(_) => self.evaluate(&command, asker, disk),
        }
        Ok(())
    }

    fn evaluate(&mut self, command: &M::Command, asker: T, disk: &dyn Disk) {
        let context = self.context();
        let outcome = self.machine.execute(context, command, &mut View { state: &mut self.state, disk });
        self.evaluated.push((asker, outcome));
    }

    /// A view of the newest records, for what a leader looks up before it submits.
    pub fn look<R>(&mut self, disk: &dyn Disk, look: impl FnOnce(&mut M, &mut View<'_>) -> R) -> R {
        look(&mut self.machine, &mut View { state: &mut self.state, disk })
    }

    /// The round is drained: what it submitted leaves as one entry or write.
    pub fn flush(&mut self, now: Time, disk: &dyn Disk, out: &mut Outbox) {
        match &mut self.replica {
            Replica::Paxos(replica) => {
                if !self.queued.is_empty() {
                    let commands: Vec<&M::Command> = self.queued.iter().map(|(command, _)| command).collect();
                    if let Some(index) = replica.propose(now, encode(&commands), &mut self.paxos_fx) {
                        let askers = self.queued.drain(..).map(|(_, asker)| asker).collect();
                        self.proposed.insert(index, askers);
                    }
                }
                if !self.reads.is_empty()
                    && let Some(ticket) = replica.barrier(now, &mut self.paxos_fx)
                {
                    self.reading.entry(ticket).or_default().append(&mut self.reads);
                }
            }
            Replica::Quorum(replica) => {
                if self.state.has_staged() && replica.can_write() {
                    let changes = self.state.take_staged();
                    let version = replica.write(now, changes, &mut self.quorum_fx).expect("it can write");
                    let write = replica.tail().last().expect("just written");
                    self.state.speculate(version.seq, &write.records);
                }
                // What is still staged did not fit the window: its outcomes wait with it.
                if !self.evaluated.is_empty()
                    && !self.state.has_staged()
                    && let Some(ticket) = replica.barrier(now, &mut self.quorum_fx)
                {
                    self.held.entry(ticket).or_default().append(&mut self.evaluated);
                }
            }
        }
        self.drain(disk, out);
    }

    /// Whether `poll` has something to say.
    #[must_use]
    pub fn has_output(&self) -> bool {
        !self.outputs.is_empty()
    }
    pub fn poll(&mut self) -> Option<Output<M::Outcome, T>> {
        self.outputs.pop_front()
    }

    pub(super) fn drain(&mut self, disk: &dyn Disk, out: &mut Outbox) {
        let shard = self.shard;
        let fx = std::mem::take(&mut self.paxos_fx);
        for record in fx.persist {
            out.log(shard, Record::Paxos(record));
        }
        for (to, message) in fx.send_early {
            out.send_early(to, Message::Paxos { shard, message });
        }
        for (to, message) in fx.send {
            out.send(to, Message::Paxos { shard, message });
        }
        for event in fx.events {
            self.paxos_event(event, disk);
        }
        let fx = std::mem::take(&mut self.quorum_fx);
        for record in fx.persist {
            out.log(shard, Record::Quorum(record));
        }
        for (to, message) in fx.send_early {
            out.send_early(to, Message::Quorum { shard, message });
        }
        for (to, message) in fx.send {
            out.send(to, Message::Quorum { shard, message });
        }
        for event in fx.events {
            self.quorum_event(event, disk);
        }
    }

    fn paxos_event(&mut self, event: paxos::Event, disk: &dyn Disk) {
        match event {
            paxos::Event::Leading { ballot } => self.outputs.push_back(Output::Leading(ballot)),
            paxos::Event::Deposed => self.deposed(),
            paxos::Event::Chosen { index, entry } => self.apply(index, &entry, disk),
            paxos::Event::Passed { ticket } => {
                for (command, asker) in self.reading.remove(&ticket).unwrap_or_default() {
                    let context = self.context();
                    let view = &mut View { state: &mut self.state, disk };
                    let outcome = self.machine.execute(context, &command, view);
                    self.outputs.push_back(Output::Outcome(asker, outcome));
                }
            }
            paxos::Event::SnapshotWanted { peer } => {
                self.outputs.push_back(Output::Copy { peer, newer_than: None });
            }
            paxos::Event::Whole => self.became_whole = true,
        }
    }

    fn apply(&mut self, index: u64, entry: &paxos::Entry, disk: &dyn Disk) {
        let askers = self.proposed.remove(&index);
        let commands = match &entry.body {
            paxos::Body::Lead(ballot) => {
                self.lead = self.lead.max(*ballot);
                return;
            }
            // A gap that was filled.
            paxos::Body::Commands(commands) if commands.is_empty() => return,
            paxos::Body::Commands(commands) => commands,
        };
        let context = Context { time: entry.time, lead: self.lead };
        let commands: Vec<M::Command> = decode(commands);
        let mut askers = askers.filter(|askers| askers.len() == commands.len()).map(Vec::into_iter);
        for command in commands {
            let view = &mut View { state: &mut self.state, disk };
            let outcome = self.machine.execute(context, &command, view);
            if let Some(asker) = askers.as_mut().and_then(Iterator::next) {
                self.outputs.push_back(Output::Outcome(asker, outcome));
            }
        }
    }

    fn quorum_event(&mut self, event: quorum::Event, disk: &dyn Disk) {
        match event {
            quorum::Event::Leading { ballot } => {
                self.machine.rebuild(&View { state: &mut self.state, disk });
                self.outputs.push_back(Output::Leading(ballot));
            }
            quorum::Event::Deposed => self.deposed(),
            quorum::Event::Committed { write } => {
                self.state.commit(write.version.seq, &version_bytes(write.version), &write.records);
            }
            quorum::Event::Passed { ticket } => {
                for (asker, outcome) in self.held.remove(&ticket).unwrap_or_default() {
                    self.outputs.push_back(Output::Outcome(asker, outcome));
                }
            }
            quorum::Event::Transfer { peer, newer_than, full } => {
                let newer_than = Some(if full { quorum::Version::ZERO } else { newer_than });
                self.outputs.push_back(Output::Copy { peer, newer_than });
            }
        }
    }

    /// Everything that waits here is void: its askers ask the next leader.
    fn deposed(&mut self) {
        let queued = self.queued.drain(..).chain(self.reads.drain(..)).map(|(_, asker)| asker);
        let mut askers: Vec<T> = queued.collect();
        askers.extend(std::mem::take(&mut self.proposed).into_values().flatten());
        askers.extend(std::mem::take(&mut self.reading).into_values().flatten().map(|(_, asker)| asker));
        askers.extend(self.evaluated.drain(..).map(|(asker, _)| asker));
        askers.extend(std::mem::take(&mut self.held).into_values().flatten().map(|(asker, _)| asker));
        self.state.drop_speculative();
        self.outputs.push_back(Output::Deposed(askers));
    }
}

/// A version as stored before a value: its bytes are ordered as versions are.
#[must_use]
pub fn version_bytes(version: quorum::Version) -> VersionBytes {
    let mut bytes = VersionBytes::default();
    bytes[..4].copy_from_slice(&version.ballot.epoch.to_be_bytes());
    bytes[4..12].copy_from_slice(&version.ballot.round.to_be_bytes());
    bytes[12] = version.ballot.pod;
    bytes[13..].copy_from_slice(&version.seq.to_be_bytes());
    bytes
}
