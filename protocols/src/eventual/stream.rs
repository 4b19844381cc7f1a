//! Edits on their way: journal to peer, acknowledgement back, answer to the client.

use super::types::{Event, Item, Message, Record, Sets};
use super::{Effects, Owner, Replica, START_SHIFT};
use crate::breaks;
use crate::ids::{Ballot, PodId};
use crate::time::Time;
use bytes::Bytes;
use std::collections::BTreeMap;

/// Edits whose answer waits. More than a majority's disks take in a second; past it edits are shed.
pub const EDITS_PENDING_MAX: usize = 8_192;
/// Journal entries sent to a peer and not acknowledged: past it, it is caught up at its own pace.
pub const WINDOW_ENTRIES: usize = 1_024;

/// Entries in one message to a peer that is behind, and item bytes in it beyond the entity that reaches
/// it: well below what a frame holds.
const RUN_ENTRIES_MAX: usize = 256;
const RUN_BYTES_MAX: usize = 256 * 1_024;

/// An edit that is not answered yet.
#[derive(Debug)]
pub(super) struct Pending {
    seq: u64,
    /// Of the owner that took it; `None` if no owner did.
    ballot: Option<Ballot>,
    /// Peers that have it on disk, each under no newer ballot: a bit for each.
    pub acked: u64,
}

impl Replica {
    /// Takes an edit: merged, journalled, sent. `Durable` or `Fenced` tells of the number returned;
    /// `None`, and nothing done, if too many wait.
    pub fn edit(
        &mut self,
        now: Time,
        entity: Bytes,
        items: Vec<Item>,
        sets: &mut dyn Sets,
        fx: &mut Effects,
    ) -> Option<u64> {
        if self.pending.len() >= EDITS_PENDING_MAX {
            return None;
        }
        self.merge(&entity, &items, sets);
        let prev = self.seq;
        let seq = self.seq.max(self.start << START_SHIFT) + 1;
        self.seq = seq;
        self.journal.push(seq, entity.clone());
        let ballot = match self.owner {
            Owner::Owning(ballot) => Some(ballot),
            Owner::Taking(_) | Owner::Other => None,
        };
        self.pending.push_back(Pending { seq, ballot, acked: 0 });
        for (&pod, peer) in &mut self.peers {
            if !peer.up || peer.sent != prev || self.journal.between(peer.acked, peer.sent) >= WINDOW_ENTRIES
            {
                continue;
            }
            if peer.acked == peer.sent {
                peer.progress_at = now;
            }
            peer.sent = seq;
            let update = Message::Update { seq, prev, sets: vec![(entity.clone(), items.clone())] };
            if self.started { &mut fx.send_early } else { &mut fx.send }.push((pod, update));
        }
        fx.persist.push(Record::Edited { seq, entity, items });
        self.merged_asked = self.merged;
        fx.send.push((self.config.me, Message::Stored { seq, merged: self.merged }));
        Some(seq)
    }

