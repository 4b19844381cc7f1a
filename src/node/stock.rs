//! A stock shard on this pod: the replicated items, and at its coordinator the queue and the doubts.

#![expect(clippy::too_many_arguments, reason = "a step carries its time, the disk and the outbox besides")]

use super::admission::{Admission, Verdict};
use super::config::Commit;
use super::group::{Group, Output};
use super::message::{Ask, AskId, Fate, Message, Question, Stamp, Tell, Vote};
use super::outbox::Outbox;
use super::reads::KnownBatches;
use super::routes::Routes;
use crate::modules::order::mint_id;
use crate::modules::request::{ItemId, Op, Outcome, Refusal};
use crate::modules::stock::{self, Command, Stock};
use kassa_protocols::breaks;
use kassa_protocols::commit::participant::{Cover, Participant};
use kassa_protocols::ids::{Incarnation, Module, OpId, PodId, Shard, ShardNo, TxnId};
use kassa_protocols::tables::Disk;
use kassa_protocols::time::{Span, Time};
use std::collections::BTreeMap;

/// How often the reservations that are held are looked over for doubts.
const DOUBT_EVERY: Span = Span::from_millis(100);
/// Transactions asked about in one message at the most.
const DOUBT_BATCH_MAX: usize = 256;

/// Who waits for the outcome of a command.
#[derive(Clone, Debug)]
pub enum Waiter {
    Ask {
        from: PodId,
        id: AskId,
        key: Option<OpId>,
    },
    Reserve {
        from: PodId,
        txn: TxnId,
        lines: Vec<(ItemId, u64)>,
        wait: bool,
    },
    Resolve {
        from: PodId,
        txns: Vec<TxnId>,
        watermark: TxnId,
    },
    /// What a question about a doubt led to; nobody is told.
    Doubt,
}

/// One stock shard.
pub struct StockShard {
    no: ShardNo,
    pub group: Group<Stock, Waiter>,
    admission: Admission,
    participant: Participant<ItemId, PodId>,
    doubts_at: Time,
    /// Whether what is set aside is locked: the blocking commit.
    exclusive: bool,
    /// The newest batch submitted unasked in this term of office.
    following: Incarnation,
    pub(super) batches: KnownBatches,
}

impl StockShard {
    #[must_use]
    pub fn new(no: ShardNo, group: Group<Stock, Waiter>, commit: Commit) -> Self {
        let exclusive = matches!(commit, Commit::Blocking);
        let (admission, participant) = (Admission::default(), Participant::default());
        let (doubts_at, following, batches) = (Time(0), Incarnation(0), None);
        Self { no, group, admission, participant, doubts_at, exclusive, following, batches }
    }

    const fn reserve_command(&self, txn: TxnId, lines: Vec<(ItemId, u64)>, watermark: TxnId) -> Command {
        if self.exclusive {
            Command::Lock { txn, lines, watermark }
        } else {
            Command::Reserve { txn, lines, watermark }
        }
    }

    /// Items that a checkout of the blocking commit has locked here.
    #[must_use]
    pub fn locked_items(&self) -> usize {
        if self.exclusive && self.group.is_leading() { self.group.machine.held_lines() } else { 0 }
    }

    #[must_use]
    pub fn stamp(&self) -> Stamp {
        self.admission.stamp(self.group.time())
    }
    fn tell(&self, to: PodId, id: AskId, tell: Tell, out: &mut Outbox) {
        out.post(to, Message::Tell { id, stamp: self.stamp(), tell });
    }

