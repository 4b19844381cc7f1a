//! Copies of shards on their way: for a replica whose gap the log no longer spans.
//!
//! A shard may be many times larger than what a link may have queued, and whoever needs one copy after a
//! long absence needs dozens. So a pod sends a peer one copy at a time, the others wait in a queue that
//! holds each shard once; of a copy a few parts are under way, and each that is acknowledged lets the next
//! one go. The records are read only then.
//!
//! A copy is of one committed state all the same, that of its end (see `kassa_protocols::tables`, walks):
//! records are read in key order while the shard goes on, and once all are read, those that were
//! committed anew behind the reader are taken at one moment, with the position of that moment. They follow
//! as the last parts. The end and not the beginning, since the receiver goes on from there by the log: the
//! source keeps its log for it from that position on, which spans no more than the last few parts.
//! (Holding the shard as it was at the beginning would take its size in memory, and a log that reaches
//! back over the whole transfer.)
//!
//! Whatever breaks a copy ends it, on both sides, and the receiver's protocol asks for the next: a link
//! that goes down, a part without its predecessor, a source whose own state is replaced, silence. What had
//! arrived of it counts for nothing. Nothing is installed before all of it is there, as one batch.

#![expect(clippy::too_many_arguments, reason = "the fields of one message besides time and disk")]

use super::copy::Copying;
use super::message::{Message, Position};
use super::pod::Node;
use bytes::Bytes;
use kassa_protocols::ids::{Module, PodId, Shard};
use kassa_protocols::quorum::Version;
use kassa_protocols::tables::{Change, Disk};
use kassa_protocols::time::{Span, Time};
use std::collections::{BTreeMap, VecDeque};

/// Record bytes of an unfinished copy that a pod holds for one shard at the most.
const COPY_BYTES_MAX: usize = 1 << 30;
/// A copy of which nothing was acknowledged for so long is given up: taking in the whole of a large one
/// lasts seconds, and an acknowledgement may be lost with its link while this pod's own stays.
const SILENCE_MAX: Span = Span::from_millis(10_000);
/// What is expected of a copy that was under way on a link that broke.
const NO_MORE: u32 = u32::MAX;

/// What a pod sends of copies, and what it holds of those that arrive.
#[derive(Debug)]
pub(super) struct Copies {
    /// The last number given to a copy; those of an earlier life were others.
    number: u64,
    sending: BTreeMap<PodId, Sending>,
    arriving: BTreeMap<Shard, Arriving>,
}

/// What a peer is sent. The queue holds each shard of this pod once at the most.
#[derive(Debug, Default)]
struct Sending {
    current: Option<Current>,
    queue: VecDeque<(Shard, Version)>,
}

/// The copy that is under way to a peer.
#[derive(Debug)]
struct Current {
    shard: Shard,
    copy: u64,
    /// Records of this version and older are left out; none are if it is zero.
    newer_than: Version,
    sent: u32,
    acknowledged: u32,
    heard_at: Time,
    /// What is left to send of the end, once all pages were read.
    end: Option<(VecDeque<Change>, Position)>,
    ended: bool,
}

/// The parts of a copy that have arrived.
#[derive(Debug)]
struct Arriving {
    from: PodId,
    copy: u64,
    next: u32,
    bytes: usize,
    records: BTreeMap<Bytes, Option<Bytes>>,
}

impl Copies {
    pub const fn new(number: u64) -> Self {
        Self { number, sending: BTreeMap::new(), arriving: BTreeMap::new() }
    }

    /// Takes a part. `Err` if what came before it is not here.
    fn take(
        &mut self,
        from: PodId,
        shard: Shard,
        copy: u64,
        part: u32,
        records: Vec<Change>,
    ) -> Result<(), ()> {
        if part == 0 {
            // Whatever was here of an older copy is dropped.
            let records = BTreeMap::new();
            self.arriving.insert(shard, Arriving { from, copy, next: 0, bytes: 0, records });
        }
        let expected = |a: &&mut Arriving| (a.from, a.copy, a.next) == (from, copy, part);
        let Some(arriving) = self.arriving.get_mut(&shard).filter(expected) else { return Err(()) };
        arriving.next += 1;
        arriving.bytes += bytes_of(&records);
        arriving.records.extend(records);
        if arriving.bytes > COPY_BYTES_MAX {
            self.arriving.remove(&shard);
            return Err(());
        }
        Ok(())
    }
}

