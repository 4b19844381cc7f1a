//! The world of one seed: pods, links, clients and faults on one line of virtual time.
//!
//! All that happens is an event in one queue, ordered by time and then by when it was put there, so a
//! seed replays to the last bit.

use crate::adapter::{ClientId, Input, Message};
use crate::clients::Clients;
use crate::faults::{self, Fault, Kind, Weather};
use crate::net::{Net, Pair, Sent, Ticket};
use crate::pod::{Leaves, Pod, State};
use crate::replicas::Replicas;
use crate::scenario::Scenario;
use kassa_protocols::ids::PodId;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A pod tries a link that is down again after that long.
const RECONNECT_US: u64 = 50_000;
/// When the kernel tells a pod that its peer's process has died, at the latest.
const BROKEN_LINK_US: u64 = 1_000;
/// When it learns of a peer that vanished without a word.
const SILENT_LINK_US: u64 = 1_500_000;

pub enum Event {
    /// The pod's loop looks at its inbox and clock.
    Wake {
        pod: usize,
        life: u32,
    },
    /// The next moment of its round.
    Stage {
        pod: usize,
        life: u32,
    },
    Arrive {
        pair: Pair,
        ticket: Ticket,
    },
    /// The sender of a link learns that it is gone.
    LinkDown {
        pair: Pair,
        life: u32,
    },
    Connect {
        pair: Pair,
        life: u32,
    },
    /// A client's request, or its going away, reaches a pod.
    ToPod {
        pod: usize,
        client: ClientId,
        gone: bool,
    },
    /// Something for the clients to deal with.
    Client(crate::clients::Wake),
    Fault(usize),
    FaultEnds(usize),
    Start {
        pod: usize,
    },
    /// An empty pod asks the others who it is.
    AsksWho {
        pod: usize,
        life: u32,
    },
    /// An operator has a lost disk replaced.
    Operator {
        pod: usize,
        life: u32,
    },
}

struct Queued {
    at_us: u64,
    seq: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at_us, self.seq) == (other.at_us, other.seq)
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.seq).cmp(&(other.at_us, other.seq))
    }
}

/// What a run did, so that one that does nothing is noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub events: u64,
    pub frames: u64,
    pub faults: u64,
    pub starts: u64,
    /// Copies of shards whose last part was sent, and links reset for having too much queued.
    pub copies: u64,
    pub overflows: u64,
    /// Reads that a quorum of replicas has settled, but for those of lives that ended in a crash.
    pub reads_settled: u64,
    /// Disks lost, and joined anew.
    pub lost_disks: u32,
    pub replaced_disks: u32,
    /// A fold of all events and their times: two runs of one seed have the same.
    pub trace: u64,
}

pub struct World {
    pub now_us: u64,
    pub rng: ChaCha8Rng,
    pub scenario: Scenario,
    pub pods: Vec<Pod>,
    pub net: Net,
    pub clients: Clients,
    pub weather: Weather,
    pub counts: Counts,
    pub replicas: Replicas,
    /// Requests that operators have made.
    pub operators: u64,
    faults: Vec<Fault>,
    queue: BinaryHeap<Reverse<Queued>>,
    seq: u64,
    mended: bool,
    talks: bool,
}

impl World {
    pub fn new(scenario: Scenario, mut rng: ChaCha8Rng, talks: bool) -> Self {
        let faults = faults::schedule(&scenario, &mut rng);
        Self::with_faults(scenario, faults, rng, talks)
    }

    /// A world in which just that goes wrong; `faults` are in the order of their times.
    pub fn with_faults(scenario: Scenario, faults: Vec<Fault>, mut rng: ChaCha8Rng, talks: bool) -> Self {
        let pods = (0..scenario.pods).map(|n| Pod::new(pod_id(n), &mut rng)).collect();
        let mut world = Self {
            now_us: 0,
            pods,
            net: Net::new(scenario.pods, scenario.delay, scenario.backlog_bytes_max),
            clients: Clients::new(&scenario, &mut rng),
            weather: Weather::new(&faults),
            counts: Counts::default(),
            replicas: Replicas::default(),
            operators: 0,
            queue: BinaryHeap::new(),
            seq: 0,
            mended: false,
            talks,
            rng,
            scenario,
            faults,
        };
        for pod in 0..world.pods.len() {
            let at = world.rng.random_range(0..200_000);
            world.at(at, Event::Start { pod });
        }
        for index in 0..world.faults.len() {
            world.at(world.faults[index].at_us, Event::Fault(index));
        }
        world.begin_clients();
        world
    }

