//! A handful of replicas with links and disks between them, and an oracle that watches.

mod disks;

use crate::oracle::Oracle;
use bytes::Bytes;
use kassa_protocols::ids::{Ballot, Module, PodId, Shard};
use kassa_protocols::paxos::{
    Body, Config, Durable, Entry, Event, Fx, HISTORY_BYTES_MAX, Message, Record, Replica, Timing,
};
use kassa_protocols::time::{Span, Time};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a link carries.
pub enum Parcel {
    Message(Message),
    Snapshot(Durable, Vec<Entry>),
}

#[derive(Default)]
struct Link {
    queue: VecDeque<(Time, Parcel)>,
    /// Loses everything, silently.
    cut: bool,
}

/// What a step left to be made durable, and what may leave after that.
struct Pending {
    persist: Vec<Record>,
    /// A checkpoint with them.
    checkpoint: Option<(Durable, Vec<Entry>)>,
    send: Vec<(PodId, Message)>,
    /// The tables of a snapshot, replaced in the same batch.
    tables: Option<Vec<Entry>>,
}

#[derive(Default)]
struct Disk {
    checkpoint: Durable,
    /// The state at the checkpoint (or at the last snapshot in the log): simply all entries.
    tables: Vec<Entry>,
    log: Vec<Record>,
}

pub struct Pod {
    config: Config,
    pub replica: Option<Replica>,
    disk: Disk,
    pending: VecDeque<Pending>,
    state: Vec<Entry>,
    /// Between its Leading and its Deposed.
    leading: Option<Ballot>,
    /// It has just become whole.
    whole: bool,
    /// Barriers not passed, with the index they must see.
    tickets: BTreeMap<u64, u64>,
    pub passed: u64,
    /// Which disk each voter has, as far as this one was told.
    disks: BTreeMap<PodId, u32>,
}

pub struct Cluster {
    pub now: Time,
    pub pods: BTreeMap<PodId, Pod>,
    links: BTreeMap<(PodId, PodId), Link>,
    pub oracle: Oracle,
    /// Whether messages and records pass through their codec.
    pub encodes: bool,
    /// How many disks each pod has lost.
    pub disks: BTreeMap<PodId, u32>,
    /// What happened since it was last taken, for scripts.
    pub trace: Vec<String>,
}

impl Cluster {
    pub fn new(voters: u8, learners: u8, timing: Timing) -> Self {
        let ids = |range: std::ops::RangeInclusive<u8>| range.map(PodId).collect::<Vec<_>>();
        let (voters, learners) = (ids(1..=voters), ids(voters + 1..=voters + learners));
        let mut cluster = Self {
            now: Time(1_000_000),
            pods: BTreeMap::new(),
            links: BTreeMap::new(),
            oracle: Oracle::new(&voters),
            encodes: true,
            disks: BTreeMap::new(),
            trace: Vec::new(),
        };
        for me in voters.iter().chain(&learners).copied() {
            let config = Config {
                history_bytes_max: HISTORY_BYTES_MAX,
                shard: Shard::new(Module::Payment, 0),
                me,
                epoch: 1,
                joined: 0,
                voters: voters.clone(),
                learners: learners.clone(),
                timing,
            };
            let pod = Pod {
                config,
                replica: None,
                disk: Disk::default(),
                pending: VecDeque::new(),
                state: Vec::new(),
                leading: None,
                whole: false,
                tickets: BTreeMap::new(),
                passed: 0,
                disks: BTreeMap::new(),
            };
            cluster.pods.insert(me, pod);
            for peer in voters.iter().chain(&learners).copied().filter(|peer| *peer != me) {
                cluster.links.insert((me, peer), Link::default());
            }
        }
        cluster
    }

    pub fn ids(&self) -> Vec<PodId> {
        self.pods.keys().copied().collect()
    }
    pub fn pod(&mut self, id: PodId) -> &mut Pod {
        self.pods.get_mut(&id).expect("a pod of the cluster")
    }
    pub fn is_up(&self, id: PodId) -> bool {
        self.pods[&id].replica.is_some()
    }
    pub fn leaders(&self) -> Vec<PodId> {
        let leads = |pod: &Pod| pod.replica.as_ref().is_some_and(Replica::is_leading);
        self.pods.iter().filter(|(_, pod)| leads(pod)).map(|(id, _)| *id).collect()
    }
    fn note(&mut self, line: String) {
        self.trace.push(line);
    }

