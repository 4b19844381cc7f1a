//! The blocking two-phase commit at a payment shard's leader, where it differs from the reserving one.
//!
//! | | reserving | blocking |
//! |---|---|---|
//! | at stock | units are set aside | units are set aside, and their items locked |
//! | at payment | `Charge`, whose outcome is the decision | `Prepare`, a vote that locks the user; then `Commit` |
//! | the decision | is in the payment shard's log | is on the coordinator's disk, forced before anybody hears of it |
//! | a new leader | aborts what is not charged | asks the old one's pod about each vote, for as long as it takes |
//! | confirmations | at leisure | at once: others wait for the locks |
//!
//! Everything up to the decision, and after the charge, is the same code (`checkout`, `resolve`).

use super::checkout::Checkouts;
use super::config::Commit;
use super::group::{Group, Replica};
use super::locks::{Locks, Turn};
use super::message::{Message, Record};
use super::outbox::Outbox;
use super::payment::{PaymentShard, Waiter};
use super::pod::Node;
use crate::modules::machine::Machine;
use crate::modules::payment::{self, Command, prepared_key};
use crate::modules::request::OrderId;
use kassa_protocols::breaks;
use kassa_protocols::commit::decisions::{Decision, Decisions, Doubts};
use kassa_protocols::ids::{Ballot, Module, PodId, Shard, TxnId};
use kassa_protocols::tables::Disk;
use kassa_protocols::time::Time;
use std::collections::BTreeMap;

/// What a payment shard has for the blocking commit.
#[derive(Debug)]
pub struct Blocking {
    pub(super) me: PodId,
    /// The epoch in which this pod's disk joined the shard; it knows of no decision of an earlier one.
    joined: u32,
    /// As coordinator, in this office or an earlier one.
    pub(super) decisions: Decisions,
    /// As the leader of a participant.
    pub(super) doubts: Doubts,
    /// The orders of the doubts.
    orders: BTreeMap<OrderId, TxnId>,
    pub(super) locks: Locks,
}

impl Blocking {
    pub(super) fn new(me: PodId, joined: u32) -> Self {
        let (decisions, doubts) = (Decisions::default(), Doubts::default());
        Self { me, joined, decisions, doubts, orders: BTreeMap::new(), locks: Locks::default() }
    }

    /// Whether it is not known whether the order is charged.
    pub(super) fn is_in_doubt(&self, order: &OrderId) -> bool {
        self.orders.contains_key(order)
    }
}

impl PaymentShard {
    /// `Lead` is applied: what voted yes under an older ballot is in doubt, unless this very pod knows better.
    pub(super) fn inherit_votes(&mut self) {
        let prepared = self.group.machine.prepared();
        let blocking = &mut self.blocking;
        blocking.locks.lead(prepared.iter().map(|(txn, vote)| (&vote.user, *txn)));
        blocking.doubts = Doubts::new(prepared.keys().copied());
        blocking.orders = prepared.iter().map(|(txn, vote)| (vote.order.clone(), *txn)).collect();
        if let Some(coordinator) = &mut self.checkouts.coordinator {
            for (txn, vote) in prepared {
                coordinator.inherit(*txn, &vote.shards);
            }
        }
    }

    /// This pod leads no longer. What it has decided, it keeps.
    pub(super) fn drop_votes(&mut self) -> Vec<Waiter> {
        self.blocking.doubts = Doubts::default();
        self.blocking.orders.clear();
        self.blocking.locks.drain()
    }

    /// All participants have voted yes: the decision is made, and told to nobody before it is on this disk.
    pub(super) fn voted_yes(&mut self, txn: TxnId, out: &mut Outbox) {
        self.blocking.decisions.make(txn);
        out.log(Shard { module: Module::Payment, no: self.no }, Record::Decided(txn));
        out.send(self.blocking.me, Message::Decided { txn });
    }

