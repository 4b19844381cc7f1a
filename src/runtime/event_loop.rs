//! The loop: wait, drain, read the clock, step, persist, send, reply.
//!
//! It runs on a thread of its own. It never waits for the network, only for its inbox, the time, and
//! the disk. Load makes its rounds larger, not its queues longer: all that came in during one round's
//! fsync is the next round.

use super::clock::Clock;
use super::faults::SlowDisk;
use super::handle::{Event, Handle};
use super::news::News;
use super::persist::Writers;
use super::stores::{MODULES, Stores};
use crate::exit;
use crate::fabric::{Admitted, Links};
use crate::failpoint::{self, hit};
use crate::modules::request::{Answer, Outcome, Refusal, Request};
use crate::node::{self, ClientId, Commit, Cost, Input, Message, Node, Replace, Round, Status};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use kassa_protocols::ids::{OpId, PodId, Replacement};
use kassa_protocols::time::{Span, Time};
use kassa_storage::ReadError;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};
use tracing::info;

/// Inputs of one round. More would make the first of them wait for the last; a round of this many
/// already costs far more than its fsync.
const INPUTS_MAX: usize = 4_096;
/// What the pod says of itself to health checks is looked at this often.
const LOOK_EVERY: Span = Span::from_millis(50);
/// After a round that nothing came into, the loop rests for at least this long, even if the node
/// wants to be woken at once again: it must not keep a core busy.
const REST_MIN: Span = Span(200);

/// Why a pod's logs could not be read back.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error("{0}")]
    Read(#[from] ReadError),
    #[error("{0}")]
    Log(String),
}

/// A node that has read back what its stores hold.
pub struct Recovered {
    node: Node,
    me: PodId,
    stores: Stores,
}

impl Recovered {
    /// Makes the node of `config` from what `stores` hold.
    ///
    /// # Errors
    /// If a log cannot be read or does not decode. The pod must not vote then.
    pub fn read(config: node::Config, stores: Stores, clock: &Clock) -> Result<Self, RecoverError> {
        let me = config.me;
        let mut node = Node::new(config, &stores, clock.now());
        for module in MODULES {
            for record in stores.of(module).log() {
                let (position, record) = record?;
                let recovered = node.recover(module, position, &record, &stores);
                recovered.map_err(|error| RecoverError::Log(error.to_string()))?;
            }
        }
        node.recovered(clock.now(), &stores);
        Ok(Self { node, me, stores })
    }

    /// The disks that were replaced, as far as this pod knows; and whether its own was.
    #[must_use]
    pub fn replaced(&self) -> (BTreeMap<PodId, Replacement>, bool) {
        (self.node.replaced_disks().clone(), self.node.is_replaced())
    }

    /// Starts the loop over `inbox`, which `handle` fills, on a thread of its own. Replies are handed
    /// to their askers on the current tokio runtime. `disk` is how slow it is made to be; `lock` is held until the
    /// stores are closed.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(
        self,
        handle: Handle,
        inbox: Receiver<Event>,
        links: Links,
        disk: SlowDisk,
        lock: File,
    ) -> io::Result<JoinHandle<()>> {
        let writers = Writers::start(self.stores.clone(), disk)?;
        let (replies, batches) = mpsc::unbounded_channel();
        tokio::spawn(hand_out(batches));
        let news = News::new(self.me);
        let event_loop = EventLoop {
            node: self.node,
            me: self.me,
            stores: self.stores,
            writers,
            links,
            clock: handle.clock(),
            handle,
            inbox,
            clients: HashMap::new(),
            replies,
            own_frames: VecDeque::new(),
            news,
            look_at: Time(0),
            forced: Forced::default(),
        };
        std::thread::Builder::new().name("kassa-loop".to_owned()).spawn(move || {
            event_loop.run();
            drop(lock);
        })
    }
}

type Replies = Vec<(oneshot::Sender<Outcome>, Outcome)>;

/// Wakes a round's askers from within the runtime: one wake-up from outside a round, not one a client.
async fn hand_out(mut batches: mpsc::UnboundedReceiver<Replies>) {
    while let Some(batch) = batches.recv().await {
        for (reply, outcome) in batch {
            // An error means that the client went away.
            let _ = reply.send(outcome);
        }
    }
}

