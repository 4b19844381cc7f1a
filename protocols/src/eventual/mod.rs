//! Replication of sets of operations by union: always writable, also in a partition.
//!
//! State-based replicated sets (Shapiro et al., 2011), spread as in Bayou (Terry et al., 1995) by
//! each replica's journal and a cursor per peer, and compared by digests as in Dynamo (DeCandia et
//! al., 2007; a flat table of buckets serves here for its trees). What an operation means, and how two
//! with one id merge, is the keeper's of the sets ([`Sets`]).
//!
//! # How it works
//! - An edit is merged, journalled and sent to the peers; it is durable once a majority's disks have it, or,
//!   if no majority can be reached, once its own has.
//! - A peer holds a prefix of each journal; it acknowledges how far, and asks for nothing: who
//!   made the edits sends them again from there. A journal holds no contents: to one that is behind, a run
//!   of entries is sent as one message with each of its entities once, as it is now.
//! - An entity's digest is a sum over its items; that of a bucket the sum over its entities. Now and then,
//!   and where a journal has been cut, a replica compares its buckets with a peer's, lists those that
//!   differ and fetches the entities that do. What came from elsewhere than its maker spreads so.
//!
//! # Owners
//! One replica may *own* the shard: the leader of some other shard with the same replicas, under its
//! ballot. Its edits are in the hands of every later owner:
//! - a replica counts for an owner's edit only under the newest ballot it has promised: `promised`, given
//!   with every input, is told with every acknowledgement, and one above the edit's ballot fences it;
//! - a new owner takes, by comparison, the union of a majority, each at or after its promise of
//!   the new ballot, before it serves.
//!
//! So some replica that acknowledged the edit did so before its promise, and is part of the union.
//! Edits taken by no owner are durable all the same, and part of the union once they have spread.
//!
//! # Deviations
//! No version vectors: union makes order irrelevant. Journals are not forwarded; comparison does that.
//! Nothing is logged twice: a checkpoint of the sets and [`Replica::durable`] covers the whole log.
//!
//! # Layout
//! `types` (words and messages), `journal`, `stream` (edits, updates, acknowledgements), `barrier` (reads),
//! `compare` (digests, takeover), `join` (a lost disk).

mod barrier;
mod compare;
mod join;
mod journal;
mod stream;
mod types;

pub use journal::JOURNAL_ENTRIES_MAX;
pub use stream::{EDITS_PENDING_MAX, WINDOW_ENTRIES};
pub use types::{
    BUCKETS, Cursor, Durable, Event, Item, Merged, Message, Record, Sets, bucket_of, entity_seed, item_digest,
};

use crate::effects;
use crate::ids::{Ballot, PodId, Shard};
use crate::time::{Span, Time};
use barrier::Barrier;
use compare::Comparison;
use journal::Journal;
use std::collections::{BTreeMap, VecDeque};
use stream::Pending;

pub type Effects = effects::Effects<Record, Message, Event>;

/// When to ask and retry. Nothing is wrong, only slow, if these are badly chosen.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// What was sent and not acknowledged for so long is sent again.
    pub resend: Span,
    /// How often digests are compared with each peer.
    pub compare: Span,
    /// How long a new owner waits before it asks a peer again that has not promised yet.
    pub collect: Span,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            resend: Span::from_millis(500),
            compare: Span::from_millis(5_000),
            collect: Span::from_millis(20),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Config {
    pub shard: Shard,
    pub me: PodId,
    /// All of the shard's, this one included.
    pub replicas: Vec<PodId>,
    /// How many disks of each pod were replaced; none, if it is not named.
    pub disks: BTreeMap<PodId, u32>,
    /// The epoch that was current when this pod's disk took the place of a lost one; 0 for a first disk.
    pub joined: u32,
    pub timing: Timing,
}

impl Config {
    fn disk_of(&self, pod: PodId) -> u32 {
        self.disks.get(&pod).copied().unwrap_or_default()
    }

