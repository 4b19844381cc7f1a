//! One voter: the machine, its disk, and what its user would keep.

use super::Bounds;
use crate::world::{Out, Pod, is_idle};
use bytes::Bytes;
use kassa_protocols::ids::{Ballot, Module, PodId, Shard};
use kassa_protocols::paxos::{
    Body, Config, Durable, Entry, Event, Fx, HISTORY_BYTES_MAX, Message, Record, Replica, Timing,
};
use kassa_protocols::time::{Span, Time};
use std::collections::BTreeMap;
use std::fmt;

pub const REPLICAS: u8 = 3;

/// Time stands still, so that it tells no two states apart: what a time-out would bring about is an input.
const NOW: Time = Time(0);
/// When what waits for a time-out is due.
const LATER: Time = Time(1);
const TIMING: Timing = Timing {
    heartbeat: Span(1),
    election_timeout: Span(0),
    stagger: Span(0),
    retry: Span(0),
    handover: Span(u64::MAX),
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    Start,
    /// The time-out of an election, and whoever is asked would stand behind it.
    Stand,
    /// Another has promised this ballot, and refuses a message of this one's.
    Rejected(Ballot),
    Propose(u8),
    /// A read that must see all up to this index.
    Read(u8),
    Sync,
    /// Ends, and starts again with what is on disk.
    Crash,
}

#[derive(Clone)]
pub enum Note {
    /// A client may have seen all up to this index.
    Shown(u8),
    /// For whoever reads the way to a violation.
    Said(String),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shown(index) => write!(f, "clients may have seen {index} entries"),
            Self::Said(text) => f.write_str(text),
        }
    }
}

#[derive(Clone, Hash)]
pub struct Voter {
    pub me: PodId,
    bounds: Bounds,
    pub replica: Replica,
    pub disk: Vec<Record>,
    /// What is not on disk yet, and what waits for that.
    records: Vec<Record>,
    late: Vec<(PodId, Message)>,
    batches: u8,
    pub applied: Vec<Entry>,
    pub leading: Option<Ballot>,
    /// Reads that wait for their round, with the index they must see.
    tickets: BTreeMap<u64, u8>,
    /// The highest ballot that others were told it promised.
    told: Ballot,
    pub started: bool,
}

fn config(me: PodId) -> Config {
    Config {
        shard: Shard::new(Module::Payment, 0),
        me,
        epoch: 1,
        joined: 0,
        voters: (0..REPLICAS).map(PodId).collect(),
        learners: Vec::new(),
        timing: TIMING,
        history_bytes_max: HISTORY_BYTES_MAX,
    }
}

impl Voter {
    pub fn new(me: PodId, bounds: Bounds) -> Self {
        Self {
            me,
            bounds,
            replica: Replica::new(config(me), Durable::default(), NOW),
            disk: Vec::new(),
            records: Vec::new(),
            late: Vec::new(),
            batches: 0,
            applied: Vec::new(),
            leading: None,
            tickets: BTreeMap::new(),
            told: Ballot::ZERO,
            started: false,
        }
    }

    /// Reads what is on disk.
    fn start(&mut self, out: &mut Out<Self>) {
        self.started = true;
        for record in self.disk.clone() {
            self.replica.recover(record);
        }
        self.step(out, Replica::recovered);
        let ballot = self.replica.ballot();
        assert!(ballot >= self.told, "promised {} and came back with {ballot}", self.told);
    }

    fn step(&mut self, out: &mut Out<Self>, step: impl FnOnce(&mut Replica, Time, &mut Fx)) {
        self.step_at(NOW, out, step);
    }

    fn step_at(&mut self, now: Time, out: &mut Out<Self>, step: impl FnOnce(&mut Replica, Time, &mut Fx)) {
        let mut fx = Fx::new();
        step(&mut self.replica, now, &mut fx);
        self.follow(fx, out);
    }

