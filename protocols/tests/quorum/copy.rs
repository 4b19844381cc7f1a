//! A copy that ends in a newer ballot than the replica has heard of.

use kassa_protocols::ids::{Ballot, Module, PodId, Shard};
use kassa_protocols::quorum::{Config, Durable, Have, Message, Replica, Snapshot, Version};
use kassa_protocols::time::{ShardTime, Span, Time};

/// It asked for the copy as a candidate; by the time that it is here, others have elected another coordinator and
/// committed in its ballot, of which the link has brought nothing but the end of the copy. Leading in the older
/// ballot, on top of what the newer one wrote, would be no chain.
#[test]
fn a_candidate_that_is_brought_to_a_newer_ballot_has_lost() {
    let (me, source) = (PodId(1), PodId(2));
    let replicas = vec![PodId(0), me, source];
    let config = Config::majority(Shard::new(Module::Stock, 2), me, 1, replicas);
    let mut now = Time(0);
    let mut replica = Replica::new(config, Durable::default(), now);
    let mut fx = kassa_protocols::quorum::Effects::new();
    replica.recovered(now, &mut fx);
    for peer in [PodId(0), source] {
        replica.link(now, peer, true, &mut fx);
    }
    let ballot = loop {
        now = now + Span::from_millis(10);
        replica.tick(now, &mut fx);
        for (to, message) in std::mem::take(&mut fx.send) {
            if let Message::Canvass { ballot, .. } = message {
                let lost = Message::Canvassed { ballot, lost: true, promised: Ballot::ZERO };
                replica.handle(now, to, lost, &mut fx);
            }
        }
        if replica.ballot().pod() == me {
            break replica.ballot();
        }
    };
    let newer = Ballot::new(1, ballot.round + 1, PodId(0));
    let version = Version { ballot: newer, seq: 9 };
    let (time, dropped, newer_than) = (ShardTime(5), Version::ZERO, Version::ZERO);
    let snapshot = Snapshot { version, time, dropped, newer_than, full: true };
    assert!(replica.install(now, &snapshot, &mut fx));
    assert_eq!((replica.ballot(), replica.durable().promised), (newer, newer));
    let have = Have { committed: Version::ZERO, tail: Vec::new() };
    let promise = Message::Promise { ballot, have, repair: Vec::new() };
    for pod in [me, source] {
        replica.handle(now, pod, promise.clone(), &mut fx);
    }
    assert_eq!((replica.is_leading(), replica.accepted()), (false, version));
}
