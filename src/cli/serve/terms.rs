//! What pods compare before they talk, and what a pod compares with its own disk.

use crate::cli::config::Config;
use crate::fabric::hello::Terms;
use kassa_protocols::placement::HASH_VERSION;

/// The settings that cannot change once a cluster has formed.
const FIXED: [&str; 5] =
    ["cluster.shards", "cluster.replicas", "payment.protocol", "stock.protocol", "checkout.commit"];

/// What must be the same on disk and in the configuration, once a cluster has formed.
pub fn fixed(config: &Config) -> Terms {
    let keys = FIXED.iter().map(|&key| (key.to_owned(), config.shown(key)));
    let computed = [
        ("hash version", HASH_VERSION.to_string()),
        ("payment.pods", config.payment_pods.to_string()),
        ("stock.pods", config.stock_pods.to_string()),
        // With a larger one fewer replicas are asked at a takeover, and these may lack what fewer had to accept.
        ("stock.write_quorum", config.write_quorum.to_string()),
    ];
    Terms::new(keys.chain(computed.map(|(key, value)| (key.to_owned(), value))).collect())
}

/// What a file says that was written before these settings were fixed in it.
pub fn before_fixed(config: &Config) -> Terms {
    let all = config.peers.len().to_string();
    let then = [
        ("checkout.commit", "reserve".to_owned()),
        ("payment.pods", all.clone()),
        ("stock.pods", all),
        ("stock.write_quorum", config.write_quorum.to_string()),
    ];
    Terms::new(then.map(|(key, value)| (key.to_owned(), value)).into())
}

/// What must be the same on all pods.
pub fn of(config: &Config) -> Terms {
    let fixed = fixed(config);
    let mut terms: Vec<(String, String)> =
        fixed.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    terms.push(("peers".to_owned(), config.shown("peers")));
    Terms::new(terms)
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::*;

    #[test]
    fn the_pods_compare_what_must_be_the_same() {
        let ours = of(&config(&[]));
        for different in [
            ("stock.write_quorum", "3"),
            ("stock.protocol", "paxos"),
            ("cluster.shards", "12"),
            ("checkout.commit", "blocking"),
            ("peers", "0=h:1,1=h:2,3=h:3"),
        ] {
            assert!(ours.check(&of(&config(&[different]))).is_err(), "{different:?}");
        }
        let few = of(&config(&[("cluster.replicas", "2")]));
        for different in ["stock.pods", "payment.pods"] {
            let other = config(&[("cluster.replicas", "2"), (different, "2")]);
            assert!(few.check(&of(&other)).is_err(), "{different}");
        }
        // Three of three is all of them, however it is written.
        let all = of(&config(&[("stock.write_quorum", "all")]));
        assert_eq!(all, of(&config(&[("stock.write_quorum", "3")])));
        assert_eq!(ours, of(&config(&[("http", "127.0.0.1:1"), ("timing.election_ms", "900")])));
    }
}