impl Node {
    /// A peer lacks more of a shard than the log has: it is sent a copy, in its turn.
    pub(super) fn copy_wanted(
        &mut self,
        now: Time,
        shard: Shard,
        peer: PodId,
        newer_than: Option<Version>,
        disk: &dyn Disk,
    ) {
        let newer_than = newer_than.unwrap_or_default();
        let sending = self.copies.sending.entry(peer).or_default();
        if sending.current.as_ref().is_some_and(|current| current.shard == shard) {
            return;
        }
        match sending.queue.iter_mut().find(|(queued, _)| *queued == shard) {
            Some((_, wanted)) => *wanted = newer_than,
            None => sending.queue.push_back((shard, newer_than)),
        }
        self.pump_copies(now, peer, disk);
    }

    /// Sends a peer the next parts, as far as the window goes.
    fn pump_copies(&mut self, now: Time, peer: PodId, disk: &dyn Disk) {
        let (part_bytes, window) = (self.config.limits.copy_part_bytes, self.config.limits.copy_window);
        loop {
            let Some(sending) = self.copies.sending.get_mut(&peer) else { return };
            let Some(current) = &mut sending.current else {
                let Some((shard, newer_than)) = sending.queue.pop_front() else { return };
                self.copies.number += 1;
                let copy = self.copies.number;
                let (sent, acknowledged, heard_at) = (0, 0, now);
                let (end, ended) = (None, false);
                sending.current =
                    Some(Current { shard, copy, newer_than, sent, acknowledged, heard_at, end, ended });
                self.with_copied(shard, |group| group.begin_copy(copy));
                continue;
            };
            if current.ended || current.sent - current.acknowledged >= window {
                return;
            }
            let (shard, copy, part, newer_than) =
                (current.shard, current.copy, current.sent, current.newer_than);
            current.sent += 1;
            if current.end.is_none() {
                let page =
                    self.with_copied(shard, |group| group.copy_page(copy, newer_than, part_bytes, disk));
                let Some(page) = page.flatten() else { return self.copy_is_over(now, peer, false, disk) };
                if !page.at_end {
                    let records = page.records.into_iter().map(|(key, value)| (key, Some(value))).collect();
                    self.out.send(peer, Message::Copy { shard, copy, part, records, position: None });
                    continue;
                }
                let end = self.with_copied(shard, |group| group.end_copy(copy, peer, newer_than, disk));
                let Some((changed, position)) = end.flatten() else {
                    return self.copy_is_over(now, peer, false, disk);
                };
                let last = page.records.into_iter().map(|(key, value)| (key, Some(value)));
                let end = Some((last.chain(changed).collect(), position));
                if let Some(current) = self.copies.current(peer) {
                    current.end = end;
                }
            }
            let Some(current) = self.copies.current(peer) else { return };
            let Some((left, position)) = &mut current.end else { return };
            let mut records = Vec::new();
            let mut bytes = 0;
            while bytes < part_bytes
                && let Some(record) = left.pop_front()
            {
                bytes += bytes_of(std::slice::from_ref(&record));
                records.push(record);
            }
            current.ended = left.is_empty();
            let position = current.ended.then(|| position.clone());
            self.out.send(peer, Message::Copy { shard, copy, part, records, position });
        }
    }

    /// A peer says how far it has come with a copy.
    pub(super) fn copied(
        &mut self,
        now: Time,
        peer: PodId,
        shard: Shard,
        copy: u64,
        next: Option<u32>,
        disk: &dyn Disk,
    ) {
        let Some(current) = self.copies.current(peer) else { return };
        if (current.shard, current.copy) != (shard, copy) {
            return;
        }
        let Some(next) = next else { return self.copy_is_over(now, peer, false, disk) };
        current.heard_at = now;
        current.acknowledged = current.acknowledged.max(next.min(current.sent));
        if current.ended && current.acknowledged == current.sent {
            self.copy_is_over(now, peer, true, disk);
        } else {
            self.pump_copies(now, peer, disk);
        }
    }

