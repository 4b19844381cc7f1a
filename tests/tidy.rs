//! Who may know whom, and how long a file may get: what ARCHITECTURE.md says of the parts, read off the
//! source itself.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, and this file is nothing else")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A part of the workspace, and the beginnings of paths that may not occur in its code.
struct Rule {
    folder: &'static str,
    forbidden: &'static [&'static str],
}

const PURE: &[&str] = &[
    "tokio",
    "hyper",
    "hyper_util",
    "axum",
    "fjall",
    "kassa_storage",
    "rand",
    "std::fs",
    "std::net",
    "std::thread",
    "Instant::now",
    "SystemTime",
    "std::time::Instant",
    "std::time::SystemTime",
];
const ABOVE_MODULES: &[&str] =
    &["crate::api", "crate::cli", "crate::runtime", "crate::fabric", "crate::node", "crate::exit"];
const ABOVE_NODE: &[&str] = &["crate::api", "crate::cli", "crate::runtime", "crate::fabric", "crate::exit"];
const HTTP: &[&str] = &["axum", "hyper", "hyper_util", "http_body_util"];

const RULES: &[Rule] = &[
    Rule { folder: "protocols/src", forbidden: PURE },
    Rule { folder: "protocols/src", forbidden: &["kassa"] },
    Rule { folder: "storage/src", forbidden: &["kassa", "kassa_protocols", "tokio", "hyper", "axum"] },
    Rule { folder: "protocols/src/paxos", forbidden: &["crate::quorum", "crate::eventual", "crate::commit"] },
    Rule { folder: "protocols/src/quorum", forbidden: &["crate::paxos", "crate::eventual", "crate::commit"] },
    Rule { folder: "protocols/src/eventual", forbidden: &["crate::paxos", "crate::quorum", "crate::commit"] },
    Rule { folder: "protocols/src/commit", forbidden: &["crate::paxos", "crate::quorum", "crate::eventual"] },
    Rule { folder: "src/modules", forbidden: PURE },
    Rule { folder: "src/modules", forbidden: ABOVE_MODULES },
    Rule { folder: "src/node", forbidden: PURE },
    Rule { folder: "src/node", forbidden: ABOVE_NODE },
    Rule { folder: "src/histories", forbidden: ABOVE_MODULES },
    Rule { folder: "src/runtime", forbidden: HTTP },
    Rule { folder: "src/runtime", forbidden: &["crate::api", "crate::cli"] },
    Rule { folder: "src/fabric", forbidden: HTTP },
    Rule {
        folder: "src/fabric",
        forbidden: &[
            "kassa_storage",
            "fjall",
            "crate::api",
            "crate::cli",
            "crate::runtime",
            "crate::node",
            "crate::modules",
        ],
    },
    Rule { folder: "src/api", forbidden: &["kassa_storage", "fjall", "crate::fabric", "crate::cli"] },
    Rule { folder: "src/cli", forbidden: &["fjall"] },
];

/// Files that name storage or the fabric: those that start a pod, the one that only reads, and the one that
/// lists where a test may have the process crash.
const MAY_READ_DISKS: [&str; 4] =
    ["src/cli/check.rs", "src/cli/serve.rs", "src/cli/serve/terms.rs", "src/failpoint.rs"];

/// No file of the program is longer: one role a file.
const LINES_MAX: usize = 500;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files under `folder`, by their path in the project.
fn files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has no files");
    found.sort();
    found
}

fn paths_of(file: &Path) -> BTreeSet<String> {
    paths(&code(&fs::read_to_string(root().join(file)).unwrap()))
}

/// Source text without comments, and with its string literals emptied.
fn code(source: &str) -> String {
    let mut out = String::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let raw = rest.strip_prefix('r').map(|behind| behind.len() - behind.trim_start_matches('#').len());
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\'") {
            3
        } else if let Some(hashes) = raw.filter(|hashes| rest[1 + hashes..].starts_with('"')) {
            let end = format!("\"{}", "#".repeat(hashes));
            let behind = hashes + 2;
            rest[behind..].find(&end).map_or(rest.len(), |at| behind + at + end.len())
        } else if first == '"' {
            let mut escaped = false;
            let end = rest[1..].find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            end.map_or(rest.len(), |at| at + 2)
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            // The last letter of a name is not the mark of a raw string.
            if first.is_alphanumeric() || first == '_' {
                let name = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                if !(first == 'r' && name == 0) {
                    out.push_str(&rest[..name]);
                    rest = &rest[name..];
                }
            }
            continue;
        };
        rest = &rest[skipped..];
    }
    out
}

