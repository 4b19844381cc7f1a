//! What a step asks of the layer around it, as values. See the step contract at the crate's top.

use crate::ids::PodId;

/// Filled by a step, drained by its caller before the next one.
#[derive(Debug)]
pub struct Effects<R, M, E> {
    /// Log records, in order; durable before anything in `send` leaves.
    pub persist: Vec<R>,
    /// May leave before `persist` is durable: it promises nothing about this pod's own disk.
    pub send_early: Vec<(PodId, M)>,
    /// Leaves once everything persisted up to here is durable; to oneself: comes back as an input then.
    pub send: Vec<(PodId, M)>,
    /// For the layer above, at once and in order.
    pub events: Vec<E>,
}

impl<R, M, E> Default for Effects<R, M, E> {
    fn default() -> Self {
        Self { persist: Vec::new(), send_early: Vec::new(), send: Vec::new(), events: Vec::new() }
    }
}

impl<R, M, E> Effects<R, M, E> {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.persist.is_empty()
            && self.send_early.is_empty()
            && self.send.is_empty()
            && self.events.is_empty()
    }
}
