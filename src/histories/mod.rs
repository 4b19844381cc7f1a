//! A shop under test: what clients ask of it, what they are told, and whether that can be true.
//!
//! The simulator and `kassa torture` share it: the one on virtual time, network and disks, the other with
//! real processes and real faults.
//!
//! # Layout
//! A [`workload`] chooses what clients ask, of the few users, items and orders of a [`shop`], which keeps
//! every request with its end. The [`books`] judge it, with [`sums`] and [`lines`], and with the
//! [`models`] that [`linear`] checks the history of each user and item against.

#![allow(clippy::wildcard_enum_match_arm, reason = "the books look for a few of many operations and answers")]

pub mod books;
pub mod linear;
mod lines;
pub mod models;
pub mod shop;
mod sums;
pub mod workload;
