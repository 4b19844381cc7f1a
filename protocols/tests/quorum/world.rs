//! Pods and the links between them, moved one primitive at a time; every primitive ends with a check
//! of every invariant.

use crate::model::{Action, Command, Model};
use crate::pod::{Frame, Pod, Round};
use bytes::Bytes;
use kassa_protocols::ids::{Module, PodId, Shard};
use kassa_protocols::quorum::{Config, Have, Message, Version};
use kassa_protocols::time::{Span, Time};
use std::collections::{BTreeMap, VecDeque};

/// A link is FIFO and at most once; a reset loses what is on it.
#[derive(Default)]
pub struct Link {
    pub queue: VecDeque<Frame>,
    /// Loses everything, without a word.
    pub cut: bool,
}

/// Rounds that a pod begins before its disk has written the first of them.
const BATCHES_MAX: usize = 3;

pub struct World {
    pub now: Time,
    pub pods: Vec<Pod>,
    pub links: BTreeMap<(PodId, PodId), Link>,
    pub model: Model,
    reads: u64,
    /// Raised with every disk that is replaced.
    pub epoch: u32,
}

impl World {
    pub fn new(n: u8, write_quorum: usize) -> Self {
        let replicas: Vec<PodId> = (0..n).map(PodId).collect();
        let pods = replicas.iter().map(|&me| {
            let mut config = Config::majority(Shard::new(Module::Stock, 0), me, 1, replicas.clone());
            config.write_quorum = write_quorum;
            config.read_quorum = usize::from(n) - write_quorum + 1;
            Pod::new(config)
        });
        let links = replicas.iter().flat_map(|&a| replicas.iter().map(move |&b| (a, b)));
        let links = links.filter(|(a, b)| a != b).map(|pair| (pair, Link::default()));
        Self {
            now: Time(1_000_000),
            pods: pods.collect(),
            links: links.collect(),
            model: Model::default(),
            reads: 0,
            epoch: 1,
        }
    }

    pub fn pod(&mut self, pod: PodId) -> &mut Pod {
        &mut self.pods[usize::from(pod.0)]
    }

    pub fn runs(&self, pod: PodId) -> bool {
        self.pods[usize::from(pod.0)].replica.is_some()
    }

    /// Whether the pod takes input: its disk is not too far behind.
    pub fn is_free(&self, pod: PodId) -> bool {
        self.runs(pod) && self.pods[usize::from(pod.0)].batches.len() < BATCHES_MAX
    }

    pub fn start(&mut self, pod: PodId) {
        self.round(pod, |pod, now, round, model| pod.start(now, round, model));
        self.links_of(pod, true);
    }

    pub fn lose_disk(&mut self, pod: PodId) {
        self.pod(pod).lose_disk();
        self.links_of(pod, false);
    }

    /// A new disk takes the place of a lost one, and its pod starts. The others have yet to be told.
    pub fn replace(&mut self, pod: PodId) {
        self.epoch += 1;
        let epoch = self.epoch;
        let config = &mut self.pod(pod).config;
        (config.epoch, config.joined) = (epoch, epoch);
        self.start(pod);
    }

    /// The pod learns which disks were replaced.
    pub fn tell(&mut self, pod: PodId) {
        if self.pod(pod).waits() {
            return;
        }
        let epoch = self.epoch;
        self.pod(pod).config.epoch = epoch;
        if self.is_free(pod) {
            self.round(pod, |pod, now, round, model| pod.raise_epoch(now, epoch, round, model));
        } else if self.runs(pod) {
            // Its disk is far behind: it learns of it as it starts again.
            self.crash(pod, 0);
        }
    }

    /// What a pod that is down was told of replaced disks while it ran, its own disk does not say to be agreed: it
    /// will be told again. Its promises in the newer epoch stand.
    pub fn forget_epoch(&mut self, pod: PodId) {
        let pod = self.pod(pod);
        pod.config.epoch = pod.epoch_at_start;
    }

    /// The process dies; of its batches the first few are on disk, and its connections are reset.
    pub fn crash(&mut self, pod: PodId, batches: usize) {
        self.pod(pod).sync_and_crash(batches);
        self.links_of(pod, false);
    }

    /// Resets the link between two pods: what is on it is lost, both ends notice.
    pub fn reset(&mut self, a: PodId, b: PodId) {
        for up in [false, true] {
            self.notice(a, b, up);
            self.notice(b, a, up);
        }
    }

    /// Hands up to `count` frames of a link to its pod, as one round. Returns whether there were any.
    pub fn deliver(&mut self, from: PodId, to: PodId, count: usize) -> bool {
        if !self.is_free(to) {
            return false;
        }
        let link = self.links.get_mut(&(from, to)).expect("all pairs have a link");
        let count = count.min(link.queue.len());
        let frames: Vec<Frame> = link.queue.drain(..count).collect();
        if frames.is_empty() {
            return false;
        }
        self.round(to, |pod, now, round, model| {
            for frame in frames {
                pod.step(now, from, frame, round, model);
            }
        });
        true
    }

    /// The pod's disk is done with its next batch.
    pub fn sync(&mut self, pod: PodId) -> bool {
        if self.pod(pod).batches.is_empty() {
            return false;
        }
        let late = self.pod(pod).sync();
        let own = self.send(pod, late);
        if !own.is_empty() {
            self.round(pod, |p, now, round, model| {
                for frame in own {
                    p.step(now, pod, frame, round, model);
                }
            });
        }
        while self.pod(pod).is_light() {
            self.sync(pod);
        }
        true
    }

    pub fn pass_time(&mut self, span: Span) {
        self.now = self.now + span;
        for pod in self.all() {
            if self.is_free(pod) {
                self.round(pod, |pod, now, round, model| pod.tick(now, round, model));
            }
        }
    }

