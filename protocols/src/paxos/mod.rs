//! Multi-Paxos: one agreed log per shard (Lamport 2001, "Paxos Made Simple"; van Renesse and
//! Altinbuken 2015, "Paxos Made Moderately Complex"), as a pure step machine.
//!
//! # How it works
//! A leader runs phase 1 once for all indexes: a majority promises its ballot and reports the tail it
//! has accepted. The leader proposes that tail again in its own ballot, then `Lead(ballot)`, and serves
//! once that is applied. In phase 2 it sends an entry to all while it fsyncs its own copy; replicas
//! answer after their fsync; what a majority holds is chosen. The commit index rides on the next
//! message.
//!
//! | message | from → to | says |
//! |---|---|---|
//! | Canvass, Canvassed | voter → voters → | have you lost the leader as well? |
//! | Prepare, Promise | candidate → voters → | phase 1, the tail in chunks |
//! | Accept, Accepted, Missing | leader → all → | phase 2, cumulative answers |
//! | Joining | joining replica → leader | how far it has come; counts for nothing |
//! | Heartbeat | leader → all | commit index; answered by Accepted |
//! | Read, ReadOk | leader → voters → | a read-index round |
//! | CatchUp, Chosen | any → any → | chosen entries from a peer's log |
//! | Reject | voter → leader, candidate | your ballot is too low |
//! | Offer, Ready, Handover | leader → preferred leader → | take my office; stand now |
//!
//! # Deviations
//! - Within a ballot a replica accepts without gaps, from the ballot's first index on (as Raft and
//!   OmniPaxos do): answers are cumulative, and recovery finds no holes.
//! - Learners receive and log everything, and count for nothing.
//! - No lease: reads take a round (see [`Replica::barrier`]).
//!
//! # A lost disk
//! `join` has what is done for a voter that comes back with an empty disk.
//!
//! # Invariants
//! At most one value is chosen per index. A promise never falls, restarts included. `Chosen` events come
//! in order, once each, and are the same on all replicas.

mod acceptor;
mod election;
mod handover;
mod join;
mod leader;
mod learner;
mod log;
mod message;
mod reads;

use crate::breaks;
pub use leader::PROPOSALS_IN_FLIGHT_MAX;
pub use log::HISTORY_BYTES_MAX;
pub use message::{Body, Durable, Entry, Event, Fx, Message, Record};

use crate::ids::{Ballot, PodId, Shard};
use crate::patience::Patience;
use crate::time::{ShardTime, Span, Time};
use election::Candidate;
use leader::Leader;
use log::Log;

/// A message's entries take about this much at most, and at least one goes: larger ones would keep a
/// link busy for longer than a heartbeat.
const MESSAGE_BYTES_MAX: usize = 256 << 10;

/// Who takes part in a shard's log.
#[derive(Clone, Debug, Hash)]
pub struct Config {
    pub shard: Shard,
    pub me: PodId,
    /// The epoch of the shard's replica set; ballots of older ones are refused.
    pub epoch: u32,
    /// The epoch that was current when this pod's disk took the place of a lost one; 0 for a first disk.
    pub joined: u32,
    /// The preferred leader first. One to five.
    pub voters: Vec<PodId>,
    /// They get all entries and never count.
    pub learners: Vec<PodId>,
    pub timing: Timing,
    /// Chosen entries kept in memory for peers that lag, in bytes: [`HISTORY_BYTES_MAX`].
    pub history_bytes_max: usize,
}

#[derive(Clone, Copy, Debug, Hash)]
pub struct Timing {
    pub heartbeat: Span,
    /// A leader that was silent for so long is lost; one that heard no majority for so long stands down.
    pub election_timeout: Span,
    /// The k-th voter waits k times as long before it stands.
    pub stagger: Span,
    /// After so long without progress something is sent or asked again.
    pub retry: Span,
    /// For so long must the preferred leader have kept up before it gets the leadership back.
    pub handover: Span,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Span::from_millis(50),
            election_timeout: Span::from_millis(250),
            stagger: Span::from_millis(10),
            retry: Span::from_millis(200),
            handover: Span::from_millis(2_000),
        }
    }
}

/// One pod's replica of one shard's log.
#[derive(Clone, Debug, Hash)]
pub struct Replica {
    config: Config,
    majority: usize,
    voter: bool,
    /// This pod's place among the voters.
    rank: u64,
    /// Who is to lead, and whether at once.
    preferred: PodId,
    urgent: bool,

    // Acceptor
    promised: Ballot,
    /// The highest ballot accepted in, and up to where without a gap.
    voted: (Ballot, u64),
    log: Log,

    // Learner
    time: ShardTime,
    lead: Ballot,
    committed: u64,
    /// Not before these may it ask again for chosen entries, or report that proposals are missing.
    catch_up_at: Time,
    missing_at: Time,
    /// Events of the replay, until it is over.
    replayed: Vec<Event>,

