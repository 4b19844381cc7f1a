//! One module's storage: a write-ahead log of rounds, and tables written lazily behind it.
//!
//! A [`Store`] is one fjall database with two keyspaces, so that everything goes through one journal:
//!
//! - `log`: one packed record for each round, keyed by its position, which grows by one a record;
//! - `tables`: what checkpoints wrote, keyed by shard and key.
//!
//! # What a caller may rely on
//!
//! - [`Store::commit`] is atomic over log and tables. With `sync` the batch, and every batch before
//!   it, is on the disk when it returns. Without, the batch becomes durable with the next one that
//!   syncs. After a crash the store holds a prefix of the batches committed, never less than up to
//!   the last one that was synced.
//! - After an error of `commit`, or a fault reported by the watchdog, **abort the process at once**.
//!   Nothing may be retried: after a failed fsync the kernel may call pages clean that never reached
//!   the disk. Dropping the database would even run another fsync, which may then "succeed".
//! - [`Store::open`] reads the disk before fjall does, and refuses a store that is not whole. fjall
//!   by itself takes a byte that rotted in a journal for the torn end of it, and silently drops what
//!   follows. How damage is told from a torn tail is described in `preflight`.
//!
//! # Layout
//!
//! `store` opens and reads, `commit` is the one place that writes, `watchdog` reports commits that
//! hang, `record` is the form of records, `marker` the store's own small file, `preflight` the reading
//! of journals, manifests and table files before fjall is let near them, `check` what `kassa check` says;
//! [`failpoint`] crashes the process where a test wants it to.

mod check;
mod commit;
mod error;
pub mod failpoint;
mod marker;
mod preflight;
mod record;
mod store;
mod watchdog;

pub use check::{Report, ShardReport, check, inspect};
pub use commit::Batch;
pub use error::{CommitError, Damage, OpenError, ReadError, lacks_room};
pub use store::{Inspected, Options, Store};
pub use watchdog::Fault;
