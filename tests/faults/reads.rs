//! Items are read from any pod while their shard has no coordinator that answers.

use rustix::process::Signal;
use serde_json::Value;

use crate::pods::{Plan, eventually, field, good, kill, scratch};

/// What a pod says of the only stock shard: who coordinates it, and what it has there.
fn stock(port: u16) -> (Option<u64>, u64) {
    let status: Value = serde_json::from_str(&good(port, "GET", "/status")).unwrap();
    let shards = status["shards"].as_array().unwrap();
    let stock = shards.iter().find(|shard| shard["module"] == "stock").unwrap();
    (stock["leader"].as_u64(), stock["applied"].as_u64().unwrap())
}

fn reads_settled(port: u16) -> u64 {
    field(&good(port, "GET", "/status"), "reads_settled").parse().unwrap()
}

#[test]
fn items_are_read_without_a_coordinator() {
    let dir = scratch();
    // Once a pod is stopped nobody stands in its place for as long as this test may last.
    let plan = Plan::new(dir.path(), 3, &["--set", "cluster.shards=1", "--set", "timing.election_ms=600000"]);
    let pods = plan.start_all();
    good(plan.http(0), "POST", "/stock/batch_init/10/100/7");
    let made = field(&good(plan.http(0), "POST", "/stock/item/create/5"), "item_id");
    good(plan.http(0), "POST", &format!("/stock/add/{made}/30"));
    good(plan.http(0), "POST", "/stock/subtract/3/40");

    let at_one_position = || {
        let held: Vec<_> = (0..3).map(|pod| stock(plan.http(pod))).collect();
        held.iter().all(|one| one.0.is_some() && *one == held[0])
    };
    eventually("every replica knows all of it to be committed", at_one_position);
    let leader = u16::try_from(stock(plan.http(0)).0.unwrap()).unwrap();
    kill(pods[usize::from(leader)].pid(), Signal::STOP);

    for port in (0..3).filter(|&pod| pod != leader).map(|pod| plan.http(pod)) {
        let before = reads_settled(port);
        for (item, units, price) in [(made.as_str(), "30", "5"), ("3", "60", "7"), ("4", "100", "7")] {
            let found = good(port, "GET", &format!("/stock/find/{item}"));
            assert_eq!((field(&found, "stock").as_str(), field(&found, "price").as_str()), (units, price));
        }
        assert_eq!(reads_settled(port) - before, 3, "the one that could be asked is stopped");
    }
}