    /// The decision is on this disk.
    pub fn decided(&mut self, now: Time, txn: TxnId, disk: &dyn Disk, out: &mut Outbox) {
        self.blocking.decisions.durable(txn);
        // Out of office, it waits to be asked.
        if self.checkouts.in_flight(txn) {
            self.conclude(now, txn, Decision::Commit, disk, out);
        }
    }

    /// The outcome is known: all participants are told at once, the payment shard by its log.
    fn conclude(&mut self, now: Time, txn: TxnId, decision: Decision, disk: &dyn Disk, out: &mut Outbox) {
        match decision {
            Decision::Commit => {
                let steps =
                    self.checkouts.coordinator.as_mut().map(|c| c.charged(now, txn)).unwrap_or_default();
                self.run(now, steps, disk, out);
                self.submit(Command::Commit(txn), Waiter::Concluded(txn, decision), disk, out);
            }
            Decision::Abort => {
                self.submit(Command::Abort(txn), Waiter::Concluded(txn, decision), disk, out);
            }
        }
    }

    /// The outcome is applied here, and with it known to whoever leads next.
    pub(super) fn concluded(
        &mut self,
        now: Time,
        txn: TxnId,
        decision: Decision,
        outcome: payment::Outcome,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) {
        self.blocking.decisions.forget(txn);
        self.unlock(txn, disk, out);
        if decision == Decision::Abort {
            self.give_back(now, txn, disk, out);
        }
        if let Some(order) = self.checkouts.attempts.remove(&txn)
            && let payment::Outcome::Charged { total } = outcome
        {
            self.committed += 1;
            self.paid(now, &order, total, disk, out);
            self.unpark(now, &order, disk, out);
        }
        // Of an earlier leader: nobody waits for its answer, but for its order somebody may.
        let inherited = self.blocking.orders.iter().find(|(_, of)| **of == txn);
        if let Some(order) = inherited.map(|(order, _)| order.clone()) {
            self.blocking.orders.remove(&order);
            self.unpark(now, &order, disk, out);
        }
    }

    /// Whoever waits for the user that `txn` had locked has its turn.
    pub(super) fn unlock(&mut self, txn: TxnId, disk: &dyn Disk, out: &mut Outbox) {
        let Some(user) = self.blocking.locks.release(txn) else { return };
        while let Some((command, waiter)) = self.blocking.locks.next(&user) {
            self.submit_unlocked(command, waiter, disk, out);
        }
    }

    /// Submits a command when its user is not locked.
    pub fn submit(&mut self, command: Command, waiter: Waiter, disk: &dyn Disk, out: &mut Outbox) {
        if !self.group.is_leading() {
            return self.void(waiter, out);
        }
        match self.blocking.locks.admit(command, waiter) {
            Turn::Now(command, waiter) => self.submit_unlocked(command, waiter, disk, out),
            Turn::Waits => {}
            Turn::Full(waiter) => self.void(waiter, out),
        }
    }

    /// The pod of another leader of this shard asks what became of what it coordinated.
    pub fn inquired(&mut self, from: PodId, txns: &[TxnId], out: &mut Outbox) {
        let told: Vec<(TxnId, bool)> = txns
            .iter()
            .filter_map(|txn| self.answer(*txn).map(|decision| (*txn, decision == Decision::Commit)))
            .collect();
        if !told.is_empty() {
            out.post(from, Message::Outcomes { payment: self.no, told });
        }
    }

    /// What this pod has decided; nothing while it is deciding, nor of what its disk cannot know.
    fn answer(&self, txn: TxnId) -> Option<Decision> {
        let own = txn.ballot.pod() == self.blocking.me && txn.ballot.epoch >= self.blocking.joined;
        let own = own || breaks::is("abort-presumed-by-anyone");
        let office = self.checkouts.coordinator.as_ref();
        let deciding = office.is_some_and(|office| office.ballot() == txn.ballot && office.in_flight(txn));
        if own && !deciding { self.blocking.decisions.answer(txn) } else { None }
    }

