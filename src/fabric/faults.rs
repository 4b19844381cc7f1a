//! Links that are ill on purpose: cut, or slow, below all that the protocols see.
//!
//! What is cut waits, as on a network that drops packets: a link that is cut for longer than its peer's
//! patience is reset, one that heals sooner goes on where it was. A hello and its answer need both ways.

use kassa_protocols::ids::PodId;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;

/// What is wrong with the links to and from one peer; by default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Illness {
    /// Nothing from this pod reaches the peer.
    pub cut_out: bool,
    /// Nothing from the peer is heard.
    pub cut_in: bool,
    /// What is sent is on its way for so much longer, up to twice.
    pub delay: Duration,
}

impl Illness {
    /// Whether what is sent cannot be written at once.
    #[must_use]
    pub const fn holds_back(&self) -> bool {
        self.cut_out || !self.delay.is_zero()
    }

    /// Whether a question can get an answer.
    #[must_use]
    pub const fn lets_talk(&self) -> bool {
        !self.cut_out && !self.cut_in
    }
}

/// The illnesses of a pod's links, as they are now.
#[derive(Debug)]
pub struct Faults(BTreeMap<PodId, watch::Sender<Illness>>);

impl Faults {
    /// None, until they are changed.
    pub fn none(peers: impl IntoIterator<Item = PodId>) -> Self {
        Self(peers.into_iter().map(|peer| (peer, watch::Sender::default())).collect())
    }

    /// Changes what is wrong with the links of `peer`; whether there is such a peer.
    pub fn change(&self, peer: PodId, change: impl FnOnce(&mut Illness)) -> bool {
        self.0.get(&peer).map(|illness| illness.send_modify(change)).is_some()
    }

    pub fn heal(&self) {
        for illness in self.0.values() {
            illness.send_replace(Illness::default());
        }
    }

    /// What is wrong with the links of `peer`, now and later.
    pub(super) fn of(&self, peer: PodId) -> watch::Receiver<Illness> {
        self.0.get(&peer).expect("whoever has links has them with peers").subscribe()
    }
}

/// Waits until the illness is such that `wanted`.
pub(super) async fn until(illness: &mut watch::Receiver<Illness>, wanted: impl Fn(&Illness) -> bool) {
    if illness.wait_for(|illness| wanted(illness)).await.is_err() {
        // The fabric is being taken down: what waits for it is, too.
        std::future::pending::<()>().await;
    }
}
