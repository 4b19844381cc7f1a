//! The coordinator's side: which reservations a transaction still needs, holds, or must give back.
//!
//! A transaction is *in flight* from before its first `Reserve` until its decision is applied or, if none
//! was proposed, until its releases are acknowledged; a charged one is *unfinished* until every stock shard
//! has acknowledged its confirmation and `Finished` is applied. The lowest of either that involves a stock
//! shard is that shard's watermark: everything below it can never be charged any more.
//!
//! Everything here is volatile, and valid only under the ballot that it was begun in.

use crate::breaks;
use crate::ids::{Ballot, ShardNo, TxnId};
use crate::time::{Span, Time};
use std::collections::{BTreeMap, BTreeSet};

/// How long an unanswered message to a stock shard waits before it is sent again. Links are FIFO and
/// their ends are known, so that this only covers a leader that was lost without a word.
pub const RESEND_AFTER: Span = Span::from_millis(300);

/// What a stock shard said of a `Reserve`; `G` is what it set aside, `N` why it never can.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Vote<G, N> {
    Granted(G),
    /// Not now, but maybe once units come back.
    Busy,
    Refused(N),
    /// Below a newer leader's watermark: this coordinator is deposed.
    Fenced,
}

/// What to do next; in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<L, G, N> {
    /// Send the lines to the stock shard's leader; with `wait` it queues for its turn.
    Reserve {
        shard: ShardNo,
        txn: TxnId,
        lines: L,
        wait: bool,
    },
    Release {
        shard: ShardNo,
        txn: TxnId,
    },
    Confirm {
        shard: ShardNo,
        txn: TxnId,
    },
    /// Every shard has granted: decide.
    Granted {
        txn: TxnId,
        grants: Vec<(ShardNo, G)>,
    },
    /// Some shard is busy: everything is being given back; begin anew, waiting in turn.
    Contended {
        txn: TxnId,
    },
    /// Refused for good; told once nothing is held any more.
    Refused {
        txn: TxnId,
        reason: N,
    },
    /// Nothing is held any more after `abort`.
    Released {
        txn: TxnId,
    },
    /// A newer leader is in office.
    Deposed,
    /// Every stock shard has confirmed: `Finished` may be proposed.
    Finished {
        txn: TxnId,
    },
}

#[derive(Clone, Debug, Hash)]
enum Phase<N> {
    /// Reserving at all shards at once, or (`in_turn`) at one after the other, in shard order.
    Reserving { in_turn: bool },
    /// All granted; the decision is being made or proposed.
    Deciding,
    /// Giving back; `verdict` is told when the last release is acknowledged.
    Releasing { verdict: Verdict<N> },
    /// Charged; waiting for the confirmations.
    Confirming,
}

#[derive(Clone, Debug, Hash)]
enum Verdict<N> {
    Refused(N),
    Released,
    /// Already told.
    None,
}

#[derive(Clone, Debug, Hash)]
struct Leg<L, G> {
    lines: Option<L>,
    granted: Option<G>,
    /// When the message that is waited for was sent; `None` if nothing is.
    sent: Option<Time>,
    /// Whether a `Reserve` was ever sent, so that a release must follow.
    touched: bool,
}

#[derive(Clone, Debug, Hash)]
struct Txn<L, G, N> {
    phase: Phase<N>,
    legs: BTreeMap<ShardNo, Leg<L, G>>,
}

/// The transactions of one payment shard under one ballot.
#[derive(Clone, Debug, Hash)]
pub struct Coordinator<L, G, N> {
    shard: ShardNo,
    ballot: Ballot,
    next: u64,
    txns: BTreeMap<TxnId, Txn<L, G, N>>,
    /// Per stock shard the transactions in flight or unfinished that involve it.
    open: BTreeMap<ShardNo, BTreeSet<TxnId>>,
}