    fn follow(&mut self, fx: Fx, out: &mut Out<Self>) {
        for event in fx.events {
            self.report(event, out);
        }
        assert_eq!(self.replica.applied(), self.applied.len() as u64, "reports all that it applies");
        assert_eq!(self.replica.is_leading(), self.leading.is_some(), "reports whether it leads");
        let early = !fx.send_early.is_empty();
        for (to, message) in fx.send_early {
            assert_ne!(to, self.me, "a message to oneself waits for the fsync");
            self.send(to, message, out);
        }
        if fx.persist.is_empty() && fx.send.is_empty() {
            return;
        }
        let persists = !fx.persist.is_empty();
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
        self.disk.append(&mut self.records);
        for (to, message) in std::mem::take(&mut self.late) {
            if to == self.me {
                self.step(out, |replica, now, fx| replica.handle(now, to, message, fx));
            } else {
                self.send(to, message, out);
            }
        }
    }

    fn send(&mut self, to: PodId, mut message: Message, out: &mut Out<Self>) {
        match &mut message {
            // Inputs; heard at once; and what is said when something was lost, and here nothing ever is.
            Message::Reject { .. } | Message::CatchUp { .. } | Message::Missing { .. } => return,
            Message::Accepted { applied, .. } => *applied = 0,
            Message::Accept { committed, .. } => *committed = 0,
            _ => {}
        }
        if let Message::Promise { ballot, .. } | Message::Accepted { ballot, .. } = &message {
            assert!(*ballot >= self.told, "a promise of {} was taken back: {message:?}", self.told);
            self.told = *ballot;
        }
        out.send.push((to.0, message));
    }

    fn report(&mut self, event: Event, out: &mut Out<Self>) {
        match event {
            Event::Chosen { index, entry } => {
                self.applied.push(entry.clone());
                assert_eq!(index, self.applied.len() as u64, "in order, once, without gaps");
                out.notes.push(Note::Said(format!("applies {index}: {:?}", entry.body)));
                if self.leading.is_some() {
                    out.notes.push(Note::Shown(self.end()));
                }
            }
            Event::Leading { ballot } => {
                let lead = Body::Lead(ballot);
                assert!(self.applied.iter().any(|entry| entry.body == lead), "serves before its Lead");
                self.leading = Some(ballot);
                out.notes.extend([Note::Said(format!("leads {ballot}")), Note::Shown(self.end())]);
            }
            Event::Deposed => {
                self.leading = None;
                self.tickets.clear();
                out.notes.push(Note::Said("deposed".to_owned()));
            }
            Event::Passed { ticket } => {
                let needs = self.tickets.remove(&ticket).expect("a ticket passes once, before a fall");
                assert!(self.end() >= needs, "a read is shown {} entries and not {needs}", self.end());
                out.notes.push(Note::Said(format!("passes ticket {ticket}")));
            }
            Event::SnapshotWanted { .. } => panic!("nothing is ever forgotten here"),
            Event::Whole => panic!("no disk is ever lost here"),
        }
    }

    /// Whether something waits for the disk.
    pub const fn is_unsynced(&self) -> bool {
        !self.records.is_empty() || !self.late.is_empty()
    }

    /// Whether it waits for its disk before it takes anything more.
    fn is_busy(&self) -> bool {
        self.batches > 0 && self.batches >= self.bounds.unsynced
    }

    fn end(&self) -> u8 {
        u8::try_from(self.applied.len()).expect("a short log")
    }

    /// Canvasses, is granted, and stands; one that leads or stands already gives that up first.
    fn stand(&mut self, out: &mut Out<Self>) {
        for _ in 0..2 {
            let mut fx = Fx::new();
            self.replica.tick(LATER, &mut fx);
            let asked = fx.send_early.iter().find_map(|(to, message)| match message {
                Message::Canvass { poll, .. } => Some((*to, *poll)),
                _ => None,
            });
            fx.send_early.clear();
            self.follow(fx, out);
            if let Some((peer, poll)) = asked {
                let granted = Message::Canvassed {
                    ballot: Ballot::ZERO,
                    poll,
                    granted: true,
                    applied: 0,
                    leader: None,
                };
                self.step_at(LATER, out, |replica, now, fx| replica.handle(now, peer, granted, fx));
                return;
            }
        }
    }