    /// Sends all that is here of an entity once more, as an edit: when `Durable` tells of it, a
    /// majority has it. For the answer to a repeated edit, whose first attempt may not have got so far.
    pub fn refresh(
        &mut self,
        now: Time,
        entity: Bytes,
        sets: &mut dyn Sets,
        fx: &mut Effects,
    ) -> Option<u64> {
        let items = sets.items(&entity);
        self.edit(now, entity, items, sets, fx)
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(super) fn on_update(
        &mut self,
        from: PodId,
        seq: u64,
        prev: u64,
        contents: Vec<(Bytes, Vec<Item>)>,
        promised: Ballot,
        sets: &mut dyn Sets,
        fx: &mut Effects,
    ) {
        let Some(received) = self.peers.get(&from).map(|peer| peer.received) else { return };
        if seq > received && prev <= received {
            for (entity, items) in &contents {
                self.merged += u64::from(self.merge(entity, items, sets));
            }
            self.advance(from, seq);
            fx.persist.push(Record::Taken { from, seq, sets: contents });
        } else if seq > received {
            // Something before it was lost on the way, and all will be sent again.
            for (entity, items) in contents {
                if self.merge(&entity, &items, sets) {
                    self.merged += 1;
                    fx.persist.push(Record::Merged { entity, items });
                }
            }
        }
        self.acknowledge(from, promised, fx);
    }

    /// Tells a peer how much of its journal is held here.
    pub(super) fn acknowledge(&self, peer: PodId, promised: Ballot, fx: &mut Effects) {
        if let Some(state) = self.peers.get(&peer) {
            fx.send.push((peer, Message::Ack { seq: state.received, under: promised }));
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(super) fn on_ack(
        &mut self,
        now: Time,
        from: PodId,
        seq: u64,
        under: Ballot,
        promised: Ballot,
        sets: &mut dyn Sets,
        fx: &mut Effects,
    ) {
        let newest = self.seq;
        let bit = self.bit(from);
        let Some(peer) = self.peers.get_mut(&from) else { return };
        peer.under = peer.under.max(under);
        // A peer may hold an edit that a crash took back here.
        let seq = seq.min(newest);
        if seq > peer.acked {
            peer.acked = seq;
            peer.sent = peer.sent.max(seq);
            peer.progress_at = now;
        }
        let mut fenced = Vec::new();
        for edit in self.pending.iter_mut().take_while(|edit| edit.seq <= seq) {
            if edit.ballot.is_some_and(|ballot| ballot < under) {
                fenced.push(edit.seq);
            } else {
                edit.acked |= bit;
            }
        }
        if !fenced.is_empty() {
            self.pending.retain(|edit| fenced.binary_search(&edit.seq).is_err());
            fx.events.extend(fenced.into_iter().map(|seq| Event::Fenced { seq }));
        }
        let everywhere = self.peers.values().map(|peer| peer.acked).min().unwrap_or(newest);
        self.journal.trim(everywhere);
        self.stream(from, sets, fx);
        self.settle(promised, fx);
    }

    pub(super) fn on_stored(&mut self, seq: u64, merged: u64, promised: Ballot, fx: &mut Effects) {
        self.started = true;
        self.merged_stored = self.merged_stored.max(merged);
        self.stored = self.stored.max(seq);
        if self.peers.is_empty() {
            self.journal.trim(self.stored);
        }
        self.settle(promised, fx);
    }

    /// Answers what may be answered.
    pub(super) fn settle(&mut self, promised: Ballot, fx: &mut Effects) {
        let majority = self.config.majority();
        let alone = !self.reaches_majority();
        let stored = self.stored;
        let mut settled = |edit: &Pending| {
            if edit.ballot.is_some_and(|ballot| ballot < promised) {
                fx.events.push(Event::Fenced { seq: edit.seq });
                return true;
            }
            let durable = edit.seq <= stored && (alone || held_by(edit.acked) >= majority)
                || breaks::is("edit-answered-before-disk");
            if durable {
                fx.events.push(Event::Durable { seq: edit.seq });
            }
            durable
        };
        while let Some(edit) = self.pending.front()
            && settled(edit)
        {
            self.pending.pop_front();
        }
        self.settle_barriers(promised, fx);
    }

    pub(super) fn fence_all(&mut self, fx: &mut Effects) {
        self.pending.retain(|edit| {
            if edit.ballot.is_some() {
                fx.events.push(Event::Fenced { seq: edit.seq });
            }
            edit.ballot.is_none()
        });
        self.void_barriers(fx);
    }

    /// Stands for a replica in a set of them.
    pub(super) fn bit(&self, pod: PodId) -> u64 {
        self.config.replicas.iter().position(|&replica| replica == pod).map_or(0, |at| 1 << at)
    }

    /// Begins anew after what the peer has acknowledged.
    pub(super) fn rewind(&mut self, now: Time, pod: PodId) {
        if let Some(peer) = self.peers.get_mut(&pod) {
            peer.sent = peer.acked;
            peer.progress_at = now;
        }
    }

    pub(super) fn resend(&mut self, now: Time, pod: PodId, sets: &mut dyn Sets, fx: &mut Effects) {
        let Some(peer) = self.peers.get(&pod) else { return };
        if now < peer.progress_at + self.config.timing.resend || peer.acked >= self.seq {
            return;
        }
        self.rewind(now, pod);
        self.stream(pod, sets, fx);
    }

    /// Sends a peer that is behind some of what it lacks, as far as the window allows: one run, and the next
    /// when that is acknowledged, since a link that has just come up carries those of all shards at once. One
    /// message covers a run of entries whole, so that what it claims does not rest on another having arrived.
    pub(super) fn stream(&mut self, pod: PodId, sets: &mut dyn Sets, fx: &mut Effects) {
        let newest = self.seq;
        let Some(peer) = self.peers.get_mut(&pod) else { return };
        if !peer.up {
            return;
        }
        if peer.sent < self.journal.floor() {
            // `sent` stays: it is told again when time has passed or it has acknowledged something.
            fx.send.push((pod, Message::Behind { seq: self.journal.floor() }));
            return;
        }
        if peer.sent < newest && self.journal.between(peer.acked, peer.sent) < WINDOW_ENTRIES {
            let prev = peer.sent;
            let mut run: BTreeMap<Bytes, Vec<Item>> = BTreeMap::new();
            let mut bytes = 0;
            for (seq, entity) in self.journal.after(prev).take(RUN_ENTRIES_MAX) {
                if bytes >= RUN_BYTES_MAX {
                    break;
                }
                peer.sent = *seq;
                run.entry(entity.clone()).or_insert_with(|| {
                    let items = sets.items(entity);
                    bytes += items.iter().map(|item| item.body.len() + size_of::<Item>()).sum::<usize>();
                    items
                });
            }
            assert!(peer.sent > prev, "what is not trimmed is in the journal");
            let sets = run.into_iter().collect();
            fx.send.push((pod, Message::Update { seq: peer.sent, prev, sets }));
        }
    }
}

/// The disks that hold an edit: this pod's, and those of the peers.
const fn held_by(peers: u64) -> usize {
    peers.count_ones() as usize + 1
}
