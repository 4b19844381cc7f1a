//! The composition: which input goes to which part, and what a round leaves to be done.

use super::cluster::ClusterShard;
use super::config::{CLUSTER_VOTERS_MAX, Config, Protocol};
use super::copying::Copies;
use super::group::Group;
use super::ingress::Ingress;
use super::log::StoreLog;
use super::message::{Message, Stamp};
use super::orders::OrderShard;
use super::outbox::Outbox;
use super::pace::Pace;
use super::payment::PaymentShard;
use super::replace::Disks;
use super::routes::Routes;
use super::stock::StockShard;
use super::{Input, Round};
use crate::modules::{payment, stock};
use kassa_protocols::ids::{Module, PodId, Shard, ShardNo};
use kassa_protocols::tables::Disk;
use kassa_protocols::time::{Span, Time};
use std::collections::{BTreeMap, BTreeSet};

/// How often waiting requests are looked over.
const LOOK_OVER_EVERY: Span = Span::from_millis(20);
/// How long a question without a known leader waits before the next replica is tried.
const GUESS_AFTER: Span = Span::from_millis(100);

/// One pod.
pub struct Node {
    pub(super) config: Config,
    pub(super) out: Outbox,
    pub(super) routes: Routes,
    pub(super) cluster: ClusterShard,
    pub(super) stock: BTreeMap<ShardNo, StockShard>,
    pub(super) payment: BTreeMap<ShardNo, PaymentShard>,
    pub(super) ingress: Ingress,
    /// What was last heard of shards, and when: stamps for questions.
    pub(super) heard: BTreeMap<Shard, (Stamp, Time)>,
    pub(super) copies: Copies,
    pub(super) pace: Pace,
    pub(super) disks: Disks,
    /// Shards to be checkpointed with this round, whatever the log says.
    pub(super) due: Vec<Shard>,
    pub(super) logs: BTreeMap<Module, StoreLog>,
    /// Shards whose parts may have something to pass on.
    touched: BTreeSet<Shard>,
    look_over_at: Time,
    /// Reads that a quorum has settled.
    pub(super) reads_settled: u64,
    pub(super) recovering: bool,
}

impl Node {
    /// A pod as its checkpoints left it. Feed back its logs with [`Self::recover`], then call
    /// [`Self::recovered`].
    #[must_use]
    pub fn new(config: Config, disk: &dyn Disk, now: Time) -> Self {
        let me = config.me;
        let mut pods = config.pods.clone();
        pods.sort_unstable();
        let voters: Vec<PodId> = pods.iter().copied().take(CLUSTER_VOTERS_MAX).collect();
        let learners: Vec<PodId> = pods.iter().copied().skip(CLUSTER_VOTERS_MAX).collect();
        let routes = Routes::new(&config, voters.clone());
        let disks = Disks::new(&config, disk, now);
        let epoch = disks.epoch(&voters);
        let mut cluster: Group<crate::modules::cluster::Cluster, _> =
            Group::new(Shard::CLUSTER, &config, Protocol::Paxos, epoch, voters, learners, None, disk, now);
        cluster.machine.disks.set_sets(routes.sets());
        let mut stock = BTreeMap::new();
        let mut payment = BTreeMap::new();
        for no in (0..config.shards).map(ShardNo) {
            let shard = Shard { module: Module::Stock, no };
            let replicas = routes.replicas(shard);
            if replicas.contains(&me) {
                let (watched, epoch) = (Some(stock::BATCHES), disks.epoch(&replicas));
                let group =
                    Group::new(shard, &config, config.stock, epoch, replicas, Vec::new(), watched, disk, now);
                stock.insert(no, StockShard::new(no, group, config.commit));
            }
            let shard = Shard { module: Module::Payment, no };
            let replicas = routes.replicas(shard);
            if replicas.contains(&me) {
                let (watched, epoch) = (Some(payment::ORDERS), disks.epoch(&replicas));
                let (joined, counts) = (epoch.joined, disks.counts());
                let orders = OrderShard::new(no, &config, joined, counts, replicas.clone(), disk, now);
                let protocol = config.payment;
                let group =
                    Group::new(shard, &config, protocol, epoch, replicas, Vec::new(), watched, disk, now);
                payment.insert(no, PaymentShard::new(no, group, orders, joined, &config));
            }
        }
        // A log that was cut to nothing goes on behind the checkpoints that cover it.
        let mut logs: BTreeMap<Module, StoreLog> = BTreeMap::new();
        for store in [Module::Order, Module::Stock, Module::Payment] {
            let covered = match store {
                Module::Order => payment.values().map(|p: &PaymentShard| p.orders.covered).max(),
                Module::Stock => stock.values().map(|s: &StockShard| s.group.covered).max(),
                Module::Payment | Module::Cluster => {
                    payment.values().map(|p| p.group.covered).chain([cluster.covered]).max()
                }
            };
            logs.insert(store, StoreLog::new(covered.unwrap_or(0) + 1));
        }
        Self {
            out: Outbox::new(me),
            routes,
            cluster: ClusterShard { group: cluster },
            stock,
            payment,
            ingress: Ingress::new(config.seed),
            heard: BTreeMap::new(),
            copies: Copies::new(config.seed),
            pace: Pace::new(me, &pods, config.timing.heartbeat, now),
            disks,
            due: Vec::new(),
            logs,
            touched: BTreeSet::new(),
            look_over_at: now,
            reads_settled: 0,
            recovering: true,
            config,
        }
    }

