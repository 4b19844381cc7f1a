//! Replication of resulting records by read and write quorums, one coordinator per shard.
//!
//! Weighted voting (Gifford, 1979) with equal votes: N replicas, a write is durable on W, a question
//! goes to R, with R + W > N and 2W > N, so that any two quorums that matter meet. As in primary
//! backup replication (Oki and Liskov's Viewstamped Replication, 1988) one replica, here fenced by a
//! ballot, evaluates commands on its state; what is replicated is not the command but the record
//! values that come of it, all of a round in one write. A thousand buyers of one item cost one
//! write of its counter.
//!
//! # How it works
//! - A write has a [`Version`] and names its predecessor's. A replica accepts it only on top of
//!   exactly that. What it has accepted beyond the commit point is its *tail*; the commit point
//!   rides on the next write or heartbeat and moves the tail into the tables, which hold nothing
//!   that is not committed.
//! - The accepted version of a replica never decreases. A tail that diverges is cut and replaced in
//!   one log record; a replica that merely missed something keeps what it has and asks.
//! - The commit point moves only to a version of the coordinator's own ballot that W replicas have
//!   accepted (Ongaro and Ousterhout's Raft, 2014, figure 8). What was inherited is committed
//!   by the first write of the new ballot, the takeover's.
//! - Takeover: promises of R replicas; adopt the highest accepted version; write on top of it in the
//!   new ballot; serve once that is committed.
//! - An answer leaves when its barrier has passed: W replicas have acknowledged, in this ballot, all
//!   that it was based on and a round that began after it was evaluated.
//! - A deletion is a versioned record too; see [`Replica::drop_deletions_below`].
//!
//! # Deviations
//! A candidate never logs what it adopts without its own write on top, and a coordinator never
//! sends inherited writes without that: so a replica whose accepted version is of ballot b has it
//! from b's coordinator. That is what makes the rule of [`judge`] sound: W of those have committed
//! it. No leases; clocks decide when to ask and suspect, nothing else.
//!
//! # Layout
//! `types` (words and messages), `chain` (writes in memory), `coordinator` (write, barrier, commit),
//! `replica` (accept, promise), `election` (suspect, canvass, stand), `takeover` (adopt, lead),
//! `repair` (catch up, transfer), `reads` (reads from any pod), `join` (a lost disk).

mod chain;
mod coordinator;
mod election;
mod join;
mod reads;
mod repair;
mod replica;
mod takeover;
mod types;

pub use chain::HISTORY_BYTES_MAX;
pub use coordinator::{BARRIERS_MAX, WRITES_IN_FLIGHT_MAX};
pub use reads::{ReadState, ReadVerdict, judge};
pub use types::{Beat, Durable, Event, Have, Message, Record, Snapshot, Version, Write};

use crate::breaks;
use crate::effects;
use crate::ids::{Ballot, PodId, Shard};
use crate::patience::Patience;
use crate::time::{ShardTime, Span, Time};
use chain::Chain;
use coordinator::Coordinator;
use election::{Candidate, Follower};
use std::collections::BTreeMap;
use std::sync::Arc;

pub type Effects = effects::Effects<Record, Message, Event>;

/// When to ask, suspect and retry. Nothing is wrong, only slow, if these are badly chosen.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Timing {
    /// A coordinator that has said nothing for so long says that it is there.
    pub heartbeat: Span,
    /// One that was not heard for so long is lost; one that does not hear W stands down.
    pub election: Span,
    /// The k-th replica waits k times so long before it stands.
    pub stagger: Span,
    /// The preferred coordinator has been well for so long before it gets the shard back.
    pub handover: Span,
    /// A transfer of tables that has not ended after so long is begun anew.
    pub transfer: Span,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Span::from_millis(50),
            election: Span::from_millis(250),
            stagger: Span::from_millis(20),
            handover: Span::from_millis(2_000),
            transfer: Span::from_millis(5_000),
        }
    }
}

