//! How fast the pods answer each other, and which of them cannot keep up.
//!
//! Every pod asks every other on a beat for a sign of life, and gets it behind the fsync of the round that
//! the question came into: what it takes is the wait of link and disk together, as for acknowledgements.
//! With the question goes what the asker measured last, so that all pods judge by the same table. A pod's
//! *wait* is the shortest that any other has for it. It *lags* if that is several times what the pods
//! beside it need. So a machine that is busy as a whole has no laggards, and it is never a majority that
//! lags: the median of the others is always one that does not.
//!
//! A laggard is alive, votes and acknowledges. It gives the shards that it leads to the next pod in
//! their order of preference, and puts clients off to other pods, until it has kept up again for a while.
//! Who lags is only ever a reason to hand over, never to doubt what a pod says.

use super::group::{Group, Replica};
use super::message::Message;
use super::outbox::Outbox;
use super::pod::Node;
use crate::modules::machine::Machine;
use kassa_protocols::ids::PodId;
use kassa_protocols::time::{Span, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A wait is the median of so many answers, so that one slow fsync is none.
const ANSWERS: usize = 6;
/// What a pod measured is of no use after this: it is gone, or nothing is heard of it.
const FRESH: Span = Span::from_millis(1_000);
/// Below this nobody lags: a round with its fsync takes as long when a machine is busy.
const WAIT_MIN: Span = Span::from_millis(8);
/// A pod lags if it is waited for so many times as long as the others are ...
const LAGS_TIMES: u64 = 4;
/// ... and keeps up again if it is less than so many times. Not much less than the above: pods measure by clocks
/// of their own, and where one goes at half the pace of the others, all but it look twice as fast.
const WELL_TIMES: u64 = 3;
/// So few say nothing: of two pods that are slow to each other either may be the ill one.
const OTHERS_MIN: usize = 2;
/// For so long must a pod have been slow before it lags: longer than a stall of its disk, or than a busy machine
/// lets one process wait.
const LAGS_AFTER: Span = Span::from_millis(500);
/// For so long must it have kept up before it no longer does: leaders move only now and then.
const WELL_AFTER: Span = Span::from_millis(2_000);

/// One pod's view of how fast all pods are.
#[derive(Debug)]
pub struct Pace {
    me: PodId,
    beat: Span,
    next_at: Time,
    peers: BTreeMap<PodId, Peer>,
    lagging: BTreeSet<PodId>,
    /// Pods that are other than they are taken for, and since when.
    changing: BTreeMap<PodId, Time>,
}

#[derive(Debug, Default)]
struct Peer {
    /// When the question left that it has not answered yet, and when it goes again: the answer is lost where
    /// the link that it takes was not up yet, or broke, and the asker hears nothing of that.
    asked: Option<Time>,
    again_at: Time,
    answers: VecDeque<Span>,
    /// What it said of its waits, and when.
    told: Option<(Time, Vec<(PodId, Span)>)>,
}

impl Peer {
    /// How long it is waited for: an answer that is overdue counts as one.
    fn wait(&self, now: Time) -> Option<Span> {
        let overdue = self.asked.map(|asked| now.since(asked));
        median(self.answers.iter().copied()).max(overdue.filter(|wait| *wait > WAIT_MIN))
    }
}

impl Pace {
    pub fn new(me: PodId, pods: &[PodId], beat: Span, now: Time) -> Self {
        let peers = pods.iter().filter(|&&pod| pod != me).map(|&pod| (pod, Peer::default())).collect();
        Self { me, beat, next_at: now, peers, lagging: BTreeSet::new(), changing: BTreeMap::new() }
    }

    pub const fn next_wakeup(&self) -> Time {
        self.next_at
    }

    /// The pods that cannot keep up with the others.
    pub const fn lagging(&self) -> &BTreeSet<PodId> {
        &self.lagging
    }

    fn link(&mut self, peer: PodId) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            *peer = Peer::default();
        }
    }

    fn asked(&mut self, now: Time, from: PodId, waits: Vec<(PodId, Span)>) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.told = Some((now, waits));
        }
    }

    fn answered(&mut self, now: Time, from: PodId, asked: Time) {
        if let Some(peer) = self.peers.get_mut(&from)
            && peer.asked.take_if(|at| *at == asked).is_some()
        {
            if peer.answers.len() == ANSWERS {
                peer.answers.pop_front();
            }
            peer.answers.push_back(now.since(asked));
        }
    }

    /// On the beat: asks those that owe no answer, and judges. Whether somebody began or ceased to lag.
    fn tick(&mut self, now: Time, out: &mut Outbox) -> bool {
        if now < self.next_at {
            return false;
        }
        self.next_at = now.next_beat(self.beat);
        let waits: Vec<(PodId, Span)> =
            self.peers.iter().filter_map(|(&pod, peer)| Some((pod, peer.wait(now)?))).collect();
        for (&pod, peer) in &mut self.peers {
            if (peer.asked.is_none() || peer.again_at <= now) && out.is_up(pod) {
                let sent = *peer.asked.get_or_insert(now);
                peer.again_at = now + FRESH;
                out.send_early(pod, Message::Ping { sent, waits: waits.clone() });
            }
        }
        self.judge(now, waits)
    }

    fn judge(&mut self, now: Time, mine: Vec<(PodId, Span)>) -> bool {
        let waits = self.waits(now, mine);
        let mut changed = false;
        for pod in self.peers.keys().copied().chain([self.me]).collect::<Vec<_>>() {
            let others = waits.iter().filter(|(other, _)| **other != pod).map(|(_, wait)| *wait);
            let others = if others.clone().count() < OTHERS_MIN { None } else { median(others) };
            let lags = self.lagging.contains(&pod);
            let (contrary, after) = match (waits.get(&pod), others) {
                (Some(wait), Some(others)) if lags => {
                    (wait.0 < (WELL_TIMES * others.0).max(WAIT_MIN.0), WELL_AFTER)
                }
                (Some(wait), Some(others)) => (wait.0 > (LAGS_TIMES * others.0).max(WAIT_MIN.0), LAGS_AFTER),
                // Nothing to compare it by: it may be all that there is.
                (None, _) | (_, None) => (lags, Span(0)),
            };
            if !contrary {
                self.changing.remove(&pod);
            } else if now.since(*self.changing.entry(pod).or_insert(now)) >= after {
                self.changing.remove(&pod);
                changed = true;
                if !self.lagging.remove(&pod) {
                    self.lagging.insert(pod);
                }
            }
        }
        changed
    }

    /// The shortest that any pod waits for each.
    fn waits(&self, now: Time, mine: Vec<(PodId, Span)>) -> BTreeMap<PodId, Span> {
        let told = self.peers.values().filter_map(|peer| peer.told.as_ref());
        let fresh = told.filter(|(at, _)| now.since(*at) < FRESH).flat_map(|(_, waits)| waits.clone());
        let mut shortest: BTreeMap<PodId, Span> = BTreeMap::new();
        for (pod, wait) in fresh.chain(mine) {
            let known = shortest.entry(pod).or_insert(wait);
            *known = wait.min(*known);
        }
        // Of whoever is gone something may still be told; it is not one of those to compare with.
        let gone = |pod: &PodId| {
            let told = self.peers.get(pod).and_then(|peer| peer.told.as_ref());
            told.is_none_or(|(at, _)| now.since(*at) >= FRESH)
        };
        shortest.retain(|pod, _| *pod == self.me || !gone(pod));
        shortest
    }
}

