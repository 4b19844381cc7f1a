//! Client requests that this pod holds, from the first byte understood to the answer.
//!
//! A request becomes one or more questions to shard leaders, one after the other (all shards at once for
//! a batch). A question is asked again, under the same key, of whoever leads, until it is answered or the
//! client's deadline passes; so a failover is a slow answer, never an error.

use super::ClientId;
use super::message::{Ask, AskId, Question, Stamp, Tell};
use super::reads::Gathering;
use crate::modules::batch::{BatchRecord, Load};
use crate::modules::money::Money;
use crate::modules::order::parse_order_id;
use crate::modules::payment::OrderRef;
use crate::modules::request::{Answer, Op, OrderId, Outcome, Refusal, Request};
use kassa_protocols::breaks;
use kassa_protocols::ids::{Incarnation, Module, PodId, Shard};
use kassa_protocols::placement::shard_of;
use kassa_protocols::time::{Span, Time};
use std::collections::BTreeMap;

/// Times that a question follows a hint at once.
const REDIRECTS_MAX: u32 = 3;

/// What a request is waiting for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// The index of a batch order is not known here: a round of the cluster group tells.
    FindBatch,
    /// The item's price, to add it to an order.
    Price,
    /// Whose order it is, to pay it.
    Owner,
    /// The operation itself.
    Main,
    /// The batch record from the cluster group.
    LogBatch,
    /// All shards of the module, to log the batch; and how many have yet to.
    Spread { batch: BatchRecord, left: usize },
    /// The cluster group, to note that all have.
    Loaded { n: u64 },
}

#[derive(Debug)]
struct Pending {
    request: Request,
    deadline: Time,
    connected: bool,
    stage: Stage,
    price: Option<Money>,
    incarnation: Incarnation,
    /// Whether anything was sent on that may yet take effect.
    sent_on: bool,
}

#[derive(Debug)]
pub(super) struct Asked {
    client: ClientId,
    pub(super) question: Question,
    /// The pod it was last sent to and when; `None` while there is nobody to send it to.
    sent: Option<(PodId, Time)>,
    since: Time,
    attempts: u32,
    /// A read that a quorum of replicas was asked for.
    pub(super) gathering: Option<Gathering>,
}

/// What `ingress` wants of the node around it.
#[derive(Debug)]
pub enum Action {
    /// Send it to the shard's leader, then call `sent`.
    Send(AskId),
    Reply(ClientId, Outcome),
}

#[derive(Debug, Default)]
pub struct Ingress {
    clients: BTreeMap<ClientId, Pending>,
    pub(super) asked: BTreeMap<AskId, Asked>,
    next: u64,
}

/// What the ingress must know of the cluster to route.
pub struct Map<'a> {
    pub shards: u16,
    pub order_batch: &'a dyn Fn(u64) -> Option<BatchRecord>,
}

impl Map<'_> {
    fn user(&self, user: &str) -> Shard {
        Shard { module: Module::Payment, no: shard_of(user.as_bytes(), self.shards) }
    }
    fn item(&self, item: &str) -> Shard {
        Shard { module: Module::Stock, no: shard_of(item.as_bytes(), self.shards) }
    }
    /// The shard that an order lives in and its incarnation; `Err(index)` if no batch is known for it.
    fn order(&self, order: &OrderId) -> Option<Result<(Shard, Incarnation), u64>> {
        if let Some(index) = order.index() {
            let Some(batch) = (self.order_batch)(index) else { return Some(Err(index)) };
            let (user, _) = batch.order(index)?;
            return Some(Ok((self.user(&user.to_string()), batch.incarnation)));
        }
        let no = parse_order_id(order.as_str()).filter(|no| no.0 < self.shards)?;
        Some(Ok((Shard { module: Module::Payment, no }, Incarnation(0))))
    }
}