#[derive(Clone, Debug, Hash)]
pub struct Config {
    pub shard: Shard,
    pub me: PodId,
    /// The shard's epoch in the cluster map.
    pub epoch: u32,
    /// The epoch that was current when this pod's disk took the place of a lost one; 0 for a first disk.
    pub joined: u32,
    /// The preferred coordinator first.
    pub replicas: Vec<PodId>,
    /// W.
    pub write_quorum: usize,
    /// R = N − W + 1.
    pub read_quorum: usize,
    pub timing: Timing,
    /// Committed writes kept in memory for replicas that lag, in bytes: [`HISTORY_BYTES_MAX`].
    pub history_bytes_max: usize,
}

impl Config {
    /// A majority for W and the R that follows.
    #[must_use]
    pub fn majority(shard: Shard, me: PodId, epoch: u32, replicas: Vec<PodId>) -> Self {
        let write_quorum = replicas.len() / 2 + 1;
        let read_quorum = replicas.len() - write_quorum + 1;
        let (timing, history_bytes_max) = (Timing::default(), HISTORY_BYTES_MAX);
        let joined = 0;
        Self { shard, me, epoch, joined, replicas, write_quorum, read_quorum, timing, history_bytes_max }
    }

    fn check(&self) {
        let n = self.replicas.len();
        assert!(self.replicas.contains(&self.me), "a replica is one of its shard's");
        assert!(self.write_quorum <= n && 2 * self.write_quorum > n, "two write quorums meet");
        assert!(self.read_quorum <= n && self.read_quorum + self.write_quorum > n, "R and W meet");
    }

    fn others(&self) -> impl Iterator<Item = PodId> {
        self.replicas.iter().copied().filter(|&pod| pod != self.me)
    }
}

/// One shard's replica on one pod.
#[derive(Clone, Debug, Hash)]
pub struct Replica {
    config: Config,
    promised: Ballot,
    /// The highest ballot heard of; a candidate goes above it.
    seen: Ballot,
    chain: Chain,
    dropped: Version,
    floor: Version,
    /// The newest commit point that the log or a checkpoint holds: the durable table version.
    logged: Version,
    /// When this replica last asked to be caught up, if it still waits.
    asked: Option<Time>,
    /// Transfers asked of the layer above: from which version, when.
    transfers: BTreeMap<PodId, (Version, Time)>,
    /// Replicas that were given a copy and have not caught up since, with its `seq`: what follows is kept.
    wanted: BTreeMap<PodId, u64>,
    /// Who is to coordinate, and whether at once.
    preferred: PodId,
    urgent: bool,
    role: Role,
    patience: Patience,
}

#[derive(Clone, Debug, Hash)]
enum Role {
    Follower(Follower),
    Candidate(Candidate),
    Coordinator(Coordinator),
}

impl Replica {
    /// A replica as its last checkpoint left it; `recover` the log after it, then `recovered`.
    ///
    /// # Panics
    /// If quorums of `config` need not meet.
    #[must_use]
    pub fn new(config: Config, durable: Durable, now: Time) -> Self {
        config.check();
        // Below every ballot of this epoch, above all of older ones; but nothing was ever promised in the first.
        let floor = if config.epoch > 1 { config.epoch } else { 0 };
        let promised = durable.promised.max(Ballot { epoch: floor, round: 0, pod: 0 });
        Self {
            promised,
            seen: promised,
            chain: Chain::new(durable.committed, durable.time, config.history_bytes_max),
            dropped: durable.dropped,
            floor: Version::ZERO,
            logged: durable.committed,
            asked: None,
            transfers: BTreeMap::new(),
            wanted: BTreeMap::new(),
            preferred: config.replicas[0],
            urgent: false,
            role: Role::Follower(Follower::new(now)),
            patience: Patience::default(),
            config,
        }
    }

    /// Feeds back one log record, in order. Records that the checkpoint covers do no harm.
    ///
    /// # Panics
    /// If the log lacks something: no vote is ever given from guessed state.
    pub fn recover(&mut self, record: Record) {
        let commit = match record {
            Record::Promised { ballot } => {
                self.promised = self.promised.max(ballot);
                Version::ZERO
            }
            Record::Write { write, commit } => {
                self.restore(&[write]);
                commit
            }
            Record::Splice { writes, commit } => {
                self.restore(&writes);
                commit
            }
        };
        self.logged = self.logged.max(commit);
        self.seen = self.promised;
    }

