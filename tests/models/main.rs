//! Model checks: the protocols' own machines, in every order of events within bounds.
//!
//! `cargo test --test models -- --nocapture` searches the small bounds and prints what was covered;
//! `MODEL_BOUNDS=full` adds wider ones, which take minutes and are for a release build. `README.md` says what
//! is modelled, and what is not.
//!
//! # Layout
//! [`explore`] searches any model breadth first. [`world`] makes one of pods and a network. [`paxos`] is three
//! replicas of a log, [`quorum`] three of a shard on read and write quorums, [`checkout`] what happens between shards. [`report`] runs searches.

#![allow(clippy::wildcard_enum_match_arm, reason = "a model looks for a few of many messages")]

mod checkout;
mod explore;
mod paxos;
mod quorum;
mod report;
mod world;
