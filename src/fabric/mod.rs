//! Links between pods.

use kassa_protocols::ids::PodId;

/// What the fabric tells the event loop.
#[derive(Debug)]
pub enum Event<M> {
    /// One frame, in the order sent on its link.
    Frame { from: PodId, link: LinkNo, messages: Vec<M> },
    /// The outgoing link to a peer came up.
    Up { peer: PodId, link: LinkNo },
    /// The outgoing link to a peer went down; what was queued on it is lost.
    Down { peer: PodId, link: LinkNo },
}

/// Numbers the links of one pod, in the order in which they were shaken hands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkNo(pub u64);
