//! The REST contract over HTTP/1.1: parse, ask the runtime, answer. The only place that knows HTTP.
//!
//! # Layout
//! [`server`] accepts connections and ends them; [`wire`] bounds what a client may take of them.
//! [`service`] answers one request: [`door`] says when, [`route`] finds the operation, [`key`] its identity; [`outcome`]
//! makes an answer of what the runtime says, which [`json`] or [`problem`] writes. [`malformed`]
//! answers what is no HTTP request at all.
//!
//! It stands on hyper alone. A web framework's router would cost a boxed future and several clones a
//! request, and its own answers (404, 405, a bad percent-encoding, a body too large) would have to be
//! caught and rewritten one by one; the contract's table is a `match` of a hundred lines.

pub mod door;
pub mod json;
pub mod key;
pub mod malformed;
pub mod outcome;
pub mod problem;
pub mod route;
pub mod server;
pub mod service;
pub mod wire;

pub use server::serve;

use std::time::Duration;

/// How long a client waits for the outcome of a request.
pub const REQUEST_WAIT: Duration = Duration::from_secs(10);
/// The same for a `batch_init`.
pub const BATCH_WAIT: Duration = Duration::from_secs(60);
/// The longest URI in bytes.
pub const URI_BYTES_MAX: usize = 8 * 1024;
/// The most headers of a request in bytes: names, values, and four for each line's punctuation.
pub const HEADERS_BYTES_MAX: usize = 16 * 1024;
/// The longest body in bytes. No request needs one.
pub const BODY_BYTES_MAX: u64 = 64 * 1024;
/// How much of a longer body is read away, so that a client that sends before it reads gets to read
/// the answer.
pub const BODY_READ_AWAY_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What clients may take of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections beyond this are told to come back later. Each takes a file descriptor and, while
    /// it sends, a buffer of up to 32 KiB.
    pub connections_max: usize,
    /// Requests beyond this that wait for their outcome are shed.
    pub requests_in_flight_max: usize,
    /// Requests that are served at a time; those beyond wait for their turn ...
    pub served_max: usize,
    /// ... and are shed if it has not come after this.
    pub queue_wait: Duration,
    /// For a request's head, from its first byte to its last.
    pub head_wait: Duration,
    /// For the next request on a connection. Above nginx's 60 s for idle upstream connections, so that
    /// it is nginx that closes, and never sends a request into a connection that closes.
    pub idle_wait: Duration,
    /// For the requests in flight when the pod stops.
    pub drain_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4_096,
            requests_in_flight_max: 4_096,
            served_max: 192,
            queue_wait: Duration::from_millis(600),
            head_wait: Duration::from_secs(10),
            idle_wait: Duration::from_secs(75),
            drain_wait: Duration::from_secs(3),
        }
    }
}