    const fn majority(&self) -> usize {
        self.replicas.len() / 2 + 1
    }
}

/// The place of a start in the numbers of edits and rounds: what a crash takes back is never used anew.
const START_SHIFT: u32 = 40;

/// One shard's replica on one pod.
#[derive(Debug)]
pub struct Replica {
    config: Config,
    /// The epoch in which it became whole, if it once joined.
    whole: u32,
    start: u64,
    /// Whether the number of this start is on disk, so that numbers may leave before their record.
    started: bool,
    /// The newest edit taken here.
    seq: u64,
    /// The newest edit that is on this pod's disk.
    stored: u64,
    round: u64,
    journal: Journal,
    digests: [u64; BUCKETS as usize],
    peers: BTreeMap<PodId, Peer>,
    pending: VecDeque<Pending>,
    /// Merges of others' edits since the start; how many of them are on disk, and were asked about.
    merged: u64,
    merged_stored: u64,
    merged_asked: u64,
    barriers: VecDeque<Barrier>,
    tickets: u64,
    owner: Owner,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Other,
    Taking(Ballot),
    Owning(Ballot),
}

#[derive(Debug)]
struct Peer {
    up: bool,
    /// Up to where its journal is held here.
    received: u64,
    /// Up to where it holds this replica's journal; and up to where that was sent on this link.
    acked: u64,
    sent: u64,
    /// The newest ballot that it is known to have promised.
    under: Ballot,
    /// When it last acknowledged something new, or something was sent after nothing was due.
    progress_at: Time,
    comparison: Option<Comparison>,
    compare_at: Time,
    /// It has given what it had at or after its promise of the ballot being taken.
    collected: bool,
}

impl Replica {
    /// A replica as its last checkpoint left it; `recover` the log after it, then `recovered`.
    ///
    /// # Panics
    /// If this pod is none of the shard's replicas.
    #[must_use]
    pub fn new(config: Config, durable: Durable, now: Time) -> Self {
        assert!(config.replicas.contains(&config.me), "a replica is one of its shard's");
        assert!(config.replicas.len() <= 64, "a set of replicas fits a word");
        let mut digests = [0; BUCKETS as usize];
        for (bucket, digest) in digests.iter_mut().zip(&durable.digests) {
            *bucket = *digest;
        }
        let peer = |pod: PodId| {
            let cursor = durable.cursors.iter().find(|cursor| cursor.peer == pod);
            let acked = cursor.filter(|cursor| cursor.disk == config.disk_of(pod)).map_or(0, |c| c.acked);
            let received = cursor.map_or(0, |cursor| cursor.received);
            let apart = Span(config.timing.compare.0 / 256 * u64::from(pod.0.wrapping_add(config.me.0)));
            Peer {
                up: false,
                received,
                acked,
                sent: acked,
                under: Ballot::ZERO,
                progress_at: now,
                comparison: None,
                compare_at: now + config.timing.compare + apart,
                collected: false,
            }
        };
        let others = config.replicas.iter().filter(|&&pod| pod != config.me);
        let peers = others.map(|&pod| (pod, peer(pod))).collect();
        Self {
            peers,
            whole: durable.whole,
            start: durable.start,
            started: false,
            seq: durable.seq,
            stored: durable.seq,
            round: 0,
            journal: Journal::new(durable.journal_floor, durable.journal),
            digests,
            pending: VecDeque::new(),
            merged: 0,
            merged_stored: 0,
            merged_asked: 0,
            barriers: VecDeque::new(),
            tickets: 0,
            owner: Owner::Other,
            config,
        }
    }

