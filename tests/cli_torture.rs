//! `kassa torture` as a process: a cluster that is sound bears it, and wrong use is told.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, and this file is nothing else")]

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;

/// A stretch of ports for one cluster: nginx 100 below the pods, the fabric 200 above them. Below the
/// ports that the system hands out by itself; each run of these tests on this machine takes a thousand.
fn ports(test: u16) -> u16 {
    static TAKEN: OnceLock<(u16, File)> = OnceLock::new();
    let (run, _) = TAKEN.get_or_init(|| {
        let take = |run: u16| {
            let lock = File::create(std::env::temp_dir().join(format!("kassa-test-ports-{run}"))).ok()?;
            lock.try_lock().ok()?;
            Some((run, lock))
        };
        (0..20).find_map(take).expect("fewer than twenty runs at once")
    });
    10_200 + run * 1000 + test * 16
}

fn torture(data: &Path, http_port: u16, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kassa"))
        .args(["torture", "--http-port", &http_port.to_string(), "--data"])
        .arg(data)
        .args(more)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_sound_cluster_bears_it() {
    let data = tempfile::tempdir().unwrap();
    let more = ["--minutes", "0.2", "--seed", "4", "--faults", "kill,stop,oneway", "--json"];
    let output = torture(data.path(), ports(20), &more);
    let (told, said) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{told}\n{said}");
    let report: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&report["good"], &report["seed"]), (&Value::Bool(true), &Value::from(4)));
    let checked = &report["checked"];
    for what in ["operations", "charged", "refused", "repeats", "histories", "sums", "asked_again", "disks"] {
        assert!(checked[what].as_u64().unwrap() > 0, "{what}: {checked}");
    }
    assert!(!report["faults"].as_array().unwrap().is_empty());
    assert!(report["inconsistencies"].as_object().unwrap().values().all(|count| *count == 0));
    let page = std::fs::read_to_string(data.path().join("torture.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("all good"), "{page}");
}

#[test]
fn wrong_use_is_told_in_two_lines() {
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("photo.jpg"), "mine").unwrap();
    for more in [
        ["--minutes", "0"],
        ["--minutes", "soon"],
        ["--faults", "earthquake"],
        ["--pods", "2"],
        // Last: a directory that is not its own.
        ["--minutes", "1"],
    ] {
        let output = torture(data.path(), ports(21), &more);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{more:?}: {said}");
        assert!(said.lines().count() <= 3, "{more:?}: {said}");
    }
    assert!(data.path().join("photo.jpg").is_file());
}
