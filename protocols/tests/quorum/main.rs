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
//! | commit point moved on an older ballot | committed writes form one chain (`older_ballot`) |
//! | tail cut without its replacement | the accepted version decreased |
//! | deletion not versioned: the record is just removed | a record is missing, or not the model's |
//! | deletions dropped early, or the drop not stored | a record is missing, or not the model's |
//! | delta sent where a full copy is needed | tables are not the model's at their version |
//! | table version acknowledged before it is durable | the durable table version was not |
//! | refusal or read without its round | a client is shown what was so at no point since (`refusal`) |
//! | barrier passed before what it was based on is committed | acknowledged and not committed |
//! | own vote counted before the fsync | called committed, and on too few disks |
//! | promise forgotten | a promise was forgotten |
//! | old coordinator followed after a newer promise | no coordinator in office in quiet |
//! | takeover on its own chain, or on R − 1 promises | no coordinator in office in quiet |
//! | serving before the takeover is committed | the events say who leads |
//! | write accepted over a gap | shard time decreases; not one chain |
//! | read returned on fewer than W | what was shown is committed |
//! | read counts versions of other ballots | what was shown is committed (`older_ballot`) |
//! | coordinator never stands down | output of `cut_off` |

#![expect(clippy::unwrap_used, reason = "in a test a surprise is a failure")]

mod copy;
mod epochs;
mod golden;
mod model;
mod pod;
mod random;
mod world;
