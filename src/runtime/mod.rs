//! The event loop around [`crate::node`]: the only part that touches storage and fabric.
//!
//! # Layout
//! [`handle`] is how tasks reach the loop, [`event_loop`] the loop, `persist` its way to the disk,
//! [`stores`] what lies there; [`faults`] is what may be made ill on purpose; [`clock`] reads the time, `news` tells the log what changed.

pub mod clock;
pub mod event_loop;
pub mod faults;
pub mod handle;
mod news;
mod persist;
pub mod stores;

pub use handle::Handle;