struct EventLoop {
    node: Node,
    me: PodId,
    stores: Stores,
    writers: Writers,
    links: Links,
    clock: Clock,
    handle: Handle,
    inbox: Receiver<Event>,
    clients: HashMap<ClientId, oneshot::Sender<Outcome>>,
    /// As many are in it at a time as requests are held, which the node bounds.
    replies: mpsc::UnboundedSender<Replies>,
    /// What the node said to itself in the last round.
    own_frames: VecDeque<Vec<Message>>,
    news: News,
    look_at: Time,
    forced: Forced,
}

/// What was made durable since the pod started.
#[derive(Clone, Copy, Debug, Default)]
struct Forced {
    fsyncs: u64,
    bytes: u64,
}

impl Forced {
    fn count(&mut self, commits: &[Commit]) {
        for commit in commits {
            self.fsyncs += u64::from(commit.sync);
            let log = commit.log.as_ref().map_or(0, |(_, record)| record.len());
            let tables = commit
                .tables
                .iter()
                .map(|(_, (key, value))| key.len() + value.as_ref().map_or(0, |v| v.len()));
            self.bytes += (log + tables.sum::<usize>()) as u64;
        }
    }
}

impl EventLoop {
    fn run(mut self) {
        self.handle.readiness().open();
        let mut events = Vec::new();
        let mut idle = false;
        loop {
            self.wait(&mut events, idle);
            // After the drain: what came in while this pod was stopped is judged by the time it is now.
            let now = self.clock.now();
            idle = self.own_frames.is_empty() && events.is_empty();
            if !self.take_in(now, events.drain(..)) {
                break;
            }
            self.node.tick(now, &self.stores);
            let round = self.node.flush(now, &self.stores);
            self.follow_disks();
            self.carry_out(round);
            self.look(now);
        }
        self.handle.readiness().close("the pod is stopping");
        // Those who asked learn that the outcome is not known, or that nothing was done.
        self.inbox.try_iter().for_each(drop);
    }

    /// Waits until there is something to do, and takes what is there, up to a bound.
    fn wait(&self, events: &mut Vec<Event>, idle: bool) {
        if self.own_frames.is_empty() {
            let mut until = self.node.next_wakeup().min(self.look_at);
            if idle {
                until = until.max(self.clock.now() + REST_MIN);
            }
            match self.inbox.recv_deadline(self.clock.instant(until)) {
                Ok(event) => events.push(event),
                Err(RecvTimeoutError::Timeout) => {}
                // Nobody is left who could ask: the same as being told.
                Err(RecvTimeoutError::Disconnected) => events.push(Event::Stop),
            }
        }
        events.extend(self.inbox.try_iter().take(INPUTS_MAX - events.len()));
    }

    /// Steps the node through a round's inputs; `false` if the loop is to end.
    fn take_in(&mut self, now: Time, events: impl Iterator<Item = Event>) -> bool {
        // First of all: nothing is asked anew on behalf of a client that is gone.
        for client in self.handle.take_gone() {
            if self.clients.remove(&client).is_some() {
                self.node.step(now, Input::Gone { client }, &self.stores);
            }
        }
        while let Some(messages) = self.own_frames.pop_front() {
            self.step(now, Input::Frame { from: self.me, messages });
        }
        for event in events {
            let input = match event {
                Event::Ask { client, request, deadline, reply } => {
                    // Whoever is gone by now asks for nothing any more.
                    if reply.is_closed() {
                        continue;
                    }
                    self.clients.insert(client, reply);
                    Input::Request { client, request, deadline }
                }
                Event::Fabric(event) => match self.links.admit(event) {
                    Some(Admitted::Frame { from, messages }) => Input::Frame { from, messages },
                    Some(Admitted::Link { peer, up }) => {
                        if up {
                            hit("link.up");
                        }
                        Input::Link { peer, up }
                    }
                    // What this pod might still say would be taken for what that disk says.
                    Some(Admitted::Replaced { why }) => exit::refused(&why),
                    None => continue,
                },
                Event::Status { reply } => {
                    // An error means that nobody waits for it any more.
                    let _ = reply.send(self.status());
                    continue;
                }
                Event::Replace { pod, client, deadline, reply } => {
                    match self.node.replace(pod, self.links.waiting(pod)) {
                        Ok(Replace::Ask(op)) => {
                            self.clients.insert(client, reply);
                            // Asked again it is done once: the command names both disks.
                            let request = Request { op, key: OpId(u128::from(client.0)) };
                            Input::Request { client, request, deadline }
                        }
                        Ok(Replace::Done(replacement)) => {
                            let _ = reply.send(Outcome::Done(Answer::Replaced(replacement)));
                            continue;
                        }
                        Err(why) => {
                            let _ = reply.send(Outcome::Refused(Refusal::NotReplaced(why)));
                            continue;
                        }
                    }
                }
                Event::Stop => return false,
            };
            self.step(now, input);
        }
        true
    }

