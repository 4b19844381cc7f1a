//! What the pods say of themselves: who leads what, what is locked, and what it has cost.

use super::figures::CostPerCheckout;
use crate::cli::http::Target;
use crate::cli::page::number::float;
use crate::cli::status;
use crate::node::{Cost, Locks, Status};

/// How long a pod may take to say anything; one that is away says nothing.
pub async fn all(pods: &[Target]) -> Vec<Status> {
    let mut told = Vec::new();
    for pod in pods {
        if let Ok(status) = status::of(pod).await {
            told.push(status);
        }
    }
    told
}

/// What all pods have sent and written since they started.
#[must_use]
pub fn cost(all: &[Status]) -> Cost {
    let mut sum = Cost::default();
    for Cost { frames, messages, sent_bytes, fsyncs, written_bytes } in all.iter().map(|status| status.cost) {
        sum.frames += frames;
        sum.messages += messages;
        sum.sent_bytes += sent_bytes;
        sum.fsyncs += fsyncs;
        sum.written_bytes += written_bytes;
    }
    sum
}

/// The difference of two counts, for each of so many checkouts; none where a pod has started anew between them, or
/// nothing was sold.
#[must_use]
pub fn per_checkout(before: &Cost, after: &Cost, checkouts: u64) -> Option<CostPerCheckout> {
    let each = |before: u64, after: u64| Some(float(after.checked_sub(before)?) / float(checkouts));
    if checkouts == 0 {
        return None;
    }
    Some(CostPerCheckout {
        messages: each(before.messages, after.messages)?,
        frames: each(before.frames, after.frames)?,
        sent_bytes: each(before.sent_bytes, after.sent_bytes)?,
        fsyncs: each(before.fsyncs, after.fsyncs)?,
        written_bytes: each(before.written_bytes, after.written_bytes)?,
    })
}

/// What is locked, over all pods that answer.
#[must_use]
pub fn locks(all: &[Status]) -> Locks {
    let mut sum = Locks::default();
    for locks in all.iter().map(|status| &status.locks) {
        sum.items += locks.items;
        sum.users += locks.users;
        sum.in_doubt += locks.in_doubt;
    }
    sum
}

/// The pod that leads a shard, as most recently known.
#[must_use]
pub fn leader(all: &[Status], module: &str, shard: u16) -> Option<u8> {
    let shards = all.iter().flat_map(|status| &status.shards);
    let known = shards.filter(|known| known.module == module && known.shard == shard);
    known.filter(|known| known.leader.is_some()).max_by_key(|known| known.committed)?.leader
}

/// How many shards of a module there are.
#[must_use]
pub fn shards(all: &[Status], module: &str) -> u16 {
    let shards = all.iter().flat_map(|status| &status.shards).filter(|shard| shard.module == module);
    shards.map(|shard| shard.shard + 1).max().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::ShardStatus;

    #[test]
    fn costs_are_those_between_two_looks() {
        let cost = |messages, fsyncs| Cost { messages, fsyncs, ..Cost::default() };
        let told = per_checkout(&cost(100, 10), &cost(2_100, 210), 100).expect("counted");
        assert_eq!((told.messages, told.fsyncs, told.frames), (20.0, 2.0, 0.0));
        assert_eq!(per_checkout(&cost(0, 0), &cost(1, 1), 0), None);
        // A pod that was started anew counts from 0.
        assert_eq!(per_checkout(&cost(5, 5), &cost(1, 9), 1), None);
    }

    #[test]
    fn who_leads_is_what_the_best_informed_says() {
        let shard = |leader, committed| ShardStatus {
            module: "stock".into(),
            shard: 3,
            replicas: vec![0, 1],
            leader,
            ballot: String::new(),
            applied: 0,
            committed,
            open: 0,
        };
        let pod = |shard| Status { shards: vec![shard], ..Status::default() };
        let all = [pod(shard(Some(1), 5)), pod(shard(Some(2), 7)), pod(shard(None, 9))];
        assert_eq!(leader(&all, "stock", 3), Some(2));
        assert_eq!(leader(&all, "payment", 3), None);
        assert_eq!((shards(&all, "stock"), shards(&all, "payment")), (4, 1));
    }
}
