//! One pod: the node, its disk, its inbox and its clock, and the runtime's event loop in miniature.
//!
//! A round is three moments: the inbox is drained and the node stepped; a little later the early
//! frames leave; once the commits are durable the late frames and the replies do. A pod can be stopped
//! at each of them. What the loop may overlap or delay in the binary can only lie between these.

use crate::adapter::{self, ClientId, Commit, Held, Input, Message, Node, Outcome, Replace, Status};
use crate::disk::{Disk, Reached};
use crate::scenario::Scenario;
use kassa::modules::disks::NotReplaced;
use kassa_protocols::ids::{DiskId, Module, PodId, Replacement};
use kassa_protocols::time::Time;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, VecDeque};

/// The CPU time of a round, and of each input in it, in microseconds.
const ROUND_US: u64 = 20;
const INPUT_US: u64 = 5;
/// Inputs waiting at a pod; past it the pod is as good as dead and something is badly wrong.
const INBOX_MAX: usize = 100_000;

/// A pod's monotonic clock: its own start and its own rate.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started_us: u64,
    shows_us: u64,
    per_mille: u64,
}

impl Clock {
    fn start(now_us: u64, rng: &mut ChaCha8Rng) -> Self {
        let per_mille =
            if rng.random_ratio(1, 4) { rng.random_range(500..2_000) } else { rng.random_range(990..1_010) };
        Self { started_us: now_us, shows_us: rng.random_range(0..1_000_000_000), per_mille }
    }

    pub const fn read(&self, now_us: u64) -> Time {
        Time(self.shows_us + (now_us - self.started_us) * self.per_mille / 1_000)
    }

    /// When this clock shows `time` at the earliest; the past is now.
    fn when(&self, time: Time, now_us: u64) -> u64 {
        let Some(ahead) = time.0.checked_sub(self.shows_us) else { return now_us };
        let at = ahead.saturating_mul(1_000).div_ceil(self.per_mille);
        self.started_us.saturating_add(at).max(now_us)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Up,
    Down,
    /// Its disk was found broken: it is never replaced.
    Dead,
    /// Its disk was lost: it runs no node, and waits for an operator's word.
    Waiting,
}

/// Where around the persist of a round a pod is to be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashPoint {
    /// The early frames have left, nothing is written.
    Before,
    /// Some stores are written, some not.
    Amid,
    /// All is durable, no late frame and no reply has left.
    After,
}

enum Stage {
    Computed,
    Persisting,
}

struct Round {
    stage: Stage,
    early: Vec<(PodId, Vec<Message>)>,
    commits: Vec<Commit>,
    late: Vec<(PodId, Vec<Message>)>,
    replies: Vec<(ClientId, Outcome)>,
}

pub struct Pod {
    pub id: PodId,
    pub state: State,
    pub disk: Disk,
    pub disk_id: DiskId,
    /// What was replaced when its disk took the place of a lost one: part of its identity.
    pub joined: BTreeMap<PodId, Replacement>,
    lost: bool,
    pub clock: Clock,
    /// Counts starts, so that events of an earlier life are void.
    pub life: u32,
    pub paused_until_us: u64,
    pub crash_at: Option<CrashPoint>,
    pub fail_persist: bool,
    /// A slow disk takes that many times as long.
    pub slow: u64,
    /// When the loop is next due to look at the clock, if it is waiting.
    pub wake_at_us: Option<u64>,
    /// When the next moment of its round is.
    pub stage_at_us: Option<u64>,
    /// Rounds since the first start.
    pub rounds: u64,
    node: Option<Node>,
    inbox: VecDeque<Input>,
    /// Frames to oneself: the first inputs of the next round, in the order in which they were sent.
    own: VecDeque<Input>,
    round: Option<Round>,
}

/// What a stage of a round leaves for the world to do.
#[derive(Default)]
pub struct Leaves {
    pub frames: Vec<(PodId, Vec<Message>)>,
    pub replies: Vec<(ClientId, Outcome)>,
    /// When the next stage is due.
    pub next_stage_us: Option<u64>,
    /// The pod dies here.
    pub crashes: bool,
}

