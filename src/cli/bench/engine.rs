//! The load: a closed loop, in which each client sends, waits for the answer and sends again, or an open one, in
//! which requests are due at moments that do not depend on any answer.
//!
//! All clients share one thread, so what they count needs no lock, and the load generator takes no more of the
//! machine than it must.
//!
//! In the open loop, latency is counted from when a request was *due*. If it was sent later, because every
//! connection that is allowed was waiting for an answer, that wait is part of it, as it is for a customer: this is
//! how a stall of the server shows in the percentiles in proportion to how many it would have kept waiting (G. Tene,
//! "How not to measure latency", 2013, calls the lack of it coordinated omission).

use super::client::{Client, RanOut};
use super::mix::Mix;
use super::pace::{Schedule, Timer};
use super::prepare::Shop;
use super::random::Wishes;
use super::settings::{Pace, Settings};
use super::tally::{Asked, Clock, Ended, Offered, Slice, Tally};
use crate::cli::http::Target;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::MissedTickBehavior;

/// How often the caller may look.
const WATCH_EVERY: Duration = Duration::from_millis(100);

/// How far a run has come.
#[derive(Clone, Copy, Debug)]
pub struct Live {
    /// Since the first request.
    pub elapsed: Duration,
    /// Since the clock ran; zero during the warm-up.
    pub counted: Duration,
    /// The last slice that is over.
    pub last: Option<Slice>,
    pub committed: u64,
    pub errors: u64,
}

/// What all clients of a run share.
#[derive(Debug)]
pub struct Run {
    pub(super) shop: Rc<Shop>,
    pub(super) mix: Mix,
    clock: Clock,
    next_order: Cell<usize>,
    wishes: RefCell<Wishes>,
    tally: RefCell<Tally>,
    /// The orders ran out.
    is_over: Cell<bool>,
}

/// Runs the load and returns what was counted; `watch` is called ten times a second meanwhile.
///
/// # Errors
/// Where the system gives no timer.
pub async fn run(shop: &Rc<Shop>, settings: &Settings, mut watch: impl FnMut(Live)) -> anyhow::Result<Tally> {
    let wishes = Wishes::new(settings.skew, shop.items.len())?;
    let clock = Clock::start(settings);
    let run = Rc::new(Run {
        shop: Rc::clone(shop),
        mix: settings.mix,
        clock,
        next_order: Cell::new(0),
        wishes: RefCell::new(wishes),
        tally: RefCell::new(Tally::new(settings, clock)?),
        is_over: Cell::new(false),
    });
    let load = async {
        match settings.pace {
            Pace::Closed => closed(&run, settings).await,
            Pace::Open { rate_per_second } => open(&run, settings, rate_per_second).await?,
        }
        anyhow::Ok(())
    };
    let watched = async {
        tokio::pin!(load);
        let mut ticks = tokio::time::interval(WATCH_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                done = &mut load => return done,
                _ = ticks.tick() => watch(run.live()),
            }
        }
    };
    LocalSet::new().run_until(watched).await?;
    let run = Rc::into_inner(run).expect("all clients have ended");
    let mut tally = run.tally.into_inner();
    tally.close();
    Ok(tally)
}

async fn closed(run: &Rc<Run>, settings: &Settings) {
    let mut clients = JoinSet::new();
    for number in 0..settings.clients {
        let run = Rc::clone(run);
        let mut client = Client::new(&settings.targets[number % settings.targets.len()]);
        clients.spawn_local(async move {
            loop {
                let now = Instant::now();
                if now >= run.clock.until {
                    return;
                }
                if client.act(&run, now).await == Err(RanOut) {
                    return run.run_out();
                }
            }
        });
    }
    while clients.join_next().await.is_some() {}
}

/// Connections that wait for a request, by target. The one used last is used next, so that there are no more than are
/// needed.
#[derive(Debug)]
struct Free {
    targets: Vec<Target>,
    clients: Vec<Vec<Client>>,
    /// Each target has its turn.
    turn: usize,
    /// How many more may be made.
    left: usize,
}

impl Free {
    fn new(settings: &Settings) -> Self {
        let targets = settings.targets.clone();
        let clients = targets.iter().map(|_| Vec::new()).collect();
        Self { targets, clients, turn: 0, left: settings.clients }
    }

    /// One for the target whose turn it is; for another, where it has none and no more may be made.
    fn take(&mut self) -> Option<(usize, Client)> {
        let turn = self.turn;
        self.turn = (turn + 1) % self.targets.len();
        if let Some(client) = self.clients[turn].pop() {
            return Some((turn, client));
        }
        if self.left > 0 {
            self.left -= 1;
            return Some((turn, Client::new(&self.targets[turn])));
        }
        self.clients.iter_mut().enumerate().find_map(|(at, free)| Some((at, free.pop()?)))
    }
}

/// What the connections of an open loop share.
#[derive(Debug)]
struct Arrivals {
    run: Rc<Run>,
    schedule: RefCell<Schedule>,
    offered: RefCell<Offered>,
    free: RefCell<Free>,
    busy: Cell<usize>,
    /// As many are busy as may be.
    is_full: Cell<bool>,
    freed: Notify,
}

