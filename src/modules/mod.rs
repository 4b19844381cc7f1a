//! The three modules: entities, commands and pure transitions, nothing else.
//!
//! A module does not know how it is replicated, who asks, or what time it is.

pub mod batch;
pub mod cluster;
pub mod disks;
pub mod keys;
pub mod machine;
pub mod money;
pub mod order;
pub mod payment;
pub mod receipt;
pub mod request;
pub mod stock;
