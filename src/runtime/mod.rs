//! The event loop around [`crate::node`]: the only part that touches storage and fabric.
//!
//! # Layout
//! [`handle`] is how tasks reach the loop, [`stores`] what lies on the disk; [`clock`] reads the time.

pub mod clock;
pub mod handle;
pub mod stores;

pub use handle::Handle;