/// Sends what is due, when it is due, as long as a connection is free; a connection that becomes free takes what
/// has become due meanwhile by itself.
async fn open(run: &Rc<Run>, settings: &Settings, rate_per_second: f64) -> anyhow::Result<()> {
    let arrivals = Rc::new(Arrivals {
        run: Rc::clone(run),
        schedule: RefCell::new(Schedule::new(run.clock.started, rate_per_second)?),
        offered: RefCell::default(),
        free: RefCell::new(Free::new(settings)),
        busy: Cell::new(0),
        is_full: Cell::new(false),
        freed: Notify::new(),
    });
    let timer = Timer::new()?;
    loop {
        let now = Instant::now();
        let due = arrivals.schedule.borrow().next();
        if now >= run.clock.until || due >= run.clock.until || run.is_over.get() {
            break;
        }
        if due > now {
            timer.sleep_until(due).await?;
            continue;
        }
        let free = arrivals.free.borrow_mut().take();
        match free {
            Some((at, client)) => {
                if let Some(due) = arrivals.take(now) {
                    arrivals.busy.set(arrivals.busy.get() + 1);
                    tokio::task::spawn_local(Arrivals::serve(Rc::clone(&arrivals), at, client, due));
                }
            }
            None => {
                arrivals.is_full.set(true);
                let until = tokio::time::Instant::from_std(run.clock.until);
                // Time that is over is seen above.
                let _ = tokio::time::timeout_at(until, arrivals.freed.notified()).await;
            }
        }
    }
    while arrivals.busy.get() > 0 {
        arrivals.freed.notified().await;
    }
    let arrivals = Rc::into_inner(arrivals).expect("all connections are free");
    run.tally.borrow_mut().offered = Some(arrivals.leave());
    Ok(())
}

impl Arrivals {
    async fn serve(arrivals: Rc<Self>, at: usize, mut client: Client, mut due: Instant) {
        loop {
            if client.act(&arrivals.run, due).await == Err(RanOut) {
                arrivals.run.run_out();
                break;
            }
            let now = Instant::now();
            if now >= arrivals.run.clock.until || arrivals.run.is_over.get() {
                break;
            }
            let Some(next) = arrivals.take(now) else { break };
            if arrivals.is_full.get() && next >= arrivals.run.clock.from {
                arrivals.offered.borrow_mut().waited += 1;
            }
            due = next;
        }
        arrivals.is_full.set(false);
        arrivals.free.borrow_mut().clients[at].push(client);
        arrivals.busy.set(arrivals.busy.get() - 1);
        arrivals.freed.notify_one();
    }

    /// The next request, if it is due.
    fn take(&self, now: Instant) -> Option<Instant> {
        let due = self.schedule.borrow_mut().take(now)?;
        if due >= self.run.clock.from {
            let mut offered = self.offered.borrow_mut();
            offered.due += 1;
            offered.late_max = offered.late_max.max(now - due);
        }
        Some(due)
    }

    /// Counts what was due and not sent when time was over. An end for want of orders leaves nothing behind.
    fn leave(self) -> Offered {
        let mut offered = self.offered.into_inner();
        let mut schedule = self.schedule.into_inner();
        let last = self.run.clock.until.checked_sub(Duration::from_nanos(1)).unwrap_or(self.run.clock.until);
        while !self.run.is_over.get() && schedule.take(last).is_some() {
            offered.due += 1;
            offered.unsent += 1;
        }
        offered
    }
}

impl Run {
    pub(super) fn next_order(&self) -> Option<usize> {
        let order = self.next_order.get();
        (order < self.shop.orders.len()).then(|| {
            self.next_order.set(order + 1);
            order
        })
    }

    pub(super) fn item(&self) -> String {
        self.wishes.borrow_mut().of(&self.shop.items).to_owned()
    }

    pub(super) fn count(&self, asked: Asked, now: Instant, ended: Ended) {
        self.tally.borrow_mut().count(asked, now, ended);
    }

    fn run_out(&self) {
        self.is_over.set(true);
        self.tally.borrow_mut().run_out(Instant::now());
    }

    fn live(&self) -> Live {
        let now = Instant::now();
        let mut tally = self.tally.borrow_mut();
        if !tally.ran_out {
            tally.turn(now);
        }
        Live {
            elapsed: now - self.clock.started,
            counted: now.saturating_duration_since(self.clock.from),
            last: tally.slices.last().copied(),
            committed: tally.committed,
            errors: tally.errors_total(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_their_turns_and_connections_are_used_again() {
        let targets = vec![Target::local(1), Target::local(2)];
        let mut free = Free::new(&Settings::new(targets, 3, Duration::from_secs(1)));
        let mut taken: Vec<(usize, Client)> = (0..3).filter_map(|_| free.take()).collect();
        assert_eq!(taken.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 1, 0]);
        assert!(free.take().is_none(), "no more than three");
        let (at, client) = taken.swap_remove(1);
        free.clients[at].push(client);
        // Whoever's turn it is: that one is free.
        assert_eq!([free.take().map(|(at, _)| at), free.take().map(|(at, _)| at)], [Some(1), None]);
    }
}
