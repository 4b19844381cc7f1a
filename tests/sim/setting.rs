//! What `CONFIG` fixes of every scenario, so that a run is of one configuration; the seed draws the rest.
//!
//! `CONFIG=payment=quorum,stock=write-all,pods=5,payment-pods=3`: each part is optional. `CONFIG=all` runs
//! the seeds of every configuration of [`MATRIX`], one after the other.

use crate::scenario::{Commit, REPLICAS, Replication, Scenario};
use std::fmt;

/// Every way in which the modules can be replicated, clusters whose modules have fewer pods than there are, and
/// such as bear no loss.
pub const MATRIX: [&str; 18] = [
    "payment=paxos,stock=quorum",
    "payment=paxos,stock=paxos",
    "payment=paxos,stock=write-all",
    "payment=quorum,stock=quorum",
    "payment=quorum,stock=paxos",
    "payment=quorum,stock=write-all",
    "pods=5,payment-pods=3,stock-pods=5",
    "pods=5,payment-pods=3,stock-pods=3",
    "pods=2",
    "pods=1",
    "commit=blocking,payment=paxos,stock=quorum",
    "commit=blocking,payment=paxos,stock=paxos",
    "commit=blocking,payment=paxos,stock=write-all",
    "commit=blocking,payment=quorum,stock=quorum",
    "commit=blocking,payment=quorum,stock=paxos",
    "commit=blocking,payment=quorum,stock=write-all",
    "commit=blocking,pods=5,payment-pods=3,stock-pods=3",
    "commit=blocking,pods=1",
];

/// The seeds of every configuration, one after the other.
const ALL: &str = "all";

/// What the environment says: usually one that leaves all to the seeds.
pub fn settings() -> Vec<Setting> {
    assert!(std::env::var_os("COMMIT").is_none(), "COMMIT is a part of CONFIG: CONFIG=commit=blocking");
    match std::env::var("CONFIG").as_deref() {
        Ok(ALL) => MATRIX.iter().map(|text| Setting::parse(text)).collect(),
        Ok(one) => vec![Setting::parse(one)],
        Err(_) => vec![Setting::default()],
    }
}

/// How checkouts commit where a test sets all else itself.
pub fn commit() -> Commit {
    settings()[0].commit.unwrap_or(Commit::Reserve)
}

#[derive(Clone, Debug, Default)]
pub struct Setting {
    text: String,
    payment: Option<Replication>,
    stock: Option<Replication>,
    write_all: Option<bool>,
    commit: Option<Commit>,
    pods: Option<usize>,
    payment_pods: Option<usize>,
    stock_pods: Option<usize>,
}

impl Setting {
    /// # Panics
    /// If a part is not understood: a run of something else would say nothing.
    pub fn parse(text: &str) -> Self {
        let mut setting = Self { text: text.to_owned(), ..Self::default() };
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, value) =
                part.split_once('=').unwrap_or_else(|| panic!("CONFIG: {part:?} is no name=value"));
            let number =
                || value.parse().unwrap_or_else(|_| panic!("CONFIG: {value:?} is no number of pods"));
            match (name, value) {
                ("payment", "paxos") => setting.payment = Some(Replication::Paxos),
                ("payment", "quorum") => setting.payment = Some(Replication::Quorum),
                ("stock", "paxos") => setting.stock = Some(Replication::Paxos),
                ("stock", "quorum") => {
                    (setting.stock, setting.write_all) = (Some(Replication::Quorum), Some(false))
                }
                ("stock", "write-all") => {
                    (setting.stock, setting.write_all) = (Some(Replication::Quorum), Some(true))
                }
                ("commit", "reserve") => setting.commit = Some(Commit::Reserve),
                ("commit", "blocking") => setting.commit = Some(Commit::Blocking),
                ("pods", _) => setting.pods = Some(number()),
                ("payment-pods", _) => setting.payment_pods = Some(number()),
                ("stock-pods", _) => setting.stock_pods = Some(number()),
                _ => panic!("CONFIG: {part:?} is not known"),
            }
        }
        setting
    }

    pub fn apply(&self, scenario: &mut Scenario) {
        scenario.payment = self.payment.unwrap_or(scenario.payment);
        scenario.stock = self.stock.unwrap_or(scenario.stock);
        scenario.write_all = self.write_all.unwrap_or(scenario.write_all);
        scenario.commit = self.commit.unwrap_or(scenario.commit);
        if let Some(pods) = self.pods {
            scenario.pods = pods;
            (scenario.payment_pods, scenario.stock_pods) = (pods, pods);
        }
        scenario.payment_pods = self.payment_pods.unwrap_or(scenario.payment_pods);
        scenario.stock_pods = self.stock_pods.unwrap_or(scenario.stock_pods);
        let bounds = scenario.replicas()..=scenario.pods;
        assert!(bounds.contains(&scenario.payment_pods), "CONFIG: payment-pods of {bounds:?}");
        assert!(bounds.contains(&scenario.stock_pods), "CONFIG: stock-pods of {bounds:?}");
    }

    /// Whether it leaves everything to the seed.
    pub fn is_free(&self) -> bool {
        self.text.is_empty()
    }

    /// Whether a run of it has reads of a quorum, copies of shards, and disks that are replaced.
    pub fn reads_by_quorum(&self) -> bool {
        self.stock != Some(Replication::Paxos)
    }
    pub fn has_copies(&self) -> bool {
        // Where each write waits for all, and no disk is lost, hardly a replica is ever far behind.
        let waits_for_all = self.write_all == Some(true) && self.commit == Some(Commit::Blocking);
        self.pods.is_none_or(|pods| pods >= REPLICAS) && !waits_for_all
    }
    pub fn replaces_disks(&self) -> bool {
        self.pods.is_none_or(|pods| pods >= REPLICAS) && self.commit != Some(Commit::Blocking)
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_free() { f.write_str("") } else { write!(f, "CONFIG={} ", self.text) }
    }
}

/// Whether the environment asks to be told what happens.
pub fn talks() -> bool {
    std::env::var_os("TALK").is_some()
}
