//! Only the process that starts a pod can make it ill, and only on loopback.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, and this file is nothing else")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

/// A pod that waits for two others that never come.
fn pod(directory: &std::path::Path, http: &str) -> Child {
    let peers = "0=127.0.0.1:1,1=127.0.0.1:2,2=127.0.0.1:3";
    let data = directory.to_str().unwrap();
    let flags = ["serve", "--pod", "0", "--peers", peers, "--fabric", "127.0.0.1:0", "--http", http];
    Command::new(env!("CARGO_BIN_EXE_kassa"))
        .args(flags)
        .args(["--data", data, "--faults-from-stdin"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_pod_obeys_the_lines_it_is_given_and_ends_at_one_that_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let mut pod = pod(directory.path(), "127.0.0.1:0");
    let mut log = BufReader::new(pod.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut orders = pod.stdin.take().unwrap();
    writeln!(orders, "cut-out 1\nslow-disk 5\nheal").unwrap();
    for order in ["cut-out 1", "slow-disk 5", "heal"] {
        let said = format!("fault: {order}");
        assert!(log.any(|line| line.contains(&said)), "{said}");
    }
    writeln!(orders, "cut-out 7").unwrap();
    assert!(log.any(|line| line.contains("there is no peer 7")));
    assert_eq!(pod.wait().unwrap().code(), Some(2));
}

#[test]
fn a_pod_that_others_can_reach_cannot_be_made_ill() {
    let directory = tempfile::tempdir().unwrap();
    let output = pod(directory.path(), "0.0.0.0:0").wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("loopback") && said.lines().count() <= 2, "{said}");
}
