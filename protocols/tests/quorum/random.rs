//! Random deliveries, faults and clients, then quiet and progress, over and over.

use crate::model::Action;
use crate::pod::Pod;
use crate::world::World;
use bytes::Bytes;
use kassa_protocols::ids::PodId;
use kassa_protocols::time::Span;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;

/// Replicas and write quorum of a run, by seed.
const SHAPES: [(u8, usize); 6] = [(3, 2), (3, 2), (5, 3), (3, 3), (3, 2), (1, 1)];
const PHASES: u32 = 4;
const STEPS: u32 = 900;
const SEEDS: u64 = 60;
/// Out of 100 faults: a pod prefers another coordinator, as when one is too slow.
const PREFERS: u32 = 10;

struct Run {
    world: World,
    rng: ChaCha8Rng,
    writes: u64,
    /// How wild this phase is, out of 100.
    crash: u32,
    cut: u32,
    reset: u32,
    disk: u32,
    /// Out of 100: all that is under way is late by an election time-out.
    jump: u32,
}

impl Run {
    fn pod(&mut self) -> PodId {
        let n = u8::try_from(self.world.pods.len()).unwrap();
        PodId(self.rng.random_range(0..n))
    }

    fn key(&mut self) -> String {
        format!("k{}", self.rng.random_range(0..5))
    }

    fn step(&mut self) {
        match self.rng.random_range(0..1_000_u32) {
            0..560 => {
                let pairs = self.world.pairs();
                if !pairs.is_empty() {
                    let (from, to) = pairs[self.rng.random_range(0..pairs.len())];
                    let count = self.rng.random_range(1..4);
                    self.world.deliver(from, to, count);
                }
            }
            560..760 => {
                let pod = self.pod();
                self.world.sync(pod);
            }
            760..830 => {
                let jump = self.rng.random_range(0..100) < self.jump;
                let span = if jump { 400_000 } else { 8_000 };
                let span = Span(self.rng.random_range(0..span));
                self.world.pass_time(span);
            }
            830..960 => self.client(),
            960..975 => {
                let (pod, cut) = (self.pod(), self.rng.random_range(0..2) == 0);
                self.world.checkpoint(pod, cut);
            }
            975..980 => {
                let pod = self.pod();
                self.world.drop_deletions(pod, None);
            }
            980..983 => {
                // Too many deletions: those that not all replicas have passed go too.
                let pod = self.pod();
                let bound = self.world.pods[usize::from(pod.0)].replica.as_ref().map(|r| r.committed());
                self.world.drop_deletions(pod, bound);
            }
            _ => self.fault(),
        }
    }

    fn client(&mut self) {
        let key = self.key();
        let leader = self.world.leader();
        let anyone = self.pod();
        let pod = if self.rng.random_range(0..4) == 0 { anyone } else { leader.unwrap_or(anyone) };
        match self.rng.random_range(0..10) {
            0..3 => self.world.ask(pod, &key, Action::Get),
            3..5 => self.world.ask(pod, &key, Action::Set(None)),
            5..8 => {
                self.writes += 1;
                let value = Bytes::from(format!("v{}", self.writes));
                self.world.ask(pod, &key, Action::Set(Some(value)));
            }
            _ => self.world.read(anyone, &key),
        }
    }

    fn fault(&mut self) {
        let pod = self.pod();
        let other = self.pod();
        if self.rng.random_range(0..100) < self.crash {
            if self.world.runs(pod) {
                let batches = self.rng.random_range(0..4);
                self.world.crash(pod, batches);
                if self.rng.random_range(0..4) == 0 {
                    self.world.forget_epoch(pod);
                }
            } else if !self.world.pod(pod).waits() {
                self.world.start(pod);
            }
        }
        if self.rng.random_range(0..100) < self.disk {
            self.lost_disk(pod);
        }
        if self.rng.random_range(0..100) < PREFERS && self.world.runs(pod) {
            let urgent = self.rng.random_range(0..2) == 0;
            self.world.pod(pod).replica().prefer(other, urgent);
        }
        if pod == other {
            return;
        }
        if self.rng.random_range(0..100) < self.reset {
            self.world.reset(pod, other);
        }
        if self.rng.random_range(0..100) < self.cut {
            let link = self.world.links.get_mut(&(pod, other)).unwrap();
            link.cut = !link.cut && self.rng.random_range(0..2) == 0;
        }
    }

    /// A disk is lost, and the next one only once that is made good.
    fn lost_disk(&mut self, pod: PodId) {
        if self.world.pod(pod).waits() {
            self.world.replace(pod);
        } else if self.world.pod(pod).config.epoch < self.world.epoch {
            self.world.tell(pod);
        } else if self.world.pods.len() > 1 && !self.world.pods.iter().any(Pod::is_missing) {
            self.world.lose_disk(pod);
        }
    }

