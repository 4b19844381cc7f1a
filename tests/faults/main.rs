//! Faults of disks and peers, shown to the program itself: what it refuses, what it says, how it ends, and
//! that the rest of the cluster sells on.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, and these files are nothing else")]

mod disk_full;
mod log;
mod peers;
mod pods;
mod reads;
mod replace;
mod rot;
mod slow;
mod uneven;
mod versions;
#[path = "../wait/mod.rs"]
mod wait;