    pub fn ask(&mut self, pod: PodId, key: &str, action: Action) {
        let command = self.command(key, action);
        if self.is_free(pod) {
            self.round(pod, |pod, _, _, _| pod.ask(command));
        } else if self.runs(pod) {
            self.pod(pod).ask(command);
        }
    }

    pub fn read(&mut self, pod: PodId, key: &str) {
        let command = self.command(key, Action::Get);
        self.reads += 1;
        let id = self.reads;
        if self.is_free(pod) {
            self.round(pod, |pod, _, round, _| pod.read(id, command, round));
        }
    }

    pub fn checkpoint(&mut self, pod: PodId, cut: bool) {
        if self.is_free(pod) {
            self.round(pod, |pod, _, _, _| pod.checkpoint = Some(cut));
        }
    }

    pub fn drop_deletions(&mut self, pod: PodId, bound: Option<Version>) -> usize {
        let mut dropped = 0;
        if self.is_free(pod) {
            self.round(pod, |pod, _, _, _| dropped = pod.drop_deletions(bound));
        }
        dropped
    }

    /// Delivers and syncs until nothing is under way.
    pub fn settle(&mut self) {
        loop {
            let mut moved = false;
            for pod in self.all() {
                moved |= self.sync(pod);
            }
            for (from, to) in self.pairs() {
                moved |= self.deliver(from, to, usize::MAX);
            }
            if !moved {
                return;
            }
        }
    }

    /// Lets time pass in small steps with everything delivered.
    pub fn run(&mut self, span: Span) {
        let end = self.now + span;
        while self.now < end {
            self.settle();
            self.pass_time(Span::from_millis(5));
        }
        self.settle();
    }

    pub fn all(&self) -> Vec<PodId> {
        self.pods.iter().map(|pod| pod.me).collect()
    }

    pub fn pairs(&self) -> Vec<(PodId, PodId)> {
        self.links.keys().copied().collect()
    }

    pub fn leader(&self) -> Option<PodId> {
        let leading = self.pods.iter().filter(|pod| pod.is_leading());
        leading.max_by_key(|pod| pod.replica.as_ref().map(|r| r.ballot())).map(|pod| pod.me)
    }

    fn command(&self, key: &str, action: Action) -> Command {
        Command { key: Bytes::copy_from_slice(key.as_bytes()), action, since: self.model.shown() }
    }

    fn links_of(&mut self, pod: PodId, up: bool) {
        for other in self.all() {
            if other != pod {
                self.notice(other, pod, up);
                self.notice(pod, other, up);
            }
        }
    }

    /// The link from `a` to `b` went down or came up.
    fn notice(&mut self, a: PodId, b: PodId, up: bool) {
        self.links.get_mut(&(a, b)).expect("all pairs have a link").queue.clear();
        if !self.runs(a) || (up && !self.runs(b)) {
            return;
        }
        while !self.is_free(a) {
            self.sync(a);
        }
        self.round(a, |pod, now, round, model| pod.link(now, b, up, round, model));
    }

    fn round(&mut self, id: PodId, steps: impl FnOnce(&mut Pod, Time, &mut Round, &mut Model)) {
        let mut round = Round::default();
        let now = self.now;
        let pod = &mut self.pods[usize::from(id.0)];
        steps(pod, now, &mut round, &mut self.model);
        let first = round.first_committed.clone();
        let early = pod.flush(now, round, &mut self.model);
        self.send(id, early);
        for version in first {
            self.check_durable(version);
        }
        self.check(id);
        while self.pod(id).is_light() {
            self.sync(id);
        }
    }

    /// Puts frames on their links; those to oneself come back.
    fn send(&mut self, from: PodId, frames: Vec<(PodId, Frame)>) -> Vec<Frame> {
        let mut own = Vec::new();
        for (to, frame) in frames {
            if let Frame::Protocol(Message::Ack { durable, .. }) = &frame {
                let pod = &mut self.pods[usize::from(from.0)];
                pod.claimed = pod.claimed.max(*durable);
            }
            if to == from {
                own.push(frame);
                continue;
            }
            let runs = self.runs(to);
            let link = self.links.get_mut(&(from, to)).expect("all pairs have a link");
            if runs && !link.cut {
                link.queue.push_back(frame);
            }
        }
        own
    }

    /// What is called committed is on the disks of a write quorum, or was on one that is lost.
    fn check_durable(&self, version: Version) {
        let on_disk = |have: &Have| have.committed.seq >= version.seq || have.tail.contains(&version);
        let holds = |pod: &&Pod| on_disk(&pod.synced) || pod.lost.iter().any(on_disk);
        let disks = self.pods.iter().filter(holds).count();
        let needed = self.pods[0].config.write_quorum;
        assert!(disks >= needed, "{version} is called committed and is on {disks} disks");
    }

    /// The tables of a pod are the model's at the version they claim, and hold nothing else.
    fn check(&self, pod: PodId) {
        let pod = &self.pods[usize::from(pod.0)];
        let Some(replica) = &pod.replica else { return };
        let committed = replica.committed();
        assert!(self.model.holds(committed), "{}: {committed} is not a committed version", pod.me);
        let dropped = replica.durable().dropped;
        for key in self.model.keys() {
            let (version, value) = self.model.at(key, committed.seq);
            match pod.tables.get(key) {
                Some(record) => assert_eq!(*record, (version, value), "{}: {key:?} at {committed}", pod.me),
                None => assert!(value.is_none() && version <= dropped, "{}: {key:?} is missing", pod.me),
            }
        }
        assert!(pod.tables.keys().all(|key| self.model.at(key, committed.seq).0 != Version::ZERO));
    }
}
