//! What must be true, whatever the replicas believe: books kept from what reached disks and links.

use kassa_protocols::ids::{Ballot, PodId};
use kassa_protocols::paxos::{Entry, Message, Record};
use std::collections::{BTreeMap, BTreeSet};

pub struct Oracle {
    majority: usize,
    voters: Vec<PodId>,
    /// Who has this on disk: one value per (index, ballot).
    votes: BTreeMap<(u64, Ballot), (Entry, BTreeSet<PodId>)>,
    /// What a majority has accepted in one ballot.
    pub chosen: BTreeMap<u64, Entry>,
    /// What replicas applied, with the time they agreed on.
    applied: BTreeMap<u64, Entry>,
    /// The highest ballot that each pod has told anybody it promised.
    pub told: BTreeMap<PodId, Ballot>,
    /// The highest index applied anywhere.
    pub newest: u64,
}

impl Oracle {
    pub fn new(voters: &[PodId]) -> Self {
        Self {
            majority: voters.len() / 2 + 1,
            voters: voters.to_vec(),
            votes: BTreeMap::new(),
            chosen: BTreeMap::new(),
            applied: BTreeMap::new(),
            told: BTreeMap::new(),
            newest: 0,
        }
    }

    /// A record reached the disk of `pod`.
    pub fn persisted(&mut self, pod: PodId, record: &Record) {
        let Record::Accepted { ballot, index, entry, .. } = record else { return };
        let (value, by) = self.votes.entry((*index, *ballot)).or_insert((entry.clone(), BTreeSet::new()));
        assert_eq!(value, entry, "two values at index {index} in ballot {ballot}");
        if self.voters.contains(&pod) {
            by.insert(pod);
        }
        if by.len() >= self.majority {
            let chosen = self.chosen.entry(*index).or_insert_with(|| entry.clone());
            assert_eq!(chosen, entry, "two values chosen at index {index}");
        }
    }

    /// The disk of `pod` is gone, and what it held of votes with it.
    pub fn disk_lost(&mut self, pod: PodId) {
        self.told.remove(&pod);
    }

    /// A message of `pod` left it for another pod.
    pub fn sent(&mut self, pod: PodId, message: &Message) {
        let told = self.told.entry(pod).or_default();
        match message {
            Message::Promise { ballot, .. } | Message::Accepted { ballot, .. } => {
                assert!(*ballot >= *told, "{pod} promised {told} and then {message:?}");
                *told = *ballot;
            }
            Message::Canvass { .. }
            | Message::Canvassed { .. }
            | Message::Prepare { .. }
            | Message::Reject { .. }
            | Message::Accept { .. }
            | Message::Joining { .. }
            | Message::Missing { .. }
            | Message::Heartbeat { .. }
            | Message::Read { .. }
            | Message::ReadOk { .. }
            | Message::CatchUp { .. }
            | Message::Chosen { .. }
            | Message::Offer { .. }
            | Message::Ready { .. }
            | Message::Handover { .. } => {}
        }
    }

    /// `pod` reports `entry` as chosen.
    pub fn applied(&mut self, pod: PodId, index: u64, entry: &Entry) {
        let chosen = self.chosen.get(&index).unwrap_or_else(|| panic!("{pod} applied {index}: not chosen"));
        assert_eq!((chosen.origin, &chosen.body), (entry.origin, &entry.body), "{pod} at {index}");
        let before = self.applied.entry(index).or_insert_with(|| entry.clone());
        assert_eq!(before, entry, "{pod} differs at {index}");
        if let Some(previous) = self.applied.get(&(index - 1)) {
            assert!(previous.time <= entry.time, "time falls at {index}");
        }
        self.newest = self.newest.max(index);
    }
}
