//! `kassa compare` as a process: what it says of wrong use. A run takes minutes, and is left to `.ci/run`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, and this file is nothing else")]

use std::path::Path;
use std::process::{Command, Output};

fn compare(out: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kassa")).args(["compare", "--out"]).arg(out).args(more).output().unwrap()
}

#[test]
fn wrong_use_is_told_in_two_lines() {
    let out = tempfile::tempdir().unwrap();
    for (more, part) in [
        (&["--only", "default,best"][..], "best"),
        (&["--only"], "--only"),
        (&["--rounds", "0"], "0"),
        (&["--rounds", "many"], "many"),
        (&["--quick", "--glance"], "--glance"),
        (&["--http-port", "0", "--glance"], "--http-port"),
    ] {
        let output = compare(out.path(), more);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{more:?}: {said}");
        assert!(said.contains(part) && said.lines().count() <= 3, "{more:?}: {said}");
        assert!(!out.path().join("compare.html").exists(), "{more:?}");
    }
}

#[test]
fn what_is_not_its_own_is_left_alone() {
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let output = compare(&file, &["--glance"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("--out"), "{said}");

    // Where the clusters would go there is something else.
    let cluster = out.path().join("cluster");
    std::fs::create_dir(&cluster).unwrap();
    std::fs::write(cluster.join("photo.jpg"), "mine").unwrap();
    let output = compare(out.path(), &["--glance"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("was not made by kassa"), "{said}");
    assert_eq!(std::fs::read(cluster.join("photo.jpg")).unwrap(), b"mine");
}

#[test]
fn help_teaches() {
    let output = Command::new(env!("CARGO_BIN_EXE_kassa")).args(["compare", "--help"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0));
    for part in
        ["--quick", "compare.html", "kassa compare --only default,blocking", "stock-write-all", "Exit code 1"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
}