    pub fn at(&mut self, at_us: u64, event: Event) {
        self.seq += 1;
        self.queue.push(Reverse(Queued { at_us: at_us.max(self.now_us), seq: self.seq, event }));
    }

    /// Says what happens, if the run was asked to talk.
    pub fn say(&self, what: impl FnOnce() -> String) {
        if self.talks {
            eprintln!("{:>11} {}", self.now_us, what());
        }
    }

    /// Handles the next event; false if there is none up to `until_us`.
    pub fn step(&mut self, until_us: u64) -> bool {
        if self.queue.peek().is_none_or(|Reverse(next)| next.at_us > until_us) {
            self.now_us = self.now_us.max(until_us);
            return false;
        }
        let Some(Reverse(Queued { at_us, seq, event })) = self.queue.pop() else { return false };
        self.now_us = at_us;
        self.counts.events += 1;
        self.counts.trace = self.counts.trace.rotate_left(5) ^ at_us.wrapping_mul(31).wrapping_add(seq);
        match event {
            Event::Wake { pod, life } => self.wake(pod, life),
            Event::Stage { pod, life } => self.stage(pod, life),
            Event::Arrive { pair, ticket } => {
                if let Some(messages) = self.net.arrive(pair, ticket) {
                    self.input(pair.to, Input::Frame { from: pod_id(pair.from), messages });
                }
            }
            Event::LinkDown { pair, life } => self.link_down(pair, life),
            Event::Connect { pair, life } => self.connect(pair, life),
            Event::ToPod { pod, client, gone } => self.client_input(pod, client, gone),
            Event::Client(wake) => self.client_wakes(wake),
            Event::Fault(index) => self.fault(index),
            Event::FaultEnds(index) => self.fault_ends(index),
            Event::Start { pod } => self.start(pod),
            Event::AsksWho { pod, life } => self.asks_who(pod, life),
            Event::Operator { pod, life } => self.operator(pod, life),
        }
        self.compare_replicas();
        true
    }

    /// Whether `pod` takes part now: running and not stopped.
    pub fn is_up(&self, pod: usize) -> bool {
        self.pods[pod].state == State::Up
    }

    pub fn start(&mut self, pod: usize) {
        if self.pods[pod].state != State::Down {
            return;
        }
        self.pods[pod].start(self.now_us, &self.scenario, &mut self.rng);
        let state = self.pods[pod].state;
        self.say(|| format!("p{pod} starts: {state:?}"));
        if state == State::Waiting {
            self.waits(pod);
        }
        if state != State::Up {
            return;
        }
        self.counts.starts += 1;
        let life = self.pods[pod].life;
        for other in (0..self.pods.len()).filter(|&other| other != pod) {
            let at = self.now_us + self.rng.random_range(0..2_000);
            self.at(at, Event::Connect { pair: Pair { from: pod, to: other }, life });
        }
        self.wake_by(pod, self.now_us);
    }

    pub fn input(&mut self, pod: usize, input: Input) {
        if self.is_up(pod) {
            self.pods[pod].push(input);
            self.wake_by(pod, self.now_us);
        }
    }

    fn wake_by(&mut self, pod: usize, at_us: u64) {
        let it = &mut self.pods[pod];
        if !it.is_busy() && it.wake_at_us.is_none_or(|planned| planned > at_us) {
            it.wake_at_us = Some(at_us);
            let life = it.life;
            self.at(at_us, Event::Wake { pod, life });
        }
    }

    fn wake(&mut self, pod: usize, life: u32) {
        let it = &mut self.pods[pod];
        if it.state != State::Up || it.life != life || it.wake_at_us != Some(self.now_us) {
            return;
        }
        if it.paused_until_us > self.now_us {
            it.wake_at_us = Some(it.paused_until_us);
            let at = it.paused_until_us;
            self.at(at, Event::Wake { pod, life });
            return;
        }
        let at = it.begin_round(self.now_us);
        self.stage_at(pod, at);
    }