    /// A question of a pod, for a client of its own.
    pub fn asked(&mut self, from: PodId, question: Question, disk: &dyn Disk, out: &mut Outbox) {
        let id = question.id;
        if !self.group.is_leading() {
            let leader = self.group.leader();
            return self.tell(from, id, Tell::NotLeader { leader }, out);
        }
        let request = match question.ask {
            Ask::Op { request, .. } => request,
            Ask::Log { batch } => {
                if self.group.machine.has_batch(&batch) {
                    let waiter = Waiter::Ask { from, id, key: None };
                    let rejected = self.group.read(Command::Nothing, waiter, disk).err();
                    return self.keep(rejected, out);
                }
                let waiter = Waiter::Ask { from, id, key: None };
                self.admission.fence();
                let rejected = self.group.submit(Command::Load(batch), waiter, disk).err();
                return self.keep(rejected, out);
            }
            Ask::Add { .. } | Ask::OfOrder { .. } | Ask::Owner { .. } | Ask::Anywhere { .. } => return,
            Ask::Load { .. } | Ask::Loaded { .. } | Ask::OrderBatch { .. } | Ask::Whole { .. } => return,
        };
        let key = request.key;
        let command = if let Op::FindItem { item } = request.op {
            let waiter = Waiter::Ask { from, id, key: None };
            let rejected = self.group.read(Command::Find { item }, waiter, disk).err();
            return self.keep(rejected, out);
        } else if let Op::CreateItem { price } = request.op {
            Command::Create { key, item: mint_id(key).into(), price }
        } else if let Op::AddStock { item, units } = request.op {
            Command::Add { key, item, units }
        } else if let Op::SubtractStock { item, units } = request.op {
            Command::Subtract { key, item, units }
        } else {
            return;
        };
        let time = self.group.time();
        match self.admission.judge(question.stamp, key, time, (from, id)) {
            Verdict::Repeated => {}
            Verdict::Pending => self.tell(from, id, Tell::NotLeader { leader: None }, out),
            Verdict::Admitted => {
                let rejected =
                    self.group.submit(command, Waiter::Ask { from, id, key: Some(key) }, disk).err();
                self.keep(rejected, out);
            }
            Verdict::Stale => self.tell(from, id, Tell::Stale, out),
            Verdict::Unknown => self.tell(from, id, Tell::Outcome(Outcome::Unknown), out),
        }
    }

    /// A waiter that the group gave back: its shard is led elsewhere.
    fn keep(&mut self, rejected: Option<Waiter>, out: &mut Outbox) {
        if let Some(waiter) = rejected {
            self.elsewhere(waiter, out);
        }
    }

    fn elsewhere(&mut self, waiter: Waiter, out: &mut Outbox) {
        match waiter {
            Waiter::Ask { from, id, key } => {
                if let Some(key) = key {
                    self.admission.answered(key);
                }
                let leader = self.group.leader().filter(|_| !self.group.is_leading());
                self.tell(from, id, Tell::NotLeader { leader }, out);
            }
            Waiter::Reserve { from, txn, .. } => {
                out.post(
                    from,
                    Message::NotCoordinator {
                        shard: self.no,
                        payment: txn.shard,
                        leader: self.group.leader(),
                    },
                );
            }
            Waiter::Resolve { from, watermark, .. } => {
                let payment = watermark.shard;
                out.post(
                    from,
                    Message::NotCoordinator { shard: self.no, payment, leader: self.group.leader() },
                );
            }
            Waiter::Doubt => {}
        }
    }

    pub fn reserve(
        &mut self,
        from: PodId,
        txn: TxnId,
        lines: Vec<(ItemId, u64)>,
        wait: bool,
        watermark: TxnId,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) {
        if !self.group.is_leading() {
            return out.post(
                from,
                Message::NotCoordinator { shard: self.no, payment: txn.shard, leader: self.group.leader() },
            );
        }
        self.participant.raise(watermark);
        // Whoever waits for one of these items comes first, unless the request is hopeless anyway.
        if self.participant.is_wanted(&lines) && !self.group.machine.is_held(txn) {
            let exclusive = self.exclusive;
            let hopeless = self.group.look(disk, |stock, view| {
                lines.iter().any(|(item, units)| cover(stock, view, item, *units, exclusive) == Cover::Never)
            });
            if !hopeless {
                if wait && self.participant.enqueue(txn, lines, from) {
                    return;
                }
                let vote = Vote::Busy;
                return out.post(from, Message::Vote { shard: self.no, txn, vote });
            }
        }
        let command = self.reserve_command(txn, lines.clone(), watermark);
        let rejected = self.group.submit(command, Waiter::Reserve { from, txn, lines, wait }, disk).err();
        self.keep(rejected, out);
    }

