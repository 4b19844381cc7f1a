//! A small shop of its own for a few clients and a few seconds, so that the history of each of its users and
//! items stays short enough to be judged while the run goes on.

use super::wire;
use crate::histories::shop::{Record, Shop};
use crate::histories::workload::{Plan, Planned, Workload, fresh_key};
use crate::modules::request::{Answer, Op, Outcome};
use kassa_protocols::ids::OpId;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Operations of one scene, its last reads not counted: what the search for a linearization takes easily.
const OPERATIONS: std::ops::Range<usize> = 120..260;
/// Entities of a batch.
const BATCH: std::ops::Range<u64> = 3..10;
/// Answered requests that are asked again when a scene is over, under their old keys.
const REPEATS: usize = 6;
/// And that are kept to be asked again at the very end.
const REPEATS_KEPT: usize = 2;

#[derive(Debug)]
pub struct Scene {
    pub no: u64,
    pub shop: Shop,
    pub workload: Workload,
    pub rng: StdRng,
    pub plan: Plan,
    /// Clients that are in it now.
    pub present: usize,
    /// It takes no new clients.
    pub is_over: bool,
}

/// A request on its way: what to send, and where its end is to be written down.
pub struct Sent {
    pub record: usize,
    pub op: Op,
    pub method: &'static str,
    pub path: String,
    pub key: String,
}

/// What can be asked again later, with the answer that must come then.
#[derive(Clone, Debug)]
pub struct Known {
    pub op: Op,
    /// Its idempotency key, if it is not a read.
    pub key: Option<String>,
    pub answer: Answer,
    pub told_us: u64,
}

impl Scene {
    /// The scene of that number; with entities of a batch only if nobody else has them.
    #[must_use]
    pub fn draw(seed: u64, no: u64, clients: usize, may_load: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ no.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        // Now and then everybody wants the same one.
        let is_hot = rng.random_ratio(1, 4);
        let batch = if may_load { rng.random_range(BATCH) } else { 0 };
        let plan = Plan {
            clients,
            operations: rng.random_range(OPERATIONS),
            users: rng.random_range(1..5),
            items: if is_hot { 1 } else { rng.random_range(2..6) },
            batch,
            reloads: if batch > 0 { rng.random_range(0..3) } else { 0 },
            plenty: rng.random_range(3..40),
        };
        let workload = Workload::new(&plan, &mut rng);
        let shop = Shop { batch_before: batch > 0, ..Shop::default() };
        Self { no, shop, workload, rng, plan, present: 0, is_over: false }
    }

    /// Writes down that a client asks this now.
    pub fn begin(&mut self, client: usize, planned: Planned, now_us: u64, last: bool) -> Sent {
        let key = match planned.key {
            Some(key) => key,
            None => fresh_key(&mut self.shop, &mut self.rng, &planned),
        };
        let shop = &mut self.shop;
        shop.keys[key].busy = true;
        let (method, path) = wire::request(&planned.op);
        let sent = Sent {
            record: shop.history.len(),
            op: planned.op.clone(),
            method,
            path,
            key: header(shop.keys[key].id),
        };
        shop.history.push(Record {
            client,
            op: planned.op,
            target: planned.target,
            key,
            call_us: now_us,
            ret_us: None,
            outcome: None,
            attempts: 0,
            calm: false,
            connected: false,
            repeats: shop.keys[key].done,
            last,
        });
        sent
    }

    /// Writes down how it ended, and lets the clients learn from it.
    pub fn end(&mut self, record: usize, outcome: Outcome, attempts: u32, now_us: u64, calm: bool) {
        let entry = &mut self.shop.history[record];
        entry.ret_us = Some(now_us);
        entry.attempts = attempts;
        entry.calm = calm;
        entry.connected = calm;
        // What is read while somebody is ill may be what a pod that was cut off still shows.
        entry.last &= calm;
        let key = &mut self.shop.keys[entry.key];
        key.busy = false;
        if matches!(outcome, Outcome::Done(_)) && key.done.is_none() {
            key.done = Some(record);
        }
        entry.outcome = Some(outcome);
        self.workload.ended(record, &mut self.shop, &mut self.rng);
    }

    /// Answered requests, to be asked again under their old keys.
    pub fn repeats(&mut self) -> Vec<Planned> {
        let Self { shop, rng, .. } = self;
        let fit: Vec<usize> = (0..shop.keys.len())
            .filter(|&key| {
                let key = &shop.keys[key];
                key.done.is_some() && !key.op.is_read() && !key.op.is_load() && !key.target.batch
            })
            .collect();
        let mut picked = Vec::new();
        for _ in 0..REPEATS.min(fit.len()) {
            let key = fit[rng.random_range(0..fit.len())];
            let of = &shop.keys[key];
            picked.push(Planned { op: of.op.clone(), target: of.target, key: Some(key) });
        }
        picked
    }

    /// Everything there is to be read back.
    pub fn last_reads(&mut self) -> Vec<Planned> {
        self.workload.read_everything(&self.shop);
        std::iter::from_fn(|| self.workload.next(0, &mut self.shop, false, &mut self.rng)).collect()
    }

    /// What must still be so at the end of the run: the last reads, and the answers under some keys. What
    /// a batch made is left out, for another scene has it by then.
    #[must_use]
    pub fn known(&self) -> Vec<Known> {
        let shop = &self.shop;
        let done = |record: &Record| match &record.outcome {
            Some(Outcome::Done(answer)) => Some(answer.clone()),
            Some(_) | None => None,
        };
        let mut known: Vec<Known> = Vec::new();
        for record in shop.history.iter().filter(|record| record.last && !record.target.batch) {
            if let Some(answer) = done(record).filter(|_| known.iter().all(|other| other.op != record.op)) {
                let told_us = record.ret_us.unwrap_or_default();
                known.push(Known { op: record.op.clone(), key: None, answer, told_us });
            }
        }
        // Of an edit the answer shows the order as it now stands, whatever that is.
        let keeps = |op: &Op| {
            !(op.is_read() || op.is_load() || matches!(op, Op::AddItem { .. } | Op::RemoveItem { .. }))
        };
        let fit = shop.keys.iter().filter(|key| keeps(&key.op) && !key.target.batch);
        for key in fit.rev().filter(|key| key.done.is_some()).take(REPEATS_KEPT) {
            let Some(first) = key.done.map(|first| &shop.history[first]) else { continue };
            known.extend(done(first).map(|answer| Known {
                op: key.op.clone(),
                key: Some(header(key.id)),
                answer,
                told_us: first.ret_us.unwrap_or_default(),
            }));
        }
        known
    }
}

/// An idempotency key as it is sent.
fn header(key: OpId) -> String {
    format!("{:032x}", key.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scene_is_the_same_again_and_has_a_batch_only_if_it_may() {
        for no in 0..20 {
            let (one, two) = (Scene::draw(5, no, 4, no % 2 == 0), Scene::draw(5, no, 4, no % 2 == 0));
            assert_eq!(format!("{:?}", one.plan), format!("{:?}", two.plan));
            assert_eq!(one.plan.batch > 0, no % 2 == 0);
        }
    }
}
