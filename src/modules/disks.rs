//! Which pods' disks were replaced: part of what the cluster group agrees on.
//!
//! A pod whose disk was lost has forgotten what it promised. So it is not let in again before all who know it
//! agree that its disk is another one: `Replace` swaps the disk that the cluster knows for a new one, and names
//! the old one, so that of two who ask, or of one who asks again late, only the first gets it done. Each
//! replacement raises the epoch of every shard that the pod holds (see `kassa_protocols::paxos`). The new disk is
//! *whole* once its pod says that all of its shards are.

use super::machine::{decode, encode};
use bytes::Bytes;
use kassa_protocols::ids::{DiskId, PodId, Replacement};
use kassa_protocols::tables::View;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The table of replaced disks in the cluster group's records.
const DISKS: u8 = b'd';

/// One pod's newest disk, if it is not its first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewDisk {
    pub replacement: Replacement,
    /// Whether the pod holds all of its shards again.
    pub whole: bool,
}

/// Why a disk is not replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum NotReplaced {
    #[error("{0} is not among the pods of this cluster")]
    UnknownPod(PodId),
    #[error("{0} is up with the disk that the cluster knows: there is nothing to replace")]
    IsUp(PodId),
    #[error(
        "no pod with an empty directory waits as {0}, as far as this pod sees: start it with an empty data \
         directory, and type this again once its log says that it waits"
    )]
    NobodyWaits(PodId),
    #[error("{0} was given another disk meanwhile: look at `kassa status`, and type this again if need be")]
    Raced(PodId),
    #[error(
        "{pod} shares shards with {}, which {} being refilled: a majority of each has to be whole; type this \
         again when `kassa status` says that it is", names(.refilled), if .refilled.len() == 1 { "is" } else { "are" }
    )]
    TooMany { pod: PodId, refilled: Vec<PodId> },
    #[error(
        "{0} holds shards of which the other replicas are no majority without it: they cannot be refilled"
    )]
    TooFew(PodId),
}

fn names(pods: &[PodId]) -> String {
    pods.iter().map(PodId::to_string).collect::<Vec<_>>().join(" and ")
}

/// The replaced disks, and the rule by which more may be.
#[derive(Debug, Default)]
pub struct Disks {
    replaced: BTreeMap<PodId, NewDisk>,
    /// Every set of pods that decides by majority, the same on all pods.
    sets: Vec<Vec<PodId>>,
}

impl Disks {
    pub fn set_sets(&mut self, sets: Vec<Vec<PodId>>) {
        self.sets = sets;
    }

    #[must_use]
    pub const fn replaced(&self) -> &BTreeMap<PodId, NewDisk> {
        &self.replaced
    }

    pub fn rebuild(&mut self, view: &View<'_>) {
        let stored = view.scan(&[DISKS]).into_iter();
        self.replaced = stored.map(|(key, stored)| (PodId(key[1]), decode(&stored))).collect();
    }

    /// Puts `new` in the place of `old`, the disk that the asker knows of `pod`. Asked again, it is done.
    ///
    /// # Errors
    /// If the disk of `pod` is another one by now, or too many others are being refilled.
    pub fn replace(
        &mut self,
        view: &mut View<'_>,
        pod: PodId,
        old: DiskId,
        new: DiskId,
    ) -> Result<Replacement, NotReplaced> {
        let known = self.replaced.get(&pod).map(|known| known.replacement);
        if let Some(known) = known.filter(|known| known.disk == new) {
            return Ok(known);
        }
        if known.is_some_and(|known| known.disk != old) || old == new {
            return Err(NotReplaced::Raced(pod));
        }
        let is_refilled = |other: &PodId| self.replaced.get(other).is_some_and(|disk| !disk.whole);
        for set in self.sets.iter().filter(|set| set.contains(&pod)) {
            let others = || set.iter().filter(|other| **other != pod);
            if others().filter(|other| !is_refilled(other)).count() < set.len() / 2 + 1 {
                let refilled: Vec<PodId> = others().copied().filter(is_refilled).collect();
                let too_few = refilled.is_empty();
                return Err(if too_few {
                    NotReplaced::TooFew(pod)
                } else {
                    NotReplaced::TooMany { pod, refilled }
                });
            }
        }
        let replacement = Replacement { disk: new, count: known.map_or(0, |known| known.count) + 1 };
        self.save(view, pod, NewDisk { replacement, whole: false });
        Ok(replacement)
    }

