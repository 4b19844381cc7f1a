//! The set of operations in its normal form: a join-semilattice, and the record that holds it.

use super::fold::Line;
use super::ids::{CLOSE_ID, receipt_id, refund_id};
use super::{Edit, Generation, Operation, Receipt};
use crate::modules::request::UserId;
use bytes::Bytes;
use kassa_protocols::eventual::{entity_seed, item_digest};
use kassa_protocols::ids::{Incarnation, OpId, TxnId};
use kassa_protocols::time::{ShardTime, Span};
use serde::{Deserialize, Serialize};

/// What is merged before the shard's time is known, as a pod reads back its log: how long ids are kept counts
/// from the first moment that is.
pub const TIME_UNKNOWN: ShardTime = ShardTime(u64::MAX);

/// How long the ids of a closed generation's edits are known: as long as the oldest request that a
/// shard still takes may have been on its way (keys are dropped in buckets, so up to twice their ten
/// minutes).
pub const FORGET_AFTER: Span = Span::from_millis(2 * 10 * 60 * 1_000);

const RECORD_VERSION: u8 = 1;
/// Version and digest before the set itself: a list of digests decodes no set.
const HEADER_BYTES: usize = 9;

/// The operations of one life of one order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderSet {
    pub incarnation: Incarnation,
    created: Option<(OpId, UserId)>,
    closed: bool,
    /// The newest.
    receipt: Option<Receipt>,
    /// The newest charge that was refunded.
    refunded: Option<TxnId>,
    /// Edits of generations that no receipt here closes, by id.
    open: Vec<(OpId, Edit)>,
    /// Ids that older receipts cover, sorted: present, and never merged again.
    covered: Vec<OpId>,
    /// Ids of edits that came too late for their generation, sorted: present, of no effect.
    void: Vec<OpId>,
    /// When the newest of the ids of closed generations became one.
    known_since: ShardTime,
    /// What a batch says of the order; never stored.
    #[serde(skip)]
    pub(super) initial: Option<Box<Initial>>,
}

/// What a batch says of an order: the set that it makes, without operations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Initial {
    pub user: UserId,
    pub lines: Vec<Line>,
}

impl OrderSet {
    #[must_use]
    pub fn new(incarnation: Incarnation) -> Self {
        Self { incarnation, ..Self::default() }
    }

