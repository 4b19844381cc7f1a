//! Answers wait until what they rest on is durable, those about orders and what a replica shows of an item:
//! driven by hand, since a run that loses just the messages that matter is rare.

use crate::adapter::{self, ClientId, Input, Message, Node, Outcome, Request};
use crate::disk::Disk;
use crate::net::Delay;
use crate::scenario::{Replication, Scenario, Trouble};
use crate::setting::commit;
use crate::world::pod_id;
use kassa::modules::money::Money;
use kassa::modules::request::{Answer, ItemId, Op, OrderId, Refusal, UserId};
use kassa_protocols::ids::{OpId, PodId};
use kassa_protocols::time::{Span, Time};
use std::collections::BTreeMap;

const PODS: usize = 3;
const ROUND: Span = Span::from_millis(1);

/// Pods in lockstep: a round each, and what they said arrives in the next.
struct Steps {
    now: Time,
    nodes: Vec<Node>,
    disks: Vec<Disk>,
    arriving: Vec<Vec<Input>>,
    replies: BTreeMap<ClientId, Outcome>,
    asked: u64,
    /// Whether pods lose what they say of orders to each other.
    loses_orders: bool,
    /// What replicas showed of items before the disk of their round, and after it.
    shown: (u64, u64),
}

impl Steps {
    fn new() -> Self {
        let scenario = Scenario {
            pods: PODS,
            payment_pods: PODS,
            stock_pods: PODS,
            shards: 1,
            payment: Replication::Paxos,
            stock: Replication::Quorum,
            commit: commit(),
            write_all: false,
            trouble: Trouble::None,
            clients: 0,
            operations: 0,
            users: 0,
            items: 0,
            batch: 0,
            reloads: 0,
            plenty: 0,
            delay: Delay { base_us: 0, jitter_us: 0 },
            fsync_us: 0,
            write_us: 0,
            proxy_timeout_us: 0,
            think_us: 0,
            faults_end_us: 0,
            absence: None,
            backlog_bytes_max: None,
        };
        let disks: Vec<Disk> = (0..PODS).map(|_| Disk::default()).collect();
        let now = Time(0);
        let node = |n: usize| adapter::start(pod_id(n), Default::default(), &scenario, &disks[n], now);
        let nodes = (0..PODS).map(node).collect();
        let links = |n: usize| {
            let others = (0..PODS).filter(move |&other| other != n);
            others.map(|other| Input::Link { peer: pod_id(other), up: true }).collect()
        };
        let arriving = (0..PODS).map(links).collect();
        let replies = BTreeMap::new();
        Self { now, nodes, disks, arriving, replies, asked: 0, loses_orders: false, shown: (0, 0) }
    }

    fn round(&mut self) {
        self.now = self.now + ROUND;
        let mut said: Vec<(usize, PodId, Vec<Message>)> = Vec::new();
        for n in 0..PODS {
            let (node, disk) = (&mut self.nodes[n], &mut self.disks[n]);
            let durable = stock_accepted(node);
            for input in std::mem::take(&mut self.arriving[n]) {
                node.step(self.now, input, disk);
            }
            node.tick(self.now, disk);
            let round = node.flush(self.now, disk);
            for commit in &round.commits {
                disk.apply(commit);
            }
            self.replies.extend(round.replies);
            for accepted in shown(&round.early) {
                assert!(accepted <= durable, "p{n} shows {accepted}, and its disk has {durable}");
                self.shown.0 += 1;
            }
            self.shown.1 += shown(&round.late).count() as u64;
            let frames = round.early.into_iter().chain(round.late);
            said.extend(frames.map(|(to, messages)| (n, to, messages)));
        }
        for (from, to, mut messages) in said {
            if self.loses_orders && to != pod_id(from) {
                messages.retain(|message| !matches!(message, Message::Order { .. }));
            }
            self.arriving[usize::from(to.0)].push(Input::Frame { from: pod_id(from), messages });
        }
    }

