//! Who stands for coordinator, and when. Nothing here is needed for safety, only for being quick
//! and for not deposing a coordinator that works.
//!
//! A replica that has lost the coordinator asks the others first (pre-vote), and stands once it hears
//! a quorum that has lost it too (as OmniPaxos, 2023, chooses leaders by being connected to a
//! quorum). A link that goes down makes its pod suspect at once: `kill -9` resets connections.

use super::types::{Event, Have, Message};
use super::{Effects, Replica, Role};
use crate::ids::{Ballot, PodId};
use crate::time::{Span, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The wait between canvasses doubles up to the election time-out; this bounds the shift.
const CANVASS_DOUBLINGS_MAX: u32 = 8;

#[derive(Clone, Debug, Hash)]
pub(super) struct Follower {
    /// The coordinator of the promised ballot, once it has shown to have taken over.
    pub leader: Option<PodId>,
    /// When the coordinator or candidate of the promised ballot was last heard.
    heard: Time,
    /// Its link went down, or it was silent for too long.
    suspect: bool,
    /// When to canvass, if nothing is heard until then.
    pub stand_at: Time,
    canvass: Option<Canvass>,
    tries: u32,
}

#[derive(Clone, Debug, Hash)]
struct Canvass {
    ballot: Ballot,
    yes: BTreeSet<PodId>,
}

#[derive(Clone, Debug, Hash)]
pub(super) struct Candidate {
    pub ballot: Ballot,
    pub deadline: Time,
    pub resend_at: Time,
    pub promises: BTreeMap<PodId, Promised>,
    /// Whom it has asked for what it lacks.
    pub asked: Option<PodId>,
}

/// What a replica promised with.
#[derive(Clone, Debug, Hash)]
pub(super) struct Promised {
    pub have: Have,
    pub repair: Vec<Arc<super::Write>>,
}

impl Follower {
    pub const fn new(now: Time) -> Self {
        Self { leader: None, heard: now, suspect: false, stand_at: now, canvass: None, tries: 0 }
    }
}

impl Replica {
    /// Asks the others whether they have lost the coordinator too.
    pub(super) fn canvass(&mut self, now: Time, fx: &mut Effects) {
        let ballot = self.next_ballot();
        let timing = self.config.timing;
        let rank = self.rank();
        let Role::Follower(follower) = &mut self.role else { return };
        if !follower.suspect {
            self.patience.lose(now, self.config.timing.election);
        }
        let wait = Span(timing.stagger.0 << follower.tries.min(CANVASS_DOUBLINGS_MAX)).min(timing.election);
        follower.suspect = true;
        follower.leader = None;
        follower.tries += 1;
        follower.stand_at = now + wait + times(timing.stagger, rank);
        follower.canvass = Some(Canvass { ballot, yes: BTreeSet::new() });
        for pod in self.config.others() {
            fx.send.push((pod, Message::Canvass { ballot }));
        }
        self.on_canvassed(now, self.config.me, ballot, true, self.promised, fx);
    }

    pub(super) fn on_canvass(&self, now: Time, from: PodId, ballot: Ballot, fx: &mut Effects) {
        // One that joins may say so as well: this decides nothing, and where W is all of them it has to.
        let lost = match &self.role {
            Role::Follower(follower) => {
                let silent = now.since(follower.heard) >= self.election_timeout(now);
                let never = self.promised.round == 0;
                follower.suspect || silent || never || from == self.promised.pod()
            }
            // One is on its way, or there: should it be stuck, it gives up by itself.
            Role::Candidate(_) | Role::Coordinator(_) => false,
        };
        fx.send.push((from, Message::Canvassed { ballot, lost, promised: self.promised }));
    }

    pub(super) fn on_canvassed(
        &mut self,
        now: Time,
        from: PodId,
        ballot: Ballot,
        lost: bool,
        promised: Ballot,
        fx: &mut Effects,
    ) {
        if promised.epoch == self.config.epoch {
            self.seen = self.seen.max(promised);
        }
        let needed = self.config.write_quorum.max(self.config.read_quorum);
        let Role::Follower(follower) = &mut self.role else { return };
        let Some(canvass) = follower.canvass.as_mut().filter(|canvass| canvass.ballot == ballot) else {
            return;
        };
        if !lost {
            follower.canvass = None;
            return;
        }
        canvass.yes.insert(from);
        if canvass.yes.len() >= needed {
            self.stand(now, fx);
        }
    }

    /// Becomes a candidate under a new ballot of its own. `Prepare` waits for the disk: a ballot that
    /// others have seen must not be forgotten and used again.
    pub(super) fn stand(&mut self, now: Time, fx: &mut Effects) {
        let ballot = self.next_ballot();
        // Who leads counts no vote of a lost disk: not before this replica is told which was replaced.
        if ballot.epoch > self.config.epoch {
            return;
        }
        self.promise(now, ballot, fx);
        let timing = self.config.timing;
        self.role = Role::Candidate(Candidate {
            ballot,
            deadline: now + self.election_timeout(now) + times(timing.stagger, self.rank()),
            resend_at: now + timing.heartbeat,
            promises: BTreeMap::new(),
            asked: None,
        });
        let have = self.chain.have();
        for pod in self.config.others() {
            fx.send.push((pod, Message::Prepare { ballot, have: have.clone() }));
        }
        fx.send.push((self.config.me, Message::Promise { ballot, have, repair: Vec::new() }));
    }

    pub(super) fn tick_candidate(&mut self, now: Time, fx: &mut Effects) {
        let me = self.config.me;
        let Role::Candidate(candidate) = &mut self.role else { return };
        if now >= candidate.deadline {
            self.patience.lose(now, self.config.timing.election);
            self.retire(now, fx);
            return;
        }
        if now < candidate.resend_at {
            return;
        }
        candidate.resend_at = now + self.config.timing.heartbeat;
        let (ballot, have) = (candidate.ballot, self.chain.have());
        for &pod in self.config.replicas.iter().filter(|&&pod| pod != me) {
            if !candidate.promises.contains_key(&pod) {
                fx.send.push((pod, Message::Prepare { ballot, have: have.clone() }));
            }
        }
    }

    pub(super) fn link_of_candidate(&mut self, peer: PodId, up: bool, fx: &mut Effects) {
        let Role::Candidate(candidate) = &mut self.role else { return };
        if candidate.asked == Some(peer) {
            candidate.asked = None;
        }
        if up && !candidate.promises.contains_key(&peer) {
            let ballot = candidate.ballot;
            fx.send.push((peer, Message::Prepare { ballot, have: self.chain.have() }));
        }
    }

    pub(super) fn on_refuse(&mut self, now: Time, promised: Ballot, fx: &mut Effects) {
        let mine = match &self.role {
            Role::Follower(_) => return,
            Role::Candidate(candidate) => candidate.ballot,
            Role::Coordinator(coordinator) => coordinator.ballot,
        };
        if promised > mine {
            self.retire(now, fx);
        }
    }

    /// The coordinator gives the shard back to the pod that prefers to lead it.
    pub(super) fn on_handover(&mut self, now: Time, from: PodId, ballot: Ballot, fx: &mut Effects) {
        let following = matches!(self.role, Role::Follower(_)) && self.votes();
        if following && ballot == self.promised && from == ballot.pod() {
            self.stand(now, fx);
        }
    }

    /// Gives up candidacy or office; a ballot once given up is never resumed.
    pub(super) fn retire(&mut self, now: Time, fx: &mut Effects) {
        match &self.role {
            Role::Follower(_) => return,
            Role::Candidate(_) => {}
            Role::Coordinator(coordinator) => {
                if coordinator.serving {
                    fx.events.push(Event::Deposed);
                }
            }
        }
        self.asked = None;
        self.follow_nobody(now);
        if self.last_coordinator() == Some(self.config.me) {
            // Nobody is in office that this pod knows of.
            self.suspect(now);
        }
    }

    /// Starts to wait for a coordinator as after a start.
    pub(super) fn follow_nobody(&mut self, now: Time) {
        self.role = Role::Follower(Follower::new(now));
        self.heard_coordinator(now);
    }

    /// The coordinator of the promised ballot lives, or its candidate does.
    pub(super) fn heard_coordinator(&mut self, now: Time) {
        let wait = self.election_timeout(now);
        let stagger = times(self.config.timing.stagger, self.rank());
        let Role::Follower(follower) = &mut self.role else { return };
        follower.heard = now;
        follower.suspect = false;
        follower.canvass = None;
        follower.tries = 0;
        follower.stand_at = now + wait + stagger;
    }

    /// The coordinator seems to be gone: stand in turn, without waiting for the time-out.
    pub(super) fn suspect(&mut self, now: Time) {
        let wait = times(self.config.timing.stagger, self.rank());
        let Role::Follower(follower) = &mut self.role else { return };
        follower.suspect = true;
        follower.leader = None;
        follower.stand_at = follower.stand_at.min(now + wait);
    }

    /// A link came up: one that stood in vain may have a quorum now.
    pub(super) fn link_of_follower(&mut self, now: Time, peer: PodId, up: bool) {
        let last = self.last_coordinator();
        let Role::Follower(follower) = &mut self.role else { return };
        if !up && last == Some(peer) {
            self.suspect(now);
        } else if up && follower.suspect {
            follower.tries = 0;
            self.suspect(now);
        }
    }

    /// For how long a coordinator, a write quorum or a takeover may be silent.
    pub(super) fn election_timeout(&self, now: Time) -> Span {
        self.patience.wait(now, self.config.timing.election)
    }

    /// This replica's turn among those that may stand once the last coordinator is lost; that one's
    /// own turn comes last.
    fn rank(&self) -> usize {
        let last = self.last_coordinator();
        if last == Some(self.config.me) {
            return self.config.replicas.len();
        }
        let before = self.config.replicas.iter().take_while(|&&pod| pod != self.config.me);
        before.filter(|&&pod| last != Some(pod)).count()
    }

    /// Whose ballot is promised here, if any is.
    fn last_coordinator(&self) -> Option<PodId> {
        (self.promised.round > 0).then(|| self.promised.pod())
    }

    fn next_ballot(&self) -> Ballot {
        let highest = self.seen.max(self.promised);
        let floor = Ballot { epoch: self.config.epoch, round: 0, pod: 0 };
        highest.max(floor).next(self.config.me)
    }
}

fn times(span: Span, n: usize) -> Span {
    Span(span.0 * u64::try_from(n).expect("a replica set is small"))
}
