//! What is compared: the default, and what differs from it in one thing each.

use clap::ValueEnum;
use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Configuration {
    /// Checkouts that reserve; payment on Paxos; stock on read/write quorums 3/2/2
    Default,
    /// The textbook's two-phase commit, which locks and waits
    Blocking,
    /// Payment on read/write quorums instead of Paxos
    PaymentQuorum,
    /// Stock that needs all three replicas for each write
    StockWriteAll,
    /// Stock on Paxos instead of read/write quorums
    StockPaxos,
}

impl Configuration {
    pub const ALL: [Self; 5] =
        [Self::Default, Self::Blocking, Self::PaymentQuorum, Self::StockWriteAll, Self::StockPaxos];

    /// As `--only` names it.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Blocking => "blocking",
            Self::PaymentQuorum => "payment-quorum",
            Self::StockWriteAll => "stock-write-all",
            Self::StockPaxos => "stock-paxos",
        }
    }

    /// As people read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Blocking => "blocking commit",
            Self::PaymentQuorum => "payment on quorums",
            Self::StockWriteAll => "stock on write-all",
            Self::StockPaxos => "stock on Paxos",
        }
    }

    /// What it is, in a few words.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::Default => {
                "checkouts reserve and lock nothing; payment on Paxos; stock on read/write quorums 3/2/2"
            }
            Self::Blocking => {
                "the textbook's two-phase commit: items and users are locked from vote to outcome"
            }
            Self::PaymentQuorum => "payment on read/write quorums 3/2/2",
            Self::StockWriteAll => "every write of stock needs all three replicas",
            Self::StockPaxos => "stock on Paxos, one log a shard",
        }
    }

    /// What its pods' configuration says beyond the defaults.
    #[must_use]
    pub const fn toml(self) -> &'static str {
        match self {
            Self::Default => "",
            Self::Blocking => "[checkout]\ncommit = \"blocking\"\n",
            Self::PaymentQuorum => "[payment]\nprotocol = \"quorum\"\n",
            Self::StockWriteAll => "[stock]\nwrite_quorum = \"all\"\n",
            Self::StockPaxos => "[stock]\nprotocol = \"paxos\"\n",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_what_the_command_line_takes() {
        for configuration in Configuration::ALL {
            assert_eq!(Configuration::from_str(configuration.key(), false), Ok(configuration));
            assert!(configuration.toml().parse::<toml::Table>().is_ok());
        }
        assert_eq!(Configuration::value_variants(), Configuration::ALL);
    }
}
