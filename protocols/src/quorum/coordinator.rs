//! The coordinator: writes, barriers, the commit point, and standing down.

use super::chain::Chain;
use super::types::{Beat, Event, Message, Record, Version, Write};
use super::{Config, Effects, Replica, Role};
use crate::breaks;
use crate::ids::{Ballot, PodId};
use crate::tables::Change;
use crate::time::{ShardClock, ShardTime, Span, Time};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Writes accepted here and not committed. Enough to cover a round trip and two fsyncs; beyond it
/// the next write is better made larger than sent sooner.
pub const WRITES_IN_FLIGHT_MAX: usize = 8;
/// Barriers that have not passed. One a round, so more only pile up while no quorum answers.
pub const BARRIERS_MAX: usize = 1_024;

#[derive(Clone, Debug, Hash)]
pub(super) struct Coordinator {
    pub ballot: Ballot,
    /// The takeover's write is committed.
    pub serving: bool,
    pub beat_at: Time,
    stage: Stage,
    clock: ShardClock,
    /// All replicas, this one included.
    peers: BTreeMap<PodId, Peer>,
    round: u64,
    sent_at: Time,
    barriers: VecDeque<Barrier>,
    tickets: u64,
}

#[derive(Clone, Copy, Debug, Hash)]
enum Stage {
    /// At work; `since` it took over or last failed to hand over.
    Open { since: Time },
    /// Takes no more writes until all are committed and the preferred coordinator has them.
    Draining { until: Time },
    /// Has asked it to stand.
    Handed { until: Time },
}

#[derive(Clone, Debug, Hash)]
struct Peer {
    up: bool,
    /// When it last acknowledged anything in this ballot.
    heard: Time,
    /// Since when it was never silent for an election time-out.
    steady_since: Time,
    /// The `seq` of the newest version of this ballot that it has accepted durably; 0 for none.
    matched: u64,
    /// The newest round of this ballot that it has acknowledged.
    round: u64,
    durable: Version,
}

#[derive(Clone, Debug, Hash)]
struct Barrier {
    ticket: u64,
    round: u64,
    seq: u64,
}

impl Coordinator {
    pub fn new(now: Time, ballot: Ballot, time: ShardTime, config: &Config) -> Self {
        let peer =
            || Peer { up: true, heard: now, steady_since: now, matched: 0, round: 0, durable: Version::ZERO };
        Self {
            ballot,
            serving: breaks::is("serve-before-lead"),
            beat_at: now.next_beat(config.timing.heartbeat),
            stage: Stage::Open { since: now },
            clock: ShardClock::start(time, now),
            peers: config.replicas.iter().map(|&pod| (pod, peer())).collect(),
            round: 1,
            sent_at: now,
            barriers: VecDeque::new(),
            tickets: 0,
        }
    }

    pub const fn beat(&self, chain: &Chain, floor: Version) -> Beat {
        Beat { commit: chain.committed(), floor, round: self.round }
    }

    /// The highest value that `quorum` of the replicas have reached.
    fn reached(&self, quorum: usize, value: impl Fn(&Peer) -> u64) -> u64 {
        let values = self.peers.values().map(&value);
        let by_quorum = |&least: &u64| self.peers.values().filter(|p| value(p) >= least).count() >= quorum;
        values.filter(by_quorum).max().unwrap_or(0)
    }
}

impl Replica {
    /// Whether `write` would write now.
    #[must_use]
    pub fn can_write(&self) -> bool {
        let Role::Coordinator(coordinator) = &self.role else { return false };
        let open = matches!(coordinator.stage, Stage::Open { .. });
        coordinator.serving && open && self.chain.tail().len() < WRITES_IN_FLIGHT_MAX
    }

    /// Writes the final values of what a round changed, on top of all that was written before. Its
    /// version, or `None` if this pod does not lead, has too many writes in flight, or is handing
    /// over: then the records are to be part of a later write. One a round, before its barrier.
    pub fn write(&mut self, now: Time, records: Vec<Change>, fx: &mut Effects) -> Option<Version> {
        if !self.can_write() {
            return None;
        }
        let Role::Coordinator(coordinator) = &mut self.role else { return None };
        let prev = self.chain.accepted();
        let version = prev.next(coordinator.ballot);
        let time = coordinator.clock.stamp(now);
        let write = Arc::new(Write { version, prev, time, records });
        self.chain.append(Arc::clone(&write));
        self.logged = self.chain.committed();
        fx.persist.push(Record::Write { write: Arc::clone(&write), commit: self.logged });
        coordinator.round += 1;
        coordinator.sent_at = now;
        let beat = coordinator.beat(&self.chain, self.floor);
        for (&pod, peer) in &coordinator.peers {
            if pod == self.config.me {
                continue;
            }
            // A pod that seems to be down, which is but a hint, is not sent what would be lost: should
            // it hear this instead, it asks.
            let message = if peer.up {
                Message::Write { write: Arc::clone(&write), beat }
            } else {
                Message::Heartbeat { ballot: version.ballot, tip: version, beat }
            };
            fx.send_early.push((pod, message));
        }
        self.acknowledge_self(fx);
        Some(version)
    }