    /// The log has been read: emits what it committed beyond the checkpoint.
    pub fn recovered(&mut self, now: Time, fx: &mut Effects) {
        self.commit(self.logged, fx);
        assert!(self.chain.committed() >= self.logged, "the log holds what it says is committed");
        self.follow_nobody(now);
        if self.promised.round == 0 && self.config.replicas[0] == self.config.me && self.votes() {
            self.stand(now, fx);
        }
    }

    /// Takes one message; keeps every invariant of the protocol whatever arrives, in any order.
    pub fn handle(&mut self, now: Time, from: PodId, message: Message, fx: &mut Effects) {
        if message.ballot().epoch != self.config.epoch || !self.config.replicas.contains(&from) {
            return;
        }
        self.seen = self.seen.max(message.ballot());
        match message {
            Message::Canvass { ballot } => self.on_canvass(now, from, ballot, fx),
            Message::Canvassed { ballot, lost, promised } => {
                self.on_canvassed(now, from, ballot, lost, promised, fx);
            }
            Message::Prepare { ballot, have } => self.on_prepare(now, from, ballot, &have, fx),
            Message::Promise { ballot, have, repair } => {
                self.on_promise(now, from, ballot, have, repair, fx);
            }
            Message::Write { write, beat } => self.on_write(now, from, write, beat, fx),
            Message::Heartbeat { ballot, tip, beat } => {
                self.on_heartbeat(now, from, ballot, tip, beat, fx);
            }
            Message::Ack { ballot, accepted, round, durable } => {
                self.on_ack(now, from, ballot, accepted, round, durable, fx);
            }
            Message::CatchUp { ballot, have } => self.on_catch_up(now, from, ballot, &have, fx),
            Message::Repair { ballot, writes, beat } => {
                self.on_repair(now, from, ballot, writes, beat, fx);
            }
            Message::Refuse { promised } => self.on_refuse(now, promised, fx),
            Message::Handover { ballot } => self.on_handover(now, from, ballot, fx),
        }
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Time, fx: &mut Effects) {
        match &self.role {
            Role::Follower(follower) if now >= follower.stand_at && self.votes() => self.canvass(now, fx),
            Role::Candidate(_) => self.tick_candidate(now, fx),
            Role::Coordinator(_) => self.tick_coordinator(now, fx),
            Role::Follower(_) => {}
        }
    }

    /// When `tick` has something to do.
    #[must_use]
    pub fn next_wakeup(&self) -> Time {
        match &self.role {
            Role::Follower(_) if !self.votes() => Time(u64::MAX),
            Role::Follower(follower) => follower.stand_at,
            Role::Candidate(candidate) => candidate.resend_at.min(candidate.deadline),
            Role::Coordinator(coordinator) => coordinator.beat_at,
        }
    }

    /// The outgoing link to `peer` came up or went down. A hint: it makes things happen at once that
    /// a time-out would make happen later.
    pub fn link(&mut self, now: Time, peer: PodId, up: bool, fx: &mut Effects) {
        if peer == self.config.me || !self.config.replicas.contains(&peer) {
            return;
        }
        self.transfer_given_up(peer);
        self.asked = None;
        match &self.role {
            Role::Follower(_) => self.link_of_follower(now, peer, up),
            Role::Candidate(_) => self.link_of_candidate(peer, up, fx),
            Role::Coordinator(_) => self.link_of_coordinator(now, peer, up, fx),
        }
    }

    /// Another replica than the first is to coordinate; `urgent` if it need not have been well for a while
    /// before. Only ever a reason to hand over.
    pub const fn prefer(&mut self, pod: PodId, urgent: bool) {
        self.preferred = pod;
        self.urgent = urgent;
    }

