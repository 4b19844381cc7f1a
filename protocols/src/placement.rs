//! Key → shard → pods.
//!
//! Shards are a fixed slice of the key space (`xxh3(key) % shards`). The replica set of a shard is
//! chosen by rendezvous hashing (Thaler and Ravishankar, 1998) with bounded loads (Mirrokni, Thorup
//! and Zadimoghaddam, 2018): a pod's coming or going moves only its share, and no pod holds more than
//! its even share, rounded up. The first pod of a set is the one that prefers to lead.

use crate::ids::{PodId, ShardNo};
use std::collections::BTreeMap;
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

/// Where two modules lie: the first on the first `first_pods` of the pods, the second on the last `second_pods`,
/// so that they share as few as can be. Each shard of the second prefers to be led by that pod of its set which
/// leads the least of both.
#[must_use]
pub fn place_two(
    pods: &[PodId],
    shards: u16,
    replicas: usize,
    first_pods: usize,
    second_pods: usize,
) -> (Vec<Vec<PodId>>, Vec<Vec<PodId>>) {
    let mut pods: Vec<PodId> = pods.to_vec();
    pods.sort_unstable();
    pods.dedup();
    let first = place(&pods[..first_pods.min(pods.len())], shards, replicas);
    let mut second = place(&pods[pods.len().saturating_sub(second_pods)..], shards, replicas);
    let mut led: BTreeMap<PodId, usize> = BTreeMap::new();
    for leader in first.iter().filter_map(|set| set.first()) {
        *led.entry(*leader).or_default() += 1;
    }
    for set in &mut second {
        let leads = |pod: &PodId| led.get(pod).copied().unwrap_or_default();
        let Some(leader) = (0..set.len()).min_by_key(|&i| leads(&set[i])) else { continue };
        *led.entry(set[leader]).or_default() += 1;
        set.rotate_left(leader);
    }
    (first, second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
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

    /// By pod: shards held and led of the first module, then of the second.
    fn loads(pods: u8, first_pods: usize, second_pods: usize) -> Vec<[usize; 4]> {
        let all: Vec<PodId> = (0..pods).map(PodId).collect();
        let (first, second) = place_two(&all, 24, 3, first_pods, second_pods);
        let held = |sets: &[Vec<PodId>], pod: &PodId| sets.iter().filter(|set| set.contains(pod)).count();
        let led = |sets: &[Vec<PodId>], pod: &PodId| sets.iter().filter(|set| set[0] == *pod).count();
        all.iter()
            .map(|pod| [held(&first, pod), led(&first, pod), held(&second, pod), led(&second, pod)])
            .collect()
    }

    #[test]
    fn two_modules_share_few_pods_and_are_led_evenly() {
        expect!["[[24, 8, 24, 8], [24, 8, 24, 8], [24, 8, 24, 8]]"]
            .assert_eq(&format!("{:?}", loads(3, 3, 3)));
        expect!["[[14, 5, 14, 5], [15, 5, 15, 4], [15, 5, 15, 4], [13, 4, 13, 6], [15, 5, 15, 5]]"]
            .assert_eq(&format!("{:?}", loads(5, 5, 5)));
        expect!["[[24, 8, 14, 2], [24, 8, 15, 1], [24, 8, 15, 2], [0, 0, 13, 9], [0, 0, 15, 10]]"]
            .assert_eq(&format!("{:?}", loads(5, 3, 5)));
        expect!["[[24, 8, 0, 0], [24, 8, 0, 0], [24, 8, 24, 3], [0, 0, 24, 11], [0, 0, 24, 10]]"]
            .assert_eq(&format!("{:?}", loads(5, 3, 3)));
        expect!["[[24, 8, 0, 0], [24, 8, 0, 0], [24, 8, 0, 0], [0, 0, 24, 8], [0, 0, 24, 8], [0, 0, 24, 8]]"]
            .assert_eq(&format!("{:?}", loads(6, 3, 3)));
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