impl Ingress {
    /// Numbers its questions from a place of its own in each life of the pod: an answer to what an earlier
    /// life asked, late on a slow way, must not pass for one to a question of this life.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { next: (seed << 20) >> 1, ..Self::default() }
    }
    #[must_use]
    pub fn len(&self) -> usize {
        self.clients.len()
    }
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    pub fn begin(
        &mut self,
        now: Time,
        client: ClientId,
        request: Request,
        deadline: Time,
        map: &Map<'_>,
    ) -> Vec<Action> {
        let stage = if request.op.is_load() { Stage::LogBatch } else { first_stage(&request.op, None) };
        let pending = Pending {
            request,
            deadline,
            connected: true,
            stage,
            price: None,
            incarnation: Incarnation(0),
            sent_on: false,
        };
        self.clients.insert(client, pending);
        self.advance(now, client, map)
    }

    /// The client's wait ends; what it began does not.
    pub fn gone(&mut self, client: ClientId) {
        if let Some(pending) = self.clients.get_mut(&client) {
            pending.connected = false;
            self.clients.remove(&client);
            self.asked.retain(|_, asked| asked.client != client);
        }
    }

    /// Asks what the request's stage needs.
    fn advance(&mut self, now: Time, client: ClientId, map: &Map<'_>) -> Vec<Action> {
        let Some(pending) = self.clients.get_mut(&client) else { return Vec::new() };
        let request = &pending.request;
        let (order_shard, mut stage) = match request.op.order().map(|order| (order, map.order(order))) {
            None => (None, pending.stage.clone()),
            Some((order, None)) => {
                let refusal = Refusal::OrderNotFound(order.clone());
                return self.end(client, Outcome::Refused(refusal));
            }
            Some((_, Some(Ok((shard, incarnation))))) => {
                pending.incarnation = incarnation;
                (Some(shard), pending.stage.clone())
            }
            Some((_, Some(Err(_)))) => (None, Stage::FindBatch),
        };
        if let (Stage::Main, Some(user), Some(shard)) = (&stage, payer_of(&request.op), order_shard)
            && map.user(user.as_str()) != shard
        {
            stage = Stage::Owner;
        }
        let incarnation = pending.incarnation;
        let (shard, ask) = match &stage {
            Stage::FindBatch => {
                let index =
                    request.op.order().and_then(OrderId::index).expect("only batch orders are looked up");
                (Shard::CLUSTER, Ask::OrderBatch { index })
            }
            Stage::Price => {
                let Op::AddItem { item, .. } = &request.op else {
                    unreachable!("only addItem asks for a price")
                };
                let request = Request { op: Op::FindItem { item: item.clone() }, key: request.key };
                (map.item(item.as_str()), Ask::Op { request, incarnation })
            }
            Stage::Owner => {
                let order = request.op.order().expect("it names an order").clone();
                (order_shard.expect("its order is routed"), Ask::Owner { order, incarnation })
            }
            Stage::Main => {
                let request = request.clone();
                match pending.price {
                    Some(price) => {
                        (target(&request, order_shard, map), Ask::Add { request, incarnation, price })
                    }
                    None => (target(&request, order_shard, map), Ask::Op { request, incarnation }),
                }
            }
            Stage::LogBatch => {
                let load = load_of(&request.op).expect("only loads are logged");
                (Shard::CLUSTER, Ask::Load { key: request.key, load })
            }
            Stage::Spread { .. } | Stage::Loaded { .. } => unreachable!("asked where they begin"),
        };
        pending.stage = stage;
        vec![self.ask(now, client, shard, ask)]
    }

    fn ask(&mut self, now: Time, client: ClientId, shard: Shard, ask: Ask) -> Action {
        self.next += 1;
        let id = AskId(self.next);
        let question = Question { id, shard, stamp: Stamp::default(), remaining_ms: 0, trace: client.0, ask };
        let (sent, since, attempts, gathering) = (None, now, 0, None);
        self.asked.insert(id, Asked { client, question, sent, since, attempts, gathering });
        Action::Send(id)
    }

    /// The question to send, stamped and with the time left; `None` if nobody waits for it any more.
    pub fn question(&mut self, now: Time, id: AskId, stamp: impl FnOnce(Shard) -> Stamp) -> Option<Question> {
        let asked = self.asked.get_mut(&id)?;
        let pending = self.clients.get(&asked.client)?;
        if asked.question.stamp == Stamp::default() {
            asked.question.stamp = stamp(asked.question.shard);
        }
        asked.question.remaining_ms =
            u32::try_from(pending.deadline.since(now).as_millis()).unwrap_or(u32::MAX);
        Some(asked.question.clone())
    }

    #[must_use]
    pub fn shard_of(&self, id: AskId) -> Option<Shard> {
        self.asked.get(&id).map(|asked| asked.question.shard)
    }

    /// How often it was sent, to try other ways; and how long it has waited.
    #[must_use]
    pub fn attempts(&self, now: Time, id: AskId) -> (u32, Span) {
        self.asked.get(&id).map_or((0, Span(0)), |asked| (asked.attempts, now.since(asked.since)))
    }

    pub fn sent(&mut self, now: Time, id: AskId, to: PodId) {
        let Some(asked) = self.asked.get_mut(&id) else { return };
        asked.sent = Some((to, now));
        asked.attempts += 1;
        if let Some(pending) = self.clients.get_mut(&asked.client) {
            pending.sent_on |= !pending.request.op.is_read();
        }
    }

    /// Order operations that may be asked of any replica: they have waited long enough for a leader.
    pub fn relax(&mut self, id: AskId) -> bool {
        let Some(asked) = self.asked.get_mut(&id) else { return false };
        let (request, incarnation, price) = match &asked.question.ask {
            Ask::Op { request, incarnation } => (request.clone(), *incarnation, None),
            Ask::Add { request, incarnation, price } => (request.clone(), *incarnation, Some(*price)),
            Ask::Anywhere { .. } => return true,
            Ask::OfOrder { .. } | Ask::Owner { .. } | Ask::Load { .. } => return false,
            Ask::Loaded { .. } | Ask::OrderBatch { .. } | Ask::Log { .. } | Ask::Whole { .. } => {
                return false;
            }
        };
        let anywhere =
            matches!(request.op, Op::CreateOrder { .. } | Op::RemoveItem { .. } | Op::FindOrder { .. })
                || (matches!(request.op, Op::AddItem { .. }) && price.is_some());
        if anywhere {
            asked.question.ask = Ask::Anywhere { request, incarnation, price };
        }
        anywhere
    }

    /// Questions to send (again): to a pod that was lost, of a shard whose leader changed, or unanswered
    /// for `patience`.
    pub fn due(&self, now: Time, patience: Span, lost: impl Fn(Shard, Option<PodId>) -> bool) -> Vec<AskId> {
        self.asked
            .iter()
            .filter(|(_, asked)| {
                let late = asked.sent.is_none_or(|(_, at)| now.since(at) >= patience);
                late || lost(asked.question.shard, asked.sent.map(|(to, _)| to))
            })
            .map(|(&id, _)| id)
            .collect()
    }

    /// Ends the waits whose deadline has passed.
    pub fn expire(&mut self, now: Time) -> Vec<Action> {
        let late: Vec<ClientId> =
            self.clients.iter().filter(|(_, p)| p.deadline <= now).map(|(&client, _)| client).collect();
        let mut actions = Vec::new();
        for client in late {
            let sent_on = self.clients.get(&client).is_some_and(|pending| pending.sent_on);
            let outcome = if sent_on { Outcome::Unknown } else { Outcome::Unavailable };
            actions.extend(self.end(client, outcome));
        }
        actions
    }

    fn end(&mut self, client: ClientId, outcome: Outcome) -> Vec<Action> {
        self.asked.retain(|_, asked| asked.client != client);
        match self.clients.remove(&client) {
            Some(_) => vec![Action::Reply(client, outcome)],
            None => Vec::new(),
        }
    }

    /// Whether it is a late refusal of a leader that has been followed: the question was stamped anew for the
    /// next one since, who may do what it asks.
    #[must_use]
    pub fn is_overtaken(&self, id: AskId, stamp: &Stamp, tell: &Tell) -> bool {
        let Some(asked) = self.asked.get(&id) else { return false };
        let refused = matches!(tell, Tell::Outcome(Outcome::Refused(_)));
        let request = self.clients.get(&asked.client).map(|pending| &pending.request);
        let changes = request.is_some_and(|request| !request.op.is_read());
        refused && changes && stamp.ballot < asked.question.stamp.ballot
    }

    /// An answer has come. Late or repeated ones find nothing and do nothing.
    pub fn told(&mut self, now: Time, id: AskId, tell: Tell, map: &Map<'_>) -> Vec<Action> {
        let Some(asked) = self.asked.get_mut(&id) else { return Vec::new() };
        let client = asked.client;
        match tell {
            Tell::NotLeader { leader } => {
                // At once if it is news, else when it is looked over: two pods that point at each other, or a
                // leader that is not ready yet, must not be asked in a circle.
                let asked_pod = asked.sent.take().map(|(to, _)| to);
                let news = leader.is_some() && leader != asked_pod && asked.attempts < REDIRECTS_MAX;
                return if news { vec![Action::Send(id)] } else { Vec::new() };
            }
            Tell::Stale => {
                asked.question.stamp = Stamp::default();
                return vec![Action::Send(id)];
            }
            Tell::Overwritten { .. } => {
                self.asked.remove(&id);
                let newer = self.clients.get_mut(&client);
                if let Some(pending) = newer {
                    pending.stage = Stage::FindBatch;
                }
                return self.find_batch(now, client);
            }
            // An earlier copy may have been taken: this is no word on the request.
            Tell::Outcome(Outcome::Overloaded) if asked.attempts > 1 => {
                asked.sent = None;
                return Vec::new();
            }
            // Another replica may have taken the edit meanwhile, on its own copy.
            Tell::Outcome(Outcome::Refused(_)) if matches!(&asked.question.ask, Ask::Anywhere { request, .. } if !request.op.is_read()) =>
            {
                asked.sent = None;
                return Vec::new();
            }
            Tell::Outcome(_) | Tell::Owner { .. } | Tell::Batch(_) | Tell::NoBatch | Tell::Done => {}
        }
        self.asked.remove(&id);
        let Some(pending) = self.clients.get_mut(&client) else { return Vec::new() };
        match (&mut pending.stage, tell) {
            (Stage::FindBatch, Tell::Batch(batch)) => {
                // The record just read routes it, even if this pod has not applied it yet.
                pending.stage = first_stage(&pending.request.op, pending.price);
                let known = map.order_batch;
                let order_batch = |index: u64| {
                    known(index).filter(|b| b.incarnation >= batch.incarnation).or(Some(batch.clone()))
                };
                let map = Map { shards: map.shards, order_batch: &order_batch };
                self.advance(now, client, &map)
            }
            (Stage::FindBatch, Tell::NoBatch) => {
                let order = pending.request.op.order().expect("it names an order").clone();
                self.end(client, Outcome::Refused(Refusal::OrderNotFound(order)))
            }
            (Stage::Price, Tell::Outcome(Outcome::Done(Answer::Item { price, .. }))) => {
                pending.price = Some(price);
                pending.stage = Stage::Main;
                self.advance(now, client, map)
            }
            (Stage::Owner, Tell::Owner { order, removed }) => {
                pending.stage = Stage::Main;
                let request = pending.request.clone();
                let user = payer_of(&request.op).expect("it names a user").clone();
                let shard = map.user(user.as_str());
                let order = OrderRef { user, ..order };
                vec![self.ask(now, client, shard, Ask::OfOrder { request, order, removed })]
            }
            (Stage::LogBatch, Tell::Batch(batch)) => {
                let module =
                    if matches!(batch.load, Load::Items { .. }) { Module::Stock } else { Module::Payment };
                pending.stage = Stage::Spread { batch: batch.clone(), left: usize::from(map.shards) };
                (0..map.shards)
                    .map(|no| {
                        self.ask(now, client, Shard::new(module, no), Ask::Log { batch: batch.clone() })
                    })
                    .collect()
            }
            (Stage::Spread { batch, left }, Tell::Done) => {
                *left -= 1;
                if *left > 0 && !breaks::is("batch-answered-early") {
                    return Vec::new();
                }
                let (n, incarnation) = (batch.load.n(), batch.incarnation);
                pending.stage = Stage::Loaded { n };
                vec![self.ask(now, client, Shard::CLUSTER, Ask::Loaded { incarnation })]
            }
            (Stage::Loaded { n }, Tell::Done) => {
                let n = *n;
                self.end(client, Outcome::Done(Answer::Loaded { n }))
            }
            (_, Tell::Outcome(outcome)) => self.end(client, outcome),
            (_, _) => self.end(client, Outcome::Unknown),
        }
    }

    fn find_batch(&mut self, now: Time, client: ClientId) -> Vec<Action> {
        let Some(pending) = self.clients.get(&client) else { return Vec::new() };
        match pending.request.op.order().and_then(OrderId::index) {
            Some(index) => vec![self.ask(now, client, Shard::CLUSTER, Ask::OrderBatch { index })],
            None => self.end(client, Outcome::Unknown),
        }
    }
}