    /// Feeds back one log record, in order, into sets as the same checkpoint left them.
    pub fn recover(&mut self, record: Record, sets: &mut dyn Sets) {
        match record {
            Record::Started { start } => self.start = self.start.max(start),
            Record::Edited { seq, entity, items } => {
                self.merge(&entity, &items, sets);
                if seq > self.seq {
                    self.seq = seq;
                    self.journal.push(seq, entity);
                }
            }
            Record::Taken { from, seq, sets: taken } => {
                for (entity, items) in &taken {
                    self.merge(entity, items, sets);
                }
                self.advance(from, seq);
            }
            Record::Merged { entity, items } => {
                self.merge(&entity, &items, sets);
            }
            Record::Compared { from, seq } => {
                self.advance(from, seq);
            }
            Record::Whole { epoch } => self.whole = self.whole.max(epoch),
        }
    }

    /// The log has been read: takes part from here on.
    pub fn recovered(&mut self, fx: &mut Effects) {
        self.stored = self.seq;
        self.start = self.next_start();
        fx.persist.push(Record::Started { start: self.start });
        self.round = self.start << START_SHIFT;
        fx.send.push((self.config.me, Message::Stored { seq: self.seq, merged: self.merged }));
    }

    /// Takes one message. `promised` is the newest ballot that this pod has promised in the shard
    /// whose leader owns this one.
    pub fn handle(
        &mut self,
        now: Time,
        from: PodId,
        message: Message,
        promised: Ballot,
        sets: &mut dyn Sets,
        fx: &mut Effects,
    ) {
        if let Message::Stored { seq, merged } = message {
            if from == self.config.me {
                self.on_stored(seq, merged, promised, fx);
            }
            return;
        }
        if !self.peers.contains_key(&from) {
            return;
        }
        match message {
            Message::Update { seq, prev, sets: contents } => {
                self.on_update(from, seq, prev, contents, promised, sets, fx);
            }
            Message::Ack { seq, under } => self.on_ack(now, from, seq, under, promised, sets, fx),
            Message::Behind { seq } => self.on_behind(now, from, seq, fx),
            Message::Compare { round, ballot, buckets } => {
                self.on_compare(from, round, ballot, &buckets, promised, sets, fx);
            }
            Message::Compared { round, seq, owning, entities, more } => {
                self.on_compared(now, from, round, seq, owning, entities, more, promised, sets, fx);
            }
            Message::NotUnder { round, promised: theirs } => self.on_not_under(now, from, round, theirs),
            Message::Want { round, entities } => Self::on_want(from, round, entities, sets, fx),
            Message::Contents { round, sets: contents } => {
                self.on_contents(now, from, round, contents, promised, sets, fx);
            }
            Message::Stored { .. } => unreachable!("taken above"),
        }
    }

    /// Lets time pass: sends again what was not acknowledged, compares, asks again.
    pub fn tick(&mut self, now: Time, sets: &mut dyn Sets, fx: &mut Effects) {
        let pods: Vec<PodId> = self.due(now).collect();
        for pod in pods {
            self.resend(now, pod, sets, fx);
            self.tick_comparison(now, pod, fx);
        }
    }

    /// When `tick` has something to do.
    #[must_use]
    pub fn next_wakeup(&self) -> Time {
        let wakeups = self.peers.values().filter_map(|peer| self.wakeup_of(peer));
        wakeups.min().unwrap_or(Time(u64::MAX))
    }

    fn wakeup_of(&self, peer: &Peer) -> Option<Time> {
        if !peer.up {
            return None;
        }
        let compare = peer.comparison.as_ref().map_or(peer.compare_at, |c| c.again_at);
        let resend = (peer.acked < self.seq).then_some(peer.progress_at + self.config.timing.resend);
        Some(resend.map_or(compare, |resend| resend.min(compare)))
    }

    fn due(&self, now: Time) -> impl Iterator<Item = PodId> {
        let due = move |peer: &Peer| self.wakeup_of(peer).is_some_and(|at| at <= now);
        self.peers.iter().filter(move |(_, peer)| due(peer)).map(|(&pod, _)| pod)
    }