    // Elections and leading
    role: Role,
    peers: Vec<Peer>,
    leader: Option<PodId>,
    /// The leader as a peer hears it, while this replica does not.
    hint: Option<PodId>,
    heard_at: Time,
    /// The leader's link went down, or it was heard to be none any more.
    suspect: bool,
    /// Another candidate was let go first since the leader was lost.
    yielded: bool,
    stand_at: Time,
    /// The highest ballot heard of: the next one to stand with lies above.
    seen: Ballot,
    polls: u64,
    /// Who has answered the poll that an offered office calls for.
    reached: Option<Vec<PodId>>,
    tickets: u64,
    patience: Patience,
}

#[derive(Clone, Debug, Hash)]
enum Role {
    Follower,
    Canvassing { granted: Vec<PodId> },
    Candidate(Candidate),
    Leader(Leader),
}

/// What a replica knows of another; all but the link's state is of use to a leader only.
#[derive(Clone, Debug, Hash)]
struct Peer {
    id: PodId,
    voter: bool,
    /// Whether what it acknowledges counts, as it last said: not while it joins.
    votes: bool,
    up: bool,
    /// In the current ballot: accepted there, sent there, and the commit index it was told.
    acked: u64,
    sent: u64,
    told: u64,
    applied: u64,
    /// The highest read-index round it confirmed.
    read: u64,
    sent_at: Time,
    heard_at: Time,
    progress_at: Time,
    /// Not before this is another snapshot wanted for it.
    snapshot_at: Time,
    /// It was given a snapshot and has not caught up since: the log is kept for it from here on.
    wants_from: Option<u64>,
}

impl Replica {
    /// A replica at a checkpoint; [`Durable::default`] for an empty one. Feed it the log with
    /// [`Self::recover`], then call [`Self::recovered`].
    ///
    /// # Panics
    /// If there are no voters.
    #[must_use]
    pub fn new(config: Config, durable: Durable, now: Time) -> Self {
        assert!(!config.voters.is_empty(), "a shard has a voter");
        let rank = config.voters.iter().position(|voter| *voter == config.me);
        let members = config.voters.iter().map(|id| (*id, true));
        let members = members.chain(config.learners.iter().map(|id| (*id, false)));
        let peers = members.filter(|(id, _)| *id != config.me).map(|(id, voter)| Peer {
            id,
            voter,
            votes: true,
            up: true,
            acked: 0,
            sent: 0,
            told: 0,
            applied: 0,
            read: 0,
            sent_at: now,
            heard_at: now,
            progress_at: now,
            snapshot_at: now,
            wants_from: None,
        });
        Self {
            majority: config.voters.len() / 2 + 1,
            voter: rank.is_some(),
            rank: rank.unwrap_or(config.voters.len()) as u64,
            preferred: config.voters[0],
            urgent: false,
            // Below every ballot of this epoch, above all of older ones.
            promised: durable.promised.max(Ballot { epoch: config.epoch, round: 0, pod: 0 }),
            voted: (Ballot::ZERO, 0),
            log: Log::new(durable.applied, config.history_bytes_max),
            time: durable.time,
            lead: durable.lead,
            committed: durable.applied,
            catch_up_at: now,
            missing_at: now,
            replayed: Vec::new(),
            role: Role::Follower,
            peers: peers.collect(),
            leader: None,
            hint: None,
            heard_at: now,
            suspect: false,
            yielded: false,
            stand_at: now,
            seen: Ballot::ZERO,
            polls: 0,
            reached: None,
            tickets: 0,
            patience: Patience::default(),
            config,
        }
    }

    /// The log is replayed. What it knew to be chosen is reported; a restarted leader starts as a
    /// follower. The preferred leader of a shard that never had one stands at once.
    pub fn recovered(&mut self, now: Time, fx: &mut Fx) {
        fx.events.append(&mut self.replayed);
        self.heard(now);
        if self.votes() && (self.majority == 1 || (self.rank == 0 && self.promised.round == 0)) {
            self.stand(now, fx);
        } else if self.rank == 0 {
            self.stand_at = now;
        }
    }

    /// Takes one message; one from a pod outside the replica set is ignored.
    pub fn handle(&mut self, now: Time, from: PodId, message: Message, fx: &mut Fx) {
        if from != self.config.me && !self.peers.iter().any(|peer| peer.id == from) {
            return;
        }
        match message {
            Message::Canvass { ballot, poll, applied } => {
                self.on_canvass(now, from, ballot, poll, applied, fx);
            }
            Message::Canvassed { ballot, poll, granted, applied, leader } => {
                self.on_canvassed(now, from, ballot, poll, granted, applied, leader, fx);
            }
            Message::Prepare { ballot, from: index } => self.on_prepare(now, from, ballot, index, fx),
            Message::Promise { ballot, applied, tail, next } => {
                self.on_promise(now, from, ballot, applied, tail, next, fx);
            }
            Message::Reject { ballot, promised } => self.on_reject(now, from, ballot, promised, fx),
            Message::Accept { ballot, start, index, committed, entry } => {
                self.on_accept(now, from, ballot, start, index, committed, entry, fx);
            }
            Message::Accepted { ballot, accepted, applied } => {
                self.on_accepted(now, from, ballot, accepted, applied, fx);
            }
            Message::Joining { ballot, accepted, applied } => {
                self.on_joining(now, from, ballot, accepted, applied, fx);
            }
            Message::Missing { ballot, accepted } => self.on_missing(now, from, ballot, accepted, fx),
            Message::Heartbeat { ballot, committed } => {
                self.on_heartbeat(now, from, ballot, committed, fx);
            }
            Message::Read { ballot, round } => self.on_read(now, from, ballot, round, fx),
            Message::ReadOk { ballot, round } => self.on_read_ok(now, from, ballot, round, fx),
            Message::CatchUp { ballot: _, from: index } => self.on_catch_up(now, from, index, fx),
            Message::Chosen { ballot: _, from: first, entries, applied } => {
                self.on_chosen(now, from, first, entries, applied, fx);
            }
            Message::Offer { ballot } => self.on_offer(now, from, ballot, fx),
            Message::Ready { ballot } => self.on_ready(now, from, ballot),
            Message::Handover { ballot, committed } => self.on_handover(now, from, ballot, committed, fx),
        }
    }

