//! The clients, and the nginx between them and the pods: one request each at a time, sent to some pod,
//! and sent again under the same key, to another, when the pod refuses, dies, or takes too long.
//!
//! A client gives up only where the contract lets it: an answer that says "nothing was done" to a
//! request that was sent once. Everything else is asked again until it is known, so that the books are
//! exact; how long that may take after the faults have ended is part of the check.

use crate::adapter::{ClientId, Input, Outcome, Request};
use crate::scenario::Scenario;
use crate::world::{Event, World};
use kassa::histories::shop::{Record, Shop};
use kassa::histories::workload::{Planned, Workload, fresh_key};
use kassa_protocols::time::Span;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::collections::HashMap;

/// What a pod allows a request and a batch.
const DEADLINE: Span = Span::from_millis(10_000);
const LOAD_DEADLINE: Span = Span::from_millis(60_000);
/// Between two attempts after "not now".
const AGAIN_US: u64 = 100_000;
/// How long nginx takes to notice that a connection was refused or broken.
const BROKEN_US: u64 = 1_000;

/// A batch of orders is loaded over another, and found again, within that long.
const RELOAD_US: u64 = 2_000_000;

/// A moment in a client's life.
#[derive(Clone, Copy, Debug)]
pub enum Wake {
    /// It has thought enough and asks the next thing.
    Next { client: usize },
    /// It sends what it has once more.
    Again { client: usize, attempt: ClientId },
    /// nginx has waited long enough for this attempt.
    TimedOut { client: usize, attempt: ClientId },
}

/// The request that a client waits for.
pub struct Call {
    pub record: usize,
    attempt: ClientId,
    pod: usize,
    /// An attempt was sent on and its end is not known.
    uncertain: bool,
}

pub struct Clients {
    pub shop: Shop,
    pub workload: Workload,
    calls: Vec<Option<Call>>,
    /// The attempts that are still waited for.
    waiting: HashMap<ClientId, usize>,
    attempts: u64,
    /// Reads made from now on are the last ones.
    pub closing: bool,
    idle: Vec<bool>,
}

impl Clients {
    pub fn new(scenario: &Scenario, rng: &mut ChaCha8Rng) -> Self {
        Self {
            shop: Shop::default(),
            workload: Workload::new(&scenario.plan(), rng),
            calls: (0..scenario.clients).map(|_| None).collect(),
            waiting: HashMap::new(),
            attempts: 0,
            closing: false,
            idle: vec![false; scenario.clients],
        }
    }

    /// Whether nobody asks or waits for anything any more.
    pub fn all_idle(&self) -> bool {
        self.idle.iter().all(|idle| *idle)
    }

    /// Requests that wait for their end, for a report.
    pub fn stuck(&self) -> Vec<String> {
        let show = |call: &Call| {
            let record = &self.shop.history[call.record];
            format!("{:?}, asked at {} µs, {} attempts", record.op, record.call_us, record.attempts)
        };
        self.calls.iter().flatten().map(show).collect()
    }
}

impl World {
    pub fn begin_clients(&mut self) {
        for client in 0..self.clients.calls.len() {
            let at = self.now_us + self.rng.random_range(0..=self.scenario.think_us);
            self.clients.idle[client] = false;
            self.at(at, Event::Client(Wake::Next { client }));
        }
    }

    /// Has every client read everything back.
    pub fn read_everything(&mut self) {
        self.clients.closing = true;
        self.clients.workload.read_everything(&self.clients.shop);
        self.begin_clients();
    }

    pub fn client_wakes(&mut self, wake: Wake) {
        match wake {
            Wake::Next { client } => self.ask(client),
            Wake::Again { client, attempt } => {
                if self.clients.calls[client].as_ref().is_some_and(|call| call.attempt == attempt) {
                    self.attempt(client);
                }
            }
            Wake::TimedOut { client, attempt } => {
                if self.clients.waiting.remove(&attempt).is_none() {
                    return;
                }
                let Some(call) = &mut self.clients.calls[client] else { return };
                assert_eq!(call.attempt, attempt, "a client waits for its latest attempt only");
                call.uncertain = true;
                let pod = call.pod;
                let at = self.now_us + self.client_delay_us();
                self.at(at, Event::ToPod { pod, client: attempt, gone: true });
                self.attempt(client);
            }
        }
    }

    fn ask(&mut self, client: usize) {
        let Clients { shop, workload, closing, .. } = &mut self.clients;
        let quiet = self.weather.connected(self.now_us, self.now_us + RELOAD_US);
        let Some(planned) = workload.next(client, shop, quiet, &mut self.rng) else {
            self.clients.idle[client] = true;
            return;
        };
        let key = planned.key.unwrap_or_else(|| fresh_key(shop, &mut self.rng, &planned));
        shop.keys[key].busy = true;
        let Planned { op, target, .. } = planned;
        shop.history.push(Record {
            client,
            op,
            target,
            key,
            call_us: self.now_us,
            ret_us: None,
            outcome: None,
            attempts: 0,
            calm: false,
            connected: false,
            repeats: shop.keys[key].done,
            last: *closing,
        });
        let record = shop.history.len() - 1;
        // No attempt has that number: the first one is made just below.
        let call = Call { record, attempt: ClientId(0), pod: 0, uncertain: false };
        self.clients.calls[client] = Some(call);
        self.attempt(client);
    }