    fn crash(&mut self, out: &mut Out<Self>) {
        let (told, disk) = (self.told, std::mem::take(&mut self.disk));
        *self = Self { told, disk, ..Self::new(self.me, self.bounds) };
        self.start(out);
    }
}

impl Pod for Voter {
    type Message = Message;
    type Input = Input;
    type Note = Note;

    fn deliver(&mut self, from: u8, message: &Message, out: &mut Out<Self>) {
        let learns =
            self.bounds.learning || (self.replica.ballot().pod() == self.me && self.leading.is_none());
        let deaf = matches!(message, Message::Heartbeat { .. } | Message::Chosen { .. }) && !learns;
        if self.started && !deaf && !self.is_busy() {
            let message = message.clone();
            self.step(out, |replica, now, fx| replica.handle(now, PodId(from), message, fx));
        }
    }

    fn input(&mut self, input: Input, out: &mut Out<Self>) {
        match input {
            Input::Sync => self.sync(out),
            Input::Start => self.start(out),
            Input::Crash => self.crash(out),
            Input::Stand | Input::Propose(_) | Input::Read(_) | Input::Rejected(_)
                if !self.started || self.is_busy() => {}
            Input::Stand => self.stand(out),
            Input::Rejected(promised) => {
                let ballot = self.replica.ballot();
                let rejected = Message::Reject { ballot, promised };
                self.step(out, |replica, now, fx| replica.handle(now, promised.pod(), rejected, fx));
            }
            Input::Propose(command) => {
                self.step(out, |replica, now, fx| {
                    replica.propose(now, Bytes::copy_from_slice(&[command]), fx);
                });
            }
            Input::Read(needs) => {
                let mut ticket = None;
                self.step(out, |replica, now, fx| ticket = replica.barrier(now, fx));
                if let Some(ticket) = ticket {
                    self.tickets.insert(ticket, needs);
                    self.step(out, Replica::tick);
                }
            }
        }
    }

    fn says(&self) -> Vec<(u8, Message)> {
        let me = self.me;
        let (ballot, applied) = (Ballot::ZERO, self.replica.applied());
        let mut said = Vec::new();
        if applied > 0 {
            said.push(Message::Chosen { ballot, from: 1, entries: self.applied.clone(), applied });
        }
        let (mut replica, mut fx) = (self.replica.clone(), Fx::new());
        let peer = PodId((me.0 + 1) % REPLICAS);
        replica.link(NOW, peer, true, &mut fx);
        let beats = fx.send_early.into_iter().map(|(_, message)| message);
        said.extend(beats.filter(|m| matches!(m, Message::Heartbeat { committed, .. } if *committed > 0)));
        let peers = (0..REPLICAS).filter(|peer| *peer != me.0);
        peers.flat_map(|peer| said.iter().map(move |message| (peer, message.clone()))).collect()
    }

    fn is_over(&self, from: u8, _sender: &Self, message: &Message) -> bool {
        let promised = self.replica.ballot();
        if message.ballot() < promised {
            // Refused, which is an input; or an answer to what this pod is no longer.
            return true;
        }
        let applied = self.replica.applied();
        let follows = message.ballot() == promised && self.replica.leader() == Some(PodId(from));
        match message {
            Message::Prepare { .. } => follows,
            Message::Accept { ballot, index, committed, .. } => {
                let accepted = self.replica.retained_log().any(|record| {
                    matches!(record, Record::Accepted { ballot: b, index: i, .. } if b == *ballot && i >= *index)
                });
                follows && applied >= *committed && (applied >= *index || accepted)
            }
            Message::Accepted { .. } | Message::ReadOk { .. } | Message::Missing { .. } => {
                is_idle(&self.replica, |replica| {
                    let mut fx = Fx::new();
                    replica.handle(NOW, PodId(from), message.clone(), &mut fx);
                    fx.is_empty()
                })
            }
            _ => false,
        }
    }
}
