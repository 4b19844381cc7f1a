//! One replica: the machine, its disk, its tables, and the answers that wait for a barrier.

use super::Bounds;
use super::note::Note;
use super::tables::{KEY, SHARD, Tables, Value, commit, from_bytes, record, value, version_bytes};
use crate::world::{Out, Pod, is_idle};
use bytes::Bytes;
use kassa_protocols::ids::{Ballot, PodId};
use kassa_protocols::quorum::{
    Beat, Config, Durable, Effects, Event, HISTORY_BYTES_MAX, Have, Message, Record, Replica, Snapshot,
    Timing, Version,
};
use kassa_protocols::tables::stored_parts;
use kassa_protocols::time::{Span, Time};

pub const REPLICAS: u8 = 3;
pub const QUORUM: usize = 2;

/// Time stands still, so that it tells no two states apart: what a time-out would bring about is an input.
const NOW: Time = Time(0);
/// When what waits for a time-out is due.
const LATER: Time = Time(1);
const TIMING: Timing = Timing {
    heartbeat: Span(1),
    election: Span(0),
    stagger: Span(0),
    handover: Span(u64::MAX),
    transfer: Span(0),
};
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Parcel {
    Protocol(Message),
    Copy { head: Snapshot, records: Vec<(Bytes, Bytes)> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    Start,
    /// The time-out of an election, and whoever is asked would stand behind it.
    Stand,
    /// Another has promised this ballot, and refuses a message of this one's.
    Refused(Ballot),
    /// A command that sets the record, or deletes it.
    Set(Value),
    /// A command that changes nothing: its answer must have been true at some point since so many writes
    /// were acknowledged.
    Get(u64),
    /// Answers a reader that asks all replicas.
    Answer,
    /// Deletions in the tables are forgotten, as if there were too many of them.
    Forget,
    Sync,
    /// Ends, and starts again with what is on disk.
    Crash,
}

#[derive(Clone, Hash)]
enum Answer {
    Written { version: Version, value: Value, before: Value },
    Read { since: u64, base: u64, value: Value },
}

#[derive(Clone, Default, Hash)]
struct OnDisk {
    durable: Durable,
    tables: Tables,
    log: Vec<Record>,
}

#[derive(Clone, Hash)]
pub struct Holder {
    pub me: PodId,
    bounds: Bounds,
    pub replica: Replica,
    disk: OnDisk,
    /// The commit point and the tail that are on disk.
    pub on_disk: Have,
    /// What is not on disk yet: a checkpoint, records behind it; and what waits for that.
    checkpoint: Option<Box<OnDisk>>,
    records: Vec<Record>,
    late: Vec<(PodId, Message)>,
    batches: u8,
    /// What the tables hold in memory.
    pub tables: Tables,
    pub leading: bool,
    waiting: Vec<(u64, Answer)>,
    accepted: Version,
    /// The highest ballot and version that others were told of.
    told: (Ballot, Version),
    pub started: bool,
}

fn config(me: PodId, bounds: &Bounds) -> Config {
    let replicas = (0..REPLICAS).map(PodId).collect();
    let history_bytes_max = if bounds.forgets { 0 } else { HISTORY_BYTES_MAX };
    Config { timing: TIMING, history_bytes_max, ..Config::majority(SHARD, me, 1, replicas) }
}

impl Holder {
    pub fn new(me: PodId, bounds: Bounds) -> Self {
        Self {
            me,
            replica: Replica::new(config(me, &bounds), Durable::default(), NOW),
            bounds,
            disk: OnDisk::default(),
            on_disk: Have::default(),
            checkpoint: None,
            records: Vec::new(),
            late: Vec::new(),
            batches: 0,
            tables: Tables::new(),
            leading: false,
            waiting: Vec::new(),
            accepted: Version::ZERO,
            told: (Ballot::ZERO, Version::ZERO),
            started: false,
        }
    }

    /// Reads what is on disk.
    fn start(&mut self, out: &mut Out<Self>) {
        self.started = true;
        self.replica = Replica::new(config(self.me, &self.bounds), self.disk.durable, NOW);
        self.tables.clone_from(&self.disk.tables);
        for record in self.disk.log.clone() {
            self.replica.recover(record);
        }
        self.step(out, |replica, fx| replica.recovered(NOW, fx));
        let (ballot, accepted) = (self.replica.ballot(), self.replica.accepted());
        assert!(ballot >= self.told.0, "promised {} and came back with {ballot}", self.told.0);
        assert!(accepted >= self.told.1, "accepted {} and came back with {accepted}", self.told.1);
    }

    fn step(&mut self, out: &mut Out<Self>, step: impl FnOnce(&mut Replica, &mut Effects)) {
        let mut fx = Effects::new();
        step(&mut self.replica, &mut fx);
        self.follow(fx, out);
    }

    fn follow(&mut self, fx: Effects, out: &mut Out<Self>) {
        for event in fx.events {
            self.report(event, out);
        }
        assert_eq!(self.replica.is_leading(), self.leading, "reports whether it leads");
        let accepted = self.replica.accepted();
        assert!(accepted >= self.accepted, "the accepted version decreased");
        self.accepted = accepted;
        let early = !fx.send_early.is_empty();
        for (to, message) in fx.send_early {
            assert_ne!(to, self.me, "a message to oneself waits for the fsync");
            self.send(to, message, out);
        }
        let persists = !fx.persist.is_empty() || (self.checkpoint.is_some() && self.batches == 0);
        if !persists && fx.send.is_empty() {
            return;
        }
        self.batches += u8::from(persists);
        self.records.extend(fx.persist);
        // Said twice before it leaves, it is said once: nothing on this network is lost.
        for late in fx.send {
            if !self.late.contains(&late) {
                self.late.push(late);
            }
        }
        let may_wait = match self.bounds.unsynced {
            0 => false,
            1 => early || !persists,
            most => self.batches <= most,
        };
        if self.batches == 0 || !may_wait {
            self.sync(out);
        }
    }

    fn sync(&mut self, out: &mut Out<Self>) {
        self.batches = 0;
        if let Some(checkpoint) = self.checkpoint.take() {
            self.replica.checkpointed(checkpoint.durable.committed);
            self.disk = *checkpoint;
        }
        self.disk.log.append(&mut self.records);
        self.on_disk = self.have();
        for (to, message) in std::mem::take(&mut self.late) {
            if to == self.me {
                self.step(out, |replica, fx| replica.handle(NOW, to, message, fx));
            } else {
                self.send(to, message, out);
            }
        }
    }

    fn have(&self) -> Have {
        let tail = self.replica.tail().map(|write| write.version).collect();
        Have { committed: self.replica.committed(), tail }
    }

    /// Whether something waits for the disk.
    pub const fn is_unsynced(&self) -> bool {
        self.checkpoint.is_some() || !self.records.is_empty() || !self.late.is_empty()
    }

    /// Whether it waits for its disk before it takes anything more.
    fn is_busy(&self) -> bool {
        self.batches > 0 && self.batches >= self.bounds.unsynced
    }

    fn send(&mut self, to: PodId, mut message: Message, out: &mut Out<Self>) {
        match &mut message {
            // An input; and what is heard at once.
            Message::Refuse { .. } | Message::Heartbeat { .. } | Message::CatchUp { .. } => return,
            Message::Repair { ballot, .. } if ballot.pod() == self.me => return,
            Message::Promise { ballot, have, .. } => self.tell(*ballot, have.accepted()),
            Message::Ack { ballot, accepted, durable, .. } => {
                self.tell(*ballot, *accepted);
                *durable = Version::ZERO;
            }
            _ => {}
        }
        out.send.push((to.0, Parcel::Protocol(message)));
    }

    fn tell(&mut self, ballot: Ballot, accepted: Version) {
        assert!(ballot >= self.told.0, "a promise of {} was taken back", self.told.0);
        assert!(accepted >= self.told.1, "{} was accepted and then {accepted}", self.told.1);
        self.told = (ballot, accepted);
    }

    fn report(&mut self, event: Event, out: &mut Out<Self>) {
        match event {
            Event::Leading { ballot } => {
                assert!(!self.leading, "Leading and Deposed alternate");
                let committed = self.replica.committed().ballot;
                assert_eq!(committed, ballot, "serves before its own first write is committed");
                self.leading = true;
                out.notes.push(Note::Leading(self.replica.committed().seq));
            }
            Event::Deposed => {
                assert!(self.leading, "Leading and Deposed alternate");
                self.leading = false;
                self.waiting.clear();
                out.notes.push(Note::Said("deposed".to_owned()));
            }
            Event::Committed { write } => {
                commit(&mut self.tables, &write);
                out.notes.push(Note::Committed(write));
            }
            Event::Passed { ticket } => {
                let (passed, waiting) =
                    std::mem::take(&mut self.waiting).into_iter().partition(|(known, _)| *known == ticket);
                self.waiting = waiting;
                let passed: Vec<(u64, Answer)> = passed;
                out.notes.extend(passed.into_iter().map(|(_, answer)| match answer {
                    Answer::Written { version, value, before } => Note::Written { version, value, before },
                    Answer::Read { since, base, value } => Note::Read { since, base, value },
                }));
            }
            Event::Transfer { peer, newer_than, full } => {
                self.replica.transfer_taken(peer);
                let head = self.replica.snapshot(newer_than, full);
                let after = version_bytes(newer_than);
                let newer = |stored: &Bytes| full || stored_parts(stored).0[..] > after[..];
                let records = self.tables.iter().filter(|(_, stored)| newer(stored));
                let records = records.map(|(key, stored)| (key.clone(), stored.clone())).collect();
                self.replica.transfer_sent(peer);
                out.send.push((peer.0, Parcel::Copy { head, records }));
                out.notes.push(Note::Said(format!("copies to {peer}, full: {full}")));
            }
        }
    }

    /// Canvasses, is granted, and stands; one that leads or stands already gives that up first.
    fn stand(&mut self, out: &mut Out<Self>) {
        for _ in 0..2 {
            let mut fx = Effects::new();
            self.replica.tick(LATER, &mut fx);
            let asked = fx.send.iter().find_map(|(to, message)| match message {
                Message::Canvass { ballot } => Some((*to, *ballot)),
                _ => None,
            });
            fx.send.retain(|(_, message)| !matches!(message, Message::Canvass { .. }));
            self.follow(fx, out);
            if let Some((peer, ballot)) = asked {
                let granted = Message::Canvassed { ballot, lost: true, promised: Ballot::ZERO };
                self.step(out, |replica, fx| replica.handle(NOW, peer, granted, fx));
                return;
            }
        }
    }

    /// The record as of the accepted version, and when it was written.
    pub fn newest(&self) -> (Version, Value) {
        let in_tail = self.replica.tail().rev().find_map(|write| {
            let (_, bytes) = write.records.iter().find(|(key, _)| key == KEY)?;
            Some((write.version, value(bytes.as_ref())))
        });
        in_tail.unwrap_or_else(|| {
            let (version, value) = record(&self.tables);
            (from_bytes(version), value)
        })
    }

    fn evaluate(&mut self, input: Input, out: &mut Out<Self>) {
        let (before, base) = (self.newest().1, self.replica.accepted().seq);
        let mut fx = Effects::new();
        let answer = match input {
            Input::Set(value) => {
                let bytes = value.map(|value| Bytes::copy_from_slice(&[value]));
                let version = self.replica.write(NOW, vec![(Bytes::from_static(KEY), bytes)], &mut fx);
                version.map(|version| Answer::Written { version, value, before })
            }
            Input::Get(since) => Some(Answer::Read { since, base, value: before }),
            _ => None,
        };
        if let Some(answer) = answer
            && let Some(ticket) = self.replica.barrier(NOW, &mut fx)
        {
            self.waiting.push((ticket, answer));
        }
        self.follow(fx, out);
    }

    fn install(&mut self, head: &Snapshot, records: &[(Bytes, Bytes)], out: &mut Out<Self>) {
        let mut fx = Effects::new();
        if self.replica.install(NOW, head, &mut fx) {
            if head.full {
                self.tables.clear();
            }
            self.tables.extend(records.iter().cloned());
            self.checkpoint();
            out.notes.push(Note::Said(format!("takes the copy at {}", head.version)));
        }
        self.follow(fx, out);
    }

    /// Tables as they are, in one batch with what they do not cover.
    fn checkpoint(&mut self) {
        let (durable, log) = (self.replica.durable(), self.replica.retained_log());
        self.records.clear();
        self.batches = 0;
        self.checkpoint = Some(Box::new(OnDisk { durable, tables: self.tables.clone(), log }));
    }

    fn forget(&mut self, out: &mut Out<Self>) {
        let deleted = |stored: &Bytes| stored_parts(stored).1.is_none();
        let newest =
            self.tables.values().filter(|stored| deleted(stored)).map(|stored| stored_parts(stored).0);
        if let Some(newest) = newest.max() {
            let newest = from_bytes(newest[..].try_into().expect("a version as stored"));
            self.tables.retain(|_, stored| !deleted(stored));
            self.replica.deletions_dropped(newest);
            self.checkpoint();
            self.follow(Effects::new(), out);
        }
    }
}

impl Pod for Holder {
    type Message = Parcel;
    type Input = Input;
    type Note = Note;

    fn deliver(&mut self, from: u8, message: &Parcel, out: &mut Out<Self>) {
        match message {
            _ if !self.started || self.is_busy() => {}
            Parcel::Protocol(Message::Heartbeat { .. }) if !self.bounds.learning && self.bounds.gets == 0 => {
            }
            Parcel::Protocol(Message::Heartbeat { ballot, tip, beat }) if !self.bounds.learning => {
                let beat = Beat { commit: Version::ZERO, ..*beat };
                let message = Message::Heartbeat { ballot: *ballot, tip: *tip, beat };
                self.step(out, |replica, fx| replica.handle(NOW, PodId(from), message, fx));
            }
            Parcel::Protocol(message) => {
                let message = message.clone();
                self.step(out, |replica, fx| replica.handle(NOW, PodId(from), message, fx));
            }
            Parcel::Copy { head, records } => self.install(head, records, out),
        }
    }

    fn input(&mut self, input: Input, out: &mut Out<Self>) {
        match input {
            Input::Start => self.start(out),
            Input::Sync => self.sync(out),
            Input::Crash => {
                let (told, disk, on_disk) = (self.told, self.disk.clone(), self.on_disk.clone());
                *self = Self { told, disk, on_disk, ..Self::new(self.me, self.bounds) };
                self.start(out);
            }
            _ if self.is_busy() => {}
            Input::Stand => self.stand(out),
            Input::Refused(promised) => {
                let refused = Message::Refuse { promised };
                self.step(out, |replica, fx| replica.handle(NOW, promised.pod(), refused, fx));
            }
            Input::Set(_) | Input::Get(_) => self.evaluate(input, out),
            Input::Answer => {
                let (written, value) = self.newest();
                out.notes.push(Note::Answered { state: self.replica.read_state(), written, value });
            }
            Input::Forget => self.forget(out),
        }
    }

    fn says(&self) -> Vec<(u8, Parcel)> {
        let mut said = Vec::new();
        if !self.started {
            return said;
        }
        for peer in (0..REPLICAS).map(PodId).filter(|peer| *peer != self.me) {
            let (mut replica, mut fx) = (self.replica.clone(), Effects::new());
            replica.link(NOW, peer, true, &mut fx);
            let messages = fx.send_early.into_iter().map(|(_, message)| message);
            let beats = messages.filter(|message| matches!(message, Message::Heartbeat { .. }));
            said.extend(beats.map(|beat| (peer.0, Parcel::Protocol(beat))));
        }
        let ballot = self.replica.ballot();
        if ballot.pod() != self.me {
            if self.bounds.forgets && ballot.round > 0 {
                // It may need a copy, and is sent one if what it lacks is not in memory.
                said.push((ballot.pod, Parcel::Protocol(Message::CatchUp { ballot, have: self.have() })));
            }
            return said;
        }
        // All that a coordinator holds in memory: of that each takes what it lacks, as if it had asked.
        for peer in (0..REPLICAS).map(PodId).filter(|peer| *peer != self.me) {
            for committed in [Version::ZERO, self.replica.committed()] {
                let (mut replica, mut fx) = (self.replica.clone(), Effects::new());
                let asks = Message::CatchUp { ballot, have: Have { committed, tail: Vec::new() } };
                replica.handle(NOW, peer, asks, &mut fx);
                let repairs = fx.send_early.into_iter().map(|(_, message)| message);
                let repairs = repairs.filter(|message| matches!(message, Message::Repair { .. }));
                said.extend(repairs.map(|repair| (peer.0, Parcel::Protocol(repair))));
            }
        }
        said
    }

    fn is_over(&self, from: u8, sender: &Self, parcel: &Parcel) -> bool {
        let (promised, accepted) = (self.replica.ballot(), self.replica.accepted());
        let message = match parcel {
            Parcel::Copy { head, .. } => return head.version <= self.replica.committed(),
            Parcel::Protocol(message) => message,
        };
        if message.ballot() < promised {
            // Refused, which is an input; or an answer to what this pod is no longer.
            return true;
        }
        let follows = message.ballot() == promised && self.replica.leader() == Some(PodId(from));
        match message {
            Message::Prepare { .. } => follows,
            // Later than that it is no news to the coordinator.
            Message::Promise { ballot, .. } => sender.replica.accepted().ballot == *ballot,
            // Commit point and round are in the next heartbeat.
            Message::Write { write, .. } => follows && accepted >= write.version,
            Message::Repair { writes, beat, .. } if follows => {
                writes.last().is_none_or(|last| accepted >= last.version)
                    && self.replica.committed() >= beat.commit.min(accepted)
            }
            Message::Ack { .. } | Message::Repair { .. } => is_idle(&self.replica, |replica| {
                let mut fx = Effects::new();
                replica.handle(NOW, PodId(from), message.clone(), &mut fx);
                fx.is_empty()
            }),
            _ => false,
        }
    }
}
