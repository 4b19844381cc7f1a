//! A pod whose disk is lost waits, says what to type, and is refilled from the others while they sell.

use std::fs;
use std::process::{Child, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::Value;

use crate::pods::{Plan, Pod, ask, eventually, good, kassa, scratch};

const LOST: u16 = 2;
const ORDERS: u64 = 20_000;
const ITEMS: u64 = 100;
const USERS: u64 = 200;
const CREDIT: u64 = 1_000_000;
/// Units of each item, and of each line of the orders there is one of two.
const STOCK: u64 = 1_000_000;

fn shop(plan: &Plan) {
    good(plan.http(0), "POST", &format!("/stock/batch_init/{ITEMS}/{STOCK}/1"));
    good(plan.http(0), "POST", &format!("/payment/batch_init/{USERS}/{CREDIT}"));
    good(plan.http(0), "POST", &format!("/orders/batch_init/{ORDERS}/{ITEMS}/{USERS}/1"));
}

/// A checkout as nginx sends it: to the other pod where one says that it did nothing. It is answered 200.
fn check_out(plan: &Plan, order: u64, first: u16) {
    let mut pod = first;
    eventually("a checkout is done", || {
        let asked = ask(plan.http(pod), "POST", &format!("/orders/checkout/{order}"));
        pod = 1 - pod;
        let Some((code, body)) = asked else { panic!("order {order}: the connection broke") };
        assert!(matches!(code, 200 | 503), "order {order} was answered {code}: {body}");
        code == 200
    });
}

/// Checks out one order after the other through the pods whose disks are well, while `during` lasts. Gives how
/// many were.
fn sell_during(plan: &Plan, from: u64, during: impl FnOnce()) -> u64 {
    let (over, next) = (AtomicBool::new(false), AtomicU64::new(from));
    std::thread::scope(|scope| {
        for client in 0..3_u16 {
            let (over, next) = (&over, &next);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    assert!(n < ORDERS, "enough orders for as long as this takes");
                    check_out(plan, n, client % 2);
                }
            });
        }
        // Whatever becomes of it, the clients end.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(during));
        over.store(true, Ordering::Relaxed);
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    next.into_inner()
}

/// Every order up to there cost two units of two.
fn assert_books(port: u16, sold: u64) {
    let sum = |path: &str, count: u64, name: &str| -> u64 {
        let each = (0..count).map(|id| {
            let body: Value = serde_json::from_str(&good(port, "GET", &format!("{path}/{id}"))).unwrap();
            body[name].as_u64().unwrap()
        });
        each.sum()
    };
    assert_eq!(sum("/stock/find", ITEMS, "stock"), ITEMS * STOCK - 2 * sold);
    assert_eq!(sum("/payment/find_user", USERS, "credit"), USERS * CREDIT - 2 * sold);
    for order in [0, sold / 2, sold - 1] {
        let body: Value = serde_json::from_str(&good(port, "GET", &format!("/orders/find/{order}"))).unwrap();
        assert_eq!(body["paid"], true, "{body}");
    }
}

fn begin_replace(plan: &Plan, pod: u16, asked: u16) -> Child {
    let url = format!("http://127.0.0.1:{}", plan.http(asked));
    let pod = pod.to_string();
    kassa().args(["replace", "--json", "--pod", &pod, "--url", &url]).stdout(Stdio::piped()).spawn().unwrap()
}

