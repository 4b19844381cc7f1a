//! All disks are slow at once: an fsync takes longer than half the election time-out, so that nobody's
//! candidacy ends within it. Leaders are found nevertheless, stay, and everything asked for ends.

use crate::run::lead;
use crate::scenario::{Replication, Scenario};
use crate::setting::talks;
use crate::world::World;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// An fsync takes between this and twice as much; the election time-out is 250 ms.
const FSYNC_US: u64 = 150_000;
/// With leaders that stay all is over about then; with some that go it takes up to a minute, or for ever.
const ENDS_BY_US: u64 = 32_000_000;

fn scenario(payment: Replication, stock: Replication) -> Scenario {
    Scenario {
        fsync_us: FSYNC_US,
        proxy_timeout_us: 60_000_000,
        faults_end_us: 20_000_000,
        ..Scenario::steady(payment, stock)
    }
}

fn serves(payment: Replication, stock: Replication) {
    for seed in 0..8 {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let mut world = World::new(scenario(payment, stock), rng, talks());
        let ran = lead(&mut world).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        println!("{payment:?} {stock:?} {seed}: {} ms {:?}", ran.virtual_us / 1_000, ran.counts);
        assert!(
            ran.virtual_us < ENDS_BY_US,
            "seed {seed}: all is slow for longer than leaders take to be found"
        );
    }
}

#[test]
fn slow_disks_everywhere_are_borne() {
    serves(Replication::Paxos, Replication::Quorum);
}

#[test]
fn slow_disks_everywhere_are_borne_with_the_protocols_exchanged() {
    serves(Replication::Quorum, Replication::Paxos);
}
