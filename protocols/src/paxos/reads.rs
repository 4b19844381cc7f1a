//! Read-index rounds (Ongaro 2014, §6.4): a read is served from applied state once a majority has said
//! that the leader's ballot still was its highest promise *after* the read came in. No clock is asked.
//!
//! A leader applies what it knows chosen in the same step, so the read index of a round, what it knows
//! chosen when the round begins, is applied by then: a round passes when its answers are in.

use super::message::{Event, Fx, Message};
use super::{Replica, Role};
use crate::breaks;
use crate::ids::{Ballot, PodId};
use crate::time::Time;
use std::collections::VecDeque;

/// Rounds in flight; later barriers wait and share the next one. More than a loop turns around in one
/// round trip, so only a peer that hangs reaches it.
const ROUNDS_IN_FLIGHT_MAX: usize = 64;

#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Reads {
    /// Tickets (first, last) that wait for the next round.
    waiting: Option<(u64, u64)>,
    in_flight: VecDeque<Round>,
    last_round: u64,
    asked_at: Time,
}

#[derive(Clone, Debug, Hash)]
struct Round {
    no: u64,
    first: u64,
    last: u64,
}

impl Reads {
    /// Whether a round could begin right now.
    pub fn are_due(&self) -> bool {
        self.waiting.is_some() && self.in_flight.len() < ROUNDS_IN_FLIGHT_MAX
    }
    /// The newest round in flight: whoever confirms it confirms all before it.
    pub fn unanswered(&self) -> Option<u64> {
        self.in_flight.back().map(|round| round.no)
    }
}

impl Replica {
    /// Asks for a read-index round. The ticket comes back as [`Event::Passed`], unless this replica is
    /// deposed first. `None` if it does not lead, or its `Lead` is not applied yet.
    ///
    /// The round begins with the next `tick`, which is due at once: all barriers until then share it.
    pub fn barrier(&mut self, _now: Time, _fx: &mut Fx) -> Option<u64> {
        let Role::Leader(leader) = &mut self.role else { return None };
        if !leader.serving {
            return None;
        }
        self.tickets += 1;
        let ticket = self.tickets;
        let first = leader.reads.waiting.map_or(ticket, |(first, _)| first);
        leader.reads.waiting = Some((first, ticket));
        Some(ticket)
    }

    pub(super) fn begin_reads(&mut self, now: Time, fx: &mut Fx) {
        let Role::Leader(leader) = &mut self.role else { return };
        let reads = &mut leader.reads;
        let again = !reads.in_flight.is_empty() && now.since(reads.asked_at) >= self.config.timing.retry;
        if reads.are_due()
            && let Some((first, last)) = reads.waiting.take()
        {
            reads.last_round += 1;
            reads.in_flight.push_back(Round { no: reads.last_round, first, last });
        } else if !again {
            return;
        }
        reads.asked_at = now;
        let message = Message::Read { ballot: self.promised, round: reads.last_round };
        for peer in self.peers.iter().filter(|peer| peer.voter) {
            fx.send_early.push((peer.id, message.clone()));
        }
        self.pass_reads(fx);
    }

    pub(super) fn on_read_ok(&mut self, now: Time, from: PodId, ballot: Ballot, round: u64, fx: &mut Fx) {
        if !matches!(self.role, Role::Leader(_)) || ballot != self.promised {
            return;
        }
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == from) else { return };
        peer.heard_at = now;
        peer.read = peer.read.max(round);
        self.pass_reads(fx);
    }

    /// Invariant: a ticket passes only when a majority, this replica included, has confirmed the ballot
    /// in a round that began after the ticket was given out.
    fn pass_reads(&mut self, fx: &mut Fx) {
        let Role::Leader(leader) = &mut self.role else { return };
        let reads = &mut leader.reads;
        while let Some(round) = reads.in_flight.front() {
            // This replica itself: its promise is its own ballot, or it would not lead any more.
            let confirmed = 1 + self.peers.iter().filter(|p| p.voter && p.read >= round.no).count();
            if confirmed < self.majority && !breaks::is("read-without-round") {
                return;
            }
            fx.events.extend((round.first..=round.last).map(|ticket| Event::Passed { ticket }));
            reads.in_flight.pop_front();
        }
    }
}