    pub fn resolve(
        &mut self,
        from: PodId,
        confirm: Vec<TxnId>,
        release: Vec<TxnId>,
        watermark: TxnId,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) {
        let payment = watermark.shard;
        if !self.group.is_leading() && breaks::is("confirm-by-anyone") {
            return out.post(from, Message::Resolved { shard: self.no, txns: confirm, watermark });
        }
        if !self.group.is_leading() {
            return out.post(
                from,
                Message::NotCoordinator { shard: self.no, payment, leader: self.group.leader() },
            );
        }
        self.participant.raise(watermark);
        for txn in &release {
            self.participant.remove(*txn);
        }
        if confirm.is_empty() && release.is_empty() {
            let waiter = Waiter::Resolve { from, txns: Vec::new(), watermark };
            let rejected = self.group.submit(Command::Watermark(watermark), waiter, disk).err();
            return self.keep(rejected, out);
        }
        if !confirm.is_empty() {
            let waiter = Waiter::Resolve { from, txns: confirm.clone(), watermark };
            let rejected =
                self.group.submit(Command::Confirm { txns: confirm, watermark }, waiter, disk).err();
            self.keep(rejected, out);
        }
        if !release.is_empty() {
            let waiter = Waiter::Resolve { from, txns: release.clone(), watermark };
            let rejected =
                self.group.submit(Command::Release { txns: release, watermark }, waiter, disk).err();
            self.keep(rejected, out);
        }
    }

    /// A payment shard's leader has told what became of doubtful transactions.
    pub fn fates(&mut self, fates: Vec<(TxnId, Fate)>, disk: &dyn Disk) {
        for (txn, fate) in fates {
            let lowest = TxnId { ballot: kassa_protocols::ids::Ballot::ZERO, n: 0, ..txn };
            let command = match fate {
                Fate::Charged => Command::Confirm { txns: vec![txn], watermark: lowest },
                Fate::Aborted => Command::Release { txns: vec![txn], watermark: lowest },
                Fate::InFlight => continue,
            };
            if fate == Fate::Aborted {
                self.participant.remove(txn);
            }
            // If this pod coordinates no longer, the doubt is the next one's.
            let _ = self.group.submit(command, Waiter::Doubt, disk);
        }
    }

    /// Logs a batch that the cluster group holds, if this shard has not.
    pub fn follow(&mut self, batch: &crate::modules::batch::BatchRecord, disk: &dyn Disk) {
        if self.group.is_leading()
            && !self.group.machine.has_batch(batch)
            && self.following < batch.incarnation
        {
            self.following = batch.incarnation;
            self.admission.fence();
            let _ = self.group.submit(Command::Load(batch.clone()), Waiter::Doubt, disk);
        }
    }

    /// Tries those whose turn it is. Called once a round, after the commands that may free units.
    pub fn turns(&mut self, disk: &dyn Disk) {
        if self.participant.waiting() == 0 || !self.group.is_leading() {
            return;
        }
        let (participant, exclusive) = (&mut self.participant, self.exclusive);
        let mut taken: BTreeMap<ItemId, u64> = BTreeMap::new();
        let turns = self.group.look(disk, |stock, view| {
            participant.turns(|item, units| {
                let cover = cover(stock, view, item, units, exclusive);
                // Two turns of one round share what is there.
                let before = taken.entry(item.clone()).or_default();
                *before += units;
                if cover == Cover::Now && *before > units && !has(stock, view, item, *before) {
                    Cover::Later
                } else {
                    cover
                }
            })
        });
        for waiting in turns {
            let watermark = TxnId { ballot: kassa_protocols::ids::Ballot::ZERO, n: 0, ..waiting.txn };
            let command = self.reserve_command(waiting.txn, waiting.lines.clone(), watermark);
            let waiter = Waiter::Reserve {
                from: waiting.answer_to,
                txn: waiting.txn,
                lines: waiting.lines,
                wait: true,
            };
            let _ = self.group.submit(command, waiter, disk);
        }
    }

    /// Asks about reservations that have been held for long.
    pub fn tick(&mut self, now: Time, routes: &Routes, out: &mut Outbox) {
        if now < self.doubts_at || !self.group.is_leading() {
            return;
        }
        self.doubts_at = now + DOUBT_EVERY;
        let participant = &self.participant;
        let held: Vec<(TxnId, bool)> = self
            .group
            .machine
            .held()
            .map(|(txn, mut items)| (txn, items.any(|item| participant.wants(item))))
            .collect();
        let doubts = self.participant.doubts(now, held.into_iter());
        let mut by_shard: BTreeMap<ShardNo, Vec<TxnId>> = BTreeMap::new();
        for txn in doubts {
            by_shard.entry(txn.shard).or_default().push(txn);
        }
        let batches =
            by_shard.iter().flat_map(|(no, txns)| txns.chunks(DOUBT_BATCH_MAX).map(|txns| (*no, txns)));
        for (payment, txns) in batches {
            let shard = Shard { module: Module::Payment, no: payment };
            let asked_by = routes.me();
            let txns = txns.to_vec();
            let message = Message::Doubt { payment, stock: self.no, txns, asked_by };
            match routes.leader(shard) {
                Some(leader) => out.post_again(leader, message),
                None => {
                    for replica in routes.replicas(shard) {
                        out.post(replica, message.clone());
                    }
                }
            }
        }
    }

