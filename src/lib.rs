//! kassa: the order, stock and payment back end of a web shop.
//!
//! # Layout
//! A request walks one way: [`api`] → [`runtime`] → [`node`] → [`modules`] and the protocols crate →
//! effects → storage → [`fabric`] or reply. No part calls back up. `ARCHITECTURE.md` tells the rest.

pub mod api;
pub mod cli;
pub mod exit;
pub mod fabric;
pub mod failpoint;
pub mod histories;
pub mod modules;
pub mod node;
pub mod runtime;
