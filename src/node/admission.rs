//! A refusal stays true.
//!
//! Refusals store nothing, so an earlier attempt of a request that wakes up late must not succeed behind
//! one. A leader remembers in memory what it refused and counts its refusals; a question bears the count
//! that its pod had last heard when the request came in. One stamped before its key's refusal, in an
//! older ballot, or before what the leader has forgotten goes back, and its pod stamps it anew only while
//! that client is still connected. One stamped before the oldest bucket of keys may have taken effect
//! under a key that is forgotten: its outcome is unknown.

use super::message::Stamp;
use crate::modules::keys;
use kassa_protocols::ids::{Ballot, OpId};
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Admitted,
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

    #[must_use]
    pub fn judge(&self, stamp: Stamp, key: OpId, now: ShardTime) -> Verdict {
        if stamp.ballot != self.ballot || stamp.refusals < self.forgotten {
            return Verdict::Stale;
        }
        if self.refused.get(&key).is_some_and(|&refusal| stamp.refusals < refusal) {
            return Verdict::Stale;
        }
        if stamp.time < keys::kept_since(now) { Verdict::Unknown } else { Verdict::Admitted }
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

    #[test]
    fn what_was_stamped_before_its_refusal_goes_back() {
        let mut admission = Admission::default();
        let ballot = Ballot::new(1, 1, PodId(0));
        admission.lead(ballot);
        let time = ShardTime(0);
        let before = admission.stamp(time);
        assert_eq!(admission.judge(before, OpId(1), time), Verdict::Admitted);
        admission.refuse(OpId(1));
        assert_eq!(admission.judge(before, OpId(1), time), Verdict::Stale);
        assert_eq!(admission.judge(before, OpId(2), time), Verdict::Admitted);
        assert_eq!(admission.judge(admission.stamp(time), OpId(1), time), Verdict::Admitted);
    }

    #[test]
    fn another_ballot_or_a_forgotten_past_goes_back() {
        let mut admission = Admission::default();
        admission.lead(Ballot::new(1, 2, PodId(0)));
        let time = ShardTime(0);
        let old = Stamp { ballot: Ballot::new(1, 1, PodId(1)), ..admission.stamp(time) };
        assert_eq!(admission.judge(old, OpId(1), time), Verdict::Stale);
        let before = admission.stamp(time);
        for key in 0..=REFUSED_MAX as u128 {
            admission.refuse(OpId(key));
        }
        assert_eq!(
            admission.judge(before, OpId(u128::MAX), time),
            Verdict::Stale,
            "it may have been forgotten"
        );
    }

    #[test]
    fn what_is_older_than_the_kept_keys_has_an_unknown_outcome() {
        let mut admission = Admission::default();
        admission.lead(Ballot::new(1, 1, PodId(0)));
        let stamp = admission.stamp(ShardTime(0));
        let later = ShardTime(3 * keys::KEPT.0);
        assert_eq!(admission.judge(stamp, OpId(1), later), Verdict::Unknown);
    }
}
