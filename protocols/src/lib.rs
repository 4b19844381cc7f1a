//! The protocols of kassa as pure step machines: no IO, no clock, no randomness of their own.
//!
//! # The step contract
//! Every machine here is driven in the same way, so that learning one is learning all:
//!
//! - `new(config, durable state)` makes it, `recover(record)` feeds back, in order, the log records
//!   that it once asked to persist and that no checkpoint covers yet.
//! - `handle(now, from, message, fx)` takes one message, `tick(now, fx)` the passing of time; the
//!   verbs of its service (`propose`, `write`, `barrier`, …) take what its user wants.
//! - All of them only append to [`effects::Effects`], which the caller drains before the next input.
//! - `persist` is what must be on disk before anything in `send` leaves. A message to oneself in
//!   `send` comes back as an input *after* the persist: that is how a machine's own vote is counted
//!   only once it is durable. `send_early` may leave at once (a proposal while it is being fsynced).
//! - `events` are for the layer above, in order, in the same step.
//!
//! Time is a value ([`time::Time`]); nothing rests on it but when to ask, retry, suspect or expire.
//! Invariants are asserted in production too; a refusal is an outcome, never an error.
//!
//! A machine can be cloned, and hashed with all that its behaviour depends on (but for [`patience`]): so `tests/models` tries all
//! that can happen to it.
//!
//! # Layout
//! [`ids`], [`time`], [`effects`], [`placement`], [`tables`], [`patience`] are shared words. [`paxos`], [`quorum`],
//! [`eventual`] and [`commit`] are one protocol each and never import each other. [`breaks`] is how the
//! simulator has one rule broken on purpose.

pub mod breaks;
pub mod commit;
pub mod effects;
pub mod eventual;
pub mod ids;
pub mod patience;
pub mod paxos;
pub mod placement;
pub mod quorum;
pub mod tables;
pub mod time;