impl Pod {
    pub fn new(id: PodId, rng: &mut ChaCha8Rng) -> Self {
        Self {
            id,
            state: State::Down,
            disk: Disk::default(),
            disk_id: adapter::first_disks(usize::from(id.0) + 1)[&id],
            joined: BTreeMap::new(),
            lost: false,
            clock: Clock::start(0, rng),
            life: 0,
            paused_until_us: 0,
            crash_at: None,
            fail_persist: false,
            slow: 1,
            wake_at_us: None,
            stage_at_us: None,
            rounds: 0,
            node: None,
            inbox: VecDeque::new(),
            own: VecDeque::new(),
            round: None,
        }
    }

    /// Starts the process on what its disk holds, or finds that it must not.
    pub fn start(&mut self, now_us: u64, scenario: &Scenario, rng: &mut ChaCha8Rng) {
        assert_eq!(self.state, State::Down, "only a pod that is down starts");
        if !self.disk.is_whole() {
            self.state = State::Dead;
            return;
        }
        self.clock = Clock::start(now_us, rng);
        self.life += 1;
        if self.lost {
            self.state = State::Waiting;
            return;
        }
        self.state = State::Up;
        let (joined, now) = (self.joined.clone(), self.clock.read(now_us));
        self.node = Some(adapter::start(self.id, joined, scenario, &self.disk, now));
    }

    /// Its disk is gone, and the next start finds a new one, empty.
    pub fn lose_disk(&mut self, new: DiskId) {
        self.disk = Disk::default();
        self.joined.clear();
        (self.disk_id, self.lost) = (new, true);
    }

    /// Whether its disk is lost and not replaced.
    pub const fn is_lost(&self) -> bool {
        self.lost
    }

    /// It has learnt that its new disk is the one that the cluster knows: the next start joins.
    pub fn join(&mut self, replaced: BTreeMap<PodId, Replacement>) {
        (self.joined, self.lost, self.state) = (replaced, false, State::Down);
    }

    /// What the node would have asked for to replace the disk of `pod`, if it runs.
    pub fn replace(&self, pod: PodId, waiting: DiskId) -> Option<Result<Replace, NotReplaced>> {
        self.node.as_ref().map(|node| node.replace(pod, Some(waiting)))
    }

    pub fn replaced_disks(&self) -> BTreeMap<PodId, Replacement> {
        self.node.as_ref().map(|node| node.replaced_disks().clone()).unwrap_or_default()
    }

    /// Kills the process, with what was under way on its disk; `power` also takes what was not synced.
    pub fn crash(&mut self, power: bool, rng: &mut ChaCha8Rng) {
        self.state = State::Down;
        self.node = None;
        self.inbox.clear();
        self.own.clear();
        self.wake_at_us = None;
        self.stage_at_us = None;
        self.paused_until_us = 0;
        self.crash_at = None;
        self.fail_persist = false;
        if let Some(Round { stage: Stage::Persisting, commits, .. }) = self.round.take() {
            self.leave_partly(&commits, rng);
        }
        if power {
            self.disk.crash(rng);
        }
    }

    /// Leaves the commits of a round that was being persisted as a crash may: each store has a prefix of
    /// its own, and what had to wait for others was not begun before they were durable.
    fn leave_partly(&mut self, commits: &[Commit], rng: &mut ChaCha8Rng) {
        let mut all_durable = true;
        let mut stopped: Vec<Module> = Vec::new();
        for commit in commits {
            let begun = !stopped.contains(&commit.store) && (all_durable || !commit.after_others);
            let reached = match rng.random_range(0..3) {
                0 if begun => Reached::Durable,
                1 if begun => Reached::Written,
                _ => Reached::Nothing,
            };
            all_durable &= reached == Reached::Durable;
            if reached == Reached::Nothing {
                stopped.push(commit.store);
            }
            self.disk.apply_partly(commit, reached);
        }
    }

