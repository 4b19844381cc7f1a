//! The clients: closed loops that ask, write down, and ask again until they know.
//!
//! A client gives up only where the contract lets it: an answer that says "nothing was done" to a request
//! that was sent once. Everything else is asked again under its key until its outcome is known.

use super::judge::Finished;
use super::scene::{Known, Scene, Sent};
use super::tally::Tally;
use super::weather::Weather;
use super::wire;
use crate::cli::http::{Broken, Connection, Kept, Target, field};
use crate::modules::request::Outcome;
use rand::RngExt;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Clients of one scene.
pub const CLIENTS_A_SCENE: usize = 4;
/// Between two requests of a client: pods, nginx and the checks share the machine.
const THINK_MS_MAX: u64 = 16;
/// The same in calm that does not suffice for reading back so many scenes.
const THINK_BEHIND_MS_MAX: u64 = 120;
const RESTING_MANY: usize = 100;
/// Between two attempts at one request.
const AGAIN_MS: std::ops::Range<u64> = 20..120;
/// One attempt; nginx and the pods say 504 earlier, unless they are stopped.
const ATTEMPT_WAIT: Duration = Duration::from_secs(13);
const LOAD_WAIT: Duration = Duration::from_secs(62);
/// A batch is loaded, and its orders found, within that long: only while no fault is due.
const LOADS_WITHIN_US: u64 = 2_000_000;
/// A scene whose clients have left.
pub type SceneRef = Rc<RefCell<Scene>>;

/// What all clients share.
pub struct Load {
    pub seed: u64,
    /// nginx, or each pod where there is none.
    pub fronts: Vec<Target>,
    pub pods: Vec<Target>,
    pub behind_nginx: bool,
    pub started: Instant,
    pub weather: Rc<Weather>,
    pub tally: RefCell<Tally>,
    /// No new requests are begun.
    pub stops: Cell<bool>,
    /// Requests are given up: the run ends without their outcome.
    pub gives_up: Cell<bool>,
    stalls: Vec<RefCell<Option<SceneRef>>>,
    scenes: Cell<u64>,
    /// A scene has the ids of batches until its last reads are done.
    pub batch_taken: Cell<bool>,
    pub resting: RefCell<VecDeque<SceneRef>>,
    /// Where scenes go that have been read to the end.
    pub judge: Sender<Finished>,
    pub known: RefCell<Vec<Known>>,
    /// Answers that no contract knows.
    pub strange: RefCell<Vec<String>>,
    /// Told when there is something in `strange`.
    pub news: Notify,
    /// Clients that have not left yet, and scenes that are not read to the end.
    pub busy_clients: Cell<usize>,
    pub open_scenes: Cell<usize>,
    /// Scenes that were given to the judge.
    pub handed_over: Cell<u64>,
}

impl Load {
    #[must_use]
    pub fn new(
        seed: u64,
        (fronts, behind_nginx): (Vec<Target>, bool),
        pods: Vec<Target>,
        clients: usize,
        weather: Rc<Weather>,
        judge: Sender<Finished>,
    ) -> Self {
        Self {
            seed,
            fronts,
            pods,
            behind_nginx,
            started: Instant::now(),
            weather,
            tally: RefCell::default(),
            stops: Cell::new(false),
            gives_up: Cell::new(false),
            stalls: (0..clients.div_ceil(CLIENTS_A_SCENE)).map(|_| RefCell::new(None)).collect(),
            scenes: Cell::new(0),
            batch_taken: Cell::new(false),
            resting: RefCell::default(),
            judge,
            known: RefCell::default(),
            strange: RefCell::default(),
            news: Notify::new(),
            busy_clients: Cell::new(clients),
            open_scenes: Cell::new(0),
            handed_over: Cell::new(0),
        }
    }

    #[must_use]
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// One client, until the load stops.
    pub async fn client(self: Rc<Self>, number: usize) {
        let (stall, slot) = (number / CLIENTS_A_SCENE, number % CLIENTS_A_SCENE);
        let mut caller = Caller::new(&self.fronts, number);
        while !self.stops.get() {
            let scene = self.join(stall);
            while !self.stops.get() {
                let quiet = self.weather.stays_calm(self.now_us(), LOADS_WITHIN_US);
                let sent = {
                    let mut scene = scene.borrow_mut();
                    let Scene { workload, shop, rng, .. } = &mut *scene;
                    let planned = workload.next(slot, shop, quiet, rng);
                    planned.map(|planned| scene.begin(slot, planned, self.now_us(), false))
                };
                let Some(sent) = sent else {
                    scene.borrow_mut().is_over = true;
                    break;
                };
                self.ask(&mut caller, &scene, sent, true).await;
                tokio::time::sleep(Duration::from_millis(self.think_ms())).await;
            }
            self.leave(&scene);
        }
        self.busy_clients.set(self.busy_clients.get() - 1);
        self.news.notify_one();
    }

    /// How long a client waits before its next request.
    fn think_ms(&self) -> u64 {
        let waiting = self.resting.borrow().len();
        let now_us = self.now_us();
        let is_behind = waiting > RESTING_MANY && self.weather.is_calm(now_us, now_us);
        let most = if is_behind { THINK_BEHIND_MS_MAX } else { THINK_MS_MAX };
        rand::rng().random_range(0..=most)
    }

