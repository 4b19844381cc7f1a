//! A pod that is slow and not dead: others lead in its place and serve its clients, until it keeps up again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::Value;

use crate::pods::{Plan, ask, eventually, field, good, scratch};

const SLOW: u16 = 1;
const ITEMS: u64 = 50;

fn status(port: u16) -> Value {
    serde_json::from_str(&good(port, "GET", "/status")).unwrap()
}

/// How many shards `pod` leads, as pod 0 sees it.
fn led_by(plan: &Plan, pod: u16) -> usize {
    let status = status(plan.http(0));
    status["shards"].as_array().unwrap().iter().filter(|shard| shard["leader"] == u64::from(pod)).count()
}

fn is_aside(plan: &Plan) -> bool {
    status(plan.http(SLOW))["aside"] == true
}

/// Adds units to one item after the other through the pods that are well, while `during` lasts. All
/// requests are answered 200. Gives how many were.
fn sell_during(plan: &Plan, during: impl FnOnce()) -> u64 {
    let (over, added) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for client in 0..4_u16 {
            let (over, added) = (&over, &added);
            let port = plan.http(2 * (client % 2));
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let n = added.fetch_add(1, Ordering::Relaxed);
                    good(port, "POST", &format!("/stock/add/{}/1", n % ITEMS));
                }
            });
        }
        during();
        over.store(true, Ordering::Relaxed);
    });
    added.into_inner()
}

fn slow_and_well_again(ill: &[(u16, &str)]) {
    let dir = scratch();
    let plan = Plan::new(dir.path(), 3, &[]);
    let mut pods: Vec<_> = (0..3).map(|pod| plan.start_to_be_ill(pod)).collect();
    for pod in &pods {
        pod.wait_ready();
    }
    good(plan.http(0), "POST", &format!("/stock/batch_init/{ITEMS}/0/1"));
    // A third of 48, give or take what the placement does.
    eventually("each pod leads its share", || (0..3).all(|pod| led_by(&plan, pod) > 10));
    let before = led_by(&plan, SLOW);
    let added = sell_during(&plan, || {
        for (pod, how) in ill {
            pods[usize::from(*pod)].make_ill(how);
        }
        eventually("it leads nothing and stands aside", || led_by(&plan, SLOW) == 0 && is_aside(&plan));
        let (code, body) = ask(plan.http(SLOW), "POST", "/stock/add/0/1000000").unwrap();
        assert_eq!((code, field(&body, "code").as_str()), (503, "unavailable"), "{body}");
        let (code, body) = ask(plan.http(SLOW), "GET", "/readyz").unwrap();
        assert!(code == 503 && body.contains("cannot keep up"), "{body}");
        assert_eq!(ask(plan.http(SLOW), "GET", "/healthz").unwrap().0, 200);
        for pod in &mut pods {
            pod.make_ill("heal");
        }
        eventually("it serves again", || !is_aside(&plan));
        eventually("it leads its share again", || led_by(&plan, SLOW) == before);
    });
    let stock = |item: u64| -> u64 {
        field(&good(plan.http(SLOW), "GET", &format!("/stock/find/{item}")), "stock").parse().unwrap()
    };
    assert_eq!((0..ITEMS).map(stock).sum::<u64>(), added);
}

#[test]
fn a_slow_disk() {
    slow_and_well_again(&[(SLOW, "slow-disk 100")]);
}

#[test]
fn slow_links() {
    let slow =
        [(0, "slow-link 1 20"), (2, "slow-link 1 20"), (SLOW, "slow-link 0 20"), (SLOW, "slow-link 2 20")];
    slow_and_well_again(&slow);
}