    /// Its answer.
    pub fn outcomes(
        &mut self,
        now: Time,
        from: PodId,
        told: Vec<(TxnId, bool)>,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) {
        for (txn, committed) in told {
            if self.blocking.doubts.told(from, txn) {
                let decision = if committed { Decision::Commit } else { Decision::Abort };
                self.conclude(now, txn, decision, disk, out);
            }
        }
    }

    /// Asks the pods that coordinated what is in doubt; `back`: the link to this one is up.
    pub fn inquire(&mut self, now: Time, back: Option<PodId>, disk: &dyn Disk, out: &mut Outbox) {
        if breaks::is("new-leader-aborts") {
            for txn in self.group.machine.prepared().keys().copied().collect::<Vec<_>>() {
                if self.blocking.doubts.told(txn.ballot.pod(), txn) {
                    self.conclude(now, txn, Decision::Abort, disk, out);
                }
            }
        }
        let payment = self.no;
        for (pod, txns) in self.blocking.doubts.ask(now, back) {
            let pod = if breaks::is("abort-presumed-by-anyone") { self.blocking.me } else { pod };
            out.post_again(pod, Message::Inquire { payment, txns });
        }
    }

    /// What waits for users for too long is given up.
    pub(super) fn tick_votes(&mut self, now: Time, disk: &dyn Disk, out: &mut Outbox) {
        for waiter in self.blocking.locks.expired(now) {
            self.void(waiter, out);
        }
        self.inquire(now, None, disk, out);
    }

    /// Forgets the decisions that no leader will ask for any more: a newer one found them concluded, or has
    /// concluded them since.
    pub(super) fn forget_settled(&mut self, disk: &dyn Disk) {
        let settled = self.group.settled();
        while let Some(txn) = self.blocking.decisions.first().filter(|txn| txn.ballot < settled) {
            let stored = self.group.state.get_committed(disk, &prepared_key(txn));
            if stored.is_some_and(|(_, promise)| promise.is_some()) {
                break;
            }
            self.blocking.decisions.forget(txn);
        }
    }

    /// Decisions of a log that is read back.
    pub fn recover_decision(&mut self, position: u64, txn: TxnId) {
        if self.group.keeps_since(position) {
            self.blocking.decisions.recover(txn);
        }
    }

    /// What a checkpoint does not cover of this pod's decisions.
    pub(super) fn retain_decisions(&self, out: &mut Outbox) {
        let shard = Shard { module: Module::Payment, no: self.no };
        for txn in self.blocking.decisions.iter() {
            out.log_lazily(shard, Record::Decided(txn));
        }
    }
}

impl Node {
    /// The link to a pod is up: what it coordinated may be known now.
    pub(super) fn inquire_of(&mut self, now: Time, pod: PodId, disk: &dyn Disk) {
        for payment in self.payment.values_mut() {
            payment.inquire(now, Some(pod), disk, &mut self.out);
        }
    }
}

impl Checkouts {
    /// Whether the transaction is decided and its stock shards are being told.
    pub(super) fn is_confirming(&self, txn: TxnId) -> bool {
        self.coordinator.as_ref().is_some_and(|coordinator| coordinator.is_confirming(txn))
    }

    /// Until when confirmations may be gathered.
    pub(super) fn confirm_by(&self, now: Time) -> Time {
        match self.commit {
            // All shards of a pod on one beat: a stock shard then writes what all of them confirm at once.
            Commit::Reserve => now.next_beat(self.confirm_after),
            // Others wait for the locks.
            Commit::Blocking => now,
        }
    }
}

impl<M: Machine, T> Group<M, T> {
    /// All that older ballots have decided, and will ever, is in the records here.
    fn settled(&self) -> Ballot {
        match &self.replica {
            Replica::Paxos(_) => self.lead,
            Replica::Quorum(replica) => replica.committed().ballot,
        }
    }

    /// Whether a log record of the shard's counts yet; then the log is kept from there.
    fn keeps_since(&mut self, position: u64) -> bool {
        let counts = position >= self.covered;
        if counts {
            self.oldest_needed.get_or_insert(position);
        }
        counts
    }
}
