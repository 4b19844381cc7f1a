//! Replaced disks, as one pod sees them.
//!
//! The cluster group agrees on which disks were replaced (`modules::disks`); whoever applies that raises the epoch
//! of every shard of the pod in question, forgets what the lost disk had acknowledged, and has the runtime cut the
//! links to that disk before anything else is taken in. A round that applies a replacement checkpoints the cluster
//! group, so that nothing which rests on it leaves before it is known for good. A pod that learns so that its own
//! disk was replaced takes part in nothing any more: in the new epoch its votes would stand for another disk.
//!
//! A pod on a new disk joins with an epoch for each shard, and says how far it has come, to all others for people
//! to see, until the cluster group has noted that it is whole.

use super::group::{Group, Replica};
use super::message::{Ask, AskId, Message, Question, Stamp};
use super::outbox::Outbox;
use super::pod::Node;
use super::{DiskStatus, Refill};
use crate::modules::disks::{self, NotReplaced};
use crate::modules::machine::Machine;
use crate::modules::request::Op;
use bytes::Bytes;
use kassa_protocols::breaks;
use kassa_protocols::ids::{DiskId, Module, PodId, Replacement, Shard};
use kassa_protocols::tables::{Disk, State, View};
use kassa_protocols::time::{Span, Time};
use kassa_protocols::{eventual, paxos, quorum};
use std::collections::BTreeMap;

/// How often a pod that is refilled says how far it has come.
const SAY_EVERY: Span = Span::from_millis(200);

/// A shard's epoch now, and when this pod's disk joined; 0 if it is the pod's first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Epoch {
    pub now: u32,
    pub joined: u32,
}

/// What this pod knows of disks.
pub(super) struct Disks {
    me: PodId,
    first: BTreeMap<PodId, DiskId>,
    /// What was replaced when this pod's disk joined; nothing if it is the pod's first.
    at_join: BTreeMap<PodId, Replacement>,
    replaced: BTreeMap<PodId, Replacement>,
    /// Not told to the runtime yet.
    news: Vec<(PodId, Replacement)>,
    /// Records, log entries and edits of orders that came to this pod to refill it; and their bytes.
    pub records: u64,
    pub bytes: u64,
    say_at: Time,
    /// How far others have come, as they last said.
    heard: BTreeMap<PodId, Refill>,
}

/// What to do about a disk that is to be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replace {
    Ask(Op),
    /// It has been, and is being refilled.
    Done(Replacement),
}

impl Disks {
    pub fn new(config: &super::Config, disk: &dyn Disk, now: Time) -> Self {
        let mut stored = disks::Disks::default();
        stored.rebuild(&View { state: &mut State::new(Shard::CLUSTER, false, None), disk });
        let mut replaced = config.replaced.clone();
        for (&pod, known) in stored.replaced() {
            let newest = replaced.entry(pod).or_insert(known.replacement);
            if newest.count < known.replacement.count {
                *newest = known.replacement;
            }
        }
        let at_join =
            if config.replaced.contains_key(&config.me) { config.replaced.clone() } else { BTreeMap::new() };
        let (me, first) = (config.me, config.disks.clone());
        let (news, heard) = (Vec::new(), BTreeMap::new());
        Self { me, first, at_join, replaced, news, records: 0, bytes: 0, say_at: now, heard }
    }

    /// How many disks of each pod were replaced.
    pub fn counts(&self) -> BTreeMap<PodId, u32> {
        self.replaced.iter().map(|(&pod, known)| (pod, known.count)).collect()
    }

    /// Of the shard that `set` decides about.
    pub fn epoch(&self, set: &[PodId]) -> Epoch {
        let epoch = |replaced: &BTreeMap<PodId, Replacement>| {
            1 + set.iter().filter_map(|pod| replaced.get(pod)).map(|known| known.count).sum::<u32>()
        };
        let joined = if self.has_joined() { epoch(&self.at_join) } else { 0 };
        Epoch { now: if breaks::is("epoch-kept") { 1 } else { epoch(&self.replaced) }, joined }
    }

    /// Whether this pod's disk took the place of a lost one.
    pub fn has_joined(&self) -> bool {
        !self.at_join.is_empty()
    }

    fn of(&self, pod: PodId) -> Option<DiskId> {
        self.replaced.get(&pod).map(|known| known.disk).or_else(|| self.first.get(&pod).copied())
    }

    /// Whether this pod's own disk is not the one that the cluster knows any more.
    pub fn is_replaced(&self) -> bool {
        let count = |of: &BTreeMap<PodId, Replacement>| of.get(&self.me).map_or(0, |known| known.count);
        count(&self.replaced) > count(&self.at_join)
    }
}

impl Node {
    /// The disks that were replaced, as far as this pod knows.
    #[must_use]
    pub const fn replaced_disks(&self) -> &BTreeMap<PodId, Replacement> {
        &self.disks.replaced
    }

    /// Disks replaced since the last call: before anything else is taken in, frames of the old ones count no
    /// more. To be asked after every step.
    pub fn take_replaced(&mut self) -> Vec<(PodId, Replacement)> {
        std::mem::take(&mut self.disks.news)
    }