    fn run(&mut self, span: Span) {
        let end = self.now + span;
        while self.now < end {
            self.round();
        }
    }

    fn ask(&mut self, op: Op) -> ClientId {
        self.ask_at(0, op)
    }

    fn ask_at(&mut self, pod: usize, op: Op) -> ClientId {
        self.asked += 1;
        let client = ClientId(self.asked);
        let request = Request { op, key: OpId(u128::from(self.asked)) };
        let deadline = self.now + Span::from_millis(30_000);
        self.arriving[pod].push(Input::Request { client, request, deadline });
        client
    }

    fn answer(&mut self, op: Op) -> Answer {
        let client = self.ask(op);
        for _ in 0..3_000 {
            self.round();
            match self.replies.remove(&client) {
                Some(Outcome::Done(answer)) => return answer,
                Some(other) => panic!("{other:?}"),
                None => {}
            }
        }
        panic!("no answer");
    }
}

/// The newest position that a pod's replica of the stock shard has accepted.
fn stock_accepted(node: &Node) -> u64 {
    let status = node.status();
    status.shards.iter().find(|shard| shard.module == "stock").expect("a stock shard").committed
}

/// The accepted positions of what is shown of items in these frames.
fn shown(frames: &[(PodId, Vec<Message>)]) -> impl Iterator<Item = u64> {
    frames.iter().flat_map(|(_, messages)| messages).filter_map(|message| match message {
        Message::ReadAnswer { shown, .. } => Some(shown.state.accepted.seq),
        _ => None,
    })
}

/// A user with an empty order, and an item without stock.
fn shop(steps: &mut Steps) -> (OrderId, ItemId) {
    steps.run(Span::from_millis(1_000));
    let user: UserId = match steps.answer(Op::CreateUser) {
        Answer::UserCreated { user } => user,
        other => panic!("{other:?}"),
    };
    let item = match steps.answer(Op::CreateItem { price: Money::whole(1) }) {
        Answer::ItemCreated { item } => item,
        other => panic!("{other:?}"),
    };
    match steps.answer(Op::CreateOrder { user }) {
        Answer::OrderCreated { order } => (order, item),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_shows_an_edit_waits_until_it_is_durable() {
    let mut steps = Steps::new();
    let (order, item) = shop(&mut steps);
    steps.loses_orders = true;
    let edit = steps.ask(Op::AddItem { order: order.clone(), item: item.clone(), units: 2 });
    steps.run(Span::from_millis(50));
    let view = steps.ask(Op::FindOrder { order: order.clone() });
    let removal = steps.ask(Op::RemoveItem { order: order.clone(), item: item.clone(), units: 3 });
    let checkout = steps.ask(Op::Checkout { order: order.clone() });
    steps.run(Span::from_millis(300));
    assert_eq!(steps.replies, BTreeMap::new(), "the edit is on one disk");

    steps.loses_orders = false;
    steps.run(Span::from_millis(3_000));
    for shows in [edit, view] {
        let reply = &steps.replies[&shows];
        let Outcome::Done(Answer::Order(view)) = reply else { panic!("{reply:?}") };
        assert_eq!(view.items, [(item.clone(), 2)]);
    }
    let refusal = &steps.replies[&removal];
    assert!(matches!(refusal, Outcome::Refused(Refusal::BadAmount(_))), "{refusal:?}");
    assert_eq!(steps.replies[&checkout], Outcome::Refused(Refusal::OutOfStock(item)));
}

#[test]
fn what_shows_a_write_waits_until_it_is_durable() {
    let mut steps = Steps::new();
    let (_, item) = shop(&mut steps);
    // The first pod takes in a write and a question about it in one round: the coordinator is the second.
    for _ in 0..100 {
        steps.ask(Op::AddStock { item: item.clone(), units: 1 });
        steps.ask_at(2, Op::FindItem { item: item.clone() });
        steps.round();
    }
    let (before, after) = steps.shown;
    assert!(before > 50 && after > 50, "{before} shown before the disk, {after} after");
}
