//! The sets of one shard in its records, as their replication wants them.

use super::fold::Line;
use super::set::Initial;
use super::{Operation, OrderSet};
use crate::modules::batch::{BatchRecord, Load, newest_covering};
use crate::modules::request::{ItemId, OrderId, UserId};
use bytes::{BufMut, Bytes, BytesMut};
use kassa_protocols::eventual::{Item, Merged, Sets, bucket_of};
use kassa_protocols::ids::{Incarnation, OpId};
use kassa_protocols::tables::View;
use kassa_protocols::time::ShardTime;

/// The table of orders in a shard's records. Keys go on with the order's bucket and id.
pub const ORDERS: u8 = b'o';

const BODY_VERSION: u8 = 1;

/// The orders of one shard, at one moment of its time.
pub struct OrderStore<'a> {
    pub view: View<'a>,
    /// The batches of orders that the shard has logged.
    pub batches: &'a [BatchRecord],
    /// The time of the payment shard of the same number.
    pub now: ShardTime,
}

fn record_key(entity: &[u8]) -> Bytes {
    let mut key = BytesMut::with_capacity(2 + entity.len());
    key.put_u8(ORDERS);
    key.put_u8(bucket_of(entity));
    key.put_slice(entity);
    key.freeze()
}

/// The operation as other replicas are told it. Its entity is the order's id.
#[must_use]
pub fn item_of(incarnation: Incarnation, id: OpId, operation: &Operation) -> Item {
    let body = vec![BODY_VERSION];
    let body = postcard::to_extend(&(incarnation, operation), body).expect("operations serialize");
    Item { id, body: body.into() }
}

/// What [`item_of`] made.
///
/// # Panics
/// If it is of another version: peers agree on theirs before they exchange anything.
#[must_use]
pub fn decode_body(body: &[u8]) -> (Incarnation, Operation) {
    let (version, rest) = body.split_first().expect("an operation is not empty");
    assert_eq!(*version, BODY_VERSION, "an operation of another version passed the handshake");
    postcard::from_bytes(rest).expect("an operation of a known version decodes")
}

impl OrderStore<'_> {
    /// The order as this shard knows it: its own record unless a newer batch covers the id, on top of what
    /// its batch says. `None` if neither knows it.
    pub fn load(&mut self, order: &OrderId) -> Option<OrderSet> {
        let own = self.view.get(&record_key(order.0.as_bytes())).map(|record| OrderSet::from_record(&record));
        let index = order.index();
        let Some((i, batch)) = index.and_then(|i| Some((i, newest_covering(self.batches, i)?))) else {
            return own;
        };
        let own = own.filter(|set| set.incarnation >= batch.incarnation);
        let mut set = own.unwrap_or_else(|| OrderSet::new(batch.incarnation));
        if set.incarnation == batch.incarnation {
            set.initial = initial(batch, i).map(Box::new);
        }
        Some(set)
    }

    /// Merges operations of one life of an order. Those of an older life than the record's do nothing, a
    /// newer life replaces it: whichever batches this replica knows yet, the result is the same.
    pub fn merge_operations(
        &mut self,
        entity: &[u8],
        operations: impl IntoIterator<Item = (Incarnation, OpId, Operation)>,
    ) -> Merged {
        let key = record_key(entity);
        let stored = self.view.get(&key);
        let before = stored.as_deref().map_or(0, OrderSet::record_digest);
        let mut set = stored.as_deref().map(OrderSet::from_record);
        let mut changed = false;
        for (incarnation, id, operation) in operations {
            let set = match &mut set {
                Some(set) if set.incarnation > incarnation => continue,
                Some(set) if set.incarnation == incarnation => set,
                older => older.insert(OrderSet::new(incarnation)),
            };
            changed |= set.merge(id, operation, self.now);
        }
        let Some(mut set) = set.filter(|_| changed) else {
            return Merged { changed: false, before, after: before };
        };
        set.forget(self.now);
        let after = set.digest(entity);
        self.view.set(key, set.to_record(after));
        Merged { changed, before, after }
    }
}

/// What a batch says of its order `i`.
fn initial(batch: &BatchRecord, i: u64) -> Option<Initial> {
    let (user, items) = batch.order(i)?;
    let Load::Orders { item_price: price, .. } = batch.load else { return None };
    let line = |item: u64, units| Line { item: ItemId::from(item.to_string()), units, price };
    let [first, second] = items;
    let lines = if first == second { vec![line(first, 2)] } else { vec![line(first, 1), line(second, 1)] };
    Some(Initial { user: UserId::from(user.to_string()), lines })
}

impl Sets for OrderStore<'_> {
    fn merge(&mut self, entity: &[u8], items: &[Item]) -> Merged {
        let operations = items.iter().map(|item| {
            let (incarnation, operation) = decode_body(&item.body);
            (incarnation, item.id, operation)
        });
        self.merge_operations(entity, operations)
    }

    fn items(&mut self, entity: &[u8]) -> Vec<Item> {
        let Some(record) = self.view.get(&record_key(entity)) else { return Vec::new() };
        let set = OrderSet::from_record(&record);
        set.operations().map(|(id, operation)| item_of(set.incarnation, id, &operation)).collect()
    }

    fn digest(&mut self, entity: &[u8]) -> u64 {
        self.view.get(&record_key(entity)).as_deref().map_or(0, OrderSet::record_digest)
    }

    fn list(&mut self, bucket: u8) -> Vec<(Bytes, u64)> {
        let records = self.view.scan(&[ORDERS, bucket]);
        records.into_iter().map(|(key, record)| (key.slice(2..), OrderSet::record_digest(&record))).collect()
    }
}