    /// Whether another disk has taken the place of this pod's: it takes part in nothing any more.
    #[must_use]
    pub fn is_replaced(&self) -> bool {
        self.disks.is_replaced()
    }

    /// What to ask for so that `waiting`, the disk of an empty pod that waits, takes the place of the disk of `pod`.
    ///
    /// # Errors
    /// If there is nothing to replace, or nothing to replace it with.
    pub fn replace(&self, pod: PodId, waiting: Option<DiskId>) -> Result<Replace, NotReplaced> {
        let old = self.disks.of(pod).ok_or(NotReplaced::UnknownPod(pod))?;
        let known = self.cluster.group.machine.disks.replaced().get(&pod);
        let waiting = waiting.filter(|waiting| *waiting != old);
        match (waiting, known) {
            (None, Some(known)) if !known.whole => Ok(Replace::Done(known.replacement)),
            (_, _) if self.out.is_up(pod) => Err(NotReplaced::IsUp(pod)),
            (None, _) => Err(NotReplaced::NobodyWaits(pod)),
            (Some(new), _) => Ok(Replace::Ask(Op::Replace { pod, old, new })),
        }
    }

    /// Takes note of what the cluster group has agreed on.
    pub(super) fn follow_disks(&mut self, now: Time, disk: &dyn Disk) {
        let known = |pod: &PodId| self.disks.replaced.get(pod).map_or(0, |known| known.count);
        let agreed = self.cluster.group.machine.disks.replaced();
        let news: Vec<(PodId, Replacement)> = agreed
            .iter()
            .map(|(&pod, agreed)| (pod, agreed.replacement))
            .filter(|(pod, replacement)| replacement.count > known(pod))
            .collect();
        if news.is_empty() {
            return;
        }
        self.due.push(Shard::CLUSTER);
        self.disks.replaced.extend(news.iter().copied());
        self.disks.news.extend(&news);
        if self.is_replaced() {
            return;
        }
        for &(pod, _) in &news {
            self.disks.heard.remove(&pod);
            self.routes.forget_hints_of(pod);
        }
        let out = &mut self.out;
        let epoch = self.disks.epoch(&self.routes.replicas(Shard::CLUSTER));
        self.cluster.group.raise_epoch(now, epoch.now, disk, out);
        for (&no, stock) in &mut self.stock {
            let epoch = self.disks.epoch(&self.routes.replicas(Shard { module: Module::Stock, no }));
            stock.group.raise_epoch(now, epoch.now, disk, out);
        }
        for (&no, payment) in &mut self.payment {
            let epoch = self.disks.epoch(&self.routes.replicas(Shard { module: Module::Payment, no }));
            payment.group.raise_epoch(now, epoch.now, disk, out);
            payment.orders.follow(payment.group.time(), payment.group.ballot());
            for (pod, replacement) in &news {
                payment.orders.replaced(*pod, replacement.count);
            }
        }
        self.touch_all();
    }

    /// Shards that have become whole are checkpointed with this round.
    pub(super) fn note_whole(&mut self) {
        if !self.disks.has_joined() {
            return;
        }
        if self.cluster.group.take_became_whole() {
            self.due.push(Shard::CLUSTER);
        }
        for (&no, stock) in &mut self.stock {
            if stock.group.take_became_whole() {
                self.due.push(Shard { module: Module::Stock, no });
            }
        }
        for (&no, payment) in &mut self.payment {
            if payment.group.take_became_whole() {
                self.due.push(Shard { module: Module::Payment, no });
            }
        }
    }

    /// How far this pod has come, if its disk took the place of a lost one.
    pub(super) fn refill(&self) -> Option<Refill> {
        if !self.disks.has_joined() {
            return None;
        }
        let count = |joining: &mut dyn Iterator<Item = bool>| {
            joining.fold((0, 0), |(whole, shards), joining| (whole + u16::from(!joining), shards + 1))
        };
        Some(Refill {
            order: count(&mut self.payment.values().map(|payment| payment.orders.is_joining())),
            stock: count(&mut self.stock.values().map(|stock| stock.group.is_joining())),
            payment: count(&mut self.payment.values().map(|payment| payment.group.is_joining())),
            cluster: count(&mut std::iter::once(self.cluster.group.is_joining())),
            records: self.disks.records,
            bytes: self.disks.bytes,
        })
    }

