//! `kassa bench` as a tool that measures: that an open loop sees what a closed one is blind to, and that wrong use
//! is told. Whether it notices a till that cheats is in `cli_books.rs`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, and this file is nothing else")]

use kassa::cli::bench::engine::{self, Live};
use kassa::cli::bench::prepare::Shop;
use kassa::cli::bench::settings::{Pace, Settings};
use kassa::cli::bench::tally::Tally;
use kassa::cli::http::Target;
use rustix::process::{Pid, Signal, kill_process};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};
use wait::eventually;

mod wait;

/// A server that answers everything at once: a process of its own, so that it can be stopped.
struct Server {
    child: Child,
    target: Target,
}

impl Server {
    fn start() -> Self {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let (parent, port_text) = (std::process::id().to_string(), port.to_string());
        let child = Command::new(env!("CARGO_BIN_EXE_kassa"))
            .args(["noop", "--port", &port_text, "--with-parent", &parent])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, target: Target::local(port) };
        eventually("the server listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        server
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Stops the server for a second in the middle of a load, and returns what was counted and how long it stood still
/// in truth.
async fn stalled(pace: Pace, clients: usize) -> (Tally, Duration) {
    const STALL: Duration = Duration::from_secs(1);
    let server = Server::start();
    let mut settings = Settings::new(vec![server.target.clone()], clients, Duration::from_secs(4));
    settings.pace = pace;
    let orders = (0..1_000_000).map(|id: u32| id.to_string()).collect();
    let shop = Rc::new(Shop { items: Vec::new(), users: Vec::new(), orders, stock: 0, credit: 0 });
    let (mut stopped_at, mut stood_still): (Option<Instant>, Option<Duration>) = (None, None);
    let watch = |live: Live| match (stopped_at, stood_still) {
        (None, _) if live.counted >= Duration::from_secs(1) => {
            server.signal(Signal::STOP);
            stopped_at = Some(Instant::now());
        }
        (Some(at), None) if at.elapsed() >= STALL => {
            server.signal(Signal::CONT);
            stood_still = Some(at.elapsed());
        }
        (None | Some(_), _) => {}
    };
    let tally = engine::run(&shop, &settings, watch).await.unwrap();
    (tally, stood_still.expect("the load lasts longer than the stall"))
}

#[tokio::test]
async fn an_open_loop_sees_a_stall_that_a_closed_one_hardly_does() {
    let (open, still) = stalled(Pace::Open { rate_per_second: 500.0 }, 16).await;
    let still_us = u64::try_from(still.as_micros()).unwrap();
    let offered = open.offered.unwrap();
    assert!(offered.is_reached(), "{offered:?}");
    assert_eq!(open.errors_total(), 0);
    // Some 2,000 requests were due, and 500 of them while the server stood still: a tenth of all waited more than
    // half of that time, one in a hundred nearly all of it.
    let latency = &open.latency_us;
    assert!(latency.value_at_quantile(0.9) > still_us / 2, "{}", latency.value_at_quantile(0.9));
    assert!(latency.value_at_quantile(0.99) > still_us * 3 / 4, "{}", latency.value_at_quantile(0.99));
    // Sixteen of them were sent meanwhile: the others had to wait before they were sent, which counts too.
    assert!(offered.waited > 0 && offered.late_max > still / 2, "{offered:?}");

    let (closed, still) = stalled(Pace::Closed, 2).await;
    let still_us = u64::try_from(still.as_micros()).unwrap();
    // Two clients met the stall, with one request each.
    let latency = &closed.latency_us;
    assert!(closed.committed > 400, "too few answers for two to be less than one in a hundred");
    assert!(latency.max() >= still_us * 9 / 10, "{}", latency.max());
    assert!(latency.count_between(still_us / 2, still_us * 10) >= 2);
    assert!(latency.value_at_quantile(0.99) < still_us / 2, "{}", latency.value_at_quantile(0.99));
    for (tally, still) in [(open, still), (closed, still)] {
        assert!(tally.silence > still * 3 / 4, "{:?}", tally.silence);
    }
}

#[tokio::test]
async fn a_rate_that_cannot_be_offered_is_told() {
    let server = Server::start();
    server.signal(Signal::STOP);
    let mut settings = Settings::new(vec![server.target.clone()], 8, Duration::from_secs(1));
    settings.pace = Pace::Open { rate_per_second: 200.0 };
    let orders = (0..1_000).map(|id: u32| id.to_string()).collect();
    let shop = Rc::new(Shop { items: Vec::new(), users: Vec::new(), orders, stock: 0, credit: 0 });
    let watch = |live: Live| {
        if live.elapsed > Duration::from_secs(1) {
            server.signal(Signal::CONT);
        }
    };
    let tally = engine::run(&shop, &settings, watch).await.unwrap();
    let offered = tally.offered.unwrap();
    assert!(!offered.is_reached(), "{offered:?}");
    // Eight were sent; whatever else was due in that second never was.
    assert_eq!((offered.due - offered.unsent, tally.committed + tally.committed_outside), (8, 8));
}

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kassa")).arg("bench").args(arguments).output().unwrap()
}

#[test]
fn wrong_use_is_told_with_how_to_mend_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (words, old) = (file("words", "not JSON"), file("old", r#"{"committed": 1}"#));
    let strange = file("strange", r#"{"samples": {}}"#);
    let nowhere = dir.path().join("none/file").display().to_string();
    for (arguments, told) in [
        (&["--rate", "0"][..], "no number of requests a second"),
        (&["--rate", "-5"], "no number of requests a second"),
        (&["--rate", "fast"], "no number of requests a second"),
        (&["--rate", "nan"], "no number of requests a second"),
        (&["--warm-up", "-1"], "'-1' for '--warm-up"),
        (&["--warm-up", "1.5"], "'1.5' for '--warm-up"),
        (&["--warm-up", "3601"], "not in 0..=3600"),
        (&["--skew", "zipf"], "zipf:0.99"),
        (&["--skew", "zipf:0"], "no number above 0"),
        (&["--skew", "normal"], "none of uniform, zipf:EXPONENT, one"),
        (&["--skew", "uniform", "--hot"], "--hot"),
        (&["--skew", "zipf:1", "--orders", "batch"], "leave out `--orders batch`"),
        (&["--mix", "checkout=8,buy=1"], "none of checkout, edit, read"),
        (&["--mix", "read=x"], "the weight in `read=x`"),
        (&["--hdr", &nowhere], "name a file in a directory that exists"),
        (&["--report", &nowhere], "name a file in a directory that exists"),
        (&["--compare", &nowhere], "cannot be read"),
        (&["--compare", &words], "is no JSON"),
        (&["--compare", &old], "has no samples of each second"),
        (&["--compare", &strange], "is no report"),
        (&["--fail-if-slower"], "--compare"),
    ] {
        let output = bench(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(told), "{arguments:?}: {error}");
        assert!(error.trim_end().lines().count() <= 2, "{arguments:?}: {error}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn help_says_what_a_closed_loop_does_not_see() {
    let output = bench(&["--help"]);
    let help = String::from_utf8_lossy(&output.stdout);
    assert!(help.contains("closed loop") && help.contains("a stall of a second"), "{help}");
    assert!(help.contains("kassa bench --rate 2000"), "{help}");
}