    pub fn push(&mut self, input: Input) {
        assert!(self.inbox.len() < INBOX_MAX, "{} does not drain its inbox", self.id);
        self.inbox.push_back(input);
    }

    pub const fn is_busy(&self) -> bool {
        self.round.is_some()
    }

    pub fn has_input(&self) -> bool {
        !(self.inbox.is_empty() && self.own.is_empty())
    }

    pub fn status(&self) -> Option<Status> {
        self.node.as_ref().map(Node::status)
    }

    /// When the node wants to be called though nothing came in.
    pub fn next_wakeup_us(&self, now_us: u64) -> u64 {
        let node = self.node.as_ref().expect("only a running pod is asked");
        self.clock.when(node.next_wakeup(), now_us)
    }

    /// Drains the inbox and steps the node; when the early frames leave.
    pub fn begin_round(&mut self, now_us: u64) -> u64 {
        let node = self.node.as_mut().expect("only a running pod has rounds");
        self.wake_at_us = None;
        self.rounds += 1;
        let now = self.clock.read(now_us);
        let mut busy_us = ROUND_US;
        while let Some(input) = self.own.pop_front().or_else(|| self.inbox.pop_front()) {
            busy_us += INPUT_US;
            node.step(now, input, &self.disk);
            for (pod, _) in node.take_replaced() {
                // The fabric hands over nothing more of a disk that was replaced.
                self.inbox.retain(|input| !matches!(input, Input::Frame { from, .. } if *from == pod));
            }
        }
        node.tick(now, &self.disk);
        let round = node.flush(now, &self.disk);
        self.round = Some(Round {
            stage: Stage::Computed,
            early: round.early,
            commits: round.commits,
            late: round.late,
            replies: round.replies,
        });
        now_us + busy_us
    }

    /// Takes the round in progress to its next moment.
    pub fn next_stage(&mut self, now_us: u64, scenario: &Scenario, rng: &mut ChaCha8Rng) -> Leaves {
        let round = self.round.as_mut().expect("a stage belongs to a round");
        match round.stage {
            Stage::Computed => {
                round.stage = Stage::Persisting;
                let frames = std::mem::take(&mut round.early);
                let replies = std::mem::take(&mut round.replies);
                let takes_us = self.slow * persist_us(&round.commits, scenario, rng);
                let crashes = !round.commits.is_empty() && self.crash_at == Some(CrashPoint::Before);
                if crashes {
                    round.commits.clear();
                }
                Leaves { frames, replies, next_stage_us: Some(now_us + takes_us), crashes }
            }
            Stage::Persisting => {
                let writes = !round.commits.is_empty();
                if writes && (self.fail_persist || self.crash_at == Some(CrashPoint::Amid)) {
                    return Leaves { crashes: true, ..Leaves::default() };
                }
                let round = self.round.take().expect("it was there above");
                for commit in &round.commits {
                    self.disk.apply(commit);
                }
                if writes && self.crash_at == Some(CrashPoint::After) {
                    return Leaves { crashes: true, ..Leaves::default() };
                }
                Leaves { frames: round.late, ..Leaves::default() }
            }
        }
    }

    /// What it holds, if it runs and is between two rounds.
    pub fn held(&self) -> Vec<Held> {
        match &self.node {
            Some(node) if self.round.is_none() => node.held(&self.disk),
            _ => Vec::new(),
        }
    }

    pub fn push_own(&mut self, messages: Vec<Message>) {
        self.own.push_back(Input::Frame { from: self.id, messages });
    }
}

fn persist_us(commits: &[Commit], scenario: &Scenario, rng: &mut ChaCha8Rng) -> u64 {
    match commits {
        [] => 0,
        commits if commits.iter().any(|commit| commit.sync) => {
            scenario.fsync_us + rng.random_range(0..=scenario.fsync_us)
        }
        _ => scenario.write_us,
    }
}
