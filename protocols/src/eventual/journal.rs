//! The journal: which entity each edit taken here changed, for as long as a peer may lack it.

use bytes::Bytes;
use std::collections::VecDeque;

/// Entries kept for a peer that is away. Beyond it the oldest are dropped, and the peer compares
/// digests instead: cheaper by then than the journal.
pub const JOURNAL_ENTRIES_MAX: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Journal {
    entries: VecDeque<(u64, Bytes)>,
    floor: u64,
}

impl Journal {
    pub fn new(floor: u64, entries: Vec<(u64, Bytes)>) -> Self {
        Self { entries: entries.into(), floor }
    }
    /// Entries up to this one are gone.
    pub const fn floor(&self) -> u64 {
        self.floor
    }
    pub fn entries(&self) -> impl Iterator<Item = &(u64, Bytes)> {
        self.entries.iter()
    }

    pub fn push(&mut self, seq: u64, entity: Bytes) {
        let last = self.entries.back().map_or(self.floor, |(last, _)| *last);
        assert!(seq > last, "a journal only grows");
        self.entries.push_back((seq, entity));
        if self.entries.len() > JOURNAL_ENTRIES_MAX
            && let Some((oldest, _)) = self.entries.pop_front()
        {
            self.floor = oldest;
        }
    }
    /// The entries after `seq`.
    pub fn after(&self, seq: u64) -> impl Iterator<Item = &(u64, Bytes)> {
        self.entries.range(self.place(seq)..)
    }
    /// How many entries are after `from` and not after `to`.
    pub fn between(&self, from: u64, to: u64) -> usize {
        self.place(to).saturating_sub(self.place(from))
    }
    /// Everybody has what is up to `seq`.
    pub fn trim(&mut self, seq: u64) {
        while let Some((oldest, _)) = self.entries.front()
            && *oldest <= seq
        {
            self.floor = *oldest;
            self.entries.pop_front();
        }
    }
    fn place(&self, seq: u64) -> usize {
        self.entries.partition_point(|(entry, _)| *entry <= seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_the_oldest_beyond_its_bound() {
        let mut journal = Journal::default();
        for seq in 1..=JOURNAL_ENTRIES_MAX as u64 + 3 {
            journal.push(seq, Bytes::from_static(b"e"));
        }
        assert_eq!(journal.floor(), 3);
        assert_eq!(journal.after(0).next().map(|(seq, _)| *seq), Some(4));
        assert_eq!(journal.between(5, 9), 4);
        journal.trim(10);
        assert_eq!((journal.floor(), journal.after(10).next().map(|(seq, _)| *seq)), (10, Some(11)));
    }
}