    /// Whose order it is; `None` if its creation has not arrived.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        self.created.as_ref().map(|(_, user)| user).or_else(|| self.initial.as_ref().map(|i| &i.user))
    }
    /// Whether the order was removed.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed
    }
    /// The newest receipt, refunded or not.
    #[must_use]
    pub const fn receipt(&self) -> Option<&Receipt> {
        self.receipt.as_ref()
    }
    /// The receipt that stands, as far as this copy knows.
    #[must_use]
    pub fn standing(&self) -> Option<&Receipt> {
        self.receipt.as_ref().filter(|receipt| self.refunded < Some(receipt.txn))
    }
    /// The generation that is open, or that the standing receipt has closed.
    #[must_use]
    pub fn generation(&self) -> Generation {
        match (&self.receipt, self.standing()) {
            (_, Some(standing)) => standing.generation,
            (Some(refunded), None) => Some(refunded.txn),
            (None, None) => None,
        }
    }
    /// The edits of the open generation, by id; none if the order is paid.
    pub fn edits(&self) -> impl Iterator<Item = &(OpId, Edit)> {
        let generation = self.receipt.as_ref().map(|receipt| receipt.txn);
        let open = self.standing().is_none();
        self.open.iter().filter(move |(_, edit)| open && edit.generation == generation)
    }
    /// Whether an edit with this id is present, in force or not.
    #[must_use]
    pub fn knows(&self, id: OpId) -> bool {
        self.find_open(id).is_ok() || self.is_covered(id) || self.void.binary_search(&id).is_ok()
    }

    fn find_open(&self, id: OpId) -> Result<usize, usize> {
        self.open.binary_search_by_key(&id, |(known, _)| *known)
    }
    fn is_covered(&self, id: OpId) -> bool {
        self.covered.binary_search(&id).is_ok()
            || self.receipt.as_ref().is_some_and(|receipt| receipt.covered.contains(&id))
    }
    /// Whether a receipt here closes the generation. They close in the order of their receipts.
    fn closes(&self, generation: Generation) -> bool {
        self.receipt.as_ref().is_some_and(|receipt| generation < Some(receipt.txn))
    }

    /// Merges one operation; whether that changed anything. Of one id, a covered edit beats an open one,
    /// that of a later generation an earlier one, the bytewise smaller the other, and any a void one.
    pub fn merge(&mut self, id: OpId, operation: Operation, now: ShardTime) -> bool {
        match operation {
            Operation::Created { user } => lower(&mut self.created, (id, user)),
            Operation::Closed => !std::mem::replace(&mut self.closed, true),
            Operation::Refunded { txn } => {
                let higher = self.refunded < Some(txn);
                self.refunded = self.refunded.max(Some(txn));
                higher
            }
            Operation::Edit(edit) if self.closes(edit.generation) => self.merge_void(id, now),
            Operation::Edit(edit) => self.merge_edit(id, edit),
            Operation::Receipt(receipt) => self.merge_receipt(receipt, now),
            Operation::Covered => self.merge_covered(id, now),
            Operation::Void => self.merge_void(id, now),
        }
    }

    fn merge_edit(&mut self, id: OpId, edit: Edit) -> bool {
        if self.is_covered(id) {
            return false;
        }
        remove(&mut self.void, id);
        match self.find_open(id) {
            Err(at) => self.open.insert(at, (id, edit)),
            Ok(at) => {
                let known = &self.open[at].1;
                let wins = edit.generation > known.generation
                    || (edit.generation == known.generation && encode(&edit) < encode(known));
                if !wins {
                    return false;
                }
                self.open[at].1 = edit;
            }
        }
        true
    }

    fn merge_void(&mut self, id: OpId, now: ShardTime) -> bool {
        if self.find_open(id).is_ok_and(|at| !self.closes(self.open[at].1.generation)) || self.is_covered(id)
        {
            return false;
        }
        let new = insert(&mut self.void, id);
        if new {
            self.known_since = self.known_since.max(now);
        }
        new
    }

    fn merge_covered(&mut self, id: OpId, now: ShardTime) -> bool {
        if self.is_covered(id) {
            return false;
        }
        self.drop_uncovered(id);
        insert(&mut self.covered, id);
        self.known_since = self.known_since.max(now);
        true
    }

    fn drop_uncovered(&mut self, id: OpId) {
        remove(&mut self.void, id);
        if let Ok(at) = self.find_open(id) {
            self.open.remove(at);
        }
    }

    fn merge_receipt(&mut self, mut receipt: Receipt, now: ShardTime) -> bool {
        match &mut self.receipt {
            Some(known) if known.txn > receipt.txn => {
                let mut changed = false;
                for id in receipt.covered {
                    changed |= self.merge_covered(id, now);
                }
                return changed;
            }
            Some(known) if known.txn == receipt.txn => {
                let forgets = receipt.covered.len() < known.covered.len();
                if forgets {
                    known.covered = receipt.covered;
                }
                return forgets;
            }
            Some(_) | None => {}
        }
        // The receipts that it supersedes are told by it, but for the ids that they cover.
        for id in self.receipt.take().map(|older| older.covered).unwrap_or_default() {
            if !receipt.covered.contains(&id) {
                insert(&mut self.covered, id);
            }
        }
        for &id in &receipt.covered {
            self.drop_uncovered(id);
            remove(&mut self.covered, id);
        }
        receipt.covered.shrink_to_fit();
        self.receipt = Some(receipt);
        let open = std::mem::take(&mut self.open);
        for (id, edit) in open {
            if self.closes(edit.generation) {
                insert(&mut self.void, id);
            } else {
                self.open.push((id, edit));
            }
        }
        self.known_since = self.known_since.max(now);
        true
    }

    /// Forgets the ids of closed generations once no request can repeat them; whether there were any.
    pub fn forget(&mut self, now: ShardTime) -> bool {
        if now == TIME_UNKNOWN {
            return false;
        }
        if self.known_since == TIME_UNKNOWN {
            self.known_since = now;
        }
        if now.0 < self.known_since.0.saturating_add(FORGET_AFTER.0) {
            return false;
        }
        let covered = self.receipt.as_mut().map(|receipt| &mut receipt.covered);
        let mut forgot = !self.covered.is_empty() || !self.void.is_empty();
        self.covered.clear();
        self.void.clear();
        if let Some(covered) = covered {
            forgot |= !covered.is_empty();
            covered.clear();
        }
        forgot
    }

    /// All operations, with their ids, as another replica is told them.
    pub fn operations(&self) -> impl Iterator<Item = (OpId, Operation)> {
        let created = self.created.iter().map(|(id, user)| (*id, Operation::Created { user: user.clone() }));
        let closed = self.closed.then_some((CLOSE_ID, Operation::Closed)).into_iter();
        let receipt = self.receipt.iter().map(|r| (receipt_id(r.txn), Operation::Receipt(r.clone())));
        let refunded = self.refunded.iter().map(|&txn| (refund_id(txn), Operation::Refunded { txn }));
        let open = self.open.iter().map(|(id, edit)| (*id, Operation::Edit(edit.clone())));
        let covered = self.covered.iter().map(|id| (*id, Operation::Covered));
        let void = self.void.iter().map(|id| (*id, Operation::Void));
        created.chain(closed).chain(receipt).chain(refunded).chain(open).chain(covered).chain(void)
    }

    /// Independent of the order of arrival. The ids of closed generations do not count: replicas forget
    /// them at different moments.
    #[must_use]
    pub fn digest(&self, entity: &[u8]) -> u64 {
        let seed = entity_seed(entity, self.incarnation.0);
        let mut sum = 0_u64;
        let mut count = |id: OpId, body: &[u8]| sum = sum.wrapping_add(item_digest(seed, id, body));
        if let Some((id, user)) = &self.created {
            count(*id, user.0.as_bytes());
        }
        if self.closed {
            count(CLOSE_ID, &[]);
        }
        if let Some(receipt) = &self.receipt {
            count(receipt_id(receipt.txn), &[]);
        }
        if let Some(txn) = self.refunded {
            count(refund_id(txn), &[]);
        }
        for (id, edit) in &self.open {
            count(*id, &encode(edit));
        }
        sum
    }

    /// The record as stored: version, digest, set.
    #[must_use]
    pub fn to_record(&self, digest: u64) -> Bytes {
        let mut record = Vec::with_capacity(256);
        record.push(RECORD_VERSION);
        record.extend_from_slice(&digest.to_le_bytes());
        postcard::to_extend(self, record).expect("a set is plain data: it serializes").into()
    }

    /// The digest in a record, without decoding the rest.
    ///
    /// # Panics
    /// If it is no record of this version: storage has checked it, so this is a bug, not a fault.
    #[must_use]
    pub fn record_digest(record: &[u8]) -> u64 {
        assert_eq!(record.first(), Some(&RECORD_VERSION), "an order's record is of a version known here");
        let digest = record[1..HEADER_BYTES].try_into().expect("eight bytes were cut out");
        u64::from_le_bytes(digest)
    }

    /// The set in a record.
    ///
    /// # Panics
    /// If it is no record of this version, as [`OrderSet::record_digest`].
    #[must_use]
    pub fn from_record(record: &[u8]) -> Self {
        assert_eq!(record.first(), Some(&RECORD_VERSION), "an order's record is of a version known here");
        postcard::from_bytes(&record[HEADER_BYTES..]).expect("a record that was stored decodes")
    }
}

pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("operations are plain data: they serialize")
}

/// Keeps the lower of two; whether that is the new one.
fn lower<T: Ord>(known: &mut Option<T>, new: T) -> bool {
    let wins = known.as_ref().is_none_or(|known| new < *known);
    if wins {
        *known = Some(new);
    }
    wins
}

fn insert(sorted: &mut Vec<OpId>, id: OpId) -> bool {
    let at = sorted.binary_search(&id);
    if let Err(at) = at {
        sorted.insert(at, id);
    }
    at.is_err()
}

fn remove(sorted: &mut Vec<OpId>, id: OpId) {
    if let Ok(at) = sorted.binary_search(&id) {
        sorted.remove(at);
    }
}
