//! From candidate to coordinator: adopt the highest accepted version among R promises, write on top
//! of it, serve once that is committed.
//!
//! Why that is enough: what is committed in ballot b was accepted by W replicas that had promised
//! nothing above b; one of them is among the R. The highest accepted version there is at least that
//! one, and by induction over the ballots between its chain holds it.

use super::chain::Spliced;
use super::coordinator::Coordinator;
use super::election::Promised;
use super::types::{Have, Message, Record, Write};
use super::{Effects, Replica, Role};
use crate::breaks;
use crate::ids::{Ballot, PodId};
use crate::time::Time;
use std::sync::Arc;

impl Replica {
    pub(super) fn on_promise(
        &mut self,
        now: Time,
        from: PodId,
        ballot: Ballot,
        have: Have,
        repair: Vec<Arc<Write>>,
        fx: &mut Effects,
    ) {
        match &mut self.role {
            Role::Candidate(candidate) if candidate.ballot == ballot => {
                candidate.promises.insert(from, Promised { have, repair });
                self.try_lead(now, fx);
            }
            Role::Coordinator(coordinator) if coordinator.ballot == ballot && from != self.config.me => {
                // Late, and no less welcome as a replica.
                self.bring_up_to_date(from, Some(&have), fx);
            }
            Role::Follower(_) | Role::Candidate(_) | Role::Coordinator(_) => {}
        }
    }

    /// Leads if R have promised and what they have accepted is here.
    pub(super) fn try_lead(&mut self, now: Time, fx: &mut Effects) {
        let Role::Candidate(candidate) = &mut self.role else { return };
        if candidate.promises.len() < self.config.read_quorum && !breaks::is("lead-before-promises") {
            return;
        }
        let best = candidate.promises.iter().max_by_key(|(_, promised)| promised.have.accepted());
        let Some((&source, best)) = best else { return };
        if best.have.accepted() <= self.chain.accepted() {
            self.lead(now, Vec::new(), fx);
        } else if !best.repair.is_empty() {
            let repair = best.repair.clone();
            self.lead(now, repair, fx);
        } else {
            self.ask_as_candidate(now, source, fx);
        }
    }

    /// What a promise lacked has come, or cannot be had so.
    pub(super) fn repair_of_candidate(
        &mut self,
        now: Time,
        from: PodId,
        writes: Vec<Arc<Write>>,
        fx: &mut Effects,
    ) {
        let Role::Candidate(candidate) = &mut self.role else { return };
        candidate.asked = None;
        if let Some(promised) = candidate.promises.get_mut(&from) {
            promised.repair = writes;
            self.try_lead(now, fx);
        }
    }

    /// Asks the replica with the highest accepted version for what this one lacks: writes, or, as
    /// that layer answers with a transfer, tables.
    fn ask_as_candidate(&mut self, now: Time, source: PodId, fx: &mut Effects) {
        let transfer = self.config.timing.transfer;
        let Role::Candidate(candidate) = &mut self.role else { return };
        if candidate.asked == Some(source) || source == self.config.me {
            return;
        }
        candidate.asked = Some(source);
        candidate.deadline = now + transfer;
        let ballot = candidate.ballot;
        fx.send.push((source, Message::CatchUp { ballot, have: self.chain.have() }));
    }

    /// Takes office with `adopted` on top of what is here and a first write of its own on top of
    /// that, in one log record: what is adopted never stands alone, here or elsewhere.
    fn lead(&mut self, now: Time, adopted: Vec<Arc<Write>>, fx: &mut Effects) {
        let Role::Candidate(candidate) = &self.role else { return };
        let (ballot, on_own_chain) = (candidate.ballot, adopted.is_empty());
        assert_eq!(ballot, self.promised, "a candidate that promised another is none");
        let (prev, time) = adopted
            .last()
            .map_or_else(|| (self.chain.accepted(), self.chain.time()), |last| (last.version, last.time));
        let own = Arc::new(Write { version: prev.next(ballot), prev, time, records: Vec::new() });
        let mut writes = adopted;
        writes.push(own);
        match self.chain.splice(&writes) {
            Spliced::From(first) => {
                writes.drain(..first);
            }
            Spliced::Held | Spliced::Gap => {
                assert!(!on_own_chain, "this replica's own chain has no gap");
                self.forget_repairs();
                self.try_lead(now, fx);
                return;
            }
        }
        let commit = self.chain.committed();
        fx.persist.push(Record::Splice { writes, commit });
        self.logged = commit;
        let coordinator = Coordinator::new(now, ballot, time, &self.config);
        if breaks::is("serve-before-lead") {
            fx.events.push(super::Event::Leading { ballot });
        }
        let Role::Candidate(candidate) = std::mem::replace(&mut self.role, Role::Coordinator(coordinator))
        else {
            return;
        };
        self.asked = None;
        let others: Vec<PodId> = self.config.others().collect();
        for pod in others {
            self.bring_up_to_date(pod, candidate.promises.get(&pod).map(|p| &p.have), fx);
        }
        self.acknowledge_self(fx);
    }

    /// Repairs that do not fit what is here now: ask for them anew.
    pub(super) fn forget_repairs(&mut self) {
        let Role::Candidate(candidate) = &mut self.role else { return };
        for promised in candidate.promises.values_mut() {
            promised.repair.clear();
        }
    }

    /// Sends a replica what it lacks, if that is known and in memory, else the newest write, on which
    /// it will notice what it lacks.
    fn bring_up_to_date(&self, pod: PodId, have: Option<&Have>, fx: &mut Effects) {
        let Role::Coordinator(coordinator) = &self.role else { return };
        let beat = coordinator.beat(&self.chain, self.floor);
        let writes = have.and_then(|have| self.chain.beyond(have)).filter(|writes| !writes.is_empty());
        let message = match writes {
            Some(writes) => Message::Repair { ballot: coordinator.ballot, writes, beat },
            None => {
                let tip = self.chain.accepted();
                Message::Heartbeat { ballot: coordinator.ballot, tip, beat }
            }
        };
        fx.send_early.push((pod, message));
    }
}
