//! Crashes of the real binary at every place where a crash may part two things that belong together.
//!
//! A pod is told by name where to crash (`src/failpoint.rs` lists the places, the code has them), among two
//! others, while clients buy without pause; then it is started again. What the clients were told must be what
//! the stores hold in the end, every directory must be whole, and all replicas the same.
//!
//! `cargo test --features failpoints --test failpoints -- --nocapture` shows each site as it is passed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, and these files are nothing else")]

mod cases;
mod cluster;
mod filling;
mod load;
#[path = "../faults/pods.rs"]
#[allow(dead_code, reason = "shared with tests/faults, which needs more of it")]
mod pods;
mod replicas;
mod sites;
#[path = "../wait/mod.rs"]
mod wait;