    fn join(&self, stall: usize) -> SceneRef {
        let mut current = self.stalls[stall].borrow_mut();
        if current.as_ref().is_none_or(|scene| scene.borrow().is_over) {
            let no = self.scenes.get();
            self.scenes.set(no + 1);
            let may_load = !self.batch_taken.get() && self.weather.stays_calm(self.now_us(), LOADS_WITHIN_US);
            self.batch_taken.set(self.batch_taken.get() || may_load);
            self.open_scenes.set(self.open_scenes.get() + 1);
            let scene = Scene::draw(self.seed, no, CLIENTS_A_SCENE, may_load);
            *current = Some(Rc::new(RefCell::new(scene)));
        }
        let scene = current.as_ref().expect("it was set just above");
        scene.borrow_mut().present += 1;
        Rc::clone(scene)
    }

    fn leave(&self, scene: &SceneRef) {
        let is_left = {
            let mut scene = scene.borrow_mut();
            scene.present -= 1;
            // Whoever comes later does not find it any more.
            scene.is_over |= self.stops.get();
            scene.present == 0 && scene.is_over
        };
        if is_left && !self.gives_up.get() {
            scene.borrow_mut().shop.disk_lost |= self.weather.disk_lost.get();
            let Scene { no, plan, ref shop, .. } = *scene.borrow();
            let storms = self.weather.storms();
            // The judge ends only with the run.
            let _ = self.judge.send(Finished { no, plan, shop: shop.clone(), early: true, storms });
            self.resting.borrow_mut().push_back(Rc::clone(scene));
        }
    }

    /// Sends a request until its end is known.
    pub async fn ask(&self, caller: &mut Caller, scene: &SceneRef, sent: Sent, may_give_up: bool) {
        let call_us = self.now_us();
        let patience = if sent.op.is_load() { LOAD_WAIT } else { ATTEMPT_WAIT };
        let mut uncertain = false;
        let mut attempts = 0;
        self.tally.borrow_mut().requests += 1;
        let outcome = loop {
            if self.gives_up.get() {
                return;
            }
            attempts += 1;
            let heard = caller.send(&sent, patience).await;
            let outcome = self.heard(&sent, heard, call_us, caller);
            uncertain |= outcome == Some(Outcome::Unknown);
            match outcome {
                Some(outcome @ (Outcome::Done(_) | Outcome::Refused(_))) => break outcome,
                Some(outcome @ (Outcome::Overloaded | Outcome::Unavailable))
                    if may_give_up && !uncertain && rand::rng().random_bool(0.5) =>
                {
                    break outcome;
                }
                Some(Outcome::Overloaded | Outcome::Unavailable | Outcome::Unknown) | None => {}
            }
            caller.turn();
            let again = rand::rng().random_range(AGAIN_MS);
            tokio::time::sleep(Duration::from_millis(again)).await;
        };
        let now_us = self.now_us();
        let mut tally = self.tally.borrow_mut();
        tally.slowest_us = tally.slowest_us.max(now_us - call_us);
        let calm = self.weather.is_calm(call_us, now_us);
        scene.borrow_mut().end(sent.record, outcome, attempts, now_us, calm);
    }

    /// Counts one attempt. Nothing where it was refused its connection, and so did nothing.
    fn heard(
        &self,
        sent: &Sent,
        heard: Result<Kept, Broken>,
        call_us: u64,
        caller: &Caller,
    ) -> Option<Outcome> {
        let now_us = self.now_us();
        let (word, outcome) = match heard {
            Ok(answer) => {
                let code = field(&answer.body, "code").filter(|_| answer.status != 200);
                let word = code
                    .map_or_else(|| answer.status.to_string(), |code| format!("{} {code}", answer.status));
                match wire::outcome(&sent.op, answer.status, &answer.body) {
                    Ok(outcome) => (word, Some(outcome)),
                    Err(strange) => {
                        self.strange.borrow_mut().push(strange);
                        self.news.notify_one();
                        (word, Some(Outcome::Unknown))
                    }
                }
            }
            Err(Broken::Refused) => (Broken::Refused.to_string(), None),
            Err(broken) => (broken.to_string(), Some(Outcome::Unknown)),
        };
        let told = matches!(outcome, Some(Outcome::Done(_) | Outcome::Refused(_)));
        // Who asks a pod itself, and no nginx, has to bear that it sheds.
        if caller.is_direct {
            return outcome;
        }
        let mut tally = self.tally.borrow_mut();
        tally.count(now_us, &word, told);
        if !told && self.behind_nginx && !self.weather.is_severe(call_us, now_us) {
            tally.unexcused(|| {
                let seconds = now_us / 1_000_000;
                format!("at {seconds} s: {} {} was answered {word}, key {}", sent.method, sent.path, sent.key)
            });
        }
        outcome
    }
}

/// One connection, and others to turn to where there is no nginx.
pub struct Caller {
    targets: Vec<Target>,
    at: usize,
    connection: Connection,
    /// It asks pods, past nginx.
    is_direct: bool,
}

impl Caller {
    #[must_use]
    pub fn new(targets: &[Target], number: usize) -> Self {
        let at = number % targets.len();
        let connection = Connection::new(&targets[at]);
        Self { targets: targets.to_vec(), at, connection, is_direct: false }
    }

    /// One that asks each pod in turn.
    #[must_use]
    pub fn direct(pods: &[Target], number: usize) -> Self {
        Self { is_direct: true, ..Self::new(pods, number) }
    }

    /// The next request goes elsewhere, on a new connection.
    pub fn turn(&mut self) {
        self.at = (self.at + 1) % self.targets.len();
        self.connection = Connection::new(&self.targets[self.at]);
    }

    async fn send(&mut self, sent: &Sent, patience: Duration) -> Result<Kept, Broken> {
        let request = self.targets[self.at].request(sent.method, &sent.path, Some(&sent.key));
        match tokio::time::timeout(patience, self.connection.ask(&request)).await {
            Ok(heard) => heard,
            Err(_) => {
                self.turn();
                Err(Broken::TimedOut)
            }
        }
    }
}
