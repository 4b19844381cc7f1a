//! Reads of items from any pod, by a read quorum: only for stock on read/write quorums.
//!
//! The pod asks all replicas of the item's shard, itself included if it is one. Each answers, whether it
//! leads or not, with the item as of what it has accepted: its tables and, on top, the writes that are
//! not known to be committed yet. Records that its coordinator has only staged are accepted nowhere and
//! are not shown. `quorum::judge` says when R answers settle it: the item is that of the highest accepted
//! version, and the write that it is of is committed. Readers never write.
//!
//! What an answer shows is durable where it comes from: it waits for the disk of its round if the shard
//! has anything to store in it. A copy of the shard is taken in as a whole, within one step, and is
//! stored in that round.
//!
//! If the answers do not settle it (the item is being written) or too few come, the coordinator is asked
//! as for everything else.

use super::config::Protocol;
use super::group::{Group, Replica};
use super::ingress::Ingress;
use super::message::{Ask, AskId, Message, Shown, Tell};
use super::pod::Node;
use super::stock::StockShard;
use crate::modules::batch::{BatchRecord, newest_covering};
use crate::modules::machine::{Machine, decode};
use crate::modules::request::{Answer, ItemId, Op, Outcome, Refusal};
use crate::modules::stock;
use bytes::{Buf, Bytes};
use kassa_protocols::breaks;
use kassa_protocols::ids::{Ballot, Module, PodId, Shard};
use kassa_protocols::quorum::{ReadState, ReadVerdict, Version, judge};
use kassa_protocols::tables::{Disk, VERSION_BYTES, stored_parts};
use kassa_protocols::time::Time;
use std::collections::BTreeMap;

/// The answers to one read, and until when they are waited for before the coordinator is asked.
#[derive(Debug)]
pub(super) struct Gathering {
    until: Time,
    answers: BTreeMap<PodId, Shown>,
}

/// The batches of a stock shard that are committed here, each with the version that wrote it; read anew
/// when one has changed.
pub(super) type KnownBatches = Option<Vec<(Version, BatchRecord)>>;

impl Ingress {
    /// The item that a question is about, if it does nothing but read one.
    fn item_read(&self, id: AskId) -> Option<&ItemId> {
        let Ask::Op { request, .. } = &self.asked.get(&id)?.question.ask else { return None };
        if let Op::FindItem { item } = &request.op { Some(item) } else { None }
    }
}

impl Node {
    /// Whether the question is a read whose replicas are still to be heard; the first time, asks them.
    pub(super) fn reads_by_quorum(&mut self, now: Time, id: AskId, shard: Shard) -> bool {
        if shard.module != Module::Stock || self.config.stock != Protocol::Quorum {
            return false;
        }
        let Some(item) = self.ingress.item_read(id).cloned() else { return false };
        if let Some(gathering) = self.ingress.asked.get(&id).and_then(|asked| asked.gathering.as_ref()) {
            return now < gathering.until;
        }
        let near: Vec<PodId> =
            self.routes.replicas(shard).into_iter().filter(|&pod| self.out.is_up(pod)).collect();
        let (read_quorum, _) = self.stock_quorums(shard);
        if near.len() < read_quorum {
            return false;
        }
        for pod in near {
            self.out.post(pod, Message::Read { shard, id, item: item.clone() });
        }
        let until = now + self.config.timing.read_patience;
        if let Some(asked) = self.ingress.asked.get_mut(&id) {
            asked.gathering = Some(Gathering { until, answers: BTreeMap::new() });
        }
        true
    }

    /// R and W of a stock shard.
    fn stock_quorums(&self, shard: Shard) -> (usize, usize) {
        let replicas = self.routes.replicas(shard).len();
        let write_quorum = self.config.write_quorum.min(replicas);
        (replicas - write_quorum + 1, write_quorum)
    }

    /// A pod asks for an item as of what this replica has accepted.
    pub(super) fn read(&mut self, from: PodId, shard: Shard, id: AskId, item: &ItemId, disk: &dyn Disk) {
        let Some(stock) = self.stock.get_mut(&shard.no).filter(|_| shard.module == Module::Stock) else {
            return;
        };
        let Some(shown) = stock.show(item, disk) else { return };
        let message = Message::ReadAnswer { id, shown: Box::new(shown) };
        // A copy that came in this round is not durable before its end either.
        if self.due.contains(&shard) || self.out.logs(shard) {
            self.out.send(from, message);
        } else {
            self.out.post(from, message);
        }
    }

