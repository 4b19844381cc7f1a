//! Reads from any pod, without the coordinator.
//!
//! The reader asks all replicas; each answers with the record as of its accepted version (tables and
//! tail), the version at which it was last written, and its [`ReadState`]. Readers never write.

use super::{Replica, Version};
use crate::breaks;
use crate::ids::Ballot;
use serde::{Deserialize, Serialize};

/// Where a replica stood when it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
/// once it is committed. Either W replicas have accepted, from that ballot's coordinator, a version of
/// that same ballot that is not before the record's; versions accepted in other ballots prove nothing,
/// since they may yet be replaced. Or any replica, of whatever ballot, knows a version to be committed
/// that is not before the record's: the highest accepted version is on top of all that is committed, so
/// that both are on one chain, on which versions grow. That settles most reads while a new coordinator
/// takes over.
///
/// An answer of an older epoch than another's does not count: it may be of a disk that was replaced, by a pod
/// that has not heard of it either. Where something is committed in a newer epoch, R of the replicas that did not
/// lose their disk have promised in it, and W - 1 of them have accepted; one of either is among any answers
/// that are R and a majority.
#[must_use]
pub fn judge(answers: &[(ReadState, Version)], read_quorum: usize, write_quorum: usize) -> ReadVerdict {
    if breaks::is("read-from-one") && !answers.is_empty() {
        return ReadVerdict::Return(0);
    }
    let replicas = read_quorum + write_quorum - 1;
    let epoch = answers.iter().map(|(state, _)| state.promised.epoch).max().unwrap_or_default();
    let counts = |state: &ReadState| state.promised.epoch == epoch || breaks::is("epochs-mixed");
    let counting = (0..answers.len()).filter(|&i| counts(&answers[i].0));
    if counting.clone().count() < read_quorum.max(replicas / 2 + 1) {
        return ReadVerdict::Wait;
    }
    let Some(newest) = counting.max_by_key(|&i| answers[i].0.accepted) else { return ReadVerdict::Wait };
    let (state, written) = answers[newest];
    let backs =
        |other: &ReadState| other.accepted.ballot == state.accepted.ballot && other.accepted >= written;
    let backing = answers.iter().filter(|(other, _)| backs(other)).count();
    let is_committed = answers.iter().any(|(other, _)| other.committed >= written);
    if is_committed || backing >= write_quorum || breaks::is("read-uncommitted") {
        ReadVerdict::Return(newest)
    } else if backing + replicas.saturating_sub(answers.len()) >= write_quorum {
        ReadVerdict::Wait
    } else {
        ReadVerdict::AskCoordinator
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PodId;

    fn at(round: u64, seq: u64) -> Version {
        Version { ballot: Ballot::new(1, round, PodId(0)), seq }
    }

    /// Judges answers of (accepted, written) for three replicas of which two are a quorum; what they know
    /// to be committed is before anything of interest.
    fn verdict(answers: &[(Version, Version)]) -> ReadVerdict {
        let before = Version { ballot: Ballot::new(1, 0, PodId(0)), seq: 0 };
        let answers: Vec<_> =
            answers.iter().map(|&(accepted, written)| (accepted, written, before)).collect();
        verdict_of_committed(&answers)
    }

    /// The same of (accepted, written, committed).
    fn verdict_of_committed(answers: &[(Version, Version, Version)]) -> ReadVerdict {
        // Promising more proves nothing.
        let promised = Ballot::new(1, 9, PodId(0));
        let judged = |&(accepted, written, committed): &(Version, Version, Version)| {
            (ReadState { promised, accepted, committed }, written)
        };
        let answers: Vec<_> = answers.iter().map(judged).collect();
        judge(&answers, 2, 2)
    }

    #[test]
    fn one_answer_is_not_a_quorum() {
        assert_eq!(verdict(&[(at(1, 5), at(1, 3))]), ReadVerdict::Wait);
    }

    #[test]
    fn a_replica_that_lags_vouches_for_what_it_has() {
        assert_eq!(verdict(&[(at(1, 4), at(1, 3)), (at(1, 5), at(1, 3))]), ReadVerdict::Return(1));
    }

    #[test]
    fn a_write_under_way_waits_for_the_third_or_asks() {
        let answers = [(at(1, 4), at(1, 3)), (at(1, 5), at(1, 5))];
        assert_eq!(verdict(&answers), ReadVerdict::Wait);
        let answers = [answers[0], answers[1], (at(1, 4), at(1, 3))];
        assert_eq!(verdict(&answers), ReadVerdict::AskCoordinator);
    }

    #[test]
    fn versions_of_other_ballots_prove_nothing() {
        let answers = [(at(3, 3), at(1, 2)), (at(1, 2), at(1, 2)), (at(2, 2), at(0, 0))];
        assert_eq!(verdict(&answers), ReadVerdict::AskCoordinator);
    }

    #[test]
    fn a_commit_point_that_any_replica_knows_settles_older_records() {
        let takeover = |committed| [(at(1, 5), at(1, 4), committed), (at(2, 6), at(1, 4), at(1, 3))];
        assert_eq!(verdict_of_committed(&takeover(at(1, 4))), ReadVerdict::Return(1));
        assert_eq!(verdict_of_committed(&takeover(at(1, 3))), ReadVerdict::Wait);
    }

    #[test]
    fn what_is_committed_settles_no_later_write() {
        let answers = [(at(2, 6), at(2, 6), at(1, 5)), (at(1, 5), at(1, 4), at(1, 5))];
        assert_eq!(verdict_of_committed(&answers), ReadVerdict::Wait);
    }

    #[test]
    fn nothing_was_ever_written() {
        let never = (Version::ZERO, Version::ZERO, Version::ZERO);
        assert_eq!(verdict_of_committed(&[never, never]), ReadVerdict::Return(1));
    }
}
