//! The closed loop: each client sends, waits for the answer, and sends again. No client ever retries.
//!
//! All clients share one thread, so what they count needs no lock, and the load generator takes no more
//! of the machine than it must.

use super::Random;
use super::mix::{Kind, Mix};
use super::prepare::Shop;
use crate::cli::http::{Broken, Connection, Target, field};
use hdrhistogram::Histogram;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::LocalSet;

/// Latencies are kept up to this, in microseconds, with three digits: longer than any answer is awaited.
const LATENCY_US_MAX: u64 = 100_000_000;

/// What a run counted.
#[derive(Debug)]
pub struct Tally {
    /// Checkouts answered 200 while the clock ran.
    pub committed: u64,
    /// And after it, by requests that were on their way.
    pub committed_late: u64,
    /// Edits and reads answered 200.
    pub others: u64,
    /// Everything else, by code.
    pub errors: BTreeMap<String, u64>,
    /// Orders whose checkout may or may not have taken effect.
    pub open: Vec<usize>,
    pub latency_us: Histogram<u64>,
    /// The longest time in which no client was answered anything but an error of the server.
    pub silence: Duration,
    /// How long the clock ran: less than was asked for where the orders ran out.
    pub elapsed: Duration,
    pub ran_out: bool,
}

struct Run {
    shop: Rc<Shop>,
    mix: Mix,
    next_order: Cell<usize>,
    started: Instant,
    until: Instant,
    last_answer: Cell<Instant>,
    tally: RefCell<Tally>,
}

/// Runs all clients for `duration` and returns what they counted.
///
/// # Errors
/// Where the histogram cannot be made.
pub async fn run(
    shop: &Rc<Shop>,
    mix: Mix,
    targets: &[Target],
    clients: usize,
    duration: Duration,
) -> anyhow::Result<Tally> {
    let tally = Tally {
        committed: 0,
        committed_late: 0,
        others: 0,
        errors: BTreeMap::new(),
        open: Vec::new(),
        latency_us: Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?,
        silence: Duration::ZERO,
        elapsed: duration,
        ran_out: false,
    };
    let started = Instant::now();
    let run = Rc::new(Run {
        shop: Rc::clone(shop),
        mix,
        next_order: Cell::new(0),
        started,
        until: started + duration,
        last_answer: Cell::new(started),
        tally: RefCell::new(tally),
    });
    let local = LocalSet::new();
    for client in 0..clients {
        let run = Rc::clone(&run);
        let target = targets[client % targets.len()].clone();
        local.spawn_local(async move { run.client(&target).await });
    }
    local.await;
    let run = Rc::into_inner(run).expect("all clients have ended");
    let mut tally = run.tally.into_inner();
    let end = run.until.min(started + tally.elapsed);
    tally.silence = tally.silence.max(end.saturating_duration_since(run.last_answer.get()));
    Ok(tally)
}

impl Run {
    async fn client(&self, target: &Target) {
        let mut connection = Connection::new(target);
        let mut random = Random::seeded();
        // An order to edit, made when the mix first asks for one.
        let mut cart: Option<String> = None;
        while Instant::now() < self.until {
            match self.mix.pick(&mut random) {
                Kind::Checkout => {
                    let order = self.next_order.get();
                    let Some(id) = self.shop.orders.get(order) else { return self.run_out() };
                    self.next_order.set(order + 1);
                    let request = target.request("POST", &format!("/orders/checkout/{id}"), None);
                    let sent = Instant::now();
                    let answer = connection.send(&request).await;
                    self.count_checkout(order, sent, answer.map(|a| (a.status, code(a.status, a.body))));
                }
                Kind::Edit => {
                    let path = match &cart {
                        Some(cart) => format!("/orders/addItem/{cart}/{}/1", random.of(&self.shop.items)),
                        None => format!("/orders/create/{}", random.of(&self.shop.users)),
                    };
                    let answer = connection.send(&target.request("POST", &path, None)).await;
                    if let (None, Ok(answer)) = (&cart, &answer) {
                        let body = String::from_utf8_lossy(answer.body);
                        cart = field(&body, "order_id").map(str::to_owned);
                    }
                    self.count_other(answer.map(|a| (a.status, code(a.status, a.body))));
                }
                Kind::Read => {
                    let path = match random.below(3) {
                        0 => format!("/stock/find/{}", random.of(&self.shop.items)),
                        1 => format!("/payment/find_user/{}", random.of(&self.shop.users)),
                        _ => format!("/orders/find/{}", random.of(&self.shop.orders)),
                    };
                    let answer = connection.send(&target.request("GET", &path, None)).await;
                    self.count_other(answer.map(|a| (a.status, code(a.status, a.body))));
                }
            }
        }
    }

    /// There is no order left: the clock stops here.
    fn run_out(&self) {
        let mut tally = self.tally.borrow_mut();
        if !tally.ran_out {
            tally.ran_out = true;
            tally.elapsed = self.started.elapsed();
        }
    }

    fn count_checkout(&self, order: usize, sent: Instant, answer: Result<(u16, Option<String>), Broken>) {
        let now = Instant::now();
        let mut tally = self.tally.borrow_mut();
        match answer {
            Ok((200, _)) => {
                if now <= self.until {
                    tally.committed += 1;
                } else {
                    tally.committed_late += 1;
                }
                let us = u64::try_from((now - sent).as_micros()).unwrap_or(u64::MAX);
                tally.latency_us.saturating_record(us);
                self.answered(&mut tally, now);
            }
            // A refusal means that nothing changed, as do 429 and 503.
            Ok((status, code)) if status < 500 || status == 503 => {
                *tally.errors.entry(code.unwrap_or_else(|| format!("http_{status}"))).or_default() += 1;
                if status < 500 {
                    self.answered(&mut tally, now);
                }
            }
            Ok((status, code)) => {
                *tally.errors.entry(code.unwrap_or_else(|| format!("http_{status}"))).or_default() += 1;
                tally.open.push(order);
            }
            Err(broken) => {
                *tally.errors.entry(broken.word().to_owned()).or_default() += 1;
                tally.open.push(order);
            }
        }
    }

    fn count_other(&self, answer: Result<(u16, Option<String>), Broken>) {
        let now = Instant::now();
        let mut tally = self.tally.borrow_mut();
        match answer {
            Ok((200, _)) => {
                tally.others += 1;
                self.answered(&mut tally, now);
            }
            Ok((status, code)) => {
                *tally.errors.entry(code.unwrap_or_else(|| format!("http_{status}"))).or_default() += 1;
            }
            Err(broken) => *tally.errors.entry(broken.word().to_owned()).or_default() += 1,
        }
    }

    fn answered(&self, tally: &mut Tally, now: Instant) {
        let now = now.min(self.until);
        tally.silence = tally.silence.max(now.saturating_duration_since(self.last_answer.get()));
        self.last_answer.set(now);
    }
}

/// The stable word of an answer that is not 200.
fn code(status: u16, body: &[u8]) -> Option<String> {
    if status == 200 {
        return None;
    }
    let body = String::from_utf8_lossy(body);
    field(&body, "code").map(str::to_owned)
}