    /// The outgoing link to `peer` came up or went down; what was queued on one that went down is lost.
    pub fn link(
        &mut self,
        now: Time,
        peer: PodId,
        up: bool,
        promised: Ballot,
        sets: &mut dyn Sets,
        fx: &mut Effects,
    ) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        state.up = up;
        state.comparison = None;
        if up {
            fx.send.push((peer, Message::Ack { seq: state.received, under: promised }));
            self.rewind(now, peer);
            self.stream(peer, sets, fx);
            self.collect_from(now, peer, fx);
            self.catch_up_with(now, peer, fx);
        }
        self.settle(promised, fx);
    }

    /// This pod leads the other shard under `ballot`, which a majority has promised: it serves here once
    /// `Owning` says so.
    pub fn own(&mut self, now: Time, ballot: Ballot, promised: Ballot, fx: &mut Effects) {
        self.disown(fx);
        self.owner = Owner::Taking(ballot);
        let pods: Vec<PodId> = self.peers.keys().copied().collect();
        for &pod in &pods {
            self.peers.get_mut(&pod).expect("just listed").collected = false;
        }
        for pod in pods {
            self.collect_from(now, pod, fx);
        }
        self.settle_takeover(promised, fx);
    }

    /// This pod no longer leads the other shard: its unanswered edits are fenced.
    pub fn disown(&mut self, fx: &mut Effects) {
        self.owner = Owner::Other;
        for peer in self.peers.values_mut() {
            if peer.comparison.as_ref().is_some_and(|c| c.ballot.is_some()) {
                peer.comparison = None;
            }
        }
        self.fence_all(fx);
    }

    /// The ballot under which this replica serves as owner.
    #[must_use]
    pub const fn owning(&self) -> Option<Ballot> {
        match self.owner {
            Owner::Owning(ballot) => Some(ballot),
            Owner::Taking(_) | Owner::Other => None,
        }
    }

    /// Whether links to a majority, this pod included, are up.
    #[must_use]
    pub fn reaches_majority(&self) -> bool {
        self.peers.values().filter(|peer| peer.up).count() + 1 >= self.config.majority()
    }

    /// What a checkpoint of the sets, as they are now, stores with them.
    #[must_use]
    pub fn durable(&self) -> Durable {
        let cursor = |(&pod, peer): (&PodId, &Peer)| Cursor {
            peer: pod,
            disk: self.config.disk_of(pod),
            received: peer.received,
            acked: peer.acked,
        };
        Durable {
            start: self.start,
            whole: self.whole,
            seq: self.seq,
            journal_floor: self.journal.floor(),
            journal: self.journal.entries().cloned().collect(),
            cursors: self.peers.iter().map(cursor).collect(),
            digests: self.digests.to_vec(),
        }
    }

    /// The newest edit taken here, and the edits whose answers wait.
    #[must_use]
    pub fn positions(&self) -> (u64, usize) {
        (self.seq, self.pending.len())
    }

    /// The digest of each bucket. Replicas with the same sets have the same.
    #[must_use]
    pub const fn digests(&self) -> &[u64; BUCKETS as usize] {
        &self.digests
    }

    /// The keeper merged something that every replica derives by itself: it is not journalled, logged or
    /// sent, only counted. Its keeper answers for its durability.
    pub fn derived(&mut self, entity: &[u8], merged: Merged) {
        let digest = &mut self.digests[usize::from(bucket_of(entity))];
        *digest = digest.wrapping_sub(merged.before).wrapping_add(merged.after);
    }

    fn merge(&mut self, entity: &[u8], items: &[Item], sets: &mut dyn Sets) -> bool {
        let merged = sets.merge(entity, items);
        self.derived(entity, merged);
        merged.changed
    }

    /// The peer's journal up to `seq` is held here.
    fn advance(&mut self, from: PodId, seq: u64) -> bool {
        let Some(peer) = self.peers.get_mut(&from) else { return false };
        let further = seq > peer.received;
        peer.received = peer.received.max(seq);
        further
    }
}
