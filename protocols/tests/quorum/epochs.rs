//! Reads around a disk that was replaced.

use kassa_protocols::ids::{Ballot, PodId};
use kassa_protocols::quorum::{ReadState, ReadVerdict, Version, judge};

#[test]
fn a_disk_that_was_replaced_answers_for_nothing() {
    let of = |epoch: u32, seq: u64| {
        let promised = Ballot::new(epoch, 1, PodId(0));
        let at = Version { ballot: promised, seq };
        (ReadState { promised, accepted: at, committed: at }, at)
    };
    // The old disk of a pod, and a replica that has promised in the new epoch and missed the newest write.
    let mut lagging = of(1, 5);
    lagging.0.promised = Ballot::new(2, 1, PodId(0));
    let answers = [of(1, 5), lagging];
    assert_eq!(judge(&answers, 2, 2), ReadVerdict::Wait);
    let answers = [of(1, 5), lagging, of(2, 7)];
    assert_eq!(judge(&answers, 2, 2), ReadVerdict::Return(2));
    // Even where one answer would do.
    assert_eq!(judge(&[of(1, 5)], 1, 3), ReadVerdict::Wait);
}