    /// Takes one input.
    pub fn step(&mut self, now: Time, input: Input, disk: &dyn Disk) {
        if self.is_replaced() {
            return;
        }
        match input {
            Input::Request { client, request, deadline } => {
                if self.ingress.len() >= self.config.limits.requests_max {
                    self.out.reply(client, crate::modules::request::Outcome::Overloaded);
                    return;
                }
                let actions =
                    self.with_map(|ingress, map| ingress.begin(now, client, request, deadline, map));
                self.act(now, actions);
            }
            Input::Gone { client } => self.ingress.gone(client),
            Input::Frame { from, messages } => {
                for message in messages {
                    self.message(now, from, message, disk);
                }
            }
            Input::Link { peer, up } => self.link(now, peer, up, disk),
        }
        self.local(now, disk);
    }

    fn link(&mut self, now: Time, peer: PodId, up: bool, disk: &dyn Disk) {
        self.out.link(peer, up);
        if !up {
            self.routes.forget_hints_of(peer);
        }
        self.copies_lost(now, peer, up);
        self.pace_link(peer);
        self.touch_all();
        let out = &mut self.out;
        self.cluster.group.link(now, peer, up, disk, out);
        for stock in self.stock.values_mut() {
            stock.group.link(now, peer, up, disk, out);
        }
        for payment in self.payment.values_mut() {
            payment.group.link(now, peer, up, disk, out);
            payment.orders.follow(payment.group.time(), payment.group.ballot());
            payment.orders.link(now, peer, up, disk, out);
        }
        self.settle(now, disk);
        if up {
            // What was queued on the old link is lost: whatever its other end owes an answer to goes again.
            let led: Vec<ShardNo> = (0..self.config.shards).map(ShardNo).collect();
            for no in led {
                if self.routes.leader(Shard { module: Module::Stock, no }) == Some(peer) {
                    self.stock_leader_changed(now, no, disk);
                }
            }
        }
        if up {
            self.inquire_of(now, peer, disk);
        }
        let lost = self.ingress.due(now, Span(u64::MAX), |_, to| to == Some(peer));
        self.send_questions(now, lost);
    }

    /// Messages to this pod itself that rest on nothing undurable.
    fn local(&mut self, now: Time, disk: &dyn Disk) {
        loop {
            self.settle(now, disk);
            while let Some(message) = self.out.take_local() {
                self.message(now, self.config.me, message, disk);
            }
            if self.touched.is_empty() {
                break;
            }
        }
    }

    pub(super) fn touch_all(&mut self) {
        self.touched = self.shards().into_iter().collect();
    }