    /// All faults end: what is asked then is answered, and all replicas come to be the same.
    fn quiet(&mut self) {
        for link in self.world.links.values_mut() {
            link.cut = false;
        }
        for pod in self.world.all() {
            if self.world.pod(pod).waits() {
                self.world.replace(pod);
            }
        }
        for pod in self.world.all() {
            self.world.tell(pod);
            if !self.world.runs(pod) {
                self.world.start(pod);
            }
        }
        for pod in self.world.all() {
            self.world.pod(pod).replica().prefer(PodId(0), false);
        }
        self.world.run(Span::from_millis(1_500));
        let leader = self.world.leader().expect("a coordinator is in office after a second of quiet");
        let answers = self.world.model.answers;
        self.writes += 1;
        let value = Some(Bytes::from(format!("v{}", self.writes)));
        self.world.ask(leader, "quiet", Action::Set(value));
        self.world.settle();
        self.world.ask(leader, "quiet", Action::Get);
        self.world.settle();
        assert_eq!(self.world.model.answers, answers + 2, "what is asked in quiet is answered");
        self.world.run(Span::from_millis(12_000));
        let newest = self.world.model.len();
        for pod in &self.world.pods {
            let replica = pod.replica.as_ref().unwrap();
            assert_eq!(replica.committed().seq, newest, "{}: all come to be the same", pod.me);
        }
        let leader = self.world.leader();
        assert_eq!(leader, Some(PodId(0)), "the preferred coordinator gets the shard back");
        for pod in self.world.all() {
            self.world.checkpoint(pod, true);
            self.world.settle();
        }
        let committed = self.world.pods[0].replica.as_ref().unwrap().committed();
        self.world.run(Span::from_millis(200));
        for pod in self.world.all() {
            let floor = self.world.pod(pod).replica().drop_deletions_below();
            assert!(floor >= committed, "{pod}: deletions that all have passed may go");
            self.world.drop_deletions(pod, None);
            self.world.settle();
            let left = self.world.pod(pod).tables.values().filter(|record| record.1.is_none()).count();
            assert_eq!(left, 0, "{pod}: deletions do not pile up");
        }
    }
}

/// What a run has seen: a test that never meets a transfer shows nothing about transfers.
#[derive(Debug, Default)]
struct Seen {
    answers: u64,
    events: BTreeMap<&'static str, usize>,
}

const EVENTS: [&str; 8] =
    ["leading", "deposed", "passed", "committed", "read: Some", "read: ask", "full=true", "installed"];

fn run(seed: u64, seen: &mut Seen) {
    let (n, w) = SHAPES[usize::try_from(seed).unwrap() % SHAPES.len()];
    let world = World::new(n, w);
    let mut run = Run {
        world,
        rng: ChaCha8Rng::seed_from_u64(seed),
        writes: 0,
        crash: 0,
        cut: 0,
        reset: 0,
        disk: 0,
        jump: 0,
    };
    for pod in run.world.all() {
        run.world.start(pod);
    }
    for _ in 0..PHASES {
        run.crash = run.rng.random_range(0..60);
        run.cut = run.rng.random_range(0..60);
        run.reset = run.rng.random_range(0..60);
        run.disk = if run.rng.random_range(0..2) == 0 { 0 } else { run.rng.random_range(0..20) };
        run.jump = run.rng.random_range(0..20);
        for _ in 0..STEPS {
            run.step();
        }
        run.quiet();
    }
    seen.answers += run.world.model.answers;
    for event in run.world.pods.iter().flat_map(|pod| &pod.events) {
        for name in EVENTS.iter().filter(|name| event.contains(**name)) {
            *seen.events.entry(name).or_default() += 1;
        }
    }
}

#[test]
fn random_faults() {
    let mut seen = Seen::default();
    if let Ok(seed) = std::env::var("SEED") {
        run(seed.parse().unwrap(), &mut seen);
        println!("{seen:?}");
        return;
    }
    let seeds = std::env::var("SEEDS").map_or(SEEDS, |seeds| seeds.parse().unwrap());
    for seed in 0..seeds {
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| run(seed, &mut seen)));
        if let Err(panic) = result {
            eprintln!("replay: SEED={seed} cargo test -p kassa-protocols --test quorum random");
            std::panic::resume_unwind(panic);
        }
    }
    println!("{seen:?}");
    assert!(seen.answers > seeds * 100, "{seen:?}: too few answers to show anything");
    for name in EVENTS {
        assert!(seen.events.contains_key(name), "{name} never happened: {seen:?}");
    }
}
