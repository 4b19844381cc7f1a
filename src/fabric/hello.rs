//! The handshake: who speaks, for which disk, under which terms.
//!
//! The dialer sends a [`Hello`]; the accepter answers with its own or says why not. What differs is
//! refused, never worked around: two pods that hash keys or count votes differently corrupt each other.

use super::identity::{ClusterId, Formed};
use kassa_protocols::ids::{DiskId, PodId};
use serde::{Deserialize, Serialize};

/// The largest handshake frame: a hundred disk ids and all terms fit twice.
pub const HELLO_BYTES_MAX: usize = 8 << 10;

/// What all pods of a cluster must have the same, by name: settings, versions, the set of pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms(Vec<(String, String)>);

/// How a pod introduces itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub pod: PodId,
    pub disk: DiskId,
    /// A random number of this process, and how many links it has dialed: a link that was dialed
    /// earlier by the same process does not supersede a later one.
    pub boot: u64,
    pub dial: u64,
    pub terms: Terms,
    /// The cluster, once it has formed.
    pub formed: Option<Formed>,
}

/// What the accepter says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    Welcome(Hello),
    Refused(String),
}

/// Why a peer is not talked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{name} is {theirs} there and {ours} here")]
    Terms { name: String, theirs: String, ours: String },
    #[error("{theirs} is not among the pods that this one knows")]
    UnknownPod { theirs: PodId },
    #[error("it is {theirs}, expected {expected}")]
    WrongPod { theirs: PodId, expected: PodId },
    #[error("it belongs to another cluster ({theirs}; this is {ours})")]
    OtherCluster { theirs: ClusterId, ours: ClusterId },
    #[error("the disk of {pod} is {theirs}, but the cluster knows {ours}: that pod must be replaced")]
    OtherDisk { pod: PodId, theirs: DiskId, ours: DiskId },
    #[error(
        "it has disk {theirs}, which took the place of a lost one, and this pod has not heard of that yet"
    )]
    NewerDisk { theirs: DiskId },
    #[error(
        "the disk of {pod} ({disk}) was replaced while it was away, and counts no more: empty the pod's data \
         directory and type `kassa replace --pod {}` to have it refilled from the others", .pod.0
    )]
    Replaced { pod: PodId, disk: DiskId },
}

impl Terms {
    /// Terms from (name, value), which may come in any order.
    #[must_use]
    pub fn new(mut terms: Vec<(String, String)>) -> Self {
        terms.sort();
        Self(terms)
    }

    /// Name and value, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// These, and those of `others` that are not among them.
    #[must_use]
    pub fn or(&self, others: &Self) -> Self {
        let lacks = |name: &str| self.0.iter().all(|(known, _)| known != name);
        let more = others.0.iter().filter(|(name, _)| lacks(name));
        Self::new(self.0.iter().chain(more).cloned().collect())
    }

    /// That `theirs` are the same.
    ///
    /// # Errors
    /// The first that differs.
    pub fn check(&self, theirs: &Self) -> Result<(), Refusal> {
        let value = |terms: &Self, name: &str| {
            let found = terms.0.iter().find(|(n, _)| n == name);
            found.map_or_else(|| "unknown".to_owned(), |(_, value)| shortened(value))
        };
        let differs =
            self.0.iter().chain(&theirs.0).find(|(name, _)| value(self, name) != value(theirs, name));
        differs.map_or(Ok(()), |(name, _)| {
            Err(Refusal::Terms {
                name: shortened(name),
                theirs: value(theirs, name),
                ours: value(self, name),
            })
        })
    }
}

impl Hello {
    /// Whether the sender of `theirs` may be talked to by the one that says `self`: another pod of
    /// the same cluster, under the same terms, and with the disk that the cluster knows.
    ///
    /// A peer that has not formed yet, with the right disk, passes: no frames may flow to it.
    ///
    /// # Errors
    /// The first thing that differs.
    pub fn check(&self, theirs: &Self) -> Result<(), Refusal> {
        self.terms.check(&theirs.terms)?;
        let Some(ours) = &self.formed else {
            return if theirs.pod == self.pod {
                Err(Refusal::UnknownPod { theirs: theirs.pod })
            } else {
                Ok(())
            };
        };
        if let Some(other) = &theirs.formed
            && other.cluster != ours.cluster
        {
            return Err(Refusal::OtherCluster { theirs: other.cluster, ours: ours.cluster });
        }
        if theirs.pod == self.pod {
            return Err(Refusal::UnknownPod { theirs: theirs.pod });
        }
        let known = ours.disk_of(theirs.pod).ok_or(Refusal::UnknownPod { theirs: theirs.pod })?;
        let times = |of: &Formed, pod: PodId| of.times_replaced(pod);
        if let Some(other) = &theirs.formed {
            // Whoever knows of more replacements of a pod knows better.
            if times(other, self.pod) > times(ours, self.pod) {
                return Err(Refusal::Replaced { pod: self.pod, disk: self.disk });
            }
            if times(other, theirs.pod) < times(ours, theirs.pod) {
                return Err(Refusal::Replaced { pod: theirs.pod, disk: theirs.disk });
            }
            if times(other, theirs.pod) > times(ours, theirs.pod) {
                return Err(Refusal::NewerDisk { theirs: theirs.disk });
            }
        }
        if known != theirs.disk {
            return Err(Refusal::OtherDisk { pod: theirs.pod, theirs: theirs.disk, ours: known });
        }
        Ok(())
    }
}