    /// Time has passed. Call it when [`Self::next_wakeup`] is due, after the inputs of the round.
    pub fn tick(&mut self, now: Time, fx: &mut Fx) {
        match &self.role {
            Role::Follower | Role::Canvassing { .. } => {
                if self.votes() && now >= self.stand_at {
                    self.canvass(now, fx);
                }
                if self.log.applied() < self.committed
                    && let Some(peer) = self.leader
                {
                    self.ask(now, peer, fx);
                }
            }
            Role::Candidate(_) => self.tick_candidate(now, fx),
            Role::Leader(_) => self.tick_leader(now, fx),
        }
    }

    /// When `tick` has something to do; at once (zero) if barriers wait for their round.
    #[must_use]
    pub fn next_wakeup(&self) -> Time {
        match &self.role {
            Role::Follower | Role::Canvassing { .. } => {
                let stand_at = if self.votes() { self.stand_at } else { Time(u64::MAX) };
                let behind = self.log.applied() < self.committed && self.leader.is_some();
                if behind { stand_at.min(self.catch_up_at) } else { stand_at }
            }
            Role::Candidate(candidate) => candidate.resend_at.min(candidate.gives_up_at),
            Role::Leader(leader) if leader.reads.are_due() => Time::default(),
            Role::Leader(leader) => leader.heartbeat_at,
        }
    }

    /// The link to `peer` came up or went down. Down: if it was the leader's, this replica suspects it
    /// without waiting for the time-out. Only a hint: nothing but the moment of asking rests on it.
    pub fn link(&mut self, now: Time, peer: PodId, up: bool, fx: &mut Fx) {
        let Some(i) = self.peers.iter().position(|p| p.id == peer) else { return };
        self.peers[i].up = up;
        self.catch_up_at = now;
        self.missing_at = now;
        if up {
            // What was queued on the old link is lost.
            self.peers[i].sent = self.peers[i].acked;
            self.peers[i].snapshot_at = now;
            self.greet(now, i, fx);
            self.prepare(now, Some(peer), fx);
        } else {
            self.snapshot_given_up(now, peer);
        }
        if !up && peer == self.promised.pod() && self.promised.round > 0 {
            self.suspect = true;
            let soon = now + Span(self.config.timing.stagger.0 * self.rank);
            self.stand_at = self.stand_at.min(soon);
        }
    }

    /// Another voter than the first is to lead; `urgent` if it need not have kept up for a while before. Only
    /// ever a reason to hand over, or no longer to: nothing goes to whom was preferred until now.
    pub fn prefer(&mut self, pod: PodId, urgent: bool) {
        if self.preferred != pod {
            self.preferred = pod;
            if !breaks::is("handover-unended") {
                self.keep_office();
            }
        }
        self.urgent = urgent;
    }

    /// The leader as far as this replica knows, to send requests to.
    #[must_use]
    pub fn leader(&self) -> Option<PodId> {
        if self.suspect { self.hint } else { self.leader.or(self.hint) }
    }
    /// The highest ballot promised.
    #[must_use]
    pub const fn ballot(&self) -> Ballot {
        self.promised
    }
    /// Whether it leads and its `Lead` is applied.
    #[must_use]
    pub const fn is_leading(&self) -> bool {
        match &self.role {
            Role::Leader(leader) => leader.serving,
            Role::Follower | Role::Canvassing { .. } | Role::Candidate(_) => false,
        }
    }
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.log.applied()
    }
    /// The highest index known to be chosen, here or elsewhere.
    #[must_use]
    pub const fn committed(&self) -> u64 {
        self.committed
    }
    /// The shard's time at the applied index.
    #[must_use]
    pub const fn time(&self) -> ShardTime {
        self.time
    }
    /// The highest `Lead` applied.
    #[must_use]
    pub const fn lead(&self) -> Ballot {
        self.lead
    }
    #[must_use]
    pub const fn shard(&self) -> Shard {
        self.config.shard
    }
    /// The position at the applied index, for a checkpoint or a snapshot.
    #[must_use]
    pub fn durable(&self) -> Durable {
        Durable { promised: self.promised, applied: self.log.applied(), time: self.time, lead: self.lead }
    }
}