    // --- Steps -------------------------------------------------------------------------------

    fn step<T>(&mut self, id: PodId, step: impl FnOnce(&mut Replica, Time, &mut Fx) -> T) -> Option<T> {
        let now = self.now;
        let mut fx = Fx::new();
        let replica = self.pod(id).replica.as_mut()?;
        let result = step(replica, now, &mut fx);
        self.absorb(id, fx, None);
        Some(result)
    }

    fn absorb(&mut self, id: PodId, fx: Fx, tables: Option<Vec<Entry>>) {
        for event in fx.events {
            self.report(id, event);
        }
        for (to, message) in fx.send_early {
            assert_ne!(to, id, "a message to oneself waits for the fsync");
            self.transmit(id, to, message);
        }
        let pod = self.pod(id);
        let whole = std::mem::take(&mut pod.whole);
        let replica = pod.replica.as_ref().expect("it has just taken a step");
        let checkpoint = whole.then(|| (replica.durable(), pod.state.clone()));
        if !fx.persist.is_empty() || !fx.send.is_empty() || tables.is_some() || whole {
            let (persist, send) = (fx.persist, fx.send);
            pod.pending.push_back(Pending { persist, checkpoint, send, tables });
        }
        let pod = &self.pods[&id];
        let replica = pod.replica.as_ref().expect("it has just taken a step");
        assert_eq!(replica.applied(), pod.state.len() as u64, "{id} reported all that it applied");
        assert_eq!(replica.is_leading(), pod.leading.is_some(), "{id} reported whether it leads");
        assert!(replica.committed() >= replica.applied());
    }

    fn report(&mut self, id: PodId, event: Event) {
        let line = match &event {
            Event::Chosen { index, entry } => format!("{id} applies {index} {}", show(entry)),
            Event::Leading { ballot } => format!("{id} leads {ballot}"),
            Event::Deposed => format!("{id} deposed"),
            Event::Passed { ticket } => format!("{id} passes ticket {ticket}"),
            Event::SnapshotWanted { peer } => format!("{id} wants a snapshot sent to {peer}"),
            Event::Whole => format!("{id} is whole"),
        };
        self.note(line);
        match event {
            Event::Chosen { index, entry } => {
                self.oracle.applied(id, index, &entry);
                let pod = self.pod(id);
                assert_eq!(index, pod.state.len() as u64 + 1, "{id}: in order, once, without gaps");
                pod.state.push(entry);
            }
            Event::Leading { ballot } => {
                let pod = self.pod(id);
                assert_eq!(ballot.pod(), id);
                let lead = Body::Lead(ballot);
                assert!(pod.state.iter().any(|entry| entry.body == lead), "{id} serves before its Lead");
                assert_eq!(pod.leading.replace(ballot), None, "{id} leads twice");
            }
            Event::Deposed => {
                let pod = self.pod(id);
                pod.leading = None;
                pod.tickets.clear();
            }
            Event::Passed { ticket } => {
                let pod = self.pod(id);
                pod.passed += 1;
                let needs = pod.tickets.remove(&ticket).expect("a ticket passes once, before a fall");
                let seen = pod.state.len() as u64;
                assert!(seen >= needs, "{id}: ticket {ticket} passed at {seen}, must see {needs}");
            }
            Event::SnapshotWanted { peer } => {
                let pod = self.pod(id);
                let replica = pod.replica.as_mut().expect("it asks");
                replica.snapshot_taken(peer);
                let durable = replica.durable();
                let parcel = Parcel::Snapshot(durable, pod.state.clone());
                self.post(id, peer, parcel);
                let now = self.now;
                let _ = self.step(id, |replica, _, _| replica.snapshot_sent(now, peer));
            }
            // Written with what the step persists: nothing that it sends leaves before.
            Event::Whole => self.pod(id).whole = true,
        }
    }

    // --- Links -------------------------------------------------------------------------------

    fn transmit(&mut self, from: PodId, to: PodId, message: Message) {
        self.oracle.sent(from, &message);
        let message = if self.encodes { through_codec(&message) } else { message };
        self.post(from, to, Parcel::Message(message));
    }