    fn step(&mut self, now: Time, input: Input) {
        self.node.step(now, input, &self.stores);
        self.follow_disks();
    }

    /// Of a disk that was replaced nothing more is taken in; a pod whose own was says nothing more.
    fn follow_disks(&mut self) {
        for (pod, replacement) in self.node.take_replaced() {
            if pod == self.me {
                exit::refused("another disk has taken the place of this pod's, which counts no more");
            }
            info!(%pod, disk = %replacement.disk, "its disk was replaced");
            self.links.replaced(pod, replacement);
        }
    }

    /// **Persist before send**: the one place where what a round says leaves the pod.
    ///
    /// Early frames promise nothing about this pod's disk, and replies rest on what earlier rounds made
    /// durable. Everything else leaves when the round's commits are on the disk.
    fn carry_out(&mut self, round: Round) {
        let Round { early, commits, late, replies } = round;
        let (leaves_early, leaves_late) = (self.leaves(&early), self.leaves(&late));
        hit_if(leaves_early, "early.before");
        self.send(early, "early.between");
        hit_if(leaves_early, "early.after");
        let answers = !replies.is_empty();
        hit_if(answers, "replies.before");
        self.reply(replies);
        hit_if(answers, "replies.after");
        let copied = failpoint::ENABLED && late.iter().flat_map(|(_, messages)| messages).any(ends_a_part);
        hit_if(copied, "copy.before-switch");
        self.forced.count(&commits);
        self.writers.persist(commits);
        hit_if(copied, "copy.after-switch");
        hit_if(leaves_late, "late.before");
        self.send(late, "late.between");
        hit_if(leaves_late, "late.after");
    }

    /// What the node says of itself, and what its rounds have cost.
    fn status(&self) -> Status {
        let (sent, forced) = (self.links.sent(), self.forced);
        let cost = Cost {
            frames: sent.frames,
            messages: sent.messages,
            sent_bytes: sent.bytes,
            fsyncs: forced.fsyncs,
            written_bytes: forced.bytes,
        };
        Status { cost, ..self.node.status() }
    }

    /// Whether any of these frames are for others.
    fn leaves(&self, frames: &[(PodId, Vec<Message>)]) -> bool {
        failpoint::ENABLED && frames.iter().any(|(to, _)| *to != self.me)
    }

    fn send(&mut self, frames: Vec<(PodId, Vec<Message>)>, between: &str) {
        let mut sent = false;
        for (to, messages) in frames {
            if to == self.me {
                self.own_frames.push_back(messages);
            } else {
                hit_if(sent, between);
                self.links.send(to, &messages);
                sent = true;
            }
        }
    }

    fn reply(&mut self, replies: Vec<(ClientId, Outcome)>) {
        let known = replies
            .into_iter()
            .filter_map(|(client, outcome)| self.clients.remove(&client).map(|reply| (reply, outcome)));
        let batch: Replies = known.collect();
        if !batch.is_empty() {
            // An error means that the runtime is shutting down, and its clients with it.
            let _ = self.replies.send(batch);
        }
    }

    /// Publishes what the pod says of itself, now and then.
    fn look(&mut self, now: Time) {
        if now < self.look_at {
            return;
        }
        self.look_at = now + LOOK_EVERY;
        let status = self.node.status();
        self.news.tell(&status);
        self.handle.readiness().stand_aside(status.aside);
        if self.news.readiness_changed(&status) {
            self.handle.readiness().publish(status.not_ready);
        }
    }
}

fn hit_if(holds: bool, site: &str) {
    if holds {
        hit(site);
    }
}

/// Whether a message says that a part of a copy was taken; the last one switches it in.
const fn ends_a_part(message: &Message) -> bool {
    matches!(message, Message::Copied { next: Some(_), .. })
}