    #[must_use]
    pub fn next_wakeup(&self) -> Time {
        if self.group.is_leading() && self.group.machine.open() > 0 { self.doubts_at } else { Time(u64::MAX) }
    }

    /// Passes on what the group has to say. Gives the copies that peers need.
    pub fn poll(&mut self, out: &mut Outbox) -> Vec<(PodId, Option<kassa_protocols::quorum::Version>)> {
        self.notice_batches();
        let mut copies = Vec::new();
        while let Some(output) = self.group.poll() {
            match output {
                Output::Outcome(waiter, outcome) => self.outcome(waiter, outcome, out),
                Output::Leading(ballot) => {
                    self.admission.lead(ballot);
                    self.participant = Participant::default();
                    self.following = Incarnation(0);
                }
                Output::Deposed(waiters) => {
                    for waiter in waiters {
                        self.elsewhere(waiter, out);
                    }
                    for waiting in self.participant.drain() {
                        let (payment, leader) = (waiting.txn.shard, self.group.leader());
                        let message = Message::NotCoordinator { shard: self.no, payment, leader };
                        out.post(waiting.answer_to, message);
                    }
                }
                Output::Copy { peer, newer_than } => copies.push((peer, newer_than)),
            }
        }
        copies
    }

    fn outcome(&mut self, waiter: Waiter, outcome: stock::Outcome, out: &mut Outbox) {
        match waiter {
            Waiter::Ask { from, id, key } => {
                if let Some(key) = key {
                    self.admission.answered(key);
                }
                let tell = match outcome {
                    stock::Outcome::Done(answer) => Tell::Outcome(Outcome::Done(answer)),
                    stock::Outcome::Refused(refusal) => self.refused(key, refusal),
                    stock::Outcome::OutOfStock(item) => self.refused(key, Refusal::OutOfStock(item)),
                    stock::Outcome::Acknowledged => Tell::Done,
                    stock::Outcome::Granted(_) | stock::Outcome::Busy | stock::Outcome::Fenced => {
                        unreachable!("only reserves are granted, busy or fenced")
                    }
                };
                self.tell(from, id, tell, out);
            }
            Waiter::Reserve { from, txn, lines, wait } => {
                let vote = match outcome {
                    stock::Outcome::Granted(granted) => Vote::Granted(granted),
                    stock::Outcome::OutOfStock(item) => Vote::Refused(Refusal::OutOfStock(item)),
                    stock::Outcome::Refused(refusal) => Vote::Refused(refusal),
                    stock::Outcome::Fenced => Vote::Fenced,
                    stock::Outcome::Busy if breaks::is("busy-is-out-of-stock") => {
                        Vote::Refused(Refusal::OutOfStock(lines[0].0.clone()))
                    }
                    stock::Outcome::Busy => {
                        self.participant.still_busy(txn);
                        if wait && self.participant.enqueue(txn, lines, from) {
                            return;
                        }
                        Vote::Busy
                    }
                    stock::Outcome::Done(_) | stock::Outcome::Acknowledged => {
                        unreachable!("a reserve is granted or not")
                    }
                };
                self.participant.remove(txn);
                out.post(from, Message::Vote { shard: self.no, txn, vote });
            }
            Waiter::Resolve { from, txns, watermark } => {
                out.post(from, Message::Resolved { shard: self.no, txns, watermark });
            }
            Waiter::Doubt => {}
        }
    }

    fn refused(&mut self, key: Option<OpId>, refusal: Refusal) -> Tell {
        if let Some(key) = key {
            self.admission.refuse(key);
        }
        Tell::Outcome(Outcome::Refused(refusal))
    }
}

fn cover(
    stock: &Stock,
    view: &mut kassa_protocols::tables::View<'_>,
    item: &ItemId,
    units: u64,
    exclusive: bool,
) -> Cover {
    match stock.item(view, item) {
        Some(item) if item.covers(units, exclusive) => Cover::Now,
        Some(item) if item.available + item.reserved >= units => Cover::Later,
        Some(_) | None => Cover::Never,
    }
}

fn has(stock: &Stock, view: &mut kassa_protocols::tables::View<'_>, item: &ItemId, units: u64) -> bool {
    stock.item(view, item).is_some_and(|item| item.available >= units)
}