/// Text of a peer, fit for a log line: bounded, and nothing in it that moves a cursor.
#[must_use]
pub fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 200;
    text.chars().take(CHARS_MAX).map(|c| if c.is_control() { '.' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use kassa_protocols::ids::Replacement;

    fn hello(pod: u8, disk: u128, formed: &[(u8, u128)]) -> Hello {
        let disks = formed.iter().map(|&(pod, disk)| (PodId(pod), DiskId(disk))).collect();
        Hello {
            pod: PodId(pod),
            disk: DiskId(disk),
            boot: 1,
            dial: 1,
            terms: Terms::new(vec![("cluster.shards".into(), "24".into())]),
            formed: (!formed.is_empty()).then(|| Formed::new(disks)),
        }
    }

    fn refusal(theirs: &Hello) -> String {
        let ours = hello(0, 10, &[(0, 10), (1, 11)]);
        ours.check(theirs).map_or_else(|refusal| refusal.to_string(), |()| "welcome".to_owned())
    }

    #[test]
    fn a_peer_of_the_same_cluster_is_welcome() {
        assert_eq!(refusal(&hello(1, 11, &[(0, 10), (1, 11)])), "welcome");
        assert_eq!(refusal(&hello(1, 11, &[])), "welcome");
    }

    #[test]
    fn a_disk_that_was_replaced_is_refused_and_told() {
        let replacement = |count, disk| Replacement { disk: DiskId(disk), count };
        let mut ours = hello(0, 10, &[(0, 10), (1, 11)]);
        let first = hello(1, 11, &[(0, 10), (1, 11)]);
        let mut second = hello(1, 12, &[(0, 10), (1, 11)]);
        second.formed.as_mut().unwrap().replaced.insert(PodId(1), replacement(1, 12));
        assert_eq!(ours.check(&second), Err(Refusal::NewerDisk { theirs: DiskId(12) }));
        ours.formed.as_mut().unwrap().replaced.insert(PodId(1), replacement(1, 12));
        assert_eq!(ours.check(&second), Ok(()));
        let refusal = ours.check(&first).unwrap_err();
        assert_eq!(refusal, Refusal::Replaced { pod: PodId(1), disk: DiskId(11) });
        // It learns the same of whoever knows.
        assert_eq!(first.check(&ours), Err(refusal.clone()));
        expect!["the disk of p1 (0000000000000000000000000000000b) was replaced while it was away, and counts no more: empty the pod's data directory and type `kassa replace --pod 1` to have it refilled from the others"]
            .assert_eq(&refusal.to_string());
        // An empty one is told by the vector that it has to wait.
        assert!(matches!(ours.check(&hello(1, 13, &[])), Err(Refusal::OtherDisk { .. })));
    }

    #[test]
    fn whatever_differs_is_named() {
        expect!["it belongs to another cluster (cf3c0c79b6571b4c6dcfe6db91073e14; this is d7580d332d6ce38f73a25bff968e58c2)"]
            .assert_eq(&refusal(&hello(1, 11, &[(0, 99), (1, 11)])));
        expect!["the disk of p1 is 0000000000000000000000000000000c, but the cluster knows 0000000000000000000000000000000b: that pod must be replaced"]
            .assert_eq(&refusal(&hello(1, 12, &[])));
        expect!["p2 is not among the pods that this one knows"].assert_eq(&refusal(&hello(2, 11, &[])));
        expect!["p0 is not among the pods that this one knows"].assert_eq(&refusal(&hello(0, 10, &[])));
        let mut other = hello(1, 11, &[]);
        other.terms = Terms::new(vec![("cluster.shards".into(), "48\u{1b}".into())]);
        expect!["cluster.shards is 48. there and 24 here"].assert_eq(&refusal(&other));
        other.terms =
            Terms::new(vec![("cluster.shards".into(), "24".into()), ("stock.colour".into(), "red".into())]);
        expect!["stock.colour is red there and unknown here"].assert_eq(&refusal(&other));
    }
}
