//! Key → shard → pods.
//!
//! Shards are a fixed slice of the key space (`xxh3(key) % shards`). The replica set of a shard is
//! chosen by rendezvous hashing (Thaler and Ravishankar, 1998) with bounded loads (Mirrokni, Thorup
//! and Zadimoghaddam, 2018): a pod's coming or going moves only its share, and no pod holds more than
//! its even share, rounded up. The first pod of a set is the one that prefers to lead.

use crate::ids::{PodId, ShardNo};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Changes when a key would hash to another shard; part of the handshake between pods.
pub const HASH_VERSION: u16 = 1;

/// The shard that holds `key`.
///
/// # Panics
/// If `shards` is zero.
#[must_use]
pub fn shard_of(key: &[u8], shards: u16) -> ShardNo {
    assert!(shards > 0, "a module has at least one shard");
    let no = xxh3_64(key) % u64::from(shards);
    ShardNo(u16::try_from(no).expect("a remainder of a u16 fits one"))
}

/// The replica sets of `shards` shards over `pods`, `replicas` each (fewer if there are fewer pods);
/// the preferred leader first. Deterministic in its arguments; the order of `pods` does not matter.
#[must_use]
pub fn place(pods: &[PodId], shards: u16, replicas: usize) -> Vec<Vec<PodId>> {
    let mut pods: Vec<PodId> = pods.to_vec();
    pods.sort_unstable();
    pods.dedup();
    let replicas = replicas.min(pods.len());
    if replicas == 0 {
        return vec![Vec::new(); usize::from(shards)];
    }
    let held_max = (usize::from(shards) * replicas).div_ceil(pods.len());
    let led_max = usize::from(shards).div_ceil(pods.len());
    let mut held = vec![0_usize; pods.len()];
    let mut led = vec![0_usize; pods.len()];
    (0..shards)
        .map(|shard| {
            let mut ranked: Vec<usize> = (0..pods.len()).collect();
            ranked.sort_by_key(|&i| {
                std::cmp::Reverse((xxh3_64_with_seed(&shard.to_be_bytes(), u64::from(pods[i].0)), i))
            });
            let room = |held: &[usize], i: usize| held_max - held[i];
            let mut set: Vec<usize> =
                ranked.iter().copied().filter(|&i| room(&held, i) > 0).take(replicas).collect();
            // The first choice must leave room for all later shards; else those with most room serve.
            let later = usize::from(shards - shard - 1);
            let left: usize =
                (0..pods.len()).map(|i| (room(&held, i) - usize::from(set.contains(&i))).min(later)).sum();
            if set.len() < replicas || left < later * replicas {
                ranked.sort_by_key(|&i| std::cmp::Reverse(room(&held, i)));
                set = ranked[..replicas].to_vec();
            }
            for &i in &set {
                held[i] += 1;
            }
            let leader = set.iter().position(|&i| led[i] < led_max).unwrap_or(0);
            led[set[leader]] += 1;
            set[..=leader].rotate_right(1);
            set.into_iter().map(|i| pods[i]).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sets_are_distinct_and_even(n in 1_u8..9, shards in 1_u16..64, replicas in 1_usize..6) {
            let pods: Vec<PodId> = (0..n).map(PodId).collect();
            let placed = place(&pods, shards, replicas);
            let mut held = vec![0_usize; usize::from(n)];
            let mut led = vec![0_usize; usize::from(n)];
            for set in &placed {
                let mut sorted = set.clone();
                sorted.sort_unstable();
                sorted.dedup();
                prop_assert_eq!(sorted.len(), replicas.min(usize::from(n)));
                prop_assert_eq!(set.len(), sorted.len());
                for pod in set { held[usize::from(pod.0)] += 1; }
                led[usize::from(set[0].0)] += 1;
            }
            let even = (usize::from(shards) * replicas.min(usize::from(n))).div_ceil(usize::from(n));
            prop_assert!(held.iter().all(|&h| h <= even), "{:?} over {}", held, even);
        }
    }

    #[test]
    fn three_pods_lead_eight_of_24_each() {
        let placed = place(&[PodId(0), PodId(1), PodId(2)], 24, 3);
        for pod in 0..3 {
            assert_eq!(placed.iter().filter(|set| set[0] == PodId(pod)).count(), 8);
        }
    }

    #[test]
    fn keys_spread_over_all_shards() {
        let mut seen = [0_u32; 24];
        for i in 0..24_000 {
            seen[usize::from(shard_of(i.to_string().as_bytes(), 24).0)] += 1;
        }
        assert!(seen.iter().all(|&n| (800..1_200).contains(&n)), "{seen:?}");
    }
}