    /// A replica has answered.
    pub(super) fn read_answer(&mut self, now: Time, from: PodId, id: AskId, shown: Shown) {
        let Some(shard) = self.ingress.shard_of(id) else { return };
        let Some(item) = self.ingress.item_read(id).cloned() else { return };
        if !self.routes.replicas(shard).contains(&from) {
            return;
        }
        let (read_quorum, write_quorum) = self.stock_quorums(shard);
        let Some(asked) = self.ingress.asked.get_mut(&id) else { return };
        let Some(gathering) = &mut asked.gathering else { return };
        gathering.answers.insert(from, shown);
        let answers: Vec<(ReadState, Version)> =
            gathering.answers.values().map(|shown| (shown.state, shown.written)).collect();
        match judge(&answers, read_quorum, write_quorum) {
            ReadVerdict::Return(newest) => {
                let found = gathering.answers.values().nth(newest).and_then(|shown| shown.item.clone());
                let outcome = match found {
                    Some(found) => {
                        Outcome::Done(Answer::Item { item, stock: found.available, price: found.price })
                    }
                    None => Outcome::Refused(Refusal::ItemNotFound(item)),
                };
                self.reads_settled += 1;
                let tell = Tell::Outcome(outcome);
                let actions = self.with_map(|ingress, map| ingress.told(now, id, tell, map));
                self.act(now, actions);
            }
            ReadVerdict::AskCoordinator => {
                let waited_for = now < gathering.until;
                gathering.until = now;
                if waited_for {
                    self.send_questions(now, vec![id]);
                }
            }
            ReadVerdict::Wait => {}
        }
    }
}

impl StockShard {
    /// The item as of what this replica has accepted, on read/write quorums.
    fn show(&mut self, id: &ItemId, disk: &dyn Disk) -> Option<Shown> {
        let Replica::Quorum(replica) = &self.group.replica else { return None };
        if replica.is_joining() && !breaks::is("joining-votes") {
            return None;
        }
        let state = replica.read_state();
        let (mut written, own) = self.group.accepted(&stock::item_key(id), disk);
        let own: Option<stock::Item> = own.map(|stored| decode(&stored));
        let Some(index) = id.index() else { return Some(Shown { state, written, item: own }) };
        let batches = self.accepted_batches(disk);
        for (version, _) in batches.iter().filter(|(_, batch)| batch.covers(index)) {
            written = written.max(*version);
        }
        let batches: Vec<BatchRecord> = batches.into_iter().map(|(_, batch)| batch).collect();
        let item = stock::load(own, newest_covering(&batches, index));
        Some(Shown { state, written, item })
    }

    /// A batch that has changed, or a copy that has come in, makes those that are known void.
    pub(super) fn notice_batches(&mut self) {
        if !self.group.state.take_changed().is_empty() {
            self.batches = None;
        }
    }

    /// The batches as of what this replica has accepted. One that was dropped is covered by a newer one,
    /// of the same write.
    fn accepted_batches(&mut self, disk: &dyn Disk) -> Vec<(Version, BatchRecord)> {
        self.notice_batches();
        let Replica::Quorum(replica) = &self.group.replica else { return Vec::new() };
        let state = &self.group.state;
        let committed = self.batches.get_or_insert_with(|| {
            let stored = state.scan_stored(disk, &[stock::BATCHES]);
            let records = stored.iter().map(|(_, stored)| stored_parts(stored));
            records.filter_map(|(version, value)| Some((version_from(&version), decode(&value?)))).collect()
        });
        let mut batches = committed.clone();
        let tail = replica.tail().flat_map(|write| {
            let from = write.records.partition_point(|(key, _)| key[..] < [stock::BATCHES][..]);
            let changes = write.records[from..].iter();
            changes.take_while(|(key, _)| key[0] == stock::BATCHES).map(|change| (write.version, change))
        });
        for (version, (key, value)) in tail {
            batches.retain(|(_, batch)| stock::batch_key(batch.incarnation) != key);
            if let Some(value) = value {
                batches.push((version, decode(value)));
            }
        }
        batches
    }
}

impl<M: Machine, T> Group<M, T> {
    /// A record as of what this replica has accepted, with the version that last wrote it: zero if none
    /// did. Whoever is told must be told after all of it is durable.
    fn accepted(&mut self, key: &[u8], disk: &dyn Disk) -> (Version, Option<Bytes>) {
        let in_tail = match &self.replica {
            Replica::Quorum(replica) => replica.tail().rev().find_map(|write| {
                let at = write.records.binary_search_by(|(written, _)| written[..].cmp(key)).ok()?;
                Some((write.version, write.records[at].1.clone()))
            }),
            Replica::Paxos(_) => None,
        };
        in_tail.unwrap_or_else(|| match self.state.get_committed(disk, key) {
            Some((version, value)) => (version_from(&version), value),
            None => (Version::ZERO, None),
        })
    }
}

/// The version whose [`version_bytes`](super::group::version_bytes) these are.
fn version_from(mut bytes: &[u8]) -> Version {
    assert_eq!(bytes.len(), VERSION_BYTES, "a stored value is preceded by a version");
    let (epoch, round, pod) = (bytes.get_u32(), bytes.get_u64(), bytes.get_u8());
    Version { ballot: Ballot { epoch, round, pod }, seq: bytes.get_u64() }
}

#[cfg(test)]
mod tests {
    use super::super::group::version_bytes;
    use super::*;

    #[test]
    fn a_version_is_read_as_it_was_stored() {
        let version = Version { ballot: Ballot::new(3, 1 << 40, PodId(7)), seq: u64::MAX - 1 };
        assert_eq!(version_from(&version_bytes(version)), version);
    }
}
