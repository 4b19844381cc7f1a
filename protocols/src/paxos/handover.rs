//! Giving the leadership back to the preferred leader, so that leaders stay spread over the pods as placed.
//!
//! When the preferred voter has kept up for a while, the leader *offers*; the other one makes sure that it
//! reaches a majority, and says that it is *ready*; the leader then takes no more, lets what is in flight
//! be chosen, tells it to stand, and steps down. If the last message is lost an ordinary election follows.
//! A leader that is told meanwhile to prefer another, itself perhaps, keeps its office and takes commands again.

use super::leader::PROPOSALS_IN_FLIGHT_MAX;
use super::message::{Fx, Message};
use super::{Peer, Replica, Role};
use crate::ids::{Ballot, PodId};
use crate::time::{Span, Time};

/// A preferred leader that is behind by no more than this keeps up with the load.
const LAG_MAX: u64 = PROPOSALS_IN_FLIGHT_MAX / 2;

impl Replica {
    fn preferred(&self) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.voter && peer.id == self.preferred)
    }

    /// The leader's part, with every heartbeat.
    pub(super) fn hand_over(&mut self, now: Time, fx: &mut Fx) {
        let timing = self.config.timing;
        let Some(peer) = self.preferred() else { return };
        let Role::Leader(leader) = &self.role else { return };
        if let Some(since) = leader.handing_over_since {
            if leader.last == self.committed && peer.acked == leader.last {
                let handover = Message::Handover { ballot: self.promised, committed: self.committed };
                fx.send.push((peer.id, handover));
                self.step_down(now, fx);
                self.leader = None;
                self.heard(now);
            } else if now.since(since) >= timing.election_timeout {
                self.keep_office();
            }
            return;
        }
        let ready = leader.serving
            && peer.up
            && now.since(peer.heard_at) < Span(2 * timing.heartbeat.0)
            && peer.acked + LAG_MAX >= leader.last
            && peer.applied + LAG_MAX >= self.committed;
        let since = leader.preferred_ready_since.unwrap_or(now);
        let due = ready && (self.urgent || now.since(since) >= timing.handover);
        if due {
            fx.send_early.push((peer.id, Message::Offer { ballot: self.promised }));
        }
        let Role::Leader(leader) = &mut self.role else { return };
        // An offer that is not taken up is made again after the same delay.
        leader.preferred_ready_since = ready.then_some(if due { now } else { since });
    }

    pub(super) fn keep_office(&mut self) {
        if let Role::Leader(leader) = &mut self.role {
            leader.handing_over_since = None;
            leader.preferred_ready_since = None;
        }
    }

    /// Asks around whether a majority answers; how they answer does not matter.
    pub(super) fn on_offer(&mut self, now: Time, from: PodId, ballot: Ballot, fx: &mut Fx) {
        // Not of an epoch that it has not been told of: it could not stand when its turn comes.
        let may_lead = self.votes() && ballot.epoch <= self.config.epoch;
        if may_lead && self.follow(now, from, ballot, fx) {
            self.reached = Some(vec![self.config.me]);
            self.poll(fx);
        }
    }

    pub(super) fn count_reached(&mut self, from: PodId, fx: &mut Fx) {
        let Some(reached) = &mut self.reached else { return };
        if !reached.contains(&from) {
            reached.push(from);
        }
        if reached.len() >= self.majority {
            self.reached = None;
            let ballot = self.promised;
            if let Some(leader) = self.leader {
                fx.send_early.push((leader, Message::Ready { ballot }));
            }
        }
    }

    pub(super) fn on_ready(&mut self, now: Time, from: PodId, ballot: Ballot) {
        let preferred = from == self.preferred && ballot == self.promised;
        if let Role::Leader(leader) = &mut self.role
            && preferred
            && leader.serving
            && leader.handing_over_since.is_none()
        {
            leader.handing_over_since = Some(now);
            leader.heartbeat_at = now;
        }
    }

    pub(super) fn on_handover(
        &mut self,
        now: Time,
        from: PodId,
        ballot: Ballot,
        committed: u64,
        fx: &mut Fx,
    ) {
        if !self.follow(now, from, ballot, fx) {
            return;
        }
        self.learn(now, from, ballot, committed, fx);
        if self.votes() {
            self.stand(now, fx);
        }
    }
}
