//! The simulator: the node's own code under virtual time, network and disk, from one seed.
//!
//! `cargo test --test sim` runs a few seeds, `SEEDS=2000` that many, `SEED=n` one of them again, exactly
//! as it was, and `TALK=1` has it say what happens. With the feature `breaks`, `BREAK=name` breaks the
//! code in one known way and the run passes if some seed notices; `README.md` has the list.
//!
//! # Layout
//! A [`scenario`] is drawn from the seed, but for what a [`setting`] fixes. The [`world`] is the queue of events in which [`pod`]s (a node,
//! a [`disk`], a clock), the [`net`], the [`clients`], and the [`faults`] (with [`lost`] disks) take turns. [`run`] leads it from
//! the first start through the faults to the rest after them. What clients ask, and the books that judge
//! what they were told, are those of [`kassa::histories`]; [`replicas`] are compared on the way.
//! [`adapter`] is the only part that makes a node.

#![allow(clippy::wildcard_enum_match_arm, reason = "tests look for a few of many messages and answers")]

mod absent;
mod adapter;
mod clients;
mod disk;
mod faults;
mod held;
mod lost;
mod net;
mod pod;
mod replicas;
mod run;
mod scenario;
mod seeds;
mod setting;
mod sluggish;
mod world;