    /// The pod to ask, as far as this one knows.
    #[must_use]
    pub fn leader(&self) -> Option<PodId> {
        match &self.role {
            Role::Follower(follower) => follower.leader,
            Role::Candidate(_) => None,
            Role::Coordinator(coordinator) => coordinator.serving.then_some(self.config.me),
        }
    }

    /// The highest ballot that this replica has promised; if it is leading, its own.
    #[must_use]
    pub const fn ballot(&self) -> Ballot {
        self.promised
    }

    #[must_use]
    pub const fn is_leading(&self) -> bool {
        matches!(&self.role, Role::Coordinator(coordinator) if coordinator.serving)
    }

    /// What the tables reflect once all events were followed.
    #[must_use]
    pub const fn committed(&self) -> Version {
        self.chain.committed()
    }

    #[must_use]
    pub fn accepted(&self) -> Version {
        self.chain.accepted()
    }

    /// The shard time of the newest accepted write: what commands evaluated now may count with.
    #[must_use]
    pub fn time(&self) -> ShardTime {
        self.chain.time()
    }

    /// The writes accepted beyond the tables: with them on top, the state that a coordinator
    /// evaluates on and a read from any pod answers from.
    pub fn tail(&self) -> impl ExactSizeIterator<Item = &Arc<Write>> + DoubleEndedIterator {
        self.chain.tail()
    }

    /// What a checkpoint of the tables at `committed` stores with them.
    #[must_use]
    pub fn durable(&self) -> Durable {
        Durable {
            promised: self.promised,
            committed: self.chain.committed(),
            time: self.chain.committed_time(),
            dropped: self.dropped,
        }
    }

    /// A checkpoint of the tables at `version` is on disk for good.
    pub fn checkpointed(&mut self, version: Version) {
        assert!(version <= self.chain.committed(), "tables hold nothing but what is committed");
        self.logged = self.logged.max(version);
    }

    /// The log records that a checkpoint at `committed` with `durable` leaves to be kept: logged
    /// anew in one batch, they let all older ones of this shard go.
    #[must_use]
    pub fn retained_log(&self) -> Vec<Record> {
        let writes: Vec<_> = self.chain.tail().cloned().collect();
        if writes.is_empty() {
            return Vec::new();
        }
        vec![Record::Splice { writes, commit: self.chain.committed() }]
    }

    /// Deletions up to this version may be dropped from the tables: every replica's durable table
    /// version has passed it, so none will ask for records older than that again. Others may be too
    /// if they become too many; what lags behind them then gets a full copy.
    #[must_use]
    pub const fn drop_deletions_below(&self) -> Version {
        self.floor
    }

    /// Deletions up to `version` are gone from the tables; `durable` says so from now on, and must
    /// be stored with the drop.
    ///
    /// # Panics
    /// If `version` is not committed here.
    pub fn deletions_dropped(&mut self, version: Version) {
        assert!(version <= self.chain.committed(), "only what is committed is in the tables");
        self.dropped = self.dropped.max(version);
    }

    fn restore(&mut self, writes: &[Arc<Write>]) {
        let spliced = self.chain.splice(writes);
        assert_ne!(spliced, chain::Spliced::Gap, "{}: the log lacks a write", self.config.shard);
        self.promised = self.promised.max(self.chain.accepted().ballot);
    }

    /// Raises the promise, durably before anything that is sent from here on, and gives up whatever
    /// this replica was in an older ballot.
    fn promise(&mut self, now: Time, ballot: Ballot, fx: &mut Effects) {
        assert!(ballot > self.promised, "a promise is never taken back");
        self.promised = ballot;
        self.seen = self.seen.max(ballot);
        self.asked = None;
        self.wanted.clear();
        self.chain.want_from(None);
        if !breaks::is("promise-forgotten") {
            fx.persist.push(Record::Promised { ballot });
        }
        self.retire(now, fx);
    }

    /// Moves the commit point and hands on what it passes. The caller has established that `to` is
    /// committed.
    fn commit(&mut self, to: Version, fx: &mut Effects) {
        while let Some(write) = self.chain.commit_next(to) {
            fx.events.push(Event::Committed { write });
        }
    }
}
