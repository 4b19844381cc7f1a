//! Checkpoints of a group's shard, and what copies of it are made of: see [`super::copying`].
//!
//! A checkpoint holds exactly the state at its position, as one batch with the record that names the
//! position. Log records that it does not cover (accepted, not yet chosen; a promise) are logged again
//! with it, so that everything older can be cut.

use super::group::{Group, Replica, version_bytes};
use super::message::{Position, Record};
use super::outbox::Outbox;
use crate::modules::keys;
use crate::modules::machine::{Machine, encode};
use bytes::Bytes;
use kassa_protocols::breaks;
use kassa_protocols::ids::PodId;
use kassa_protocols::tables::{Change, Disk, Page, VERSION_BYTES, View};
use kassa_protocols::time::Time;
use kassa_protocols::{paxos, quorum};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Expired keys read at a time, and dropped with one checkpoint at the most, besides as many as that
/// one writes: they go faster than new ones come.
const EXPIRED_PAGE: usize = 256;
const EXPIRED_MAX: usize = 4_096;
/// Deletions that a shard's tables remember for a replica that is away: about as many records as a
/// shard of a large shop has otherwise. Beyond it the replica will need a full copy.
const DELETIONS_MAX: usize = 16_384;

/// Where a shard's checkpoint stands, in its own record.
pub const META: &[u8] = b"!";

/// What a checkpoint stores beside the records, in the same batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Meta {
    /// Log records of this shard below this position are covered.
    pub(super) position: u64,
    pub(super) durable: Durable,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Durable {
    Paxos(paxos::Durable),
    Quorum(quorum::Durable),
}

impl<M: Machine, T> Group<M, T> {
    /// Writes the shard's state as of now, in the same batch as the log record at `position`.
    pub fn checkpoint(&mut self, position: u64, disk: &dyn Disk, out: &mut Outbox) -> Vec<Change> {
        let durable = match &mut self.replica {
            Replica::Paxos(replica) => {
                for record in replica.retained_log() {
                    out.log_lazily(self.shard, Record::Paxos(record));
                }
                replica.checkpointed(replica.applied());
                Durable::Paxos(replica.durable())
            }
            Replica::Quorum(replica) => {
                for record in replica.retained_log() {
                    out.log_lazily(self.shard, Record::Quorum(record));
                }
                let all_have = replica.drop_deletions_below().min(replica.committed());
                let too_many = self.state.remembered_deletions() > DELETIONS_MAX;
                replica.deletions_dropped(if too_many { replica.committed() } else { all_have });
                replica.checkpointed(replica.committed());
                Durable::Quorum(replica.durable())
            }
        };
        let below = match &durable {
            Durable::Paxos(_) => None,
            Durable::Quorum(durable) => Some(version_bytes(durable.dropped)),
        };
        let mut changes = below.map(|below| self.state.sweep(disk, &below)).unwrap_or_default();
        changes.retain(|(key, _)| key != META);
        changes.extend(self.expired_keys(disk));
        changes.extend(self.state.checkpoint(below.as_ref()));
        changes.push((Bytes::from_static(META), Some(encode(&Meta { position, durable }))));
        self.covered = position;
        self.oldest_needed = None;
        changes
    }

    /// Idempotency keys of buckets that are due to be dropped, some at a time: nobody finds them any more,
    /// so that dropping them is no change, and each replica does it for itself.
    fn expired_keys(&self, disk: &dyn Disk) -> Vec<Change> {
        // Only what is committed counts: what is accepted may be cut again, and its time with it.
        let time = match &self.replica {
            Replica::Paxos(replica) => replica.time(),
            Replica::Quorum(replica) => replica.durable().time,
        };
        let mut expired: Vec<Change> = Vec::new();
        while expired.len() < EXPIRED_MAX + self.state.dirty() {
            let after = expired.last().map(|(key, _)| key.clone());
            let page = disk.scan(self.shard, &[keys::TABLE], after.as_deref(), EXPIRED_PAGE);
            let read = page.len();
            let before = expired.len();
            let keys = page.into_iter().map(|(key, _)| key);
            expired.extend(keys.take_while(|key| keys::is_expired(key, time)).map(|key| (key, None)));
            if expired.len() - before < read || read < EXPIRED_PAGE {
                break;
            }
        }
        expired
    }