impl<L: Clone, G, N> Coordinator<L, G, N> {
    /// For a leader whose `Lead(ballot)` is applied, and the charges its predecessors left unfinished.
    #[must_use]
    pub fn new(
        shard: ShardNo,
        ballot: Ballot,
        unfinished: &BTreeMap<TxnId, Vec<ShardNo>>,
        now: Time,
    ) -> (Self, Vec<Action<L, G, N>>) {
        let mut this = Self { shard, ballot, next: 1, txns: BTreeMap::new(), open: BTreeMap::new() };
        let mut actions = Vec::new();
        for (&txn, shards) in unfinished {
            assert!(txn.ballot < ballot, "a leader's ballot is above all that charged before it");
            let leg = || Leg { lines: None, granted: None, sent: Some(now), touched: true };
            let legs = shards.iter().map(|&shard| (shard, leg())).collect();
            for &shard in shards {
                this.open.entry(shard).or_default().insert(txn);
                actions.push(Action::Confirm { shard, txn });
            }
            this.txns.insert(txn, Txn { phase: Phase::Confirming, legs });
        }
        (this, actions)
    }

    /// A transaction of an older ballot that may yet be charged, since only the pod that coordinated it knows: it
    /// holds the watermark until [`Self::charged`], or [`Self::abort`].
    pub fn inherit(&mut self, txn: TxnId, shards: &[ShardNo]) {
        assert!(txn.ballot < self.ballot, "a leader's ballot is above all that it inherits");
        if breaks::is("watermark-passes-doubt") {
            return;
        }
        let leg = || Leg { lines: None, granted: None, sent: None, touched: true };
        for &shard in shards {
            self.open.entry(shard).or_default().insert(txn);
        }
        let legs = shards.iter().map(|&shard| (shard, leg())).collect();
        self.txns.insert(txn, Txn { phase: Phase::Deciding, legs });
    }