    /// Counts what a message brings to a pod that is being refilled.
    pub(super) fn count_refill(&mut self, message: &Message) {
        if !self.is_refilled() {
            return;
        }
        let change = |(key, value): &(Bytes, Option<Bytes>)| key.len() + value.as_ref().map_or(0, Bytes::len);
        let sets = |sets: &[(Bytes, Vec<eventual::Item>)]| {
            let items = sets.iter().flat_map(|(_, items)| items);
            items.fold((0, 0), |(records, bytes), item| (records + 1, bytes + item.body.len()))
        };
        let (records, bytes) = match message {
            Message::Copy { records, .. } => (records.len(), records.iter().map(change).sum()),
            Message::Paxos { message: paxos::Message::Chosen { entries, .. }, .. } => {
                (entries.len(), entries.iter().map(paxos::Entry::weight_bytes).sum())
            }
            Message::Quorum { message: quorum::Message::Repair { writes, .. }, .. } => {
                let records = writes.iter().flat_map(|write| &write.records);
                records.fold((0, 0), |(records, bytes), record| (records + 1, bytes + change(record)))
            }
            Message::Order { message: eventual::Message::Contents { sets: contents, .. }, .. }
            | Message::Order { message: eventual::Message::Update { sets: contents, .. }, .. } => {
                sets(contents)
            }
            Message::Paxos { .. }
            | Message::Quorum { .. }
            | Message::Order { .. }
            | Message::Ask(_)
            | Message::Tell { .. }
            | Message::Reserve { .. }
            | Message::Vote { .. }
            | Message::Resolve { .. }
            | Message::Resolved { .. }
            | Message::NotCoordinator { .. }
            | Message::Doubt { .. }
            | Message::Fate { .. }
            | Message::Relay { .. }
            | Message::Copied { .. }
            | Message::Read { .. }
            | Message::ReadAnswer { .. }
            | Message::Ping { .. }
            | Message::Pong { .. }
            | Message::Refilling(_)
            | Message::Decided { .. }
            | Message::Inquire { .. }
            | Message::Outcomes { .. } => return,
        };
        self.disks.records += records as u64;
        self.disks.bytes += bytes as u64;
    }

    /// Whether the cluster group has yet to note that this pod is whole.
    fn is_refilled(&self) -> bool {
        let me = self.cluster.group.machine.disks.replaced().get(&self.config.me);
        self.disks.has_joined() && me.is_none_or(|disk| !disk.whole)
    }

    pub(super) fn refill_wakeup(&self) -> Time {
        if self.is_refilled() { self.disks.say_at } else { Time(u64::MAX) }
    }

    /// Says how far this pod has come, and in the end that it is whole.
    pub(super) fn tick_refill(&mut self, now: Time) {
        if self.refill_wakeup() > now {
            return;
        }
        self.disks.say_at = now + SAY_EVERY;
        let Some(refill) = self.refill() else { return };
        for &pod in &self.config.pods {
            if pod != self.config.me && self.out.is_up(pod) {
                self.out.send_early(pod, Message::Refilling(Box::new(refill)));
            }
        }
        if refill.is_whole()
            && let Some(known) = self.disks.at_join.get(&self.config.me)
            && let Some(leader) = self.routes.leader(Shard::CLUSTER)
        {
            let (id, stamp, ask) =
                (AskId(0), Stamp::default(), Ask::Whole { pod: self.config.me, disk: known.disk });
            let question = Question { id, shard: Shard::CLUSTER, stamp, remaining_ms: 0, trace: 0, ask };
            // Only once this pod's disk says so too.
            self.out.send(leader, Message::Ask(Box::new(question)));
        }
    }

    /// A pod says how far it has come.
    pub(super) fn heard_refill(&mut self, from: PodId, refill: Refill) {
        self.disks.heard.insert(from, refill);
    }

    pub(super) fn disk_status(&self) -> Vec<DiskStatus> {
        let agreed = self.cluster.group.machine.disks.replaced();
        let status = |(&pod, known): (&PodId, &Replacement)| {
            let own = if pod == self.config.me { self.refill() } else { None };
            DiskStatus {
                pod: pod.0,
                disk: known.disk.to_string(),
                replaced: known.count,
                whole: agreed.get(&pod).is_some_and(|disk| disk.replacement == *known && disk.whole),
                refill: own.or_else(|| self.disks.heard.get(&pod).copied()),
            }
        };
        self.disks.replaced.iter().map(status).collect()
    }
}

impl<M: Machine, T> Group<M, T> {
    /// A replica's disk was replaced.
    pub fn raise_epoch(&mut self, now: Time, epoch: u32, disk: &dyn Disk, out: &mut Outbox) {
        match &mut self.replica {
            Replica::Paxos(replica) => replica.raise_epoch(now, epoch, &mut self.paxos_fx),
            Replica::Quorum(replica) => replica.raise_epoch(now, epoch, &mut self.quorum_fx),
        }
        self.drain(disk, out);
    }

    /// Whether this pod's disk took the place of a lost one, and this shard is not refilled.
    #[must_use]
    pub fn is_joining(&self) -> bool {
        match &self.replica {
            Replica::Paxos(replica) => replica.is_joining(),
            Replica::Quorum(replica) => replica.is_joining(),
        }
    }

    /// Whether a checkpoint has to say that it is whole.
    pub fn take_became_whole(&mut self) -> bool {
        std::mem::take(&mut self.became_whole)
    }
}

impl Refill {
    fn parts(&self) -> [(u16, u16); 4] {
        [self.order, self.stock, self.payment, self.cluster]
    }
    /// Shards that are whole, and all.
    #[must_use]
    pub fn shards(&self) -> (u16, u16) {
        self.parts().iter().fold((0, 0), |(whole, all), part| (whole + part.0, all + part.1))
    }
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let (whole, all) = self.shards();
        whole == all
    }
}