    fn post(&mut self, from: PodId, to: PodId, parcel: Parcel) {
        let now = self.now;
        let up = self.is_up(to);
        let link = self.links.get_mut(&(from, to)).expect("a link between any two");
        if up && !link.cut {
            link.queue.push_back((now, parcel));
        }
    }

    /// Delays what is queued on a link last.
    pub fn delay_last(&mut self, from: PodId, to: PodId, delay: Span) {
        if let Some((at, _)) = self.links.get_mut(&(from, to)).and_then(|link| link.queue.back_mut()) {
            *at = *at + delay;
        }
    }
    pub fn lose_first(&mut self, from: PodId, to: PodId) {
        self.links.get_mut(&(from, to)).expect("a link").queue.pop_front();
    }
    pub fn queued(&self) -> Vec<(PodId, PodId)> {
        self.links.iter().filter(|(_, link)| !link.queue.is_empty()).map(|(ends, _)| *ends).collect()
    }
    /// Hands over the first message of a link, if it has arrived by now.
    pub fn deliver(&mut self, from: PodId, to: PodId) -> bool {
        let now = self.now;
        let queue = &mut self.links.get_mut(&(from, to)).expect("a link").queue;
        if queue.front().is_none_or(|(at, _)| *at > now) {
            return false;
        }
        let Some((_, parcel)) = queue.pop_front() else { return false };
        match parcel {
            Parcel::Message(message) => {
                let _ = self.step(to, |replica, now, fx| replica.handle(now, from, message, fx));
            }
            Parcel::Snapshot(durable, state) => self.install(to, durable, state),
        }
        true
    }
    fn install(&mut self, id: PodId, durable: Durable, state: Vec<Entry>) {
        let now = self.now;
        let mut fx = Fx::new();
        let Some(replica) = self.pod(id).replica.as_mut() else { return };
        replica.snapshot_begun(now);
        if replica.install(now, durable, &mut fx) {
            self.note(format!("{id} installs a snapshot at {}", durable.applied));
            self.pod(id).state.clone_from(&state);
            self.absorb(id, fx, Some(state));
        }
    }
    pub fn cut(&mut self, from: PodId, to: PodId, cut: bool) {
        self.links.get_mut(&(from, to)).expect("a link").cut = cut;
    }
    /// A new link takes the place of the old one: what was queued is lost, and the sender is told.
    pub fn reset_link(&mut self, from: PodId, to: PodId) {
        self.links.get_mut(&(from, to)).expect("a link").queue.clear();
        let _ = self.step(from, |replica, now, fx| replica.link(now, to, false, fx));
        let _ = self.step(from, |replica, now, fx| replica.link(now, to, true, fx));
    }
    /// Whether the two hear each other.
    pub fn joined(&self, one: PodId, other: PodId) -> bool {
        !self.links[&(one, other)].cut && !self.links[&(other, one)].cut
    }
    /// Ends all faults: new links everywhere, all pods up, lost disks replaced.
    pub fn heal(&mut self) {
        for id in self.ids() {
            if self.waits(id) {
                self.replace(id);
            }
        }
        for id in self.ids() {
            self.tell(id);
            if !self.is_up(id) {
                self.start(id);
            }
        }
        let ends: Vec<_> = self.links.keys().copied().collect();
        for (from, to) in ends {
            self.cut(from, to, false);
            self.reset_link(from, to);
        }
    }

    // --- Disks -------------------------------------------------------------------------------

    /// Makes durable what is pending at a pod, then lets go of what waited for it.
    pub fn sync(&mut self, id: PodId) {
        let pending = std::mem::take(&mut self.pod(id).pending);
        let mut own = Vec::new();
        let mut others = Vec::new();
        for batch in pending {
            self.write(id, batch.persist, batch.tables, batch.checkpoint);
            for (to, message) in batch.send {
                if to == id { own.push(message) } else { others.push((to, message)) }
            }
        }
        for (to, message) in others {
            self.transmit(id, to, message);
        }
        for message in own {
            let _ = self.step(id, |replica, now, fx| replica.handle(now, id, message, fx));
        }
    }
    fn write(
        &mut self,
        id: PodId,
        records: Vec<Record>,
        tables: Option<Vec<Entry>>,
        checkpoint: Option<(Durable, Vec<Entry>)>,
    ) {
        for record in &records {
            self.oracle.persisted(id, record);
            if self.encodes {
                assert_eq!(through_codec(record), *record);
            }
        }
        let disk = &mut self.pod(id).disk;
        disk.log.extend(records);
        if let Some(tables) = tables {
            disk.tables = tables;
        }
        if let Some((durable, tables)) = checkpoint {
            (disk.checkpoint, disk.tables) = (durable, tables);
        }
    }
    pub fn has_pending(&self, id: PodId) -> bool {
        !self.pods[&id].pending.is_empty()
    }

