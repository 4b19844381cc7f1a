//! Answers wait until what they rest on is durable: those about orders, what a replica shows of an item, and
//! whatever needs a majority of disks. Driven by hand, since a run that loses just the messages that matter is rare.

use crate::adapter::{self, ClientId, Input, Message, Node, Outcome, Request};
use crate::disk::Disk;
use crate::scenario::{Replication, Scenario};
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
    /// Pods whose disks are not done with anything: what is to leave after that is held back.
    stalled: Vec<usize>,
    held_back: Vec<(usize, PodId, Vec<Message>)>,
    /// What replicas showed of items before the disk of their round, and after it.
    shown: (u64, u64),
}

impl Steps {
    fn new() -> Self {
        let scenario = Scenario { shards: 1, ..Scenario::steady(Replication::Paxos, Replication::Quorum) };
        let disks: Vec<Disk> = (0..PODS).map(|_| Disk::default()).collect();
        let now = Time(0);
        let node = |n: usize| adapter::start(pod_id(n), Default::default(), &scenario, &disks[n], now);
        let nodes = (0..PODS).map(node).collect();
        let links = |n: usize| {
            let others = (0..PODS).filter(move |&other| other != n);
            others.map(|other| Input::Link { peer: pod_id(other), up: true }).collect()
        };
        let arriving = (0..PODS).map(links).collect();
        Self {
            now,
            nodes,
            disks,
            arriving,
            replies: BTreeMap::new(),
            asked: 0,
            loses_orders: false,
            stalled: Vec::new(),
            held_back: Vec::new(),
            shown: (0, 0),
        }
    }

    fn round(&mut self) {
        self.now = self.now + ROUND;
        let held_back = std::mem::take(&mut self.held_back).into_iter();
        let (mut said, held_back): (Vec<_>, _) =
            held_back.partition(|(from, ..)| !self.stalled.contains(from));
        self.held_back = held_back;
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
            let from_it = |(to, messages)| (n, to, messages);
            said.extend(round.early.into_iter().map(from_it));
            let late = if self.stalled.contains(&n) { &mut self.held_back } else { &mut said };
            late.extend(round.late.into_iter().map(from_it));
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

#[test]
fn no_answer_rests_on_disks_that_are_not_done() {
    let mut steps = Steps::new();
    let (order, item) = shop(&mut steps);
    let Answer::Order(view) = steps.answer(Op::FindOrder { order: order.clone() }) else {
        panic!("no order")
    };
    for quick in 0..PODS {
        steps.stalled = (0..PODS).filter(|&pod| pod != quick).collect();
        let mut asked = Vec::new();
        for pod in 0..PODS {
            asked.push(steps.ask_at(pod, Op::CreateUser));
            asked.push(steps.ask_at(pod, Op::AddFunds { user: view.user.clone(), amount: Money::whole(1) }));
            asked.push(steps.ask_at(pod, Op::AddStock { item: item.clone(), units: 1 }));
            asked.push(steps.ask_at(pod, Op::AddItem { order: order.clone(), item: item.clone(), units: 1 }));
        }
        // Nobody is given up yet after that long.
        steps.run(Span::from_millis(100));
        assert_eq!(steps.replies, BTreeMap::new(), "it is on the disk of p{quick} alone, if at all");

        steps.stalled = Vec::new();
        steps.run(Span::from_millis(3_000));
        for client in asked {
            let reply = steps.replies.remove(&client);
            assert!(matches!(reply, Some(Outcome::Done(_))), "{reply:?}");
        }
    }
}
