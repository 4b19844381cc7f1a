//! Waiting for what other processes do. They send no event that a test could wait for, so it looks again and again.

#![allow(dead_code, reason = "part of several tests, each of which uses its share")]

use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine: what has not happened by then never will.
pub const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Returns once `holds`; says `what` never came if it does not.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    eventually_some(what, || holds().then_some(()).ok_or("it is not so"));
}

/// The first thing that is as wanted; what was instead is said if none ever is.
#[track_caller]
pub fn eventually_some<T, E: std::fmt::Debug>(what: &str, mut look: impl FnMut() -> Result<T, E>) -> T {
    let started = Instant::now();
    loop {
        match look() {
            Ok(seen) => return seen,
            Err(instead) => assert!(started.elapsed() < PATIENCE, "never: {what}; last: {instead:?}"),
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
