//! Modules that lie on some of the pods, and clusters of one or two: what each bears and what it does not.

use std::process::{Child, Stdio};

use serde_json::Value;

use crate::pods::{Plan, Pod, ask, eventually, field, good, kassa, scratch, told};

const WARNING: &str = "THIS CLUSTER BEARS NO LOSS";

fn url(plan: &Plan, pod: u16) -> String {
    format!("http://127.0.0.1:{}", plan.http(pod))
}

fn begin_verify(plan: &Plan, asked: u16) -> Child {
    let mut command = kassa();
    command.args(["verify", "--url", &url(plan, asked), "--orders", "3000"]);
    command.stdout(Stdio::piped()).spawn().unwrap()
}

fn assert_good(verify: Child) {
    let output = verify.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
}

/// What `kassa status --json` says of the pods.
fn status(plan: &Plan) -> Value {
    let mut command = kassa();
    command.args(["status", "--json"]);
    for pod in 0..plan.pods {
        command.args(["--url", &url(plan, pod)]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn table(plan: &Plan) -> String {
    let output = kassa().args(["status", "--url", &url(plan, 0)]).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// Checkouts that a pod has committed as coordinator since it started.
fn committed(plan: &Plan, pod: u16) -> u64 {
    status(plan)[usize::from(pod)]["status"]["committed"].as_u64().unwrap()
}

/// A user with 10 of credit, an item of price 3 of which there are 5, and an order of one unit of it.
fn shop(port: u16) -> (String, String, String) {
    let user = field(&good(port, "POST", "/payment/create_user"), "user_id");
    good(port, "POST", &format!("/payment/add_funds/{user}/10"));
    let item = field(&good(port, "POST", "/stock/item/create/3"), "item_id");
    good(port, "POST", &format!("/stock/add/{item}/5"));
    (order(port, &user, &item), user, item)
}

fn order(port: u16, user: &str, item: &str) -> String {
    let order = field(&good(port, "POST", &format!("/orders/create/{user}")), "order_id");
    good(port, "POST", &format!("/orders/addItem/{order}/{item}/1"));
    order
}

fn assert_left(port: u16, user: &str, item: &str, credit: &str, stock: &str) {
    assert_eq!(field(&good(port, "GET", &format!("/payment/find_user/{user}")), "credit"), credit);
    assert_eq!(field(&good(port, "GET", &format!("/stock/find/{item}")), "stock"), stock);
}

#[test]
fn any_pod_may_die_whatever_it_holds() {
    let dir = scratch();
    let plan = Plan::new(dir.path(), 5, &["--set", "payment.pods=3"]);
    let mut pods = plan.start_all();
    for seen in status(&plan).as_array().unwrap() {
        let holds = &seen["holds"];
        let pod = seen["status"]["pod"].as_u64().unwrap();
        assert_eq!(holds["payment"]["shards"], if pod < 3 { 24 } else { 0 }, "pod {pod}");
        assert!(holds["stock"]["shards"].as_u64().unwrap() >= 13, "pod {pod}");
        let leads = |module: &str| holds[module]["leads"].as_u64().unwrap();
        assert!((4..=16).contains(&(leads("payment") + leads("stock"))), "pod {pod}: {holds}");
    }
    assert!(!table(&plan).contains(WARNING));
    for pod in 0..plan.pods {
        let (order, user, item) = shop(plan.http(pod));
        good(plan.http(pod), "POST", &format!("/orders/checkout/{order}"));
        assert_left(plan.http(4 - pod), &user, &item, "7", "4");
    }
    // One without payment, then one with it; asked is one without.
    for dead in [4, 0] {
        let before = committed(&plan, 1);
        let verify = begin_verify(&plan, 3);
        eventually("it sells", || committed(&plan, 1) > before);
        pods[dead].kill();
        assert_good(verify);
        pods[dead] = plan.start(u16::try_from(dead).unwrap());
        pods[dead].wait_ready();
    }
    // A disk of a pod without payment is lost, and refilled.
    pods[4].kill();
    std::fs::remove_dir_all(plan.data(4)).unwrap();
    pods[4] = plan.start(4);
    pods[4].wait_line("`kassa replace --pod 4`");
    let (code, said) = told(kassa().args(["replace", "--pod", "4", "--url", &url(&plan, 1)]));
    assert_eq!(code, Some(0), "{said}");
    assert_good(begin_verify(&plan, 4));
    // What the cluster formed with stays.
    pods[4].kill();
    let mut command = plan.command(4);
    command.args(["--set", "payment.pods=4"]).stdout(Stdio::null());
    let (code, said) = told(&mut command);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("payment.pods is 3 there and 4 here"), "{said}");
}

#[test]
fn a_single_pod_says_what_it_is_and_keeps_everything() {
    let dir = scratch();
    let plan = Plan::new(dir.path(), 1, &[]);
    let mut pod = plan.start(0);
    pod.wait_ready();
    let (order, user, item) = shop(pod.http);
    good(pod.http, "POST", &format!("/orders/checkout/{order}"));
    let verify = begin_verify(&plan, 0);
    assert_good(verify);
    for _ in 0..2 {
        assert_eq!(pod.lines_with(WARNING), 1, "{:#?}", pod.lines());
        assert!(table(&plan).contains(WARNING));
        pod.kill();
        pod = plan.start(0);
        pod.wait_ready();
        assert_left(pod.http, &user, &item, "7", "4");
        assert_eq!(field(&good(pod.http, "GET", &format!("/orders/find/{order}")), "paid"), "true");
    }
}

#[test]
fn two_pods_sell_together_and_neither_alone() {
    let dir = scratch();
    let plan = Plan::new(dir.path(), 2, &[]);
    let mut pods: Vec<Pod> = plan.start_all();
    let (first, user, item) = shop(plan.http(0));
    let second = order(plan.http(1), &user, &item);
    let checkout = |order: &str| ask(plan.http(1), "POST", &format!("/orders/checkout/{order}"));
    assert_eq!(checkout(&first).unwrap().0, 200);
    assert_eq!(pods[1].lines_with(WARNING), 1);
    pods[0].kill();
    let (code, said) = checkout(&second).unwrap();
    assert!(matches!(code, 503 | 504), "{code}: {said}");
    pods[0] = plan.start(0);
    pods[0].wait_ready();
    eventually("the second is sold", || checkout(&second).is_some_and(|(code, _)| code == 200));
    assert_left(plan.http(0), &user, &item, "4", "3");
}