    /// The copy under way to a peer has ended, one way or the other: the next one begins.
    fn copy_is_over(&mut self, now: Time, peer: PodId, whole: bool, disk: &dyn Disk) {
        self.drop_current(now, peer, whole);
        self.pump_copies(now, peer, disk);
    }

    fn drop_current(&mut self, now: Time, peer: PodId, whole: bool) {
        let current = self.copies.sending.get_mut(&peer).and_then(|sending| sending.current.take());
        if let Some(Current { shard, copy, .. }) = current {
            self.with_copied(shard, |group| group.copy_is_over(now, copy, peer, whole));
        }
    }

    /// The link to a peer has gone or come: what was under way either way may be lost, and whoever still
    /// lacks something asks again.
    pub(super) fn copies_lost(&mut self, now: Time, peer: PodId, up: bool) {
        self.drop_current(now, peer, false);
        self.copies.sending.remove(&peer);
        for (&shard, arriving) in self.copies.arriving.iter_mut().filter(|(_, a)| a.from == peer) {
            arriving.records.clear();
            arriving.next = NO_MORE;
            if up {
                // If the peer's own link has stayed, it waits for an acknowledgement that was lost.
                self.out.send(peer, Message::Copied { shard, copy: arriving.copy, next: None });
            }
        }
        if up {
            self.copies.arriving.retain(|_, arriving| arriving.from != peer);
        }
    }

    /// Gives up copies whose receivers are silent.
    pub(super) fn tick_copies(&mut self, now: Time, disk: &dyn Disk) {
        let silent = |sending: &Sending| {
            sending.current.as_ref().is_some_and(|current| now.since(current.heard_at) >= SILENCE_MAX)
        };
        let silent: Vec<PodId> = self
            .copies
            .sending
            .iter()
            .filter(|(_, sending)| silent(sending))
            .map(|(&peer, _)| peer)
            .collect();
        for peer in silent {
            self.copy_is_over(now, peer, false, disk);
        }
    }

    /// A part of a copy for this pod. The last one has all of it installed, and checkpointed with this
    /// round, so that records and position are one batch, which is on disk before the answer leaves.
    pub(super) fn part_arrived(
        &mut self,
        now: Time,
        from: PodId,
        shard: Shard,
        copy: u64,
        part: u32,
        records: Vec<Change>,
        position: Option<Position>,
        disk: &dyn Disk,
    ) {
        if self.copies.take(from, shard, copy, part, records).is_err() {
            self.out.send(from, Message::Copied { shard, copy, next: None });
            return;
        }
        self.with_copied(shard, |group| group.copy_arrives(now));
        if let Some(position) = position
            && let Some(whole) = self.copies.arriving.remove(&shard)
        {
            self.install(now, shard, whole.records, position, disk);
        }
        self.out.send(from, Message::Copied { shard, copy, next: Some(part + 1) });
    }

    fn install(
        &mut self,
        now: Time,
        shard: Shard,
        records: BTreeMap<Bytes, Option<Bytes>>,
        position: Position,
        disk: &dyn Disk,
    ) {
        let out = &mut self.out;
        let taken = match shard.module {
            Module::Cluster => self.cluster.group.install(now, records, position, disk, out),
            Module::Stock => self.stock.get_mut(&shard.no).is_some_and(|stock| {
                stock.batches = None;
                stock.group.install(now, records, position, disk, out)
            }),
            Module::Payment => self
                .payment
                .get_mut(&shard.no)
                .is_some_and(|payment| payment.group.install(now, records, position, disk, out)),
            Module::Order => false,
        };
        if taken {
            self.due.push(shard);
        }
    }

    fn with_copied<R>(&mut self, shard: Shard, act: impl FnOnce(&mut dyn Copying) -> R) -> Option<R> {
        match shard.module {
            Module::Cluster => Some(act(&mut self.cluster.group)),
            Module::Stock => self.stock.get_mut(&shard.no).map(|stock| act(&mut stock.group)),
            Module::Payment => self.payment.get_mut(&shard.no).map(|payment| act(&mut payment.group)),
            // Sets of operations are compared and merged, never copied.
            Module::Order => None,
        }
    }
}

impl Copies {
    fn current(&mut self, peer: PodId) -> Option<&mut Current> {
        self.sending.get_mut(&peer)?.current.as_mut()
    }
}

fn bytes_of(records: &[Change]) -> usize {
    records.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len)).sum()
}