fn replaced(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Code and words of one that is not to succeed.
fn refused(plan: &Plan, pod: u16, asked: u16) -> (Option<i32>, String) {
    let output = begin_replace(plan, pod, asked).wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// The pod dies with its directory, which goes to `aside`, and starts again: it waits, and says what to type.
fn lose(plan: &Plan, pod: &mut Pod, aside: &str) {
    pod.kill();
    fs::rename(plan.data(LOST), plan.dir.join(aside)).unwrap();
    *pod = plan.start(LOST);
    pod.wait_line("`kassa replace --pod 2`");
    let (code, body) = ask(plan.http(LOST), "GET", "/readyz").unwrap();
    assert!(code == 503 && body.contains("`kassa replace --pod 2`"), "{body}");
}

#[test]
fn a_lost_disk_is_refilled_under_load() {
    let dir = scratch();
    let plan = Plan::new(dir.path(), 3, &[]);
    let mut pods = plan.start_all();
    shop(&plan);
    let sold = sell_during(&plan, 0, || {
        lose(&plan, &mut pods[2], "old");
        let told = replaced(&begin_replace(&plan, LOST, 0).wait_with_output().unwrap());
        assert_eq!(
            (&told["pod"], &told["replaced"], &told["whole"]),
            (&LOST.into(), &1.into(), &true.into())
        );
        assert!(told["refill"]["records"].as_u64() > Some(100), "{told}");
        pods[2].wait_line("it is refilled");
        pods[2].wait_ready();
    });
    let url = format!("http://127.0.0.1:{}", plan.http(0));
    let verified = kassa().args(["verify", "--url", &url]).output().unwrap();
    let said = String::from_utf8(verified.stdout).unwrap();
    assert_eq!(verified.status.code(), Some(0), "{said}");
    assert_eq!(said.matches("inconsistencies in the").count(), 4, "{said}");
    // Without another pod the cluster sells on: the new disk holds all of it.
    pods[0].kill();
    eventually("they sell without pod 0", || {
        ask(plan.http(1), "POST", &format!("/orders/checkout/{sold}")).is_some_and(|(code, _)| code == 200)
    });
    let sold = sold + 1;
    // The shop of `verify` has users and items of its own.
    assert_books(plan.http(LOST), sold);
    // The old disk comes back, under the same number.
    pods[0] = plan.start(0);
    pods[0].wait_ready();
    pods[2].kill();
    fs::rename(plan.data(LOST), dir.path().join("new")).unwrap();
    fs::rename(dir.path().join("old"), plan.data(LOST)).unwrap();
    let (code, lines) = plan.start(LOST).wait();
    assert_eq!(code, Some(3), "{lines:#?}");
    let told = lines.iter().filter(|line| line.contains("was replaced while it was away")).count();
    assert_eq!(told, 1, "{lines:#?}");
    assert_books(plan.http(0), sold);
}

#[test]
fn it_may_end_at_any_moment_and_be_lost_again() {
    let dir = scratch();
    let plan = Plan::new(dir.path(), 3, &[]);
    let mut pods = plan.start_all();
    shop(&plan);
    let sold = sell_during(&plan, 0, || {
        lose(&plan, &mut pods[2], "first");
        // Two type it at once.
        let typed = [0, 1].map(|asked| begin_replace(&plan, LOST, asked));
        pods[2].wait_line("it is refilled");
        pods[2].kill();
        pods[2] = plan.start(LOST);
        for typed in typed {
            assert_eq!(replaced(&typed.wait_with_output().unwrap())["replaced"], 1);
        }
        lose(&plan, &mut pods[2], "second");
        let typed = begin_replace(&plan, LOST, 1);
        pods[2].wait_line("it is refilled");
        lose(&plan, &mut pods[2], "third");
        let mut typed_before = typed;
        assert_eq!(replaced(&begin_replace(&plan, LOST, 0).wait_with_output().unwrap())["replaced"], 3);
        // What was said of the second disk came to nothing.
        typed_before.kill().unwrap();
        typed_before.wait().unwrap();
    });
    pods[1].kill();
    eventually("they sell without pod 1", || {
        ask(plan.http(0), "POST", &format!("/orders/checkout/{sold}")).is_some_and(|(code, _)| code == 200)
    });
    assert_books(plan.http(LOST), sold + 1);
}

#[test]
fn it_is_refused_where_nothing_is_to_be_replaced() {
    let dir = scratch();
    let plan = Plan::new(dir.path(), 3, &[]);
    let mut pods = plan.start_all();
    let (code, said) = refused(&plan, 1, 0);
    assert!(
        code == Some(3) && said.contains("p1 is up with the disk that the cluster knows"),
        "{code:?} {said}"
    );
    let (code, said) = refused(&plan, 7, 0);
    assert!(code == Some(2) && said.contains("p7 is not among the pods"), "{code:?} {said}");
    pods[1].kill();
    eventually("pod 0 has noticed", || {
        let (code, said) = refused(&plan, 1, 0);
        assert_eq!(code, Some(3), "{said}");
        said.contains("no pod with an empty directory waits as p1")
    });
    // It comes back as it was.
    pods[1] = plan.start(1);
    pods[1].wait_ready();
    let (code, said) = refused(&plan, 1, 9);
    assert!(code == Some(3) && said.contains("no cluster at"), "{code:?} {said}");
}
