//! The chain of writes as far as one replica holds it in memory: some that are committed, kept for
//! peers that missed a few, and the tail beyond the commit point.

use super::types::{Have, Version, Write};
use crate::breaks;
use crate::time::ShardTime;
use std::collections::VecDeque;
use std::sync::Arc;

/// Committed writes kept for repair: a replica that missed a link reset or a short pause finds what
/// it lacks here and needs no table scan. About a second of rounds under load; a longer one would be cold
/// memory by the time it is freed, which costs more than the rare scan.
const HISTORY_WRITES_MAX: usize = 256;
/// The same in bytes, for 24 shards and more in a pod's 200 MiB.
pub const HISTORY_BYTES_MAX: usize = 512 * 1_024;
/// For a replica that takes in a copy of the tables, from the copy's version on, so many times the usual:
/// what a busy shard commits while the last of it travels and is written. Past it the replica needs another.
const BEHIND_COPY_TIMES: usize = 16;
/// What a record costs in memory beside its bytes.
const RECORD_OVERHEAD_BYTES: usize = 64;

#[derive(Clone, Debug, Hash)]
pub(super) struct Chain {
    /// The version that the first of `writes` stands on.
    base: Version,
    writes: VecDeque<Arc<Write>>,
    /// How many of `writes`, from the front, are committed; their size.
    history: usize,
    history_bytes: usize,
    committed: Version,
    committed_time: ShardTime,
    /// A replica with a copy of this `seq` will ask for what follows.
    wanted_from: Option<u64>,
    history_bytes_max: usize,
}

/// What became of an attempt to replace the end of the chain.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Spliced {
    /// The writes from this index on are new here, and are now the end of the chain.
    From(usize),
    /// All of them were here, or what is here is newer.
    Held,
    /// Their predecessor is not here.
    Gap,
}

impl Chain {
    pub const fn new(committed: Version, time: ShardTime, history_bytes_max: usize) -> Self {
        Self {
            base: committed,
            writes: VecDeque::new(),
            history: 0,
            history_bytes: 0,
            committed,
            committed_time: time,
            wanted_from: None,
            history_bytes_max,
        }
    }

    pub fn accepted(&self) -> Version {
        self.writes.back().map_or(self.base, |write| write.version)
    }

    /// The shard time of the accepted version.
    pub fn time(&self) -> ShardTime {
        self.writes.back().map_or(self.committed_time, |write| write.time)
    }

    pub const fn committed(&self) -> Version {
        self.committed
    }

    pub const fn committed_time(&self) -> ShardTime {
        self.committed_time
    }

    pub fn tail(&self) -> impl ExactSizeIterator<Item = &Arc<Write>> + DoubleEndedIterator {
        self.writes.range(self.history..)
    }

    pub fn have(&self) -> Have {
        Have { committed: self.committed, tail: self.tail().map(|write| write.version).collect() }
    }

    pub fn holds(&self, version: Version) -> bool {
        self.place(version).is_some()
    }

    /// Adds a write whose predecessor is the accepted version.
    pub fn append(&mut self, write: Arc<Write>) {
        let accepted = self.accepted();
        assert_eq!(write.prev, accepted, "a write stands on exactly its predecessor");
        assert_eq!(write.version.seq, accepted.seq + 1, "versions count up by one");
        assert!(write.version > accepted, "the accepted version never decreases");
        assert!(write.time >= self.time(), "shard time never decreases");
        self.writes.push_back(write);
    }

    /// Makes `writes` the end of the chain, cutting what diverges from them.
    pub fn splice(&mut self, writes: &[Arc<Write>]) -> Spliced {
        let committed = self.committed;
        let new = |write: &Arc<Write>| write.version > committed && !self.holds(write.version);
        let Some(first) = writes.iter().position(new) else { return Spliced::Held };
        let Some(kept) = self.place(writes[first].prev) else { return Spliced::Gap };
        if writes.last().is_none_or(|last| last.version <= self.accepted()) {
            return Spliced::Held;
        }
        assert!(kept >= self.history, "what is committed is never cut");
        let diverges = kept < self.writes.len();
        self.writes.truncate(kept);
        if diverges && breaks::is("tail-cut-alone") {
            return Spliced::Held;
        }
        // Within the replacement the version may pass through lower ones; it is one log record.
        for write in &writes[first..] {
            let back = self.accepted();
            assert!(
                write.prev == back && write.version.seq == back.seq + 1 && write.version > back,
                "a repair is a chain"
            );
            self.writes.push_back(Arc::clone(write));
        }
        Spliced::From(first)
    }

    /// Moves the commit point by one write, if `to` is on the chain and beyond it.
    pub fn commit_next(&mut self, to: Version) -> Option<Arc<Write>> {
        if self.place(to)? <= self.history {
            return None;
        }
        let write = Arc::clone(&self.writes[self.history]);
        self.history += 1;
        self.history_bytes += size_bytes(&write);
        self.committed = write.version;
        self.committed_time = write.time;
        self.trim();
        Some(write)
    }

    /// What follows this `seq` is kept for a replica with a copy, or for none any more.
    pub fn want_from(&mut self, seq: Option<u64>) {
        if self.wanted_from != seq {
            self.wanted_from = seq;
            self.trim();
        }
    }

    fn trim(&mut self) {
        loop {
            let wanted = self.wanted_from.is_some_and(|seq| seq <= self.base.seq);
            let times = if wanted { BEHIND_COPY_TIMES } else { 1 };
            if self.history <= HISTORY_WRITES_MAX * times
                && self.history_bytes <= self.history_bytes_max * times
            {
                return;
            }
            let oldest = self.writes.pop_front().expect("there is a history, so there are writes");
            self.history -= 1;
            self.history_bytes -= size_bytes(&oldest);
            self.base = oldest.version;
        }
    }

    /// What one that has `have` lacks of this chain, from the last version that both hold on; `None`
    /// if there is no such version in memory.
    pub fn beyond(&self, have: &Have) -> Option<Vec<Arc<Write>>> {
        let common = have.tail.iter().rev().chain([&have.committed]).find_map(|&v| self.place(v))?;
        Some(self.writes.range(common..).cloned().collect())
    }

    /// The tables now reflect `version`, a committed one: what was accepted beyond it stays.
    pub fn restart_at(&mut self, version: Version, time: ShardTime) {
        let tail = match self.place(version) {
            Some(place) => self.writes.split_off(place),
            None => {
                assert!(self.accepted() < version, "a newer chain holds all that is committed");
                VecDeque::new()
            }
        };
        *self = Self { writes: tail, ..Self::new(version, time, self.history_bytes_max) };
    }

    /// How many of `writes` lead up to `version`, if it is on the chain.
    fn place(&self, version: Version) -> Option<usize> {
        let place = usize::try_from(version.seq.checked_sub(self.base.seq)?).ok()?;
        let there = match place.checked_sub(1) {
            None => self.base,
            Some(index) => self.writes.get(index)?.version,
        };
        (there == version).then_some(place)
    }
}

fn size_bytes(write: &Write) -> usize {
    let records = write.records.iter();
    records
        .map(|(key, value)| key.len() + value.as_ref().map_or(0, |v| v.len()) + RECORD_OVERHEAD_BYTES)
        .sum()
}