    fn client_delay_us(&mut self) -> u64 {
        self.rng.random_range(50..300)
    }

    /// Sends a client's request to some pod, not to the one that it was sent to last.
    fn attempt(&mut self, client: usize) {
        self.clients.attempts += 1;
        let attempt = ClientId(self.clients.attempts);
        let pods = self.pods.len();
        let draw = self.rng.random_range(0..pods);
        let another = self.rng.random_range(1..pods.max(2));
        let call = self.clients.calls[client].as_mut().expect("a client that sends has a request");
        let record = &mut self.clients.shop.history[call.record];
        record.attempts += 1;
        call.pod = if record.attempts == 1 { draw } else { (call.pod + another) % pods };
        call.attempt = attempt;
        let pod = call.pod;
        // A batch takes longer than nginx allows a request.
        let patience_us =
            if record.op.is_load() { LOAD_DEADLINE.0 + 1_000_000 } else { self.scenario.proxy_timeout_us };
        self.clients.waiting.insert(attempt, client);
        let at = self.now_us + self.client_delay_us();
        self.at(at, Event::ToPod { pod, client: attempt, gone: false });
        self.at(self.now_us + patience_us, Event::Client(Wake::TimedOut { client, attempt }));
    }

    /// A request, or the news that its client went away, arrives at a pod.
    pub fn client_input(&mut self, pod: usize, client: ClientId, gone: bool) {
        if gone {
            self.input(pod, Input::Gone { client });
            return;
        }
        let Some(&who) = self.clients.waiting.get(&client) else { return };
        if !self.is_up(pod) {
            self.broken(who, client, false);
            return;
        }
        let call = self.clients.calls[who].as_ref().expect("whoever is waited for has a request");
        let shop = &self.clients.shop;
        let record = &shop.history[call.record];
        let request = Request { op: record.op.clone(), key: shop.keys[record.key].id };
        self.say(|| format!("c{who} asks p{pod} as {client:?}: {:?} {}", record.op, request.key));
        let wait = if record.op.is_load() { LOAD_DEADLINE } else { DEADLINE };
        let deadline = self.pods[pod].clock.read(self.now_us) + wait;
        self.input(pod, Input::Request { client, request, deadline });
    }

    /// The connection of an attempt was refused, or broke after the request was sent.
    fn broken(&mut self, client: usize, attempt: ClientId, sent: bool) {
        self.clients.waiting.remove(&attempt);
        let Some(call) = &mut self.clients.calls[client] else { return };
        call.uncertain |= sent;
        let at = self.now_us + BROKEN_US;
        self.at(at, Event::Client(Wake::Again { client, attempt }));
    }

    /// All connections to a pod that died break.
    pub fn pod_died(&mut self, pod: usize) {
        for client in 0..self.clients.calls.len() {
            let Some(call) = &self.clients.calls[client] else { continue };
            let attempt = call.attempt;
            if call.pod == pod && self.clients.waiting.contains_key(&attempt) {
                self.broken(client, attempt, true);
            }
        }
    }

    pub fn reply(&mut self, pod: usize, attempt: ClientId, outcome: Outcome) {
        self.say(|| format!("p{pod} tells {attempt:?}: {outcome:?}"));
        let Some(client) = self.clients.waiting.remove(&attempt) else { return };
        let once = {
            let Some(call) = &mut self.clients.calls[client] else { return };
            assert_eq!(call.pod, pod, "an answer from a pod that was not asked");
            call.uncertain |= outcome == Outcome::Unknown;
            !call.uncertain
        };
        match outcome {
            Outcome::Done(_) | Outcome::Refused(_) => self.end(client, outcome),
            Outcome::Overloaded | Outcome::Unavailable
                if once && !self.clients.closing && self.rng.random_bool(0.5) =>
            {
                self.end(client, outcome);
            }
            Outcome::Overloaded | Outcome::Unavailable | Outcome::Unknown => {
                self.at(self.now_us + AGAIN_US, Event::Client(Wake::Again { client, attempt }));
            }
        }
    }

    fn end(&mut self, client: usize, outcome: Outcome) {
        let Some(call) = self.clients.calls[client].take() else { return };
        let Clients { shop, workload, closing, .. } = &mut self.clients;
        let record = &mut shop.history[call.record];
        record.calm = self.weather.calm(record.call_us, self.now_us);
        record.connected = self.weather.connected(record.call_us, self.now_us);
        record.ret_us = Some(self.now_us);
        let key = &mut shop.keys[record.key];
        key.busy = false;
        if matches!(outcome, Outcome::Done(_)) && key.done.is_none() {
            key.done = Some(call.record);
        }
        record.outcome = Some(outcome);
        workload.ended(call.record, shop, &mut self.rng);
        let think = if *closing { 0 } else { self.scenario.think_us };
        let at = self.now_us + self.rng.random_range(0..=think);
        self.at(at, Event::Client(Wake::Next { client }));
    }
}