    /// A ticket for the answers evaluated so far, refusals and reads as much as others: `Passed` once
    /// W replicas have acknowledged, in this ballot, a round that began after this call, and all
    /// that was written so far is committed. `None` if this pod does not lead, or too many wait.
    ///
    /// The round is that of the last write if `fx` still holds it, that is, if it has not left yet;
    /// else an empty one. Barriers that share a round share a ticket.
    pub fn barrier(&mut self, now: Time, fx: &mut Effects) -> Option<u64> {
        let me = self.config.me;
        let Role::Coordinator(coordinator) = &self.role else { return None };
        if !coordinator.serving || coordinator.barriers.len() >= BARRIERS_MAX {
            return None;
        }
        let current = coordinator.round;
        let unsent = fx.send.iter().rev().any(|(to, message)| {
            *to == me && matches!(message, Message::Ack { round, .. } if *round == current)
        });
        if !unsent {
            self.begin_round(now, fx);
        }
        let seq = self.chain.accepted().seq;
        let Role::Coordinator(coordinator) = &mut self.role else { return None };
        let round = coordinator.round;
        if let Some(last) = coordinator.barriers.back()
            && last.round == round
            && last.seq == seq
        {
            return Some(last.ticket);
        }
        coordinator.tickets += 1;
        let ticket = coordinator.tickets;
        coordinator.barriers.push_back(Barrier { ticket, round, seq });
        Some(ticket)
    }

    /// Counts an acknowledgement of this ballot; the commit point moves only by those.
    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(super) fn on_ack(
        &mut self,
        now: Time,
        from: PodId,
        ballot: Ballot,
        accepted: Version,
        round: u64,
        durable: Version,
        fx: &mut Effects,
    ) {
        let election = self.config.timing.election;
        let Role::Coordinator(coordinator) = &mut self.role else { return };
        if coordinator.ballot != ballot {
            return;
        }
        let Some(peer) = coordinator.peers.get_mut(&from) else { return };
        if now.since(peer.heard) >= election {
            peer.steady_since = now;
        }
        peer.heard = peer.heard.max(now);
        peer.round = peer.round.max(round);
        peer.durable = peer.durable.max(durable);
        if accepted.ballot == ballot || breaks::is("commit-on-older-ballot") {
            assert!(accepted <= self.chain.accepted(), "nobody else writes in this ballot");
            peer.matched = peer.matched.max(accepted.seq);
            self.peer_accepted(from, accepted.seq);
        }
        let Role::Coordinator(coordinator) = &self.role else { return };
        if let Some(floor) = coordinator.peers.values().map(|peer| peer.durable).min() {
            self.floor = self.floor.max(floor);
        }
        self.settle(fx);
    }

    /// Commits and lets pass what a write quorum has acknowledged.
    fn settle(&mut self, fx: &mut Effects) {
        let quorum = if breaks::is("minority-commits") { 1 } else { self.config.write_quorum };
        let Role::Coordinator(coordinator) = &self.role else { return };
        let ballot = coordinator.ballot;
        let seq = coordinator.reached(quorum, |peer| peer.matched);
        if seq > self.chain.committed().seq {
            self.commit(Version { ballot, seq }, fx);
            assert_eq!(self.chain.committed(), Version { ballot, seq }, "it is on the chain");
        }
        let committed = self.chain.committed();
        let Role::Coordinator(coordinator) = &mut self.role else { return };
        if !coordinator.serving && committed.ballot == ballot {
            coordinator.serving = true;
            fx.events.push(Event::Leading { ballot });
        }
        let mut round = coordinator.reached(quorum, |peer| peer.round);
        if breaks::is("refusal-without-round") {
            round = coordinator.round;
        }
        while let Some(barrier) = coordinator.barriers.front()
            && barrier.round <= round
            && barrier.seq <= committed.seq
        {
            fx.events.push(Event::Passed { ticket: barrier.ticket });
            coordinator.barriers.pop_front();
        }
        self.try_hand_over(fx);
    }

