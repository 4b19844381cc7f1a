//! What is said of a cluster that stops with any one of its pods.

/// What to say of a cluster with so many copies of each shard; nothing where it bears the loss of a pod.
#[must_use]
pub const fn warning(replicas: u64) -> Option<&'static str> {
    match replicas {
        1 => Some(
            "THIS CLUSTER BEARS NO LOSS: one pod holds all there is of each shard. It is for trying things out; \
             three pods or more keep selling, and keep all that was acknowledged, while one is dead.",
        ),
        2 => Some(
            "THIS CLUSTER BEARS NO LOSS: two pods hold each shard, and neither decides anything without the other. \
             Three pods or more keep selling while one is dead.",
        ),
        _ => None,
    }
}