    fn message(&mut self, now: Time, from: PodId, message: Message, disk: &dyn Disk) {
        self.touched.extend(Self::touched_by(&message));
        self.count_refill(&message);
        let out = &mut self.out;
        match message {
            Message::Paxos { shard, message } => match shard.module {
                Module::Cluster => self.cluster.group.handle_paxos(now, from, message, disk, out),
                Module::Stock => {
                    if let Some(stock) = self.stock.get_mut(&shard.no) {
                        stock.group.handle_paxos(now, from, message, disk, out);
                    }
                }
                Module::Payment => {
                    if let Some(payment) = self.payment.get_mut(&shard.no) {
                        payment.group.handle_paxos(now, from, message, disk, out);
                    }
                }
                Module::Order => {}
            },
            Message::Quorum { shard, message } => match shard.module {
                Module::Stock => {
                    if let Some(stock) = self.stock.get_mut(&shard.no) {
                        stock.group.handle_quorum(now, from, message, disk, out);
                    }
                }
                Module::Payment => {
                    if let Some(payment) = self.payment.get_mut(&shard.no) {
                        payment.group.handle_quorum(now, from, message, disk, out);
                    }
                }
                Module::Order | Module::Cluster => {}
            },
            Message::Order { shard, message } => {
                if let Some(payment) = self.payment.get_mut(&shard) {
                    payment.orders.follow(payment.group.time(), payment.group.ballot());
                    payment.orders.handle(now, from, message, disk, out);
                }
            }
            Message::Ask(question) => self.asked(now, from, *question, disk),
            Message::Tell { id, stamp, tell } => {
                if let Some(shard) = self.ingress.shard_of(id) {
                    self.heard.insert(shard, (stamp, now));
                    // Who says so of itself is not ready yet: that is no news, and it must not be asked in a circle.
                    if let super::message::Tell::NotLeader { leader: Some(leader) } = tell
                        && leader != from
                    {
                        self.routes.hint(now, shard, leader);
                    }
                    if self.ingress.is_overtaken(id, &stamp, &tell) {
                        return;
                    }
                    let actions = self.with_map(|ingress, map| ingress.told(now, id, tell, map));
                    self.act(now, actions);
                }
            }
            Message::Reserve { shard, txn, lines, wait, watermark } => match self.stock.get_mut(&shard) {
                Some(stock) => stock.reserve(from, txn, lines, wait, watermark, disk, out),
                None => out.post(from, Message::NotCoordinator { shard, payment: txn.shard, leader: None }),
            },
            Message::Vote { shard, txn, vote } => {
                if let Some(payment) = self.payment.get_mut(&txn.shard) {
                    payment.voted(now, shard, txn, vote, disk, out);
                }
            }
            Message::Resolve { shard, confirm, release, watermark } => match self.stock.get_mut(&shard) {
                Some(stock) => stock.resolve(from, confirm, release, watermark, disk, out),
                None => {
                    out.post(from, Message::NotCoordinator { shard, payment: watermark.shard, leader: None })
                }
            },
            Message::Resolved { shard, txns, watermark } => {
                if let Some(payment) = self.payment.get_mut(&watermark.shard) {
                    payment.resolved(now, shard, txns, watermark, disk, out);
                }
            }
            // A new name is followed at once; else the patience of the resend brings it where it belongs.
            Message::NotCoordinator { shard, payment: _, leader } => {
                let shard = Shard { module: Module::Stock, no: shard };
                match leader.filter(|&leader| leader != from) {
                    Some(leader) => self.routes.hint(now, shard, leader),
                    None => self.routes.forget_hint(shard),
                }
            }
            Message::Doubt { payment, stock, txns, asked_by } => {
                self.doubt(from, payment, stock, txns, asked_by, disk)
            }
            Message::Fate { stock, fates } => {
                if let Some(stock) = self.stock.get_mut(&stock) {
                    stock.fates(fates, disk);
                }
            }
            Message::Relay { to, from: origin, message } => {
                if to == self.config.me {
                    self.message(now, origin, *message, disk);
                } else if self.out.is_up(to) && from == origin {
                    self.out.send_early(to, Message::Relay { to, from: origin, message });
                }
            }
            Message::Copy { shard, copy, part, records, position } => {
                self.part_arrived(now, from, shard, copy, part, records, position, disk);
            }
            Message::Copied { shard, copy, next } => self.copied(now, from, shard, copy, next, disk),
            Message::Read { shard, id, item } => self.read(from, shard, id, &item, disk),
            Message::ReadAnswer { id, shown } => self.read_answer(now, from, id, *shown),
            Message::Ping { sent, waits } => self.pinged(now, from, sent, waits),
            Message::Pong { sent } => self.ponged(now, from, sent),
            Message::Refilling(refill) => self.heard_refill(from, *refill),
            Message::Decided { txn } => {
                if let Some(payment) = self.payment.get_mut(&txn.shard) {
                    payment.decided(now, txn, disk, out);
                }
            }
            Message::Inquire { payment, txns } => {
                if let Some(payment) = self.payment.get_mut(&payment) {
                    payment.inquired(from, &txns, out);
                }
            }
            Message::Outcomes { payment, told } => {
                if let Some(payment) = self.payment.get_mut(&payment) {
                    payment.outcomes(now, from, told, disk, out);
                }
            }
        }
    }

    fn stock_leader_changed(&mut self, now: Time, no: ShardNo, disk: &dyn Disk) {
        for payment in self.payment.values_mut() {
            payment.stock_leader_changed(now, no, disk, &mut self.out);
        }
        self.touched.extend(self.payment.keys().map(|&no| Shard { module: Module::Payment, no }));
    }

