//! All places at which a test can have the process crash; see [`kassa_storage::failpoint`].
//!
//! Sites lie between any two things that a crash may part: what goes to a disk, to a peer, to a client.

pub use kassa_storage::failpoint::{ENABLED, hit, hit_in};

/// The sites of one store each, in the order in which a commit passes them.
pub const OF_EACH_STORE: [&str; 6] =
    ["before-commit", "after-commit", "before-checkpoint", "after-checkpoint", "before-cut", "after-cut"];

/// All others, in the order in which a pod passes them.
pub const SITES: [&str; 32] = [
    // A start: the identity is drawn, or read; stores are made, or opened; the cluster forms; logs are read.
    "identity.before",
    "identity.written",
    "identity.renamed",
    "identity.after",
    "store.made",
    "tail.before-cut",
    "tail.after-cut",
    "marker.before",
    "marker.written",
    "marker.renamed",
    "marker.after",
    "start.opened",
    "start.formed",
    "start.recovered",
    "link.up",
    // A round: early frames, replies, commits, late frames.
    "early.before",
    "early.between",
    "early.after",
    "replies.before",
    "replies.after",
    "order.durable-payment-not",
    "copy.before-switch",
    "copy.after-switch",
    "late.before",
    "late.between",
    "late.after",
    // Outside of the rounds.
    "answer.before",
    "answer.after",
    "journal.before-noted",
    "journal.after-noted",
    // An orderly end.
    "close.before",
    "close.after",
];

/// The site that the environment names, if it is none of those here.
#[must_use]
pub fn unknown() -> Option<&'static str> {
    let of_a_store = |site: &str| {
        ["order.", "stock.", "payment."]
            .iter()
            .any(|store| site.strip_prefix(store).is_some_and(|site| OF_EACH_STORE.contains(&site)))
    };
    kassa_storage::failpoint::site().filter(|site| !SITES.contains(site) && !of_a_store(site))
}
