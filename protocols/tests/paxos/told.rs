//! The cluster group, whose own log says which disks were replaced, and so which epoch it is in.

use bytes::Bytes;
use kassa_protocols::ids::{PodId, Shard};
use kassa_protocols::paxos::{Body, Config, Durable, Event, Fx, Message, Record, Replica, Timing};
use kassa_protocols::time::{Span, Time};
use std::collections::VecDeque;

const REPLACED: &[u8] = b"the disk of pod 2";

#[derive(Default)]
struct Pod {
    replica: Option<Replica>,
    disk: Vec<Record>,
    knows: bool,
}

/// Pods whose disks take no time and that hear each other, but for what a test keeps back.
struct World {
    now: Time,
    pods: [Pod; 3],
    links: VecDeque<(PodId, PodId, Message)>,
}

fn config(me: PodId) -> Config {
    let voters = vec![PodId(0), PodId(1), PodId(2)];
    let (timing, history_bytes_max) = (Timing::default(), 1 << 20);
    Config {
        shard: Shard::CLUSTER,
        me,
        epoch: 1,
        joined: 0,
        voters,
        learners: Vec::new(),
        timing,
        history_bytes_max,
    }
}

impl World {
    fn new() -> Self {
        let mut world = Self { now: Time(0), pods: Default::default(), links: VecDeque::new() };
        (0..3).for_each(|id| world.start(PodId(id)));
        world
    }

    /// Starts from the disk alone.
    fn start(&mut self, id: PodId) {
        let pod = &mut self.pods[usize::from(id.0)];
        let mut replica = Replica::new(config(id), Durable::default(), self.now);
        pod.disk.iter().cloned().for_each(|record| replica.recover(record));
        (pod.replica, pod.knows) = (Some(replica), false);
        self.step(id, |replica, now, fx| replica.recovered(now, fx));
    }

    fn crash(&mut self, id: PodId) {
        self.pods[usize::from(id.0)].replica = None;
        self.links.retain(|(from, to, _)| *from != id && *to != id);
    }

    fn step(&mut self, id: PodId, step: impl FnOnce(&mut Replica, Time, &mut Fx)) {
        let now = self.now;
        let pod = &mut self.pods[usize::from(id.0)];
        let Some(replica) = &mut pod.replica else { return };
        let mut fx = Fx::new();
        step(replica, now, &mut fx);
        let replaced = |event: &Event| matches!(event, Event::Chosen { entry, .. } if entry.body == Body::Commands(Bytes::from_static(REPLACED)));
        if fx.events.iter().any(replaced) {
            pod.knows = true;
            replica.raise_epoch(now, 2, &mut fx);
        }
        pod.disk.append(&mut fx.persist);
        let (own, others): (Vec<_>, Vec<_>) =
            fx.send_early.into_iter().chain(fx.send).partition(|(to, _)| *to == id);
        self.links.extend(others.into_iter().map(|(to, message)| (id, to, message)));
        // First of all, as its own loop would.
        own.into_iter().rev().for_each(|(_, message)| self.links.push_front((id, id, message)));
    }

    /// Delivers what is on the links and `passes`, and what that gives rise to; the rest is lost.
    fn deliver(&mut self, passes: impl Fn(PodId, PodId, &Message) -> bool) {
        while let Some((from, to, message)) = self.links.pop_front() {
            if passes(from, to, &message) {
                self.step(to, |replica, now, fx| replica.handle(now, from, message, fx));
            }
        }
    }

    fn run(&mut self, span: Span) {
        let until = self.now + span;
        while self.now < until {
            self.now = self.now + Span::from_millis(5);
            for id in 0..3 {
                self.step(PodId(id), |replica, now, fx| replica.tick(now, fx));
            }
            self.deliver(|_, _, _| true);
        }
    }

    fn leads(&self, id: PodId) -> bool {
        self.pods[usize::from(id.0)].replica.as_ref().is_some_and(Replica::is_leading)
    }
}

/// p2's disk is lost, and its replacement is agreed by p0 and p1. p0 applies that and asks p1 for a promise in the
/// new epoch, and both lose power before p1 has heard that the entry was chosen. Had p1 promised, or p0 forgotten why
/// it did, neither could lead when they are back: not in the old epoch, whose ballots are refused, nor in
/// the new one, of which they have not been told.
#[test]
fn a_crash_amid_a_replacement_leaves_somebody_who_may_lead() {
    let mut world = World::new();
    world.run(Span::from_millis(500));
    assert!(world.leads(PodId(0)));
    world.crash(PodId(2));
    world.step(PodId(0), |replica, now, fx| {
        replica.propose(now, Bytes::from_static(REPLACED), fx).expect("it leads");
    });
    // What it says of the commit point is lost, as is all that p1 answers to a Prepare.
    world.deliver(|from, to, message| {
        let passes =
            matches!(message, Message::Accept { .. } | Message::Accepted { .. } | Message::Prepare { .. });
        from == to || passes
    });
    assert!(world.pods[0].knows && !world.pods[1].knows);
    for id in [0, 1] {
        world.crash(PodId(id));
        world.start(PodId(id));
    }
    world.run(Span::from_millis(5_000));
    assert!(world.leads(PodId(0)) || world.leads(PodId(1)), "nobody leads");
    assert!(world.pods[0].knows && world.pods[1].knows);
}
