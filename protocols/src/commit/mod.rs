//! The reserving commit: two-phase commit (Gray 1978) with reservations instead of locks, whose decision
//! is one command in the coordinator's own replicated log (the last-agent optimisation).
//!
//! Departures from the textbook: the vote of the coordinator's side *is* the decision, so that there is
//! no coordinator log and no blocking window; a participant in doubt asks the payment shard, which any
//! leader of it can answer; participants learn in bulk what can no longer be decided (watermarks)
//! instead of one message for each outcome.
//!
//! [`coordinator`] follows the transactions of one payment shard, [`participant`] the queue and the
//! doubts of one stock shard. Neither decides anything: decisions are commands of the modules.
//!
//! The textbook's commit, which blocks, is there beside it for comparison: the same coordinator and
//! participants, but that what is set aside is locked until the outcome, and that the outcome is a decision of
//! the coordinator's pod alone. [`decisions`] is all that it has besides.

pub mod coordinator;
pub mod decisions;
pub mod participant;
