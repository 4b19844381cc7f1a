//! Replicas, links and disks in one place, with books of its own: what was acknowledged, and where.

mod disks;

use crate::text::shown;
use crate::union::Union;
use bytes::Bytes;
use kassa_protocols::eventual::{Config, Durable, Effects, Event, Item, Message, Record, Replica, Timing};
use kassa_protocols::ids::{Ballot, Module, OpId, PodId, Shard};
use kassa_protocols::time::{Span, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

struct Pod {
    /// `None` while it is down.
    replica: Option<Replica>,
    sets: Union,
    promised: Ballot,
    /// On disk.
    checkpoint: (Durable, Union),
    log: Vec<Record>,
    on_disk: BTreeSet<OpId>,
    /// What was on the disks that it lost, how many were replaced, and whether the last one was not yet.
    on_lost_disks: BTreeSet<OpId>,
    disk: u32,
    waits: bool,
    /// The epoch in which its disk was new; and as far as it was told, the epoch now, and each pod's disk.
    joined: u32,
    epoch: u32,
    told: BTreeMap<PodId, u32>,
    /// The newest edit taken here that is.
    stored: u64,
    /// Not yet on disk, and what waits for it.
    unsynced: Vec<Record>,
    held: Vec<(PodId, Message)>,
    /// Edits taken: number → (id, ballot it was taken under).
    edits: BTreeMap<u64, (OpId, Option<Ballot>)>,
    /// What was read and not told yet, by ticket.
    reads: BTreeMap<u64, Vec<Read>>,
}

/// What a reader saw.
struct Read {
    ballot: Option<Ballot>,
    seen: BTreeSet<OpId>,
}

impl Pod {
    /// What was persisted is on disk.
    fn sync(&mut self) {
        for record in self.unsynced.drain(..) {
            if let Record::Edited { seq, .. } = &record {
                self.stored = *seq;
            }
            match &record {
                Record::Edited { items, .. } | Record::Merged { items, .. } => {
                    self.on_disk.extend(items.iter().map(|item| item.id));
                }
                Record::Taken { sets, .. } => {
                    self.on_disk.extend(sets.iter().flat_map(|(_, items)| items).map(|item| item.id));
                }
                Record::Started { .. } | Record::Compared { .. } | Record::Whole { .. } => {}
            }
            self.log.push(record);
        }
    }
}

pub struct World {
    pub now: Time,
    pods: BTreeMap<PodId, Pod>,
    links: BTreeMap<(PodId, PodId), VecDeque<Message>>,
    up: BTreeSet<(PodId, PodId)>,
    /// Whether disks are done at once.
    pub auto_sync: bool,
    /// Whether digests are counted anew at every step.
    pub checks_digests: bool,
    /// What owners acknowledged with a majority: in every later owner's union.
    acknowledged: Vec<(Ballot, OpId)>,
    /// Raised with every disk that is replaced; and the newest in which there was an owner.
    epoch: u32,
    owned: u32,
    /// A read whose ticket is about to be given.
    reading: Option<Read>,
    pub trace: Option<String>,
    /// Updates delivered, and the items in them.
    pub delivered: (usize, usize),
}

pub fn id(n: u64) -> OpId {
    OpId(u128::from(n))
}

impl World {
    pub fn new(n: u8) -> Self {
        let ids: Vec<PodId> = (1..=n).map(PodId).collect();
        let pod = || Pod {
            replica: None,
            sets: Union::default(),
            promised: Ballot::ZERO,
            checkpoint: Default::default(),
            log: Vec::new(),
            on_disk: BTreeSet::new(),
            on_lost_disks: BTreeSet::new(),
            disk: 0,
            waits: false,
            joined: 0,
            epoch: 1,
            told: BTreeMap::new(),
            stored: 0,
            unsynced: Vec::new(),
            held: Vec::new(),
            edits: BTreeMap::new(),
            reads: BTreeMap::new(),
        };
        let mut world = Self {
            now: Time(0),
            pods: ids.iter().map(|&id| (id, pod())).collect(),
            links: BTreeMap::new(),
            up: BTreeSet::new(),
            auto_sync: true,
            checks_digests: true,
            acknowledged: Vec::new(),
            epoch: 1,
            owned: 1,
            reading: None,
            trace: None,
            delivered: (0, 0),
        };
        for id in ids {
            world.start(id);
        }
        world
    }

    pub fn ids(&self) -> Vec<PodId> {
        self.pods.keys().copied().collect()
    }
    fn majority(&self) -> usize {
        self.pods.len() / 2 + 1
    }
    pub fn runs(&self, pod: PodId) -> bool {
        self.pods[&pod].replica.is_some()
    }
    pub fn owns(&self, pod: PodId) -> bool {
        self.pods[&pod].replica.as_ref().is_some_and(|replica| replica.owning().is_some())
    }
    pub fn replica(&self, pod: PodId) -> &Replica {
        self.pods[&pod].replica.as_ref().expect("the script names a pod that runs")
    }
    pub fn sets(&self, pod: PodId) -> &Union {
        &self.pods[&pod].sets
    }
    pub fn promised(&self, pod: PodId) -> Ballot {
        self.pods[&pod].promised
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            writeln!(trace, "{}", text()).expect("a string takes all");
        }
    }

    fn step(
        &mut self,
        pod: PodId,
        input: impl FnOnce(&mut Replica, Time, Ballot, &mut Union, &mut Effects) -> Option<u64>,
    ) -> Option<u64> {
        let now = self.now;
        let state = self.pods.get_mut(&pod).expect("a pod of the world");
        let replica = state.replica.as_mut()?;
        let mut fx = Effects::new();
        let seq = input(replica, now, state.promised, &mut state.sets, &mut fx);
        if let (Some(read), Some(ticket)) = (self.reading.take(), seq) {
            state.reads.entry(ticket).or_default().push(read);
        }
        if self.checks_digests {
            let counted = replica.digests().to_vec();
            assert_eq!(counted, state.sets.buckets(), "{pod}: digests are those of the sets");
        }
        state.unsynced.append(&mut fx.persist);
        state.held.append(&mut fx.send);
        for (to, message) in fx.send_early {
            self.put(pod, to, message);
        }
        for event in fx.events {
            self.observe(pod, event);
        }
        if self.auto_sync {
            self.sync(pod);
        }
        seq
    }

    /// What was persisted is on disk: what waited for it leaves.
    pub fn sync(&mut self, pod: PodId) {
        let state = self.pods.get_mut(&pod).expect("a pod of the world");
        state.sync();
        for (to, message) in std::mem::take(&mut state.held) {
            if to == pod {
                self.step(pod, |replica, now, promised, sets, fx| {
                    replica.handle(now, pod, message, promised, sets, fx);
                    None
                });
            } else {
                self.put(pod, to, message);
            }
        }
    }

    fn put(&mut self, from: PodId, to: PodId, message: Message) {
        if self.up.contains(&(from, to)) {
            self.links.entry((from, to)).or_default().push_back(message);
        }
    }

    fn observe(&mut self, pod: PodId, event: Event) {
        match event {
            Event::Durable { seq } => {
                let (op, ballot) = self.pods[&pod].edits[&seq];
                let with_majority = self.replica(pod).reaches_majority();
                let on_disk = self.disks_with(pod, op);
                assert!(
                    self.pods[&pod].on_disk.contains(&op),
                    "{pod} acknowledged what is not on its own disk"
                );
                if with_majority {
                    assert!(on_disk >= self.majority(), "{pod} acknowledged what no majority has on disk");
                    self.acknowledged.extend(ballot.map(|ballot| (ballot, op)));
                    for (other, state) in &self.pods {
                        let owning = state.replica.as_ref().and_then(Replica::owning);
                        let held = owning <= ballot || ballot.is_none() || state.sets.has(op);
                        assert!(held, "{pod} acknowledged, as owner, what the newer owner {other} lacks");
                    }
                }
                let how = if with_majority { "" } else { ", alone" };
                self.note(|| format!("{pod} acknowledges {}{how}", op.0));
            }
            Event::Fenced { seq } => {
                let (op, _) = self.pods[&pod].edits[&seq];
                self.note(|| format!("{pod} is fenced with {}", op.0));
            }
            Event::Passed { ticket } => {
                let state = self.pods.get_mut(&pod).expect("a pod of the world");
                for Read { ballot, seen } in state.reads.remove(&ticket).unwrap_or_default() {
                    self.shown(pod, ballot, &seen);
                }
            }
            Event::Void { ticket } => {
                self.pods.get_mut(&pod).expect("a pod of the world").reads.remove(&ticket);
                self.note(|| format!("{pod} may not tell what it read"));
            }
            Event::Owning { ballot } => {
                for (older, op) in &self.acknowledged {
                    let held = *older > ballot || self.pods[&pod].sets.has(*op);
                    assert!(held, "{pod} owns without {} that was acknowledged under {older}", op.0);
                }
                self.note(|| format!("{pod} owns under {ballot}"));
            }
        }
    }

    /// The disks that hold an edit; lost ones count for a pod that has not been told that they are.
    fn disks_with(&self, pod: PodId, op: OpId) -> usize {
        let told = &self.pods[&pod].told;
        let holds = |(id, state): &(&PodId, &Pod)| {
            let untold = told.get(id).copied().unwrap_or_default() < state.disk || state.waits;
            state.on_disk.contains(&op) || untold && state.on_lost_disks.contains(&op)
        };
        self.pods.iter().filter(holds).count()
    }

    /// A reader is told what it saw.
    fn shown(&mut self, pod: PodId, ballot: Option<Ballot>, seen: &BTreeSet<OpId>) {
        let state = &self.pods[&pod];
        assert!(seen.is_subset(&state.on_disk), "{pod} tells what is not on its own disk");
        let own = state.edits.values().map(|(op, _)| *op).filter(|op| seen.contains(op));
        let own: Vec<OpId> = own.collect();
        if self.replica(pod).reaches_majority() {
            for op in own {
                let on_disk = self.disks_with(pod, op);
                assert!(on_disk >= self.majority(), "{pod} tells what no majority has on disk");
                // No owner after this one may lack it.
                self.acknowledged.extend(ballot.map(|ballot| (ballot, op)));
            }
        }
        self.note(|| format!("{pod} tells {:?}", seen.iter().map(|op| op.0).collect::<Vec<_>>()));
    }

    /// Reads all sets, to be told once that is durable.
    pub fn read(&mut self, pod: PodId) {
        let Some(replica) = &self.pods[&pod].replica else { return };
        let ballot = replica.owning();
        let seen = self.sets(pod).0.values().flat_map(|items| items.keys().copied()).collect();
        self.reading = Some(Read { ballot, seen });
        self.step(pod, |replica, _, promised, _, fx| Some(replica.barrier(promised, fx)));
    }

    pub fn edit(&mut self, pod: PodId, entity: &str, n: u64, body: &str) {
        let items = vec![Item { id: id(n), body: Bytes::copy_from_slice(body.as_bytes()) }];
        let entity = Bytes::copy_from_slice(entity.as_bytes());
        let Some(replica) = &self.pods[&pod].replica else { return };
        let ballot = replica.owning();
        // The number is needed before its event, which a single replica gives in the same breath.
        let auto = std::mem::replace(&mut self.auto_sync, false);
        let seq = self.step(pod, |replica, now, _, sets, fx| replica.edit(now, entity, items, sets, fx));
        if let Some(seq) = seq {
            let state = self.pods.get_mut(&pod).expect("a pod of the world");
            state.edits.insert(seq, (id(n), ballot));
        }
        self.auto_sync = auto;
        if auto {
            self.sync(pod);
        }
    }

    /// The pods of `voters` promise a ballot above all, and `pod`, one of them, owns under it.
    pub fn elect(&mut self, pod: PodId, voters: &[PodId]) {
        assert!(voters.contains(&pod) && voters.len() >= self.majority(), "a majority elects");
        let highest = self.pods.values().map(|pod| pod.promised).max().unwrap_or_default();
        let epoch = self.pods[&pod].epoch;
        if highest.epoch > epoch || voters.iter().any(|voter| !self.may_elect(*voter)) {
            // It may not lead in an epoch that it was not told of, and who joins votes for nobody.
            return;
        }
        self.owned = self.owned.max(epoch);
        let ballot = Ballot { epoch, ..highest }.next(pod);
        for voter in voters {
            self.promise(*voter, ballot);
        }
        self.step(pod, |replica, now, promised, _, fx| {
            replica.own(now, ballot, promised, fx);
            None
        });
    }

    pub fn promise(&mut self, pod: PodId, ballot: Ballot) {
        let state = self.pods.get_mut(&pod).expect("a pod of the world");
        state.promised = state.promised.max(ballot);
    }

    /// A former owner learns that it is none.
    pub fn depose(&mut self, pod: PodId) {
        self.step(pod, |replica, _, _, _, fx| {
            replica.disown(fx);
            None
        });
    }

    pub fn tick(&mut self, pod: PodId) {
        self.step(pod, |replica, now, _, sets, fx| {
            replica.tick(now, sets, fx);
            None
        });
    }

    pub fn link(&mut self, from: PodId, to: PodId, up: bool) {
        let knows = |one: PodId, other: PodId| {
            self.pods[&one].told.get(&other).copied().unwrap_or_default() == self.pods[&other].disk
        };
        let up = up && self.runs(from) && self.runs(to) && knows(from, to) && knows(to, from);
        if up == self.up.contains(&(from, to)) {
            return;
        }
        if up {
            self.up.insert((from, to));
        } else {
            self.up.remove(&(from, to));
            self.links.remove(&(from, to));
        }
        self.step(from, |replica, now, promised, sets, fx| {
            replica.link(now, to, up, promised, sets, fx);
            None
        });
    }

    /// Writes the sets, with all that is on its way to the disk.
    pub fn checkpoint(&mut self, pod: PodId) {
        self.sync(pod);
        let state = self.pods.get_mut(&pod).expect("a pod of the world");
        // Syncing handles what this pod told itself, which may have persisted more.
        state.sync();
        if let Some(replica) = &state.replica {
            state.checkpoint = (replica.durable(), state.sets.clone());
            state.log.clear();
        }
    }

    /// Hands over the first message of a link; whether there was one.
    pub fn deliver(&mut self, from: PodId, to: PodId) -> bool {
        let Some(message) = self.links.get_mut(&(from, to)).and_then(VecDeque::pop_front) else {
            return false;
        };
        if let Message::Update { sets, .. } = &message {
            self.delivered.0 += 1;
            self.delivered.1 += sets.iter().map(|(_, items)| items.len()).sum::<usize>();
        }
        self.note(|| format!("{from} → {to}: {}", shown(&message)));
        self.step(to, |replica, now, promised, sets, fx| {
            replica.handle(now, from, message, promised, sets, fx);
            None
        });
        true
    }

    /// Loses, doubles or delays the first message of a link.
    pub fn lose(&mut self, from: PodId, to: PodId) {
        self.links.entry((from, to)).or_default().pop_front();
    }
    pub fn double(&mut self, from: PodId, to: PodId) {
        let link = self.links.entry((from, to)).or_default();
        link.extend(link.front().cloned());
    }
    pub fn delay(&mut self, from: PodId, to: PodId) {
        let link = self.links.entry((from, to)).or_default();
        let first = link.pop_front();
        link.extend(first);
    }

    /// Time passes, and all links work.
    pub fn run(&mut self, span: Span) {
        let end = self.now + span;
        for rounds in 0.. {
            assert!(rounds < 100_000, "a pod asks to be woken and does nothing then");
            self.settle();
            let running: Vec<PodId> = self.ids().into_iter().filter(|&pod| self.runs(pod)).collect();
            let next = running.iter().map(|&pod| self.replica(pod).next_wakeup()).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            for pod in running {
                self.tick(pod);
            }
        }
        self.now = self.now.max(end);
    }

    pub fn settle(&mut self) {
        let pods = self.ids();
        loop {
            let mut moved = false;
            for &from in &pods {
                for &to in &pods {
                    while self.deliver(from, to) {
                        moved = true;
                    }
                }
                self.sync(from);
            }
            if !moved && self.links.values().all(VecDeque::is_empty) {
                break;
            }
        }
    }

    pub fn state_of(&self, pod: PodId) -> String {
        let Some(replica) = &self.pods[&pod].replica else { return format!("{pod} down") };
        let mut text = format!("{pod}{}", if replica.is_joining() { " joins" } else { "" });
        for (entity, items) in &self.sets(pod).0 {
            let ids: Vec<String> = items.keys().map(|id| id.0.to_string()).collect();
            let _ = write!(text, " {}={{{}}}", String::from_utf8_lossy(entity), ids.join(","));
        }
        let durable = replica.durable();
        let _ = write!(text, ", journal of {}, {} waiting", durable.journal.len(), replica.positions().1);
        text
    }
}
