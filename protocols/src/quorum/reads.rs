//! Reads from any pod, without the coordinator.
//!
//! The reader asks all replicas; each answers with the record as of its accepted version (tables and
//! tail), the version at which it was last written, and its [`ReadState`]. Readers never write.

use super::{Replica, Version};
use crate::ids::Ballot;
use serde::{Deserialize, Serialize};

/// Where a replica stood when it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadState {
    pub promised: Ballot,
    pub accepted: Version,
    pub committed: Version,
}

/// What a reader does with the answers it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadVerdict {
    /// The record of this answer is the newest committed one.
    Return(usize),
    /// The answers cannot settle it: something is being written, or changes hands.
    AskCoordinator,
    /// Further answers may settle it.
    Wait,
}

impl Replica {
    /// Attached to an answer, which leaves as `Effects::send` does: what it shows is durable then.
    #[must_use]
    pub fn read_state(&self) -> ReadState {
        ReadState {
            promised: self.promised,
            accepted: self.chain.accepted(),
            committed: self.chain.committed(),
        }
    }
}

/// Judges the answers that have come in, one a replica at most: each a state and the version at which
/// the record there was last written.
///
/// Any R answers hold one of a replica that has accepted the newest write committed before the read
/// began, and the highest accepted version holds that write. The record there is safe to show
/// once it is committed: W replicas have accepted, from that ballot's coordinator, a version of that
/// same ballot that is not before the record's. Versions of other ballots prove nothing: they may
/// yet be replaced.
#[must_use]
pub fn judge(answers: &[(ReadState, Version)], read_quorum: usize, write_quorum: usize) -> ReadVerdict {
    let replicas = read_quorum + write_quorum - 1;
    if answers.len() < read_quorum {
        return ReadVerdict::Wait;
    }
    let newest = (0..answers.len()).max_by_key(|&i| answers[i].0.accepted);
    let Some(newest) = newest else { return ReadVerdict::Wait };
    let (state, written) = answers[newest];
    let backs =
        |other: &ReadState| other.accepted.ballot == state.accepted.ballot && other.accepted >= written;
    let backing = answers.iter().filter(|(other, _)| backs(other)).count();
    if backing >= write_quorum {
        ReadVerdict::Return(newest)
    } else if backing + replicas.saturating_sub(answers.len()) >= write_quorum {
        ReadVerdict::Wait
    } else {
        ReadVerdict::AskCoordinator
    }
}