/// The median; of two the greater.
fn median(spans: impl Iterator<Item = Span>) -> Option<Span> {
    let mut spans: Vec<Span> = spans.collect();
    spans.sort_unstable();
    spans.get(spans.len() / 2).copied()
}

impl Node {
    pub(super) fn pinged(&mut self, now: Time, from: PodId, sent: Time, waits: Vec<(PodId, Span)>) {
        self.pace.asked(now, from, waits);
        self.out.send(from, Message::Pong { sent });
    }

    pub(super) fn ponged(&mut self, now: Time, from: PodId, sent: Time) {
        self.pace.answered(now, from, sent);
    }

    pub(super) fn pace_link(&mut self, peer: PodId) {
        self.pace.link(peer);
    }

    /// Sees to it that who cannot keep up leads nothing for long.
    pub(super) fn tick_pace(&mut self, now: Time) {
        if !self.pace.tick(now, &mut self.out) {
            return;
        }
        let lagging = self.pace.lagging();
        // One that lags need not wait until the other has shown for long that it does not.
        let urgent = lagging.contains(&self.config.me);
        self.cluster.group.prefer_but(lagging, urgent);
        for stock in self.stock.values_mut() {
            stock.group.prefer_but(lagging, urgent);
        }
        for payment in self.payment.values_mut() {
            payment.group.prefer_but(lagging, urgent);
        }
    }
}