    fn stage_at(&mut self, pod: usize, at_us: u64) {
        let it = &mut self.pods[pod];
        it.stage_at_us = Some(at_us);
        let life = it.life;
        self.at(at_us, Event::Stage { pod, life });
    }

    fn stage(&mut self, pod: usize, life: u32) {
        let it = &mut self.pods[pod];
        if it.state != State::Up || it.life != life || it.stage_at_us != Some(self.now_us) {
            return;
        }
        if it.paused_until_us > self.now_us {
            let at = it.paused_until_us;
            self.stage_at(pod, at);
            return;
        }
        it.stage_at_us = None;
        let Leaves { frames, replies, next_stage_us, crashes } =
            it.next_stage(self.now_us, &self.scenario, &mut self.rng);
        let more = next_stage_us.is_some();
        for (to, messages) in frames {
            self.send(pod, usize::from(to.0), messages);
        }
        for (client, outcome) in replies {
            self.reply(pod, client, outcome);
        }
        if crashes {
            self.kill(pod, true, 1_000_000);
        } else if let Some(at) = next_stage_us {
            self.stage_at(pod, at);
        }
        if !more && self.is_up(pod) {
            let at = if self.pods[pod].has_input() {
                self.now_us
            } else {
                self.pods[pod].next_wakeup_us(self.now_us)
            };
            self.wake_by(pod, at);
        }
    }

    fn send(&mut self, from: usize, to: usize, messages: Vec<Message>) {
        self.counts.frames += 1;
        let last_part = |message: &&Message| matches!(message, Message::Copy { position: Some(_), .. });
        self.counts.copies += messages.iter().filter(last_part).count() as u64;
        let copy = |message: &Message| {
            matches!(message, Message::Copy { position: Some(_), .. } | Message::Copied { .. })
        };
        self.replicas.copied |= messages.iter().any(copy);
        if self.talks {
            self.say(|| format!("p{from} → p{to} {messages:?}"));
        }
        if from == to {
            self.pods[from].push_own(messages);
            return;
        }
        let pair = Pair { from, to };
        match self.net.send(self.now_us, &mut self.rng, pair, messages) {
            Sent::Due(at, ticket) => self.at(at, Event::Arrive { pair, ticket }),
            Sent::Held | Sent::Lost => {}
            Sent::Full => {
                self.counts.overflows += 1;
                self.reset(pair, 0);
            }
        }
    }

    /// Breaks a link; its sender learns of it `after_us` later.
    fn reset(&mut self, pair: Pair, after_us: u64) {
        if self.net.reset(pair) {
            let life = self.pods[pair.from].life;
            self.at(self.now_us + after_us, Event::LinkDown { pair, life });
        }
    }

    fn link_down(&mut self, pair: Pair, life: u32) {
        if self.is_up(pair.from) && self.pods[pair.from].life == life {
            self.input(pair.from, Input::Link { peer: pod_id(pair.to), up: false });
            self.at(self.now_us + RECONNECT_US, Event::Connect { pair, life });
        }
    }

    fn connect(&mut self, pair: Pair, life: u32) {
        if !self.is_up(pair.from) || self.pods[pair.from].life != life || self.net.is_up(pair) {
            return;
        }
        let answers = self.is_up(pair.to) && self.pods[pair.to].paused_until_us <= self.now_us;
        if answers && self.know_each_other(pair.from, pair.to) && self.net.connect(pair) {
            self.input(pair.from, Input::Link { peer: pod_id(pair.to), up: true });
        } else {
            self.at(self.now_us + RECONNECT_US, Event::Connect { pair, life });
        }
    }

    pub fn kill(&mut self, pod: usize, power: bool, down_us: u64) {
        if !self.is_up(pod) {
            return;
        }
        self.say(|| format!("p{pod} dies (power {power})"));
        self.pods[pod].crash(power, &mut self.rng);
        // A machine that loses its power says no goodbye.
        let silent = power && self.rng.random_bool(0.3);
        for other in (0..self.pods.len()).filter(|&other| other != pod) {
            let after = if silent { SILENT_LINK_US } else { self.rng.random_range(0..BROKEN_LINK_US) };
            self.reset(Pair { from: other, to: pod }, after);
            self.net.reset(Pair { from: pod, to: other });
        }
        self.pod_died(pod);
        self.at(self.now_us + down_us, Event::Start { pod });
    }