    #[must_use]
    pub const fn ballot(&self) -> Ballot {
        self.ballot
    }
    /// Transactions in flight or unfinished.
    #[must_use]
    pub fn len(&self) -> usize {
        self.txns.len()
    }
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.txns.is_empty()
    }
    /// Whether `txn` is in flight here: begun, not decided, not given back.
    #[must_use]
    pub fn in_flight(&self, txn: TxnId) -> bool {
        self.txns.get(&txn).is_some_and(|t| match t.phase {
            Phase::Reserving { .. } => true,
            Phase::Deciding => !breaks::is("doubt-aborts-charge"),
            Phase::Releasing { .. } | Phase::Confirming => false,
        })
    }
    /// Whether `txn` is decided, and its stock shards are being told.
    #[must_use]
    pub fn is_confirming(&self, txn: TxnId) -> bool {
        self.txns.get(&txn).is_some_and(|t| matches!(t.phase, Phase::Confirming))
    }
    /// The watermark for a stock shard: below it nothing of this payment shard can be charged any more.
    #[must_use]
    pub fn watermark(&self, stock: ShardNo) -> TxnId {
        let next = TxnId { shard: self.shard, ballot: self.ballot, n: self.next };
        self.open.get(&stock).and_then(|open| open.first()).copied().unwrap_or(next)
    }

    /// Begins an attempt under a fresh id. No lines at all are granted at once.
    pub fn begin(
        &mut self,
        now: Time,
        lines: BTreeMap<ShardNo, L>,
        in_turn: bool,
    ) -> (TxnId, Vec<Action<L, G, N>>) {
        let txn = TxnId { shard: self.shard, ballot: self.ballot, n: self.next };
        self.next += u64::from(!breaks::is("txn-reused"));
        let mut actions = Vec::new();
        let mut legs = BTreeMap::new();
        for (i, (shard, lines)) in lines.into_iter().enumerate() {
            self.open.entry(shard).or_default().insert(txn);
            let now_sent = !in_turn || i == 0;
            if now_sent {
                actions.push(Action::Reserve { shard, txn, lines: lines.clone(), wait: in_turn });
            }
            let sent = now_sent.then_some(now);
            legs.insert(shard, Leg { lines: Some(lines), granted: None, sent, touched: now_sent });
        }
        let phase = if legs.is_empty() { Phase::Deciding } else { Phase::Reserving { in_turn } };
        if legs.is_empty() {
            actions.push(Action::Granted { txn, grants: Vec::new() });
        }
        self.txns.insert(txn, Txn { phase, legs });
        (txn, actions)
    }

    /// A stock shard has answered a `Reserve`. Answers to attempts that are over are ignored: their
    /// releases are under way.
    pub fn voted(&mut self, now: Time, shard: ShardNo, id: TxnId, vote: Vote<G, N>) -> Vec<Action<L, G, N>> {
        let Some(txn) = self.txns.get_mut(&id) else { return Vec::new() };
        let Phase::Reserving { in_turn } = txn.phase else { return Vec::new() };
        let Some(leg) = txn.legs.get_mut(&shard) else { return Vec::new() };
        leg.sent = None;
        match vote {
            // A second copy of the reserve was granted too: the next shard has its turn already.
            Vote::Granted(_) if leg.granted.is_some() => Vec::new(),
            Vote::Granted(granted) => {
                leg.granted = Some(granted);
                if txn.legs.values().all(|leg| leg.granted.is_some()) {
                    txn.phase = Phase::Deciding;
                    let granted =
                        txn.legs.iter_mut().filter_map(|(&shard, leg)| Some((shard, leg.granted.take()?)));
                    return vec![Action::Granted { txn: id, grants: granted.collect() }];
                }
                let next = txn.legs.iter_mut().find(|(_, leg)| in_turn && !leg.touched);
                next.map(|(&shard, leg)| {
                    leg.sent = Some(now);
                    leg.touched = true;
                    let lines = leg.lines.clone().expect("a leg to be reserved has lines");
                    Action::Reserve { shard, txn: id, lines, wait: true }
                })
                .into_iter()
                .collect()
            }
            Vote::Busy => {
                let mut actions = self.give_back(now, id, Verdict::None);
                actions.push(Action::Contended { txn: id });
                actions
            }
            Vote::Refused(reason) => self.give_back(now, id, Verdict::Refused(reason)),
            Vote::Fenced => vec![Action::Deposed],
        }
    }

    /// Gives everything back, undecided: no decision of `id` was proposed, or it was applied as a refusal.
    /// [`Action::Released`] follows once all is acknowledged.
    pub fn abort(&mut self, now: Time, id: TxnId) -> Vec<Action<L, G, N>> {
        self.give_back(now, id, Verdict::Released)
    }

    fn give_back(&mut self, now: Time, id: TxnId, verdict: Verdict<N>) -> Vec<Action<L, G, N>> {
        let Some(txn) = self.txns.get_mut(&id) else { return Vec::new() };
        match txn.phase {
            Phase::Reserving { .. } | Phase::Deciding => {}
            Phase::Releasing { .. } => return Vec::new(),
            Phase::Confirming => unreachable!("a charged transaction is never given back"),
        }
        let mut actions = Vec::new();
        let mut untouched = Vec::new();
        for (&shard, leg) in &mut txn.legs {
            if leg.touched {
                leg.sent = Some(now);
                actions.push(Action::Release { shard, txn: id });
            } else {
                untouched.push(shard);
            }
        }
        txn.phase = Phase::Releasing { verdict };
        for shard in untouched {
            self.settle(id, shard);
        }
        actions.extend(self.released(id));
        actions
    }

    /// A stock shard has acknowledged a release or a confirmation.
    pub fn acknowledged(&mut self, shard: ShardNo, id: TxnId) -> Vec<Action<L, G, N>> {
        let Some(txn) = self.txns.get_mut(&id) else { return Vec::new() };
        match txn.phase {
            Phase::Releasing { .. } => {
                self.settle(id, shard);
                self.released(id)
            }
            Phase::Confirming => {
                let Some(leg) = txn.legs.get_mut(&shard) else { return Vec::new() };
                let heard = leg.sent.take().is_some();
                let all = txn.legs.values().all(|leg| leg.sent.is_none());
                if heard && (all || breaks::is("finished-early")) {
                    return vec![Action::Finished { txn: id }];
                }
                Vec::new()
            }
            Phase::Reserving { .. } | Phase::Deciding => Vec::new(),
        }
    }

    /// The shard no longer holds anything of `id`: it does not bound that shard's watermark any more.
    fn settle(&mut self, id: TxnId, shard: ShardNo) {
        if let Some(txn) = self.txns.get_mut(&id) {
            txn.legs.remove(&shard);
        }
        if let Some(open) = self.open.get_mut(&shard) {
            open.remove(&id);
        }
    }

    fn released(&mut self, id: TxnId) -> Vec<Action<L, G, N>> {
        if self.txns.get(&id).is_none_or(|txn| !txn.legs.is_empty()) {
            return Vec::new();
        }
        match self.txns.remove(&id).map(|txn| txn.phase) {
            Some(Phase::Releasing { verdict: Verdict::Refused(reason) }) => {
                vec![Action::Refused { txn: id, reason }]
            }
            Some(Phase::Releasing { verdict: Verdict::Released }) => vec![Action::Released { txn: id }],
            Some(Phase::Releasing { verdict: Verdict::None }) | None => Vec::new(),
            Some(Phase::Reserving { .. } | Phase::Deciding | Phase::Confirming) => {
                unreachable!("only what is being released ends here")
            }
        }
    }

    /// The charge of `id` is applied: confirm at every stock shard.
    pub fn charged(&mut self, now: Time, id: TxnId) -> Vec<Action<L, G, N>> {
        let Some(txn) = self.txns.get_mut(&id) else { return Vec::new() };
        if matches!(txn.phase, Phase::Confirming) {
            return Vec::new();
        }
        assert!(matches!(txn.phase, Phase::Deciding), "only what was decided is charged");
        txn.phase = Phase::Confirming;
        if breaks::is("watermark-passes-charged") {
            self.open.values_mut().for_each(|open| open.retain(|txn| *txn != id));
        }
        if txn.legs.is_empty() {
            self.txns.remove(&id);
            return Vec::new();
        }
        txn.legs
            .iter_mut()
            .map(|(&shard, leg)| {
                leg.lines = None;
                leg.sent = Some(now);
                Action::Confirm { shard, txn: id }
            })
            .collect()
    }

    /// `Finished(id)` is applied: only now may the watermark pass it. Gives the stock shards concerned.
    pub fn finished(&mut self, id: TxnId) -> Vec<ShardNo> {
        let shards: Vec<ShardNo> =
            self.txns.remove(&id).map(|t| t.legs.into_keys().collect()).unwrap_or_default();
        for shard in &shards {
            if let Some(open) = self.open.get_mut(shard) {
                open.remove(&id);
            }
        }
        shards
    }

    /// Whether something in flight or unfinished involves the stock shard.
    #[must_use]
    pub fn has_open(&self, stock: ShardNo) -> bool {
        self.open.get(&stock).is_some_and(|open| !open.is_empty())
    }

    /// Whatever a stock shard still owes an answer to, again: its leader changed, the link to it was new
    /// (`all`), or it has been silent for [`RESEND_AFTER`].
    pub fn resend(&mut self, now: Time, to: Option<ShardNo>, all: bool) -> Vec<Action<L, G, N>> {
        let mut actions = Vec::new();
        for (&id, txn) in &mut self.txns {
            for (&shard, leg) in &mut txn.legs {
                let due = leg.sent.is_some_and(|sent| all || now.since(sent) >= RESEND_AFTER);
                if !due || to.is_some_and(|to| to != shard) {
                    continue;
                }
                match txn.phase {
                    Phase::Reserving { in_turn } => {
                        // One that waits in turn keeps its place; but a leader that took office just now
                        // may have turned it away.
                        let lines = leg.lines.clone().expect("a leg being reserved has lines");
                        actions.push(Action::Reserve { shard, txn: id, lines, wait: in_turn });
                    }
                    Phase::Releasing { .. } => actions.push(Action::Release { shard, txn: id }),
                    Phase::Confirming => actions.push(Action::Confirm { shard, txn: id }),
                    Phase::Deciding => continue,
                }
                leg.sent = Some(now);
            }
        }
        actions
    }
}