impl<M: Machine, T> Group<M, T> {
    /// The first of the shard's pods that is none of `these` is to lead it; `urgent` if the one that leads
    /// now should not wait until that has been well for a while.
    fn prefer_but(&mut self, these: &BTreeSet<PodId>, urgent: bool) {
        let replicas = self.replicas();
        let pod = *replicas.iter().find(|pod| !these.contains(pod)).unwrap_or(&replicas[0]);
        match &mut self.replica {
            Replica::Paxos(replica) => replica.prefer(pod, urgent),
            Replica::Quorum(replica) => replica.prefer(pod, urgent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: Span = Span::from_millis(50);
    const FAST: Span = Span::from_millis(1);
    const SLOW: Span = Span::from_millis(100);

    /// Lets pod 0 of `pods` go through the beats of `span`, in which the wait of `o` for `x` is as given.
    fn beats(pace: &mut Pace, pods: u8, now: &mut Time, span: Span, wait: impl Fn(u8, u8) -> Option<Span>) {
        let end = *now + span;
        while *now < end {
            for x in 1..pods {
                let peer = pace.peers.get_mut(&PodId(x)).unwrap();
                peer.answers.clear();
                peer.answers.extend(wait(0, x));
                let waits = (0..pods).filter(|&o| o != x);
                let waits = waits.filter_map(|o| Some((PodId(o), wait(x, o)?))).collect();
                if wait(0, x).is_some() {
                    peer.told = Some((*now, waits));
                }
            }
            let mine = pace.peers.iter().filter_map(|(&pod, peer)| Some((pod, peer.wait(*now)?))).collect();
            pace.judge(*now, mine);
            *now = *now + BEAT;
        }
    }

    fn lagging(pace: &Pace) -> Vec<u8> {
        pace.lagging().iter().map(|pod| pod.0).collect()
    }

    fn of(pods: u8) -> (Pace, Time) {
        let pods: Vec<PodId> = (0..pods).map(PodId).collect();
        (Pace::new(PodId(0), &pods, BEAT, Time(1)), Time(1))
    }

    #[test]
    fn one_slow_pod_lags_wherever_it_is_seen_from_until_it_has_kept_up_for_long() {
        for slow in 0..3 {
            let (mut pace, mut now) = of(3);
            let ill = move |o: u8, x: u8| Some(if o == slow || x == slow { SLOW } else { FAST });
            beats(&mut pace, 3, &mut now, Span::from_millis(450), ill);
            assert_eq!(lagging(&pace), [0; 0], "not after a stall");
            beats(&mut pace, 3, &mut now, Span::from_millis(500), ill);
            assert_eq!(lagging(&pace), [slow]);
            beats(&mut pace, 3, &mut now, Span::from_millis(1_500), |_, _| Some(FAST));
            assert_eq!(lagging(&pace), [slow]);
            beats(&mut pace, 3, &mut now, Span::from_millis(1_000), |_, _| Some(FAST));
            assert_eq!(lagging(&pace), [0; 0]);
        }
    }

    #[test]
    fn a_majority_never_lags() {
        let (mut pace, mut now) = of(3);
        beats(&mut pace, 3, &mut now, Span::from_millis(5_000), |_, _| Some(SLOW));
        assert_eq!(lagging(&pace), [0; 0]);
        beats(&mut pace, 3, &mut now, Span::from_millis(5_000), |_, x| {
            Some(if x == 0 { FAST } else { SLOW })
        });
        assert_eq!(lagging(&pace), [0; 0], "two slow ones of three");
        let (mut pace, mut now) = of(5);
        beats(&mut pace, 5, &mut now, Span::from_millis(5_000), |_, x| Some(if x < 2 { SLOW } else { FAST }));
        assert_eq!(lagging(&pace), [0, 1], "two of five");
    }

    #[test]
    fn one_slow_link_is_no_laggard() {
        let (mut pace, mut now) = of(3);
        let ill = |o: u8, x: u8| Some(if o + x == 1 { SLOW } else { FAST });
        beats(&mut pace, 3, &mut now, Span::from_millis(5_000), ill);
        assert_eq!(lagging(&pace), [0; 0]);
    }

    #[test]
    fn a_question_whose_answer_was_lost_is_asked_again() {
        let (mut pace, mut now) = of(2);
        let mut out = Outbox::new(PodId(0));
        out.link(PodId(1), true);
        let mut asks = |pace: &mut Pace, now: Time| {
            pace.tick(now, &mut out);
            let messages = out.drain().early.into_iter().flat_map(|(_, messages)| messages);
            let sent = messages.map(|message| {
                let Message::Ping { sent, .. } = message else { panic!("{message:?}") };
                sent
            });
            sent.collect::<Vec<_>>()
        };
        assert_eq!(asks(&mut pace, now), [now]);
        let first = now;
        let mut again = Vec::new();
        while now < first + Span::from_millis(1_900) {
            now = now + BEAT;
            again.extend(asks(&mut pace, now));
        }
        assert_eq!(again, [first], "once, and as the same question: how long it has waited counts");
        pace.answered(now, PodId(1), first);
        assert_eq!(asks(&mut pace, now + BEAT).len(), 1);
    }

    #[test]
    fn where_nobody_is_left_to_compare_with_nobody_lags() {
        let (mut pace, mut now) = of(3);
        let ill = |o: u8, x: u8| Some(if o == 0 || x == 0 { SLOW } else { FAST });
        beats(&mut pace, 3, &mut now, Span::from_millis(1_000), ill);
        assert_eq!(lagging(&pace), [0]);
        let alone = |o: u8, x: u8| (o != 2 && x != 2).then_some(SLOW);
        beats(&mut pace, 3, &mut now, Span::from_millis(2_000), alone);
        assert_eq!(lagging(&pace), [0; 0]);
    }
}