    /// Takes a whole copy, if it is ahead of what is here. Its records and its position are written as
    /// one batch by the checkpoint that the caller makes at once.
    pub fn install(
        &mut self,
        now: Time,
        mut records: BTreeMap<Bytes, Option<Bytes>>,
        position: Position,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) -> bool {
        let (ahead, full) = match (&mut self.replica, position) {
            (Replica::Paxos(replica), Position::Paxos(durable)) => {
                let lead = durable.lead;
                let ahead = replica.install(now, durable, &mut self.paxos_fx);
                if ahead {
                    self.lead = self.lead.max(lead);
                }
                (ahead, true)
            }
            (Replica::Quorum(replica), Position::Quorum(snapshot)) => {
                let full = snapshot.full;
                (replica.install(now, &snapshot, &mut self.quorum_fx), full)
            }
            (Replica::Paxos(_), Position::Quorum(_)) | (Replica::Quorum(_), Position::Paxos(_)) => {
                (false, false)
            }
        };
        if ahead {
            if full {
                // Only then read what is on disk: what memory had deleted of it must not come back.
                self.state.reset();
                for (key, old) in self.state.scan_stored(disk, &[]) {
                    if key == META {
                        continue;
                    }
                    match records.entry(key) {
                        Entry::Vacant(gone) => {
                            gone.insert(None);
                        }
                        // Nothing to write.
                        Entry::Occupied(same) if same.get().as_ref() == Some(&old) => {
                            same.remove();
                        }
                        Entry::Occupied(_) => {}
                    }
                }
            }
            for (key, stored) in records {
                self.state.install(key, stored);
            }
            self.machine.rebuild(&View { state: &mut self.state, disk });
        }
        self.drain(disk, out);
        ahead
    }

    fn is_copied(&self, key: &[u8], stored: Option<&Bytes>, newer_than: quorum::Version) -> bool {
        let unfinished = key.first() == Some(&crate::modules::payment::UNFINISHED);
        if key == META || unfinished && breaks::is("copy-without-unfinished") {
            return false;
        }
        match &self.replica {
            Replica::Paxos(_) => true,
            Replica::Quorum(_) if newer_than == quorum::Version::ZERO => true,
            Replica::Quorum(_) => {
                stored.is_none_or(|stored| stored[..VERSION_BYTES] > version_bytes(newer_than)[..])
            }
        }
    }
}

/// A shard of any module, as far as copies of it go.
pub(super) trait Copying {
    /// Begins to read the records of this shard for a copy.
    fn begin_copy(&mut self, copy: u64);

    /// Some more records for a copy, of those newer than `newer_than`; `None` if it has to be given up.
    fn copy_page(
        &mut self,
        copy: u64,
        newer_than: quorum::Version,
        bytes_max: usize,
        disk: &dyn Disk,
    ) -> Option<Page>;

    /// Ends a copy whose pages are all read: what has changed since they were, and the position that they
    /// are of together. The log is kept for the peer from here on.
    fn end_copy(
        &mut self,
        copy: u64,
        peer: PodId,
        newer_than: quorum::Version,
        disk: &dyn Disk,
    ) -> Option<(Vec<Change>, Position)>;

    /// A copy for `peer` has arrived there whole, or never will.
    fn copy_is_over(&mut self, now: Time, copy: u64, peer: PodId, whole: bool);

    /// A copy for this pod is on its way: there is no need to ask for another.
    fn copy_arrives(&mut self, now: Time);
}

impl<M: Machine, T> Copying for Group<M, T> {
    fn begin_copy(&mut self, copy: u64) {
        self.state.begin_walk(copy);
    }

    fn copy_page(
        &mut self,
        copy: u64,
        newer_than: quorum::Version,
        bytes_max: usize,
        disk: &dyn Disk,
    ) -> Option<Page> {
        let mut page = self.state.walk_page(copy, disk, bytes_max)?;
        page.records.retain(|(key, stored)| self.is_copied(key, Some(stored), newer_than));
        Some(page)
    }

    fn end_copy(
        &mut self,
        copy: u64,
        peer: PodId,
        newer_than: quorum::Version,
        disk: &dyn Disk,
    ) -> Option<(Vec<Change>, Position)> {
        let mut changed = self.state.end_walk(copy, disk)?;
        changed.retain(|(key, stored)| self.is_copied(key, stored.as_ref(), newer_than));
        let position = match &mut self.replica {
            Replica::Paxos(replica) => {
                replica.snapshot_taken(peer);
                Position::Paxos(replica.durable())
            }
            Replica::Quorum(replica) => {
                replica.transfer_taken(peer);
                Position::Quorum(replica.snapshot(newer_than, newer_than == quorum::Version::ZERO))
            }
        };
        Some((changed, position))
    }

    fn copy_is_over(&mut self, now: Time, copy: u64, peer: PodId, whole: bool) {
        self.state.drop_walk(copy);
        match &mut self.replica {
            Replica::Paxos(replica) if whole => replica.snapshot_sent(now, peer),
            Replica::Paxos(replica) => replica.snapshot_given_up(now, peer),
            Replica::Quorum(replica) if whole => replica.transfer_sent(peer),
            Replica::Quorum(replica) => replica.transfer_given_up(peer),
        }
    }

    fn copy_arrives(&mut self, now: Time) {
        match &mut self.replica {
            Replica::Paxos(replica) => replica.snapshot_begun(now),
            // Asks by version, not by time: the source knows what is under way.
            Replica::Quorum(_) => {}
        }
    }
}
