//! Which site is come to in which way, and how often before the crash.

use kassa::failpoint::OF_EACH_STORE;

/// What brings a pod to a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Its cluster forms, and it is one of the first pods.
    Forming,
    /// It starts again among others, under load.
    Starting,
    /// The same, and the end of its journal is torn.
    Torn,
    /// The same, and the others' logs do not reach back to where it left off.
    Copying,
    /// It runs under load.
    Running,
    /// It is told to end, under load.
    Ending,
    /// It runs until a journal is full.
    Filling,
}

#[derive(Clone, Debug)]
pub struct Case {
    pub site: String,
    pub way: Way,
    /// The first crash is at this passage of the site, and so on.
    pub passages: &'static [u64],
}

const WAYS: [(&str, Way, &[u64]); 39] = [
    // Drawn, and then formed.
    ("identity.before", Way::Forming, &[1, 2]),
    ("identity.written", Way::Forming, &[1, 2]),
    ("identity.renamed", Way::Forming, &[1, 2]),
    ("identity.after", Way::Forming, &[1, 2]),
    // One passage for each store, side by side.
    ("store.made", Way::Forming, &[1, 2, 3]),
    ("marker.before", Way::Forming, &[1, 3]),
    ("marker.written", Way::Forming, &[2]),
    ("marker.renamed", Way::Forming, &[3]),
    ("marker.after", Way::Forming, &[1, 3]),
    ("start.opened", Way::Forming, &[1]),
    ("start.formed", Way::Forming, &[1]),
    ("start.recovered", Way::Forming, &[1]),
    ("link.up", Way::Forming, &[1, 2]),
    ("marker.before", Way::Starting, &[2]),
    ("marker.written", Way::Starting, &[1, 3]),
    ("marker.renamed", Way::Starting, &[1]),
    ("marker.after", Way::Starting, &[2]),
    ("start.opened", Way::Starting, &[1]),
    ("start.recovered", Way::Starting, &[1]),
    ("link.up", Way::Starting, &[1, 2]),
    ("tail.before-cut", Way::Torn, &[1]),
    ("tail.after-cut", Way::Torn, &[1]),
    ("copy.before-switch", Way::Copying, &[1, 2]),
    ("copy.after-switch", Way::Copying, &[1, 2]),
    ("early.before", Way::Running, &[1, 60]),
    ("early.between", Way::Running, &[1, 60]),
    ("early.after", Way::Running, &[1, 60]),
    ("replies.before", Way::Running, &[1, 30]),
    ("replies.after", Way::Running, &[1, 30]),
    ("order.durable-payment-not", Way::Running, &[1, 3]),
    ("late.before", Way::Running, &[1, 60]),
    ("late.between", Way::Running, &[1, 60]),
    ("late.after", Way::Running, &[1, 60]),
    ("answer.before", Way::Running, &[1, 30]),
    ("answer.after", Way::Running, &[20, 60]),
    ("close.before", Way::Ending, &[1, 2]),
    ("close.after", Way::Ending, &[1, 3]),
    ("journal.before-noted", Way::Filling, &[1]),
    ("journal.after-noted", Way::Filling, &[1]),
];

/// Every case that has a test.
pub fn all_cases() -> impl Iterator<Item = Case> {
    let listed = WAYS.into_iter().map(|(site, way, passages)| Case { site: site.to_owned(), way, passages });
    let of_stores = ["order", "stock", "payment"].into_iter().flat_map(|store| {
        OF_EACH_STORE.into_iter().map(move |site| {
            let rare = site.ends_with("checkpoint") || site.ends_with("cut");
            let passages: &[u64] = if rare { &[1, 3] } else { &[1, 40] };
            Case { site: format!("{store}.{site}"), way: Way::Running, passages }
        })
    });
    listed.chain(of_stores)
}

pub fn cases(of: &[Way]) -> Vec<Case> {
    all_cases().filter(|case| of.contains(&case.way)).collect()
}