/// The user in an operation that names an order as well.
fn payer_of(op: &Op) -> Option<&crate::modules::request::UserId> {
    if let Op::PayOrder { user, .. } | Op::CancelPayment { user, .. } | Op::PaymentStatus { user, .. } = op {
        return Some(user);
    }
    None
}

fn load_of(op: &Op) -> Option<Load> {
    if let Op::LoadOrders { n, n_items, n_users, item_price } = *op {
        Some(Load::Orders { n, n_items, n_users, item_price })
    } else if let Op::LoadItems { n, stock, price } = *op {
        Some(Load::Items { n, stock, price })
    } else if let Op::LoadUsers { n, credit } = *op {
        Some(Load::Users { n, credit })
    } else {
        None
    }
}

/// An addition needs the item's price first.
const fn first_stage(op: &Op, price: Option<Money>) -> Stage {
    if matches!(op, Op::AddItem { .. }) && price.is_none() { Stage::Price } else { Stage::Main }
}

/// The shard whose leader does the operation itself.
fn target(request: &Request, order: Option<Shard>, map: &Map<'_>) -> Shard {
    match &request.op {
        Op::CreateOrder { user } => map.user(user.as_str()),
        Op::RemoveOrder { .. }
        | Op::AddItem { .. }
        | Op::RemoveItem { .. }
        | Op::FindOrder { .. }
        | Op::Checkout { .. }
        | Op::PayOrder { .. }
        | Op::CancelPayment { .. }
        | Op::PaymentStatus { .. } => order.expect("its order is routed"),
        Op::CreateItem { .. } => map.item(&crate::modules::order::mint_id(request.key)),
        Op::FindItem { item } | Op::AddStock { item, .. } | Op::SubtractStock { item, .. } => {
            map.item(item.as_str())
        }
        Op::CreateUser => map.user(&crate::modules::order::mint_id(request.key)),
        Op::FindUser { user } | Op::AddFunds { user, .. } | Op::Pay { user, .. } => map.user(user.as_str()),
        Op::LoadOrders { .. } | Op::LoadItems { .. } | Op::LoadUsers { .. } | Op::Replace { .. } => {
            Shard::CLUSTER
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kassa_protocols::ids::{Ballot, OpId};

    #[test]
    fn a_refusal_of_a_leader_that_has_been_followed_counts_no_more() {
        let mut ingress = Ingress::new(1);
        let map = Map { shards: 1, order_batch: &|_| None };
        let request = Request { op: Op::SubtractStock { item: "i".into(), units: 1 }, key: OpId(1) };
        let actions = ingress.begin(Time(0), ClientId(1), request, Time(9), &map);
        let [Action::Send(id)] = actions[..] else { panic!("{actions:?}") };
        let stamp = |round| Stamp { ballot: Ballot::new(1, round, PodId(0)), ..Stamp::default() };
        let refused = Tell::Outcome(Outcome::Refused(Refusal::OutOfStock("i".into())));
        let _ = ingress.question(Time(0), id, |_| stamp(1));
        assert!(!ingress.is_overtaken(id, &stamp(1), &refused));
        // Stamped anew, for the next leader: that one may do it.
        ingress.told(Time(0), id, Tell::Stale, &map);
        let _ = ingress.question(Time(0), id, |_| stamp(2));
        assert!(ingress.is_overtaken(id, &stamp(1), &refused));
        assert!(!ingress.is_overtaken(id, &stamp(2), &refused));
        assert!(!ingress.is_overtaken(id, &stamp(1), &Tell::Done), "what was done was done");
    }
}
