//! Who leads which shard, as far as this pod knows.
//!
//! A pod that holds a replica of a shard knows from its protocol; for others it keeps hints: what it was
//! told, else the first of the replica set. A wrong hint costs a hop.

use super::config::Config;
use kassa_protocols::ids::{Module, PodId, Shard};
use kassa_protocols::placement::place_two;
use kassa_protocols::time::{Span, Time};
use std::collections::BTreeMap;

/// How long one replica is guessed to lead before the next one is.
const GUESS_TURN: Span = Span::from_millis(250);
/// How long a hint at a pod whose link is down is followed: by way of a third pod it may be right, but a
/// pod that is gone for good never denies it.
const HINT_AT_ONE_DOWN: Span = Span::from_millis(500);

#[derive(Debug)]
pub struct Routes {
    me: PodId,
    payment: Vec<Vec<PodId>>,
    stock: Vec<Vec<PodId>>,
    cluster: Vec<PodId>,
    leaders: BTreeMap<Shard, PodId>,
    /// Each with when it was first given.
    hints: BTreeMap<Shard, (PodId, Time)>,
    /// Shards whose leader changed since the last call of `take_changed`.
    changed: Vec<Shard>,
}

impl Routes {
    #[must_use]
    pub fn new(config: &Config, cluster: Vec<PodId>) -> Self {
        let Config { shards, replicas, payment_pods, stock_pods, .. } = *config;
        let (payment, stock) = place_two(&config.pods, shards, replicas, payment_pods, stock_pods);
        Self {
            me: config.me,
            payment,
            stock,
            cluster,
            leaders: BTreeMap::new(),
            hints: BTreeMap::new(),
            changed: Vec::new(),
        }
    }

    #[must_use]
    pub const fn me(&self) -> PodId {
        self.me
    }

    /// The pods that hold the shard, the one that prefers to lead first. Order and payment shards of one
    /// number have the same replica set.
    #[must_use]
    pub fn replicas(&self, shard: Shard) -> Vec<PodId> {
        match shard.module {
            Module::Cluster => self.cluster.clone(),
            Module::Order | Module::Payment => self.payment[usize::from(shard.no.0)].clone(),
            Module::Stock => self.stock[usize::from(shard.no.0)].clone(),
        }
    }

    /// Every set of pods that decides by majority.
    #[must_use]
    pub fn sets(&self) -> Vec<Vec<PodId>> {
        let mut sets: Vec<Vec<PodId>> = self.payment.iter().chain(&self.stock).cloned().collect();
        sets.push(self.cluster.clone());
        for set in &mut sets {
            set.sort_unstable();
        }
        sets.sort_unstable();
        sets.dedup();
        sets
    }

    /// What the shard's own replica here says.
    pub fn observe(&mut self, shard: Shard, leader: Option<PodId>) {
        let known = self.leaders.get(&shard).copied();
        if known == leader {
            return;
        }
        match leader {
            Some(leader) => {
                self.leaders.insert(shard, leader);
                self.changed.push(shard);
            }
            None => {
                self.leaders.remove(&shard);
            }
        }
    }

    /// What another pod said of a shard that this pod holds no replica of.
    pub fn hint(&mut self, now: Time, shard: Shard, leader: PodId) {
        if self.hints.get(&shard).is_none_or(|(known, _)| *known != leader) {
            self.hints.insert(shard, (leader, now));
            self.changed.push(shard);
        }
    }

    #[must_use]
    pub fn leader(&self, shard: Shard) -> Option<PodId> {
        self.leaders.get(&shard).or_else(|| self.hints.get(&shard).map(|(leader, _)| leader)).copied()
    }

    /// The leader; else, of a shard that this pod holds no replica of, one replica after the other as time
    /// goes on.
    #[must_use]
    pub fn leader_or_guess(&self, shard: Shard, now: Time) -> Option<PodId> {
        let turn = u32::try_from(now.0 / GUESS_TURN.0 % 64).unwrap_or(0);
        let guess = || self.guess(shard, turn).filter(|_| !self.replicas(shard).contains(&self.me));
        self.leader(shard).or_else(guess)
    }

    /// What was hinted is wrong, or its pod is gone.
    pub fn forget_hint(&mut self, shard: Shard) {
        self.hints.remove(&shard);
    }
    pub fn forget_hints_of(&mut self, pod: PodId) {
        self.hints.retain(|_, (leader, _)| *leader != pod);
    }
    /// Forgets hints at pods whose links are down that have been followed for long enough.
    pub fn expire_hints(&mut self, now: Time, is_up: impl Fn(PodId) -> bool) {
        self.hints.retain(|_, (leader, since)| is_up(*leader) || now.since(*since) < HINT_AT_ONE_DOWN);
    }

    /// Where to ask when the leader is not known: the `attempt`-th replica, round and round.
    #[must_use]
    pub fn guess(&self, shard: Shard, attempt: u32) -> Option<PodId> {
        let replicas = self.replicas(shard);
        replicas.get(attempt as usize % replicas.len().max(1)).copied()
    }

    pub fn take_changed(&mut self) -> Vec<Shard> {
        std::mem::take(&mut self.changed)
    }
}
