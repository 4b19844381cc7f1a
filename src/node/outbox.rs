//! What a round gathers: log records, frames, replies. Drained by `flush` into a `Round`.

use super::message::{Message, Record};
use super::{ClientId, Round};
use crate::modules::request::Outcome;
use kassa_protocols::breaks;
use kassa_protocols::ids::{Module, PodId, Shard};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Gathers the effects of one round.
#[derive(Debug)]
pub struct Outbox {
    me: PodId,
    /// Peers whose outgoing link is up.
    up: BTreeSet<PodId>,
    /// Messages to this pod itself that rest on nothing undurable: handled in the same round.
    local: VecDeque<Message>,
    early: BTreeMap<PodId, Vec<Message>>,
    late: BTreeMap<PodId, Vec<Message>>,
    replies: Vec<(ClientId, Outcome)>,
    /// Log records of this round, by store.
    logs: BTreeMap<Module, Vec<(Shard, Record)>>,
    /// Stores whose log records somebody waits for.
    urgent: BTreeMap<Module, ()>,
}

/// The store that holds a module's shards: the cluster group lives with the payments.
#[must_use]
pub const fn store_of(module: Module) -> Module {
    match module {
        Module::Order => Module::Order,
        Module::Stock => Module::Stock,
        Module::Payment | Module::Cluster => Module::Payment,
    }
}

impl Outbox {
    #[must_use]
    pub const fn new(me: PodId) -> Self {
        Self {
            me,
            up: BTreeSet::new(),
            local: VecDeque::new(),
            early: BTreeMap::new(),
            late: BTreeMap::new(),
            replies: Vec::new(),
            logs: BTreeMap::new(),
            urgent: BTreeMap::new(),
        }
    }
    pub fn link(&mut self, peer: PodId, up: bool) {
        if up {
            self.up.insert(peer);
        } else {
            self.up.remove(&peer);
        }
    }
    #[must_use]
    pub fn is_up(&self, peer: PodId) -> bool {
        peer == self.me || self.up.contains(&peer)
    }
    /// Questions, answers and outcomes between services: what they say is chosen or committed already,
    /// so they need not wait for this round's disk. Where the link is down, a pod that may reach the
    /// other end passes it on.
    pub fn post(&mut self, to: PodId, message: Message) {
        if to == self.me {
            self.local.push_back(message);
        } else if self.up.contains(&to) {
            self.send_early(to, message);
        } else {
            self.post_around(to, message);
        }
    }
    /// By way of a third pod.
    pub fn post_around(&mut self, to: PodId, message: Message) {
        let from = self.me;
        if to == from {
            self.local.push_back(message);
        } else if let Some(&by) = self.up.iter().find(|&&peer| peer != to) {
            self.send_early(by, Message::Relay { to, from, message: Box::new(message) });
        }
    }
    /// Again, both ways: the first may have been lost where no end noticed.
    pub fn post_again(&mut self, to: PodId, message: Message) {
        if to != self.me && self.up.contains(&to) {
            self.post_around(to, message.clone());
        }
        self.post(to, message);
    }
    /// Whether `post` would find a way.
    #[must_use]
    pub fn can_reach(&self, to: PodId) -> bool {
        self.is_up(to) || self.up.iter().any(|&peer| peer != to)
    }
    pub fn take_local(&mut self) -> Option<Message> {
        self.local.pop_front()
    }
    /// May leave before this round is durable.
    pub fn send_early(&mut self, to: PodId, message: Message) {
        self.early.entry(to).or_default().push(message);
    }
    /// Leaves once this round is durable; to this pod itself: comes back then.
    pub fn send(&mut self, to: PodId, message: Message) {
        if to != self.me && breaks::is("sent-before-persist") {
            return self.send_early(to, message);
        }
        self.late.entry(to).or_default().push(message);
    }
    pub fn reply(&mut self, client: ClientId, outcome: Outcome) {
        self.replies.push((client, outcome));
    }
    /// A log record that what leaves after this round may rest on.
    pub fn log(&mut self, shard: Shard, record: Record) {
        let store = store_of(shard.module);
        self.urgent.insert(store, ());
        self.logs.entry(store).or_default().push((shard, record));
    }
    /// A log record that nothing waits for: it may reach the disk with a later one.
    pub fn log_lazily(&mut self, shard: Shard, record: Record) {
        self.logs.entry(store_of(shard.module)).or_default().push((shard, record));
    }
    /// What this round logged of a shard that is checkpointed now: the checkpoint covers it, and what it
    /// does not cover is logged anew. Whatever waits for the round waits all the same.
    pub fn forget_logs(&mut self, shard: Shard) {
        if let Some(logs) = self.logs.get_mut(&store_of(shard.module)) {
            logs.retain(|(logged, _)| *logged != shard);
        }
    }
    /// Whether this round has logged anything of the shard so far.
    #[must_use]
    pub fn logs(&self, shard: Shard) -> bool {
        let logs = self.logs.get(&store_of(shard.module));
        logs.is_some_and(|logs| logs.iter().any(|(logged, _)| *logged == shard))
    }
    pub fn take_logs(&mut self, store: Module) -> (Vec<(Shard, Record)>, bool) {
        let urgent = self.urgent.remove(&store).is_some();
        (self.logs.remove(&store).unwrap_or_default(), urgent)
    }
    /// Everything but the commits.
    pub fn drain(&mut self) -> Round {
        Round {
            early: std::mem::take(&mut self.early).into_iter().collect(),
            commits: Vec::new(),
            late: std::mem::take(&mut self.late).into_iter().collect(),
            replies: std::mem::take(&mut self.replies),
        }
    }
}