    /// Writes the tables, logs anew what they do not cover, and cuts the log.
    pub fn checkpoint(&mut self, id: PodId) {
        self.sync(id);
        let now = self.now;
        if self.has_pending(id) || !self.is_up(id) {
            return;
        }
        let pod = self.pod(id);
        let replica = pod.replica.as_mut().expect("it is up");
        pod.disk.checkpoint = replica.durable();
        pod.disk.tables.clone_from(&pod.state);
        pod.disk.log = replica.retained_log().collect();
        replica.checkpointed(replica.applied());
        let mut again = Replica::new(pod.config.clone(), pod.disk.checkpoint, now);
        for record in pod.disk.log.clone() {
            again.recover(record);
        }
        assert_eq!(again.durable(), replica.durable());
        assert_eq!(again.is_joining(), replica.is_joining());
        assert!(again.retained_log().eq(replica.retained_log()), "the retained log makes an equal replica");
    }

    /// Whether `id` has not been told of all that was replaced.
    pub fn is_behind(&self, id: PodId) -> bool {
        self.pods[&id].disks != self.disks
    }

    // --- Service -----------------------------------------------------------------------------

    pub fn tick(&mut self, id: PodId) {
        let now = self.now;
        if self.pods[&id].replica.as_ref().is_some_and(|replica| replica.next_wakeup() <= now) {
            let _ = self.step(id, Replica::tick);
        }
    }
    pub fn propose(&mut self, id: PodId, commands: Bytes) -> Option<u64> {
        let index = self.step(id, |replica, now, fx| replica.propose(now, commands, fx)).flatten();
        assert!(index.is_none() || self.pods[&id].leading.is_some(), "{id} took commands before its Lead");
        index
    }
    pub fn barrier(&mut self, id: PodId) -> Option<u64> {
        let needs = self.oracle.newest;
        let ticket = self.step(id, Replica::barrier).flatten()?;
        assert!(self.pods[&id].leading.is_some(), "{id} reads before its Lead");
        self.pod(id).tickets.insert(ticket, needs);
        Some(ticket)
    }

    // --- Running -----------------------------------------------------------------------------

    /// Lets everything happen without delay until nothing is left to do at this moment.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut busy = false;
            for (from, to) in self.queued() {
                busy |= self.deliver(from, to);
            }
            for id in self.ids() {
                self.tick(id);
                if self.has_pending(id) {
                    self.sync(id);
                    busy = true;
                }
            }
            if !busy && self.queued().is_empty() {
                return;
            }
        }
        panic!("it never comes to rest");
    }
    /// Time passes, in steps of a millisecond, without delays and losses but those of cut links.
    pub fn run(&mut self, span: Span) {
        let end = self.now + span;
        self.settle();
        while self.now < end {
            self.now = self.now + Span::from_millis(1);
            self.settle();
        }
    }
    /// Whether all running pods have applied the same, and all that is chosen.
    pub fn agrees(&self) -> bool {
        let applied: BTreeSet<u64> =
            self.pods.values().filter_map(|pod| pod.replica.as_ref().map(Replica::applied)).collect();
        applied.len() == 1 && applied.contains(&self.oracle.newest)
    }
}

fn through_codec<T: Serialize + DeserializeOwned>(value: &T) -> T {
    let bytes = postcard::to_stdvec(value).expect("it encodes");
    postcard::from_bytes(&bytes).expect("and decodes")
}

pub fn show(entry: &Entry) -> String {
    match &entry.body {
        Body::Lead(ballot) => format!("Lead({ballot})"),
        Body::Commands(commands) => {
            String::from_utf8_lossy(&commands[..commands.len().min(16)]).trim_end_matches('.').to_owned()
        }
    }
}
