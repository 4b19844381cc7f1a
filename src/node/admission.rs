//! A refusal stays true.
//!
//! Refusals store nothing, so an earlier attempt of a request that wakes up late must not succeed behind
//! one. A leader remembers in memory what it refused and counts its refusals; a question bears the count
//! that its pod had last heard when the request came in. One stamped before its key's refusal, in an
//! older ballot, or before what the leader has forgotten goes back, and its pod stamps it anew only while
//! that client is still connected. One stamped before the oldest bucket of keys may have taken effect
//! under a key that is forgotten: its outcome is unknown.

use super::message::{AskId, Stamp};
use crate::modules::keys;
use kassa_protocols::breaks;
use kassa_protocols::ids::{Ballot, OpId, PodId};
use kassa_protocols::time::ShardTime;
use std::collections::{HashMap, VecDeque};

/// Refused keys that a leader remembers; an older attempt than the oldest of them is stamped anew.
const REFUSED_MAX: usize = 32_768;

#[derive(Debug, Default)]
pub struct Admission {
    ballot: Ballot,
    refusals: u64,
    refused: HashMap<OpId, u64>,
    order: VecDeque<OpId>,
    /// Attempts stamped before this count may have been refused and forgotten.
    forgotten: u64,
    /// Attempts admitted and not answered yet.
    pending: HashMap<OpId, (PodId, AskId)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Admitted,
    /// This very attempt is under way: its answer will come.
    Repeated,
    /// Another attempt is under way: this one is to be asked again. Two at once could be judged apart, the
    /// one refused and the other not.
    Pending,
    Stale,
    Unknown,
}

impl Admission {
    /// A new term of office.
    pub fn lead(&mut self, ballot: Ballot) {
        *self = Self { ballot, ..Self::default() };
    }

    #[must_use]
    pub const fn stamp(&self, time: ShardTime) -> Stamp {
        Stamp { ballot: self.ballot, refusals: self.refusals, time }
    }

    /// Judges an attempt; one that is admitted is pending until [`Self::answered`].
    pub fn judge(&mut self, stamp: Stamp, key: OpId, now: ShardTime, asker: (PodId, AskId)) -> Verdict {
        if let Some(pending) = self.pending.get(&key) {
            return if *pending == asker { Verdict::Repeated } else { Verdict::Pending };
        }
        let unknown = stamp.ballot != self.ballot || stamp.refusals < self.forgotten;
        let refused = self.refused.get(&key).is_some_and(|&refusal| stamp.refusals < refusal);
        if (unknown || refused) && !breaks::is("stale-admitted") {
            return Verdict::Stale;
        }
        if stamp.time < keys::kept_since(now) {
            return Verdict::Unknown;
        }
        self.pending.insert(key, asker);
        Verdict::Admitted
    }

    /// The attempt under `key` is answered, or sent elsewhere.
    pub fn answered(&mut self, key: OpId) {
        self.pending.remove(&key);
    }

    /// A batch voids the keys of what it covers: attempts stamped before it go back, or a late copy of one
    /// that took effect before the batch would take effect once more behind it.
    pub const fn fence(&mut self) {
        self.refusals += 1;
        self.forgotten = self.refusals;
    }

    /// The request under `key` is refused.
    pub fn refuse(&mut self, key: OpId) {
        self.refusals += 1;
        if self.refused.insert(key, self.refusals).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > REFUSED_MAX
            && let Some(oldest) = self.order.pop_front()
            && let Some(refusal) = self.refused.remove(&oldest)
        {
            self.forgotten = self.forgotten.max(refusal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kassa_protocols::ids::PodId;

    const ASKER: (PodId, AskId) = (PodId(1), AskId(1));

    fn judge(admission: &mut Admission, stamp: Stamp, key: OpId, now: ShardTime) -> Verdict {
        let verdict = admission.judge(stamp, key, now, ASKER);
        admission.answered(key);
        verdict
    }

    #[test]
    fn two_attempts_are_never_under_way_at_once() {
        let mut admission = Admission::default();
        admission.lead(Ballot::new(1, 1, PodId(0)));
        let (stamp, time) = (admission.stamp(ShardTime(0)), ShardTime(0));
        assert_eq!(admission.judge(stamp, OpId(1), time, ASKER), Verdict::Admitted);
        assert_eq!(admission.judge(stamp, OpId(1), time, ASKER), Verdict::Repeated);
        assert_eq!(admission.judge(stamp, OpId(1), time, (PodId(2), AskId(1))), Verdict::Pending);
        admission.answered(OpId(1));
        assert_eq!(admission.judge(stamp, OpId(1), time, (PodId(2), AskId(1))), Verdict::Admitted);
    }

    #[test]
    fn what_was_stamped_before_its_refusal_goes_back() {
        let mut admission = Admission::default();
        let ballot = Ballot::new(1, 1, PodId(0));
        admission.lead(ballot);
        let time = ShardTime(0);
        let before = admission.stamp(time);
        assert_eq!(judge(&mut admission, before, OpId(1), time), Verdict::Admitted);
        admission.refuse(OpId(1));
        assert_eq!(judge(&mut admission, before, OpId(1), time), Verdict::Stale);
        assert_eq!(judge(&mut admission, before, OpId(2), time), Verdict::Admitted);
        assert_eq!(admission.judge(admission.stamp(time), OpId(1), time, ASKER), Verdict::Admitted);
    }

    #[test]
    fn another_ballot_or_a_forgotten_past_goes_back() {
        let mut admission = Admission::default();
        admission.lead(Ballot::new(1, 2, PodId(0)));
        let time = ShardTime(0);
        let old = Stamp { ballot: Ballot::new(1, 1, PodId(1)), ..admission.stamp(time) };
        assert_eq!(judge(&mut admission, old, OpId(1), time), Verdict::Stale);
        let before = admission.stamp(time);
        for key in 0..=REFUSED_MAX as u128 {
            admission.refuse(OpId(key));
        }
        assert_eq!(
            judge(&mut admission, before, OpId(u128::MAX), time),
            Verdict::Stale,
            "it may have been forgotten"
        );
    }

    #[test]
    fn what_was_stamped_before_a_batch_goes_back() {
        let mut admission = Admission::default();
        admission.lead(Ballot::new(1, 1, PodId(0)));
        let (stamp, time) = (admission.stamp(ShardTime(0)), ShardTime(0));
        admission.fence();
        assert_eq!(judge(&mut admission, stamp, OpId(1), time), Verdict::Stale);
    }

    #[test]
    fn what_is_older_than_the_kept_keys_has_an_unknown_outcome() {
        let mut admission = Admission::default();
        admission.lead(Ballot::new(1, 1, PodId(0)));
        let stamp = admission.stamp(ShardTime(0));
        let later = ShardTime(3 * keys::KEPT.0);
        assert_eq!(judge(&mut admission, stamp, OpId(1), later), Verdict::Unknown);
    }
}
