//! Checkpoints of a group's shard, and copies of it for a replica that is too far behind for the log.
//!
//! A checkpoint holds exactly the state at its position, as one batch with the record that names the
//! position. Log records that it does not cover (accepted, not yet chosen; a promise) are logged again
//! with it, so that everything older can be cut.

use super::group::{Durable, Group, META, Meta, Replica, version_bytes};
use super::message::{Message, Position, Record};
use super::outbox::Outbox;
use crate::modules::keys;
use crate::modules::machine::{Machine, encode};
use bytes::Bytes;
use kassa_protocols::ids::PodId;
use kassa_protocols::quorum;
use kassa_protocols::tables::{Change, Disk, VERSION_BYTES, View};
use kassa_protocols::time::Time;

/// Expired keys dropped with one checkpoint at the most.
const EXPIRED_MAX: usize = 4_096;
/// Record bytes in one message of a copy: well below what a frame may hold.
const COPY_PART_BYTES: usize = 1 << 20;
/// Record bytes of an unfinished copy that a pod holds for one shard at the most.
const COPY_BYTES_MAX: usize = 1 << 30;

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
                replica.deletions_dropped(replica.drop_deletions_below().min(replica.committed()));
                replica.checkpointed(replica.committed());
                Durable::Quorum(replica.durable())
            }
        };
        let below = match &durable {
            Durable::Paxos(_) => None,
            Durable::Quorum(durable) => Some(version_bytes(durable.dropped)),
        };
        let mut changes = self.state.checkpoint(below.as_ref());
        changes.extend(self.expired_keys(disk));
        changes.push((Bytes::from_static(META), Some(encode(&Meta { position, durable }))));
        self.covered = position;
        self.oldest_needed = None;
        changes
    }

    /// Idempotency keys of buckets that are due to be dropped, some at a time: nobody finds them any more,
    /// so that dropping them is no change, and each replica does it for itself.
    fn expired_keys(&self, disk: &dyn Disk) -> Vec<Change> {
        let time = self.time();
        disk.scan(self.shard, &[keys::TABLE], None, EXPIRED_MAX)
            .into_iter()
            .map(|(key, _)| key)
            .take_while(|key| keys::is_expired(key, time))
            .map(|key| (key, None))
            .collect()
    }

    /// Sends a peer the records of this shard as of now: those newer than `newer_than`, or all.
    pub fn send_copy(
        &mut self,
        peer: PodId,
        newer_than: Option<quorum::Version>,
        copy: u64,
        disk: &dyn Disk,
        out: &mut Outbox,
    ) {
        let mut records = self.state.scan_stored(disk, &[]);
        records.retain(|(key, _)| key != META);
        let position = match &mut self.replica {
            Replica::Paxos(replica) => Position::Paxos(replica.durable()),
            Replica::Quorum(replica) => {
                let newer_than = newer_than.unwrap_or_default();
                let full = newer_than == quorum::Version::ZERO;
                if !full {
                    let bound = version_bytes(newer_than);
                    records.retain(|(_, stored)| stored[..VERSION_BYTES] > bound[..]);
                }
                Position::Quorum(replica.snapshot(newer_than, full))
            }
        };
        let mut parts: Vec<Vec<(Bytes, Bytes)>> = vec![Vec::new()];
        let mut bytes = 0;
        for record in records {
            if bytes >= COPY_PART_BYTES {
                parts.push(Vec::new());
                bytes = 0;
            }
            bytes += record.0.len() + record.1.len();
            parts.last_mut().expect("never empty").push(record);
        }
        let count = parts.len();
        for (i, records) in parts.into_iter().enumerate() {
            let last = i + 1 == count;
            let part = u32::try_from(i).expect("a copy has few parts");
            let position = last.then(|| position.clone());
            out.send(peer, Message::Copy { shard: self.shard, copy, part, last, records, position });
        }
    }

    /// Takes a whole copy, if it is ahead of what is here. Its records and its position are written as
    /// one batch by the checkpoint that the caller makes at once.
    pub fn install(
        &mut self,
        now: Time,
        records: Vec<(Bytes, Bytes)>,
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
                let old: Vec<Bytes> =
                    self.state.scan_stored(disk, &[]).into_iter().map(|(key, _)| key).collect();
                for key in old {
                    if key != META && records.binary_search_by(|(new, _)| new.cmp(&key)).is_err() {
                        self.state.install(key, None);
                    }
                }
            }
            for (key, stored) in records {
                self.state.install(key, Some(stored));
            }
            self.machine.rebuild(&View { state: &mut self.state, disk });
        }
        self.drain(now, disk, out);
        ahead
    }
}

/// The parts of a copy as they arrive, of one shard at a time from one peer.
#[derive(Debug, Default)]
pub struct Arriving {
    from: Option<(PodId, u64)>,
    next: u32,
    bytes: usize,
    records: Vec<(Bytes, Bytes)>,
}

impl Arriving {
    /// Takes a part; gives all records once the last one is there. A part out of order (its link was
    /// reset) drops what was gathered: the copy is asked for again.
    pub fn take(
        &mut self,
        from: PodId,
        copy: u64,
        part: u32,
        last: bool,
        records: Vec<(Bytes, Bytes)>,
    ) -> Option<Vec<(Bytes, Bytes)>> {
        if part == 0 {
            *self = Self { from: Some((from, copy)), ..Self::default() };
        }
        if self.from != Some((from, copy)) || self.next != part || self.bytes > COPY_BYTES_MAX {
            return None;
        }
        self.next += 1;
        self.bytes += records.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        self.records.extend(records);
        last.then(|| std::mem::take(self).records)
    }
}
