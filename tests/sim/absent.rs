//! A pod that was away while the others cut their logs catches up by copies, while load goes on, over
//! links that may have little queued.

use crate::adapter::Status;
use crate::disk::Disk;
use crate::faults::{Fault, Kind};
use crate::run::{lead, until};
use crate::scenario::{Replication, Scenario};
use crate::setting::talks;
use crate::world::World;
use kassa_protocols::ids::{Module, Shard, ShardNo};
use kassa_protocols::tables::Disk as _;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const AWAY: usize = 2;
/// Less than the records of a shard come to, and more than the runs of orders that a new link carries
/// beside a few parts of a copy.
const BACKLOG_BYTES_MAX: usize = 96 << 10;
/// What may be remembered of reservations in a pod's tables at the end: those of the last few checkpoints.
const REMEMBERED_MAX: usize = 100;
const SHARDS: u16 = 2;
/// Links reset for having too much queued: runs of orders may meet on a new one, once or twice.
const OVERFLOWS_MAX: u64 = 3;
/// How long after all is at rest a pod may take to have everything.
const CATCHES_UP_WITHIN_US: u64 = 20_000_000;

fn scenario(payment: Replication, stock: Replication) -> Scenario {
    Scenario {
        shards: SHARDS,
        clients: 8,
        operations: 8_000,
        users: 30,
        items: 30,
        backlog_bytes_max: Some(BACKLOG_BYTES_MAX),
        ..Scenario::steady(payment, stock)
    }
}

/// The shards of which a pod has less than some other.
fn behind(world: &World) -> Vec<String> {
    let statuses: Vec<Status> = world.pods.iter().filter_map(|pod| pod.status()).collect();
    assert_eq!(statuses.len(), world.pods.len(), "all pods are up");
    let shards = |status: &Status| {
        let shards = status.shards.iter();
        shards.map(|s| ((s.module.clone(), s.shard), s.applied)).collect::<Vec<_>>()
    };
    let mut behind = Vec::new();
    for status in &statuses {
        for (shard, applied) in shards(status) {
            let most = statuses.iter().flat_map(shards).filter(|(other, _)| *other == shard);
            let most = most.map(|(_, applied)| applied).max().unwrap_or(0);
            if applied < most {
                behind.push(format!("p{} {shard:?}: {applied} of {most}", status.pod));
            }
        }
    }
    behind
}

/// Reservations, and deletions of such, in a pod's tables.
fn remembered(disk: &Disk) -> usize {
    let shards = (0..SHARDS).map(|no| Shard { module: Module::Stock, no: ShardNo(no) });
    shards.map(|shard| disk.scan(shard, b"r", None, usize::MAX).len()).sum()
}

fn catches_up(payment: Replication, stock: Replication) {
    let rng = ChaCha8Rng::seed_from_u64(7);
    let away = Fault { at_us: 1_000_000, for_us: 5_000_000, kind: Kind::Kill { pod: AWAY, power: true } };
    let mut world = World::with_faults(scenario(payment, stock), vec![away], rng, talks());
    let ran = lead(&mut world).unwrap_or_else(|wrong| panic!("{wrong}"));
    let by_us = world.now_us + CATCHES_UP_WITHIN_US;
    until(&mut world, by_us, |world| behind(world).is_empty()).expect("nothing spins");
    println!("{payment:?} {stock:?}: {:?}", world.counts);
    assert_eq!(behind(&world), Vec::<String>::new());
    let remembered: Vec<usize> = world.pods.iter().map(|pod| remembered(&pod.disk)).collect();
    println!("reservations in the tables: {remembered:?}");
    assert!(remembered.iter().all(|&count| count < REMEMBERED_MAX), "{remembered:?} reservations remain");
    assert!(ran.counts.copies >= 4, "each shard of both modules had to be copied");
    assert!(world.counts.overflows <= OVERFLOWS_MAX, "links are reset again and again");
}

#[test]
fn catches_up_by_copies_under_load() {
    catches_up(Replication::Paxos, Replication::Quorum);
}

#[test]
fn catches_up_by_copies_with_the_protocols_exchanged() {
    catches_up(Replication::Quorum, Replication::Paxos);
}