    /// `pod` says that on `disk` it holds all of its shards.
    pub fn whole(&mut self, view: &mut View<'_>, pod: PodId, disk: DiskId) {
        if let Some(known) = self.replaced.get(&pod).copied()
            && known.replacement.disk == disk
            && !known.whole
        {
            self.save(view, pod, NewDisk { whole: true, ..known });
        }
    }

    fn save(&mut self, view: &mut View<'_>, pod: PodId, disk: NewDisk) {
        view.set(Bytes::copy_from_slice(&[DISKS, pod.0]), encode(&disk));
        self.replaced.insert(pod, disk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kassa_protocols::ids::Shard;
    use kassa_protocols::tables::{Disk, State};

    struct Nothing;
    impl Disk for Nothing {
        fn get(&self, _: Shard, _: &[u8]) -> Option<Bytes> {
            None
        }
        fn scan(&self, _: Shard, _: &[u8], _: Option<&[u8]>, _: usize) -> Vec<(Bytes, Bytes)> {
            Vec::new()
        }
    }

    fn with_view<R>(act: impl FnOnce(&mut View<'_>) -> R) -> R {
        let mut state = State::new(Shard::CLUSTER, false, None);
        act(&mut View { state: &mut state, disk: &Nothing })
    }

    fn disks(sets: &[&[u8]]) -> Disks {
        let mut disks = Disks::default();
        disks.set_sets(sets.iter().map(|set| set.iter().map(|&pod| PodId(pod)).collect()).collect());
        disks
    }

    const P1: PodId = PodId(1);
    const P2: PodId = PodId(2);

    #[test]
    fn of_two_who_ask_the_first_gets_it_done() {
        with_view(|view| {
            let mut disks = disks(&[&[0, 1, 2]]);
            let first = disks.replace(view, P2, DiskId(12), DiskId(20)).expect("lost");
            assert_eq!(first, Replacement { disk: DiskId(20), count: 1 });
            assert_eq!(disks.replace(view, P2, DiskId(12), DiskId(20)), Ok(first), "asked again");
            assert_eq!(disks.replace(view, P2, DiskId(12), DiskId(21)), Err(NotReplaced::Raced(P2)));
            // That one is lost too: while it is refilled it counts for nothing, so another may follow.
            let second = disks.replace(view, P2, DiskId(20), DiskId(22));
            assert_eq!(second, Ok(Replacement { disk: DiskId(22), count: 2 }));
            // The first request comes once more, late.
            assert_eq!(disks.replace(view, P2, DiskId(12), DiskId(20)), Err(NotReplaced::Raced(P2)));
        });
    }

    #[test]
    fn a_majority_of_every_set_stays_whole() {
        with_view(|view| {
            let mut disks = disks(&[&[0, 1, 2], &[2, 3, 4], &[0, 1, 2, 3, 4]]);
            disks.replace(view, P2, DiskId(12), DiskId(20)).expect("lost");
            let refused = disks.replace(view, P1, DiskId(11), DiskId(30));
            assert_eq!(refused, Err(NotReplaced::TooMany { pod: P1, refilled: vec![P2] }));
            disks.whole(view, P2, DiskId(12));
            assert!(
                disks.replace(view, P1, DiskId(11), DiskId(30)).is_err(),
                "that was said of its old disk"
            );
            disks.whole(view, P2, DiskId(20));
            assert!(disks.replace(view, P1, DiskId(11), DiskId(30)).is_ok());
            // These two share only the set of five, of which three are whole.
            assert!(disks.replace(view, PodId(3), DiskId(13), DiskId(40)).is_ok());
        });
    }
}