/// Every path in the code, such as `crate::node::Node`; groups in braces are taken apart.
fn paths(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    // What stands before each open brace, if that is a group of paths.
    let mut prefixes: Vec<Option<String>> = Vec::new();
    let mut path = String::new();
    let prefix = |prefixes: &[Option<String>]| prefixes.last().cloned().flatten().unwrap_or_default();
    let mut chars = code.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_alphanumeric() || c == '_' => {
                if !path.is_empty() && !path.ends_with("::") {
                    path.clear();
                }
                path.push(c);
                while let Some(&next) = chars.peek().filter(|c| c.is_alphanumeric() || **c == '_') {
                    path.push(next);
                    chars.next();
                }
                found.insert(prefix(&prefixes) + &path);
            }
            ':' if chars.peek() == Some(&':') => {
                chars.next();
                path.push_str("::");
            }
            '{' => {
                let group = path.ends_with("::").then(|| prefix(&prefixes) + &path);
                prefixes.push(group);
                path.clear();
            }
            '}' => {
                prefixes.pop();
                path.clear();
            }
            c if c.is_whitespace() => {}
            _ => path.clear(),
        }
    }
    found
}

fn begins_with(path: &str, beginning: &str) -> bool {
    // The part itself may also be reached from a folder below it.
    let from_root = path.replace("super::", "");
    let is_it = |path: &str| {
        path.strip_prefix(beginning).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    is_it(path) || (path.starts_with("super::super::") && is_it(&format!("crate::{from_root}")))
}

fn breaches(rule: &Rule) -> Vec<String> {
    let mut breaches = Vec::new();
    for file in files(rule.folder) {
        for path in paths_of(&file) {
            if rule.forbidden.iter().any(|beginning| begins_with(&path, beginning)) {
                breaches.push(format!("{} names {path}", file.display()));
            }
        }
    }
    breaches
}

#[test]
fn each_part_knows_only_those_below_it() {
    let breaches: Vec<String> = RULES.iter().flat_map(breaches).collect();
    assert!(breaches.is_empty(), "{breaches:#?}");
}

#[test]
fn one_command_reads_disks_and_one_opens_them() {
    for file in files("src") {
        let shown = file.display().to_string();
        let may = shown.starts_with("src/runtime/") || MAY_READ_DISKS.contains(&shown.as_str());
        for path in paths_of(&file) {
            assert!(may || !begins_with(&path, "kassa_storage"), "{shown} names {path}");
            assert!(
                may || shown.starts_with("src/fabric/") || !begins_with(&path, "crate::fabric"),
                "{shown} names {path}"
            );
        }
    }
}

#[test]
fn only_the_api_and_the_command_line_know_http() {
    for file in files("src") {
        let may = file.starts_with("src/api") || file.starts_with("src/cli");
        for path in paths_of(&file) {
            let http = HTTP.iter().any(|name| begins_with(&path, name));
            assert!(may || !http, "{} names {path}", file.display());
        }
    }
}

#[test]
fn protocols_and_storage_depend_on_nothing_of_the_workspace() {
    for member in ["protocols", "storage"] {
        let text = fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = toml::from_str(&text).unwrap();
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, how) in manifest.get(section).and_then(toml::Value::as_table).into_iter().flatten() {
                assert!(!name.starts_with("kassa") && how.get("path").is_none(), "{member}: {name}");
                let io = ["tokio", "fjall", "hyper", "axum"].contains(&name.as_str());
                assert!(member == "storage" || !io, "{member}: {name}");
            }
        }
    }
}

#[test]
fn no_file_grows_too_long() {
    for folder in ["src", "protocols/src", "storage/src"] {
        for file in files(folder) {
            let lines = fs::read_to_string(root().join(&file)).unwrap().lines().count();
            assert!(lines <= LINES_MAX, "{} has {lines} lines: part it by role", file.display());
        }
    }
}

/// `eprintln!` panics where stderr cannot be written: a log on a full disk, a pipe that nobody reads.
#[test]
fn nothing_is_said_in_a_way_that_can_fail() {
    for folder in ["src", "storage/src"] {
        for file in files(folder) {
            let text = code(&fs::read_to_string(root().join(&file)).unwrap());
            for call in ["eprintln!", "eprint!", "println!", "print!"] {
                assert!(!text.contains(call), "{} calls {call}", file.display());
            }
        }
    }
}

#[test]
fn the_reader_of_paths_misses_none() {
    let source = r##"
        //! axum in a comment, and `tokio::spawn`.
        use crate::{api, node::{self, Node}};
        use std::{fs, time::{Duration, Instant}};
        use super::super::fabric::Links;
        fn f(x: &str) -> tokio :: net::TcpListener {
            // kassa_storage::Store
            let quote = '"';
            let text = "fjall::Database \" hyper::server";
            let raw = r#"axum::Router "quoted" "#;
            var_r("std::net");
            std::time::Instant::now()
        }
    "##;
    let found = paths(&code(source));
    for path in [
        "crate::api",
        "crate::node::self",
        "crate::node::Node",
        "std::fs",
        "std::time::Instant",
        "super::super::fabric::Links",
        "tokio::net::TcpListener",
        "std::time::Instant::now",
    ] {
        assert!(found.contains(path), "{path} in {found:#?}");
    }
    for name in ["axum", "kassa_storage", "fjall", "hyper", "tokio::spawn", "std::net"] {
        assert!(!found.iter().any(|path| begins_with(path, name)), "{name} in {found:#?}");
    }
    assert!(begins_with("super::super::fabric::Links", "crate::fabric"));
    assert!(!begins_with("crate::nodes", "crate::node"));
}
