//! A journal becomes full and the next one begins: the store's own marker has to note it. It takes 64 MiB, so
//! this pod is a cluster by itself, and its buyers buy a lot at a time.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::cases::{Way, cases};
use crate::pods::{Plan, Pod, ask, field, good, kassa, scratch, told};

const BUYERS: u64 = 4;
const LINES: u64 = 200;
const STOCK: u64 = 1_000_000;
/// What a payment remembers of an order grows with it.
const CHECKOUTS_OF_ORDER: u64 = 80;

/// Buys and gives up, for the same order again and again, until nobody answers. Counts what was bought.
fn buy(port: u16, user: u64, sold: &AtomicU64) {
    let post = |path: &str| ask(port, "POST", path).filter(|(status, _)| *status == 200);
    loop {
        let Some((_, order)) = post(&format!("/orders/create/{user}")) else { return };
        let order = field(&order, "order_id");
        for item in 0..LINES {
            if post(&format!("/orders/addItem/{order}/{item}/1")).is_none() {
                return;
            }
        }
        for _ in 0..CHECKOUTS_OF_ORDER {
            if post(&format!("/orders/checkout/{order}")).is_none() {
                return;
            }
            sold.fetch_add(1, Ordering::Relaxed);
            if post(&format!("/payment/cancel/{user}/{order}")).is_none() {
                return;
            }
        }
    }
}

#[test]
fn a_pod_that_crashes_over_a_full_journal_loses_nothing_that_was_said() {
    for case in cases(&[Way::Filling]) {
        let dir = scratch();
        let plan = Plan::new(dir.path(), 1, &["--set", "limits.log_bytes_max=65536"]);
        let mut command = plan.command(0);
        command.env("KASSA_FAILPOINT", &case.site);
        let port = plan.http(0);
        let mut pod = Pod::start(command, port);
        pod.wait_ready();
        good(port, "POST", &format!("/stock/batch_init/{LINES}/{STOCK}/1"));
        good(port, "POST", &format!("/payment/batch_init/{BUYERS}/1000000"));
        let sold = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for user in 0..BUYERS {
                let sold = &sold;
                scope.spawn(move || buy(port, user, sold));
            }
        });
        let (code, lines) = pod.wait();
        assert!(code.is_none() && lines.contains(&format!("kassa: failpoint {}", case.site)), "{lines:#?}");
        let (code, said) = told(kassa().arg("check").arg(plan.data(0)));
        assert_eq!(code, Some(0), "{said}");

        let pod = plan.start(0);
        pod.wait_ready();
        let sold = sold.into_inner();
        for item in [0, LINES - 1] {
            let left: u64 =
                field(&good(port, "GET", &format!("/stock/find/{item}")), "stock").parse().unwrap();
            // Besides those that were told, one of each buyer that was not.
            assert!((STOCK - sold - BUYERS..=STOCK - sold).contains(&left), "{left} left, {sold} sold");
        }
        println!("{}: {sold} checkouts of {LINES} lines", case.site);
        assert_eq!(pod.terminate().0, Some(0));
    }
}
