//! That the list of sites, the code and the tests name the same ones.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use kassa::failpoint::{OF_EACH_STORE, SITES};

use crate::cases::all_cases;
use crate::pods::{Plan, scratch, told};

const STORES: [&str; 3] = ["order", "stock", "payment"];
const LIST: &str = "src/failpoint.rs";

/// All source files that have failpoints.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut open = vec![root.join("src"), root.join("storage/src")];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.file_name().is_some_and(|name| name != "failpoint.rs") {
            let text = fs::read_to_string(&path).unwrap();
            if text.contains("failpoint") {
                found.push((path, text));
            }
        }
    }
    found
}

/// The names that the calls of `call` in a source text have as their last argument.
fn named_in<'a>(text: &'a str, call: &str) -> Vec<&'a str> {
    let calls = text.match_indices(call).map(|(at, _)| &text[at..]);
    let arguments = calls.filter_map(|rest| rest.split_once(';').map(|(arguments, _)| arguments));
    arguments.filter_map(|arguments| arguments.rsplit('"').nth(1)).collect()
}

#[test]
fn every_site_is_listed_placed_and_passed() {
    let listed: BTreeSet<&str> = SITES.into_iter().chain(OF_EACH_STORE).collect();
    assert_eq!(listed.len(), SITES.len() + OF_EACH_STORE.len(), "each is listed once");
    let sources = sources();
    for (path, text) in &sources {
        for name in ["hit(", "hit_in(", "hit_if("].iter().flat_map(|call| named_in(text, call)) {
            assert!(listed.contains(name), "{}: {name} is not in {LIST}", path.display());
        }
    }
    for name in &listed {
        let quoted = format!("\"{name}\"");
        let places: usize = sources.iter().map(|(_, text)| text.matches(&quoted).count()).sum();
        assert_eq!(places, 1, "places in the code that are called {name}");
    }

    let all: BTreeSet<String> = STORES
        .iter()
        .flat_map(|store| OF_EACH_STORE.map(|site| format!("{store}.{site}")))
        .chain(SITES.map(str::to_owned))
        .collect();
    let passed: BTreeSet<String> = all_cases().map(|case| case.site).collect();
    assert_eq!(passed, all, "crashed at by a test (left), and listed");
}

#[test]
fn a_site_that_is_none_is_refused() {
    let dir = scratch();
    let plan = Plan::new(dir.path(), 1, &[]);
    let (code, said) = told(plan.command(0).env("KASSA_FAILPOINT", "order.before-lunch"));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("KASSA_FAILPOINT=order.before-lunch: no such site"), "{said}");
}
