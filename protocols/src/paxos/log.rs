//! A replica's log in memory: the end of what is chosen, for peers that lag, and what is accepted above.

use super::message::Entry;
use crate::ids::Ballot;
use std::collections::{BTreeMap, VecDeque};

/// Chosen entries kept for laggards that a checkpoint does not cover yet: some seconds of a busy shard,
/// and with 25 shards a pod still little memory.
pub const HISTORY_BYTES_MAX: usize = 1 << 20;
/// The part of that kept below the checkpoint: enough for a peer that restarts or lost a link for a
/// moment; anything older is cheaper as a snapshot.
const CHECKPOINTED_PART: usize = 4;

/// Chosen entries kept for a peer that takes in a snapshot, from the snapshot's position on: what a busy
/// shard chooses while the last of it travels and is written. Past so many times the usual it needs another.
const BEHIND_SNAPSHOT_TIMES: usize = 8;

#[derive(Clone, Debug, Hash)]
pub(super) struct Log {
    /// The index of `chosen[0]`; all before it is forgotten.
    first: u64,
    chosen: VecDeque<Entry>,
    chosen_bytes: usize,
    checkpointed: u64,
    /// From here on a peer with a snapshot will ask.
    wanted_from: Option<u64>,
    history_bytes_max: usize,
    /// Above `applied`: by index, the ballot accepted in and the entry.
    accepted: BTreeMap<u64, (Ballot, Entry)>,
}

impl Log {
    pub const fn new(applied: u64, history_bytes_max: usize) -> Self {
        Self {
            first: applied + 1,
            chosen: VecDeque::new(),
            chosen_bytes: 0,
            checkpointed: applied,
            wanted_from: None,
            history_bytes_max,
            accepted: BTreeMap::new(),
        }
    }

    /// The end of the chosen prefix.
    pub fn applied(&self) -> u64 {
        self.first + self.chosen.len() as u64 - 1
    }
    /// The lowest index that can still be sent to a peer.
    pub const fn first(&self) -> u64 {
        self.first
    }
    pub fn get(&self, index: u64) -> Option<&Entry> {
        let offset = usize::try_from(index.checked_sub(self.first)?).ok()?;
        match self.chosen.get(offset) {
            Some(entry) => Some(entry),
            None => self.accepted.get(&index).map(|(_, entry)| entry),
        }
    }
    pub fn accept(&mut self, index: u64, ballot: Ballot, entry: Entry) {
        assert!(index > self.applied(), "what is chosen is never accepted anew");
        self.accepted.insert(index, (ballot, entry));
    }
    /// The ballot in which `index` was accepted, if it is above the chosen prefix.
    pub fn accepted_in(&self, index: u64) -> Option<Ballot> {
        self.accepted.get(&index).map(|(ballot, _)| *ballot)
    }
    pub fn accepted_from(&self, index: u64) -> impl Iterator<Item = (u64, Ballot, &Entry)> {
        self.accepted.range(index..).map(|(index, (ballot, entry))| (*index, *ballot, entry))
    }
    /// Chosen entries from `from` on, up to about `bytes_max`; `None` if they are forgotten.
    pub fn chosen_from(&self, from: u64, bytes_max: usize) -> Option<Vec<Entry>> {
        let offset = usize::try_from(from.checked_sub(self.first)?).ok()?;
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            let fits = bytes < bytes_max;
            bytes += entry.weight_bytes();
            fits
        };
        Some(self.chosen.iter().skip(offset).take_while(fits).cloned().collect())
    }

    /// Takes the accepted entry after the chosen prefix into it.
    pub fn choose_accepted(&mut self) -> Entry {
        let index = self.applied() + 1;
        let (_, entry) = self.accepted.remove(&index).expect("the caller has seen it accepted");
        self.push(entry.clone());
        entry
    }
    /// Takes an entry learnt as chosen into the prefix, whatever was accepted there.
    pub fn choose(&mut self, entry: Entry) {
        self.accepted.remove(&(self.applied() + 1));
        self.push(entry);
    }
    fn push(&mut self, entry: Entry) {
        self.chosen_bytes += entry.weight_bytes();
        self.chosen.push_back(entry);
        self.trim();
    }
    pub fn checkpointed(&mut self, index: u64) {
        self.checkpointed = self.checkpointed.max(index.min(self.applied()));
        self.trim();
    }
    /// From this index on entries are kept for a peer with a snapshot, or for none any more.
    pub fn want_from(&mut self, index: Option<u64>) {
        if self.wanted_from != index {
            self.wanted_from = index;
            self.trim();
        }
    }
    fn trim(&mut self) {
        loop {
            let covered = self.first <= self.checkpointed;
            let bytes_max = if self.wanted_from.is_some_and(|wanted| wanted <= self.first) {
                self.history_bytes_max * BEHIND_SNAPSHOT_TIMES
            } else if covered {
                self.history_bytes_max / CHECKPOINTED_PART
            } else {
                self.history_bytes_max
            };
            if self.chosen_bytes <= bytes_max {
                return;
            }
            let Some(entry) = self.chosen.pop_front() else { return };
            self.chosen_bytes -= entry.weight_bytes();
            self.first += 1;
        }
    }
    /// A snapshot at `applied` took the place of everything up to it.
    pub fn install(&mut self, applied: u64) {
        self.first = applied + 1;
        self.chosen.clear();
        self.chosen_bytes = 0;
        self.checkpointed = applied;
        self.accepted = self.accepted.split_off(&(applied + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::Body;
    use super::*;
    use crate::time::ShardTime;
    use bytes::Bytes;

    #[test]
    fn what_a_peer_with_a_snapshot_will_ask_for_is_kept() {
        let entry = || {
            let body = Body::Commands(Bytes::from_static(&[0; 904]));
            Entry { time: ShardTime::default(), origin: Ballot::ZERO, body }
        };
        let mut log = Log::new(0, 4_000);
        let choose = |log: &mut Log, count: u64| {
            for _ in 0..count {
                log.choose(entry());
                log.checkpointed(log.applied());
            }
        };
        choose(&mut log, 10);
        assert_eq!((log.first(), log.applied()), (10, 10));
        log.want_from(Some(11));
        choose(&mut log, 20);
        assert_eq!(log.chosen_from(11, usize::MAX).map(|entries| entries.len()), Some(20));
        choose(&mut log, 100);
        assert_eq!(log.chosen_from(11, usize::MAX), None, "within a bound");
        log.want_from(Some(105));
        choose(&mut log, 1);
        assert_eq!(log.first(), 105, "what lies before it goes when there is too much");
        log.want_from(None);
        assert_eq!(log.first(), 131);
    }
}
