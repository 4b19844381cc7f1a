//! The plainest sets that can be replicated.

use bytes::Bytes;
use kassa_protocols::eventual::{BUCKETS, Item, Merged, Sets, bucket_of, entity_seed, item_digest};
use kassa_protocols::ids::OpId;
use std::collections::BTreeMap;

/// Sets as plain as can be: of two items with one id the bytewise smaller body stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Union(pub BTreeMap<Bytes, BTreeMap<OpId, Bytes>>);

impl Union {
    fn digest_of(&self, entity: &[u8]) -> u64 {
        let seed = entity_seed(entity, 0);
        let items = self.0.get(entity).into_iter().flatten();
        items.fold(0, |sum, (id, body)| sum.wrapping_add(item_digest(seed, *id, body)))
    }
    pub fn has(&self, id: OpId) -> bool {
        self.0.values().any(|items| items.contains_key(&id))
    }
    pub fn buckets(&self) -> Vec<u64> {
        let mut buckets = vec![0_u64; usize::from(BUCKETS)];
        for entity in self.0.keys() {
            let bucket = &mut buckets[usize::from(bucket_of(entity))];
            *bucket = bucket.wrapping_add(self.digest_of(entity));
        }
        buckets
    }
}

impl Sets for Union {
    fn merge(&mut self, entity: &[u8], items: &[Item]) -> Merged {
        let before = self.digest_of(entity);
        let set = self.0.entry(Bytes::copy_from_slice(entity)).or_default();
        for Item { id, body } in items {
            let known = set.entry(*id).or_insert_with(|| body.clone());
            if body < known {
                *known = body.clone();
            }
        }
        let after = self.digest_of(entity);
        Merged { changed: before != after, before, after }
    }
    fn items(&mut self, entity: &[u8]) -> Vec<Item> {
        let items = self.0.get(entity).into_iter().flatten();
        items.map(|(id, body)| Item { id: *id, body: body.clone() }).collect()
    }
    fn digest(&mut self, entity: &[u8]) -> u64 {
        self.digest_of(entity)
    }
    fn list(&mut self, bucket: u8) -> Vec<(Bytes, u64)> {
        let entities = self.0.keys().filter(|entity| bucket_of(entity) == bucket);
        entities.map(|entity| (entity.clone(), self.digest_of(entity))).collect()
    }
}
