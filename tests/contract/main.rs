//! The REST contract, sentence by sentence, against a running cluster.
//!
//! A black box: all that is used of kassa is its binary and HTTP, and requests go to the pods in turn.
//! One cluster of three pods serves all tests of a run; each test takes users, items and orders of its
//! own, and those that load batches (which overwrite the ids from 0 up) take turns. With
//! `KASSA_URLS=http://host:port,…` the same tests run against what listens there instead, such as an
//! nginx in front of a cluster.
//!
//! # Layout
//! [`http`] is a client that can send anything; [`shop`] starts the cluster and knows the contract's
//! shapes: whatever is answered to whatever test, it checks that the answer carries its key and is
//! JSON or a complete problem. The others are the tests, by topic.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, and these files are nothing else")]

mod amounts;
mod batches;
mod checkout;
mod http;
mod ids;
mod keys;
mod limits;
mod orders;
mod payment;
mod races;
mod rows;
mod shop;
mod stock;
#[path = "../wait/mod.rs"]
mod wait;
