//! The read/write-quorum protocol under a small record store, with faults.
//!
//! `golden` replays scripts that each show one property; `random` drives the same world with
//! random deliveries, faults and clients. Both check every invariant after every step; `model` keeps
//! books of its own. `SEED=n cargo test -p kassa-protocols --test quorum random` replays one run.
//!
//! Each of these was put into the protocol on purpose, and is noticed:
//!
//! | broken on purpose | noticed as |
//! |---|---|

mod golden;
mod model;
mod pod;
mod random;
mod world;