    fn fault(&mut self, index: usize) {
        if self.mended {
            return;
        }
        let Fault { kind, for_us, .. } = self.faults[index];
        self.say(|| format!("fault for {for_us} µs: {kind:?}"));
        self.counts.faults += 1;
        let until = self.now_us + for_us;
        match kind {
            Kind::Kill { pod, power } => self.kill(pod, power, for_us),
            Kind::LostDisk { pod } => self.lose_disk(pod, for_us),
            Kind::Rot { pod } => {
                self.pods[pod].disk.rot();
                self.clients.shop.disk_lost = true;
                self.kill(pod, true, for_us);
            }
            Kind::Blackout => {
                for pod in 0..self.pods.len() {
                    let more = self.rng.random_range(0..500_000);
                    self.kill(pod, true, for_us + more);
                }
            }
            Kind::CrashAt { pod, point } => self.pods[pod].crash_at = Some(point),
            Kind::FailDisk { pod } => self.pods[pod].fail_persist = true,
            Kind::Pause { pod } => self.pods[pod].paused_until_us = until,
            Kind::SlowDisk { pod, times } => self.pods[pod].slow = times,
            Kind::SlowLink { from, to, delay } => self.net.set_delay(Pair { from, to }, delay),
            Kind::Cut { from, to, reset } => {
                self.net.cut(Pair { from, to });
                if reset {
                    self.reset(Pair { from, to }, SILENT_LINK_US);
                }
            }
            Kind::Isolate { pod, hears, heard } => self.isolate(pod, hears, heard),
            Kind::Adrift { pod } => {
                self.isolate(pod, false, false);
                self.pods[pod].paused_until_us = self.now_us + for_us / 2;
            }
            Kind::Reset { from, to } => self.reset(Pair { from, to }, 0),
        }
        self.at(until, Event::FaultEnds(index));
    }

    fn isolate(&mut self, pod: usize, hears: bool, heard: bool) {
        for other in (0..self.pods.len()).filter(|&other| other != pod) {
            if !hears {
                self.net.cut(Pair { from: other, to: pod });
            }
            if !heard {
                self.net.cut(Pair { from: pod, to: other });
            }
        }
    }

    fn fault_ends(&mut self, index: usize) {
        match self.faults[index].kind {
            Kind::Cut { from, to, .. } => self.heal(Pair { from, to }),
            Kind::Isolate { pod, .. } | Kind::Adrift { pod } => {
                for pair in self.net.pairs().filter(|pair| pair.from == pod || pair.to == pod) {
                    self.heal(pair);
                }
            }
            Kind::SlowLink { from, to, .. } => self.net.set_delay(Pair { from, to }, self.scenario.delay),
            Kind::SlowDisk { pod, .. } => self.pods[pod].slow = 1,
            Kind::CrashAt { pod, .. } => self.pods[pod].crash_at = None,
            Kind::FailDisk { pod } => self.pods[pod].fail_persist = false,
            Kind::Kill { .. }
            | Kind::Blackout
            | Kind::Pause { .. }
            | Kind::Reset { .. }
            | Kind::LostDisk { .. }
            | Kind::Rot { .. } => {}
        }
    }

    fn heal(&mut self, pair: Pair) {
        let (dues, ticket) = self.net.heal(self.now_us, &mut self.rng, pair);
        for at in dues {
            self.at(at, Event::Arrive { pair, ticket });
        }
    }

    /// Ends all faults: what is stopped goes on, what is down starts, what is cut is joined.
    pub fn mend(&mut self) {
        self.say(|| "all faults end".to_owned());
        self.mended = true;
        for pair in self.net.pairs() {
            self.heal(pair);
            self.net.set_delay(pair, self.scenario.delay);
        }
        for pod in 0..self.pods.len() {
            let it = &mut self.pods[pod];
            it.slow = 1;
            it.crash_at = None;
            it.fail_persist = false;
            it.paused_until_us = it.paused_until_us.min(self.now_us);
            if it.state == State::Up {
                // What was put off to the end of a pause goes on now.
                if it.is_busy() {
                    self.stage_at(pod, self.now_us);
                } else {
                    self.wake_by(pod, self.now_us);
                }
            }
            self.at(self.now_us, Event::Start { pod });
        }
    }
}

pub fn pod_id(n: usize) -> PodId {
    PodId(u8::try_from(n).expect("a handful of pods"))
}