    pub(super) fn tick_coordinator(&mut self, now: Time, fx: &mut Effects) {
        let timing = self.config.timing;
        let me = self.config.me;
        let Role::Coordinator(coordinator) = &mut self.role else { return };
        if now < coordinator.beat_at {
            return;
        }
        coordinator.beat_at = now.next_beat(timing.heartbeat);
        let timeout = self.patience.wait(now, timing.election);
        let near = |(pod, peer): &(&PodId, &Peer)| **pod == me || now.since(peer.heard) < timeout;
        if coordinator.peers.iter().filter(near).count() < self.config.write_quorum {
            self.patience.lose(now, timing.election);
            // Cut off: no more heartbeats, so that those who still hear this pod choose another.
            self.retire(now, fx);
            return;
        }
        self.consider_handover(now);
        let Role::Coordinator(coordinator) = &self.role else { return };
        if now.since(coordinator.sent_at) >= Span(timing.heartbeat.0 / 2) {
            self.begin_round(now, fx);
            self.try_hand_over(fx);
        }
    }

    pub(super) fn link_of_coordinator(&mut self, now: Time, peer: PodId, up: bool, fx: &mut Effects) {
        let Role::Coordinator(coordinator) = &mut self.role else { return };
        let Some(state) = coordinator.peers.get_mut(&peer) else { return };
        state.up = up;
        state.steady_since = now;
        if up {
            let beat = coordinator.beat(&self.chain, self.floor);
            let message = Message::Heartbeat { ballot: coordinator.ballot, tip: self.chain.accepted(), beat };
            fx.send_early.push((peer, message));
        }
    }

    /// This replica's own vote: comes back once all that was persisted up to here is durable.
    pub(super) fn acknowledge_self(&mut self, fx: &mut Effects) {
        let Role::Coordinator(coordinator) = &mut self.role else { return };
        if breaks::is("own-vote-before-fsync")
            && let Some(own) = coordinator.peers.get_mut(&self.config.me)
        {
            (own.matched, own.round) = (self.chain.accepted().seq, coordinator.round);
        }
        let Role::Coordinator(coordinator) = &self.role else { return };
        self.acknowledge(self.config.me, coordinator.ballot, coordinator.round, fx);
    }

    /// An empty round: asks all replicas whether this ballot still stands.
    fn begin_round(&mut self, now: Time, fx: &mut Effects) {
        let Role::Coordinator(coordinator) = &mut self.role else { return };
        coordinator.round += 1;
        coordinator.sent_at = now;
        let beat = coordinator.beat(&self.chain, self.floor);
        let (ballot, tip) = (coordinator.ballot, self.chain.accepted());
        for pod in self.config.others() {
            fx.send_early.push((pod, Message::Heartbeat { ballot, tip, beat }));
        }
        self.acknowledge_self(fx);
    }

    /// The preferred coordinator gets the shard back once it has been well for a while.
    fn consider_handover(&mut self, now: Time) {
        let timing = self.config.timing;
        let (preferred, urgent) = (self.preferred, self.urgent);
        let Role::Coordinator(coordinator) = &mut self.role else { return };
        match coordinator.stage {
            Stage::Open { since } => {
                if preferred == self.config.me || !coordinator.serving {
                    return;
                }
                let Some(peer) = coordinator.peers.get(&preferred) else { return };
                let in_flight = self.chain.tail().len() as u64;
                let well = peer.up
                    && now.since(peer.heard) < Span(2 * timing.heartbeat.0)
                    && (urgent || now.since(peer.steady_since.max(since)) >= timing.handover)
                    && peer.matched + in_flight >= self.chain.accepted().seq;
                if well {
                    coordinator.stage = Stage::Draining { until: now + timing.election };
                }
            }
            Stage::Draining { until } | Stage::Handed { until } => {
                if now >= until {
                    coordinator.stage = Stage::Open { since: now };
                }
            }
        }
    }

    fn try_hand_over(&mut self, fx: &mut Effects) {
        let preferred = self.preferred;
        let Role::Coordinator(coordinator) = &mut self.role else { return };
        let Stage::Draining { until } = coordinator.stage else { return };
        let tip = self.chain.accepted();
        let caught_up = coordinator.peers.get(&preferred).is_some_and(|peer| peer.matched == tip.seq);
        if caught_up && self.chain.committed() == tip {
            coordinator.stage = Stage::Handed { until };
            fx.send_early.push((preferred, Message::Handover { ballot: coordinator.ballot }));
        }
    }
}
