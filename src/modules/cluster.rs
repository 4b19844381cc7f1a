//! The cluster group's records: batches, in the order in which they overwrite each other.
//!
//! A `batch_init` is first logged here, with its key, its arguments and a seed derived from the key; its
//! number is the incarnation of what it makes. A retry finds the record. One that newer ones wholly cover
//! is dropped once every shard has logged those; its key lives as long as any other. Which disks were replaced
//! is agreed on here as well, see [`super::disks`].

use super::batch::{BatchRecord, Load};
use super::disks::{Disks, NotReplaced};
use super::keys;
use super::machine::{Context, Machine, decode, encode};
use super::request::Answer;
use super::stock::batch_key;
use bytes::Bytes;
use kassa_protocols::ids::{DiskId, Incarnation, OpId, PodId, Replacement};
use kassa_protocols::tables::View;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const BATCHES: u8 = b'b';
const COUNTER: &[u8] = b"n";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    Load {
        key: OpId,
        load: Load,
    },
    /// Every shard has logged the batch.
    Loaded {
        incarnation: Incarnation,
    },
    /// Changes and tells nothing.
    Nothing,
    /// The disk of a pod is lost: it has a new one.
    Replace {
        pod: PodId,
        old: DiskId,
        new: DiskId,
    },
    /// A pod holds all of its shards on its new disk.
    Whole {
        pod: PodId,
        disk: DiskId,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Logged(BatchRecord),
    /// Logged everywhere long since, and overwritten: the key is known.
    Done(Answer),
    Acknowledged,
    Replaced(Result<Replacement, NotReplaced>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    batch: BatchRecord,
    /// Whether every shard has logged it.
    loaded: bool,
}

/// The transition function of the cluster group.
#[derive(Debug, Default)]
pub struct Cluster {
    batches: BTreeMap<Incarnation, Entry>,
    pub disks: Disks,
}

impl Cluster {
    /// The newest batch of orders that covers `index`.
    #[must_use]
    pub fn order_batch(&self, index: u64) -> Option<&BatchRecord> {
        let mut newest_first = self.batches.values().rev().map(|entry| &entry.batch);
        newest_first.find(|batch| matches!(batch.load, Load::Orders { .. }) && batch.covers(index))
    }

    /// Batches that some shard may not have logged yet.
    pub fn loading(&self) -> impl Iterator<Item = &BatchRecord> {
        self.batches.values().filter(|entry| !entry.loaded).map(|entry| &entry.batch)
    }

    fn load(&mut self, context: Context, view: &mut View<'_>, key: OpId, load: &Load) -> Outcome {
        if let Some(entry) = self.batches.values().find(|entry| entry.batch.key == key) {
            return Outcome::Logged(entry.batch.clone());
        }
        if let Some(answer) = keys::find(view, context.time, key, Incarnation(0)) {
            return Outcome::Done(answer);
        }
        let last: u64 = view.get(COUNTER).map_or(0, |stored| decode(&stored));
        let incarnation = Incarnation(last + 1);
        #[allow(clippy::cast_possible_truncation, reason = "any 64 bits of the key's hash make a seed")]
        let batch = BatchRecord { incarnation, key, seed: key.0 as u64, load: load.clone() };
        view.set(Bytes::from_static(COUNTER), encode(&incarnation.0));
        keys::remember(view, context.time, key, Incarnation(0), &Answer::Loaded { n: batch.load.n() });
        self.save(view, Entry { batch: batch.clone(), loaded: false });
        Outcome::Logged(batch)
    }

    fn save(&mut self, view: &mut View<'_>, entry: Entry) {
        view.set(batch_key(entry.batch.incarnation), encode(&entry));
        self.batches.insert(entry.batch.incarnation, entry);
    }

    fn loaded(&mut self, view: &mut View<'_>, incarnation: Incarnation) {
        let Some(entry) = self.batches.get(&incarnation).filter(|entry| !entry.loaded).cloned() else {
            return;
        };
        let batch = entry.batch.clone();
        self.save(view, Entry { loaded: true, ..entry });
        let covered: Vec<Incarnation> = self
            .batches
            .range(..incarnation)
            .filter(|(_, older)| batch.stands_for(&older.batch))
            .map(|(&incarnation, _)| incarnation)
            .collect();
        for older in covered {
            self.batches.remove(&older);
            view.delete(batch_key(older));
        }
    }
}

impl Machine for Cluster {
    type Command = Command;
    type Outcome = Outcome;

    fn execute(&mut self, context: Context, command: &Command, view: &mut View<'_>) -> Outcome {
        match command {
            Command::Load { key, load } => self.load(context, view, *key, load),
            Command::Loaded { incarnation } => {
                self.loaded(view, *incarnation);
                Outcome::Acknowledged
            }
            Command::Nothing => Outcome::Acknowledged,
            Command::Replace { pod, old, new } => {
                Outcome::Replaced(self.disks.replace(view, *pod, *old, *new))
            }
            Command::Whole { pod, disk } => {
                self.disks.whole(view, *pod, *disk);
                Outcome::Acknowledged
            }
        }
    }

    fn rebuild(&mut self, view: &View<'_>) {
        self.batches = view
            .scan(&[BATCHES])
            .into_iter()
            .map(|(_, stored)| decode::<Entry>(&stored))
            .map(|entry| (entry.batch.incarnation, entry))
            .collect();
        self.disks.rebuild(view);
    }
}