    /// Lets the parts that were touched pass on what they have to say.
    pub(super) fn settle(&mut self, now: Time, disk: &dyn Disk) {
        if self.recovering {
            return;
        }
        while let Some(shard) = self.touched.pop_first() {
            let no = shard.no;
            let (copies, leader) = match shard.module {
                Module::Cluster => (self.cluster.poll(&mut self.out), self.cluster.group.leader()),
                Module::Stock => match self.stock.get_mut(&no) {
                    Some(stock) => (stock.poll(&mut self.out), stock.group.leader()),
                    None => continue,
                },
                Module::Payment | Module::Order => match self.payment.get_mut(&no) {
                    Some(payment) => {
                        (payment.poll(now, &self.routes, disk, &mut self.out), payment.group.leader())
                    }
                    None => continue,
                },
            };
            for (peer, newer_than) in copies {
                self.copy_wanted(now, shard, peer, newer_than, disk);
            }
            self.routes.observe(shard, leader);
            if shard == Shard::CLUSTER {
                self.follow_disks(now, disk);
            }
        }
        let changed = self.routes.take_changed();
        if changed.is_empty() {
            return;
        }
        // What waited for a leader goes on.
        for shard in &changed {
            if shard.module == Module::Stock {
                self.stock_leader_changed(now, shard.no, disk);
            }
        }
        let lost = self.ingress.due(now, Span(u64::MAX), |shard, to| {
            changed.contains(&shard) && to != self.routes.leader(shard)
        });
        self.send_questions(now, lost);
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Time, disk: &dyn Disk) {
        if self.is_replaced() {
            return;
        }
        self.tick_pace(now);
        let out = &mut self.out;
        if self.cluster.group.next_wakeup() <= now {
            self.cluster.group.tick(now, disk, out);
            self.touched.insert(Shard::CLUSTER);
        }
        for (&no, stock) in &mut self.stock {
            if stock.group.next_wakeup() <= now {
                stock.group.tick(now, disk, out);
                self.touched.insert(Shard { module: Module::Stock, no });
            }
            stock.tick(now, &self.routes, out);
        }
        for (&no, payment) in &mut self.payment {
            let shard = Shard { module: Module::Payment, no };
            if payment.group.next_wakeup() <= now {
                payment.group.tick(now, disk, out);
                self.touched.insert(shard);
            }
            if payment.orders.next_wakeup() <= now {
                payment.orders.tick(now, disk, out);
                self.touched.insert(shard);
            }
            if payment.checkouts.next_wakeup() <= now {
                self.touched.insert(shard);
            }
            payment.tick_checkouts(now, disk, out);
        }
        self.follow_batches(disk);
        self.tick_copies(now, disk);
        self.tick_refill(now);
        self.local(now, disk);
        if self.look_over_at <= now {
            self.look_over_at = now + LOOK_OVER_EVERY;
            self.routes.expire_hints(now, |pod| self.out.is_up(pod));
            let expired = self.ingress.expire(now);
            self.act(now, expired);
            let unknown =
                |shard: Shard, to: Option<PodId>| to.is_none() && self.routes.leader(shard).is_some();
            let mut due = self.ingress.due(now, self.config.timing.ask_again, unknown);
            due.retain(|&id| {
                let (attempts, waited) = self.ingress.attempts(now, id);
                attempts > 0
                    || waited >= GUESS_AFTER
                    || self.ingress.shard_of(id).is_some_and(|s| self.routes.leader(s).is_some())
            });
            self.send_questions(now, due);
            self.local(now, disk);
        }
    }

    /// When `tick` has something to do.
    #[must_use]
    pub fn next_wakeup(&self) -> Time {
        let mut at = self.cluster.group.next_wakeup().min(self.pace.next_wakeup()).min(self.refill_wakeup());
        for stock in self.stock.values() {
            at = at.min(stock.group.next_wakeup()).min(stock.next_wakeup());
        }
        for payment in self.payment.values() {
            at = at
                .min(payment.group.next_wakeup())
                .min(payment.orders.next_wakeup())
                .min(payment.checkouts.next_wakeup());
        }
        if !self.ingress.is_empty() {
            at = at.min(self.look_over_at);
        }
        at
    }

    /// Ends the round: what its inputs led to.
    pub fn flush(&mut self, now: Time, disk: &dyn Disk) -> Round {
        for (&no, stock) in &mut self.stock {
            stock.turns(disk);
            stock.group.flush(now, disk, &mut self.out);
            if stock.group.has_output() {
                self.touched.insert(Shard { module: Module::Stock, no });
            }
        }
        for (&no, payment) in &mut self.payment {
            payment.group.flush(now, disk, &mut self.out);
            if payment.group.has_output() {
                self.touched.insert(Shard { module: Module::Payment, no });
            }
        }
        self.cluster.group.flush(now, disk, &mut self.out);
        self.touched.insert(Shard::CLUSTER);
        self.local(now, disk);
        if self.is_replaced() {
            // Whatever this round holds would be said in the name of another disk.
            return Round::default();
        }
        let commits = self.commits(disk);
        let mut round = self.out.drain();
        round.commits = commits;
        round
    }
}
