//! What fuzzing found worth keeping, and its first inputs, run through the same functions: see fuzz/README.md.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, and this file is nothing else")]

#[path = "../fuzz/src/lib.rs"]
mod entries;

use std::path::Path;

#[test]
fn the_corpus_of_every_target_does_no_harm() {
    for (name, target) in entries::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let files =
            std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let inputs: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
        assert!(inputs.len() > 1, "{name} has inputs");
        for input in inputs {
            let bytes = std::fs::read(&input).unwrap();
            // Also cut short, and with one bit the other way, wherever it is small.
            let cuts = (0..=bytes.len()).step_by(1 + bytes.len() / CUTS_MAX);
            for cut in cuts {
                let ran = std::panic::catch_unwind(|| {
                    target(&bytes[..cut]);
                    let mut flipped = bytes.clone();
                    if let Some(byte) = flipped.get_mut(cut) {
                        *byte ^= 1 << (cut % 8);
                        target(&flipped);
                    }
                });
                assert!(ran.is_ok(), "{name}: {} at {cut}", input.display());
            }
        }
    }
}

/// Places of one input at which it is cut and changed.
const CUTS_MAX: usize = 200;
