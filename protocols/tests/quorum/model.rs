//! What must be true, kept apart from the protocol: the one chain of committed writes, and what
//! clients were told.

use bytes::Bytes;
use kassa_protocols::quorum::{Version, Write};
use std::collections::BTreeMap;
use std::sync::Arc;

pub type Value = Option<Bytes>;

#[derive(Default)]
pub struct Model {
    chain: Vec<Arc<Write>>,
    history: BTreeMap<Bytes, Vec<(Version, Value)>>,
    /// Everything up to this `seq` has been shown to a client.
    shown: u64,
    /// Shown by a read from any pod before the coordinator itself knew: to be committed yet.
    expected: BTreeMap<u64, Vec<(Bytes, Version, Value)>>,
    pub answers: u64,
}

/// A client's command, as it was when it came in.
#[derive(Clone, Debug)]
pub struct Command {
    pub key: Bytes,
    pub action: Action,
    /// What clients had been shown by then: the answer must not be older.
    pub since: u64,
}

#[derive(Clone, Debug)]
pub enum Action {
    Get,
    Set(Value),
}

impl Model {
    pub fn len(&self) -> u64 {
        self.chain.len() as u64
    }

    pub const fn shown(&self) -> u64 {
        self.shown
    }

    /// A replica says that `write` is committed. Returns whether it is the first to say so.
    pub fn committed(&mut self, write: &Arc<Write>) -> bool {
        let at = usize::try_from(write.version.seq - 1).unwrap();
        if let Some(known) = self.chain.get(at) {
            assert_eq!(known, write, "committed writes form one chain");
            return false;
        }
        assert_eq!(self.chain.len(), at, "committed in chain order");
        let tip = self.chain.last().map_or(Version::ZERO, |last| last.version);
        assert_eq!(write.prev, tip, "committed writes form one chain");
        for (key, value) in &write.records {
            self.history.entry(key.clone()).or_default().push((write.version, value.clone()));
        }
        self.chain.push(Arc::clone(write));
        for (key, version, value) in self.expected.remove(&write.version.seq).unwrap_or_default() {
            assert_eq!(self.at(&key, version.seq), (version, value), "what was shown is committed");
        }
        true
    }

    pub fn holds(&self, version: Version) -> bool {
        version == Version::ZERO
            || self.chain.get(usize::try_from(version.seq - 1).unwrap()).is_some_and(|w| w.version == version)
    }

    pub fn at(&self, key: &Bytes, seq: u64) -> (Version, Value) {
        let history = self.history.get(key).map_or(&[][..], |h| h);
        let count = history.partition_point(|(version, _)| version.seq <= seq);
        count.checked_sub(1).map_or((Version::ZERO, None), |last| history[last].clone())
    }

    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.history.keys()
    }

    /// A client is told what it read: that must have been so at some point since it asked.
    pub fn answer_read(&mut self, command: &Command, value: &Value) {
        let Command { key, since, .. } = command;
        let since = (*since).min(self.len());
        let seen = (since..=self.len()).find(|&seq| self.at(key, seq).1 == *value);
        let Some(seq) = seen else {
            panic!("{key:?} was {value:?} at no point since {since}: {:?}", self.history.get(key));
        };
        self.shown = self.shown.max(seq);
        self.answers += 1;
    }

    /// The same for a read that asked all pods, which may know sooner than the coordinator.
    pub fn answer_quorum_read(&mut self, command: &Command, written: Version, value: &Value) {
        if written.seq <= self.len() {
            self.answer_read(command, value);
            assert!(self.holds(written), "{written} was shown and is not committed");
        } else {
            let expected = self.expected.entry(written.seq).or_default();
            expected.push((command.key.clone(), written, value.clone()));
            self.shown = self.shown.max(written.seq);
            self.answers += 1;
        }
    }

    /// A client is told that what it wrote is written, and what was there before.
    pub fn answer_write(&mut self, command: &Command, version: Version, before: &Value) {
        let Action::Set(value) = &command.action else { panic!("not a write") };
        assert!(self.holds(version), "{version} was acknowledged and is not committed");
        assert!(version.seq > command.since, "a write takes place after it was asked for");
        assert_eq!(self.at(&command.key, version.seq), (version, value.clone()), "as acknowledged");
        assert_eq!(self.at(&command.key, version.seq - 1).1, *before, "based on what was there");
        self.shown = self.shown.max(version.seq);
        self.answers += 1;
    }
}
