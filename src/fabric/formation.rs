//! How a cluster forms, once: every first pod persists a disk id of its own, then all tell each other.
//!
//! Whoever knows the disk ids of all pods knows the cluster ([`Formed`]); no vote is needed, since the
//! cluster id is a function of them. A pod that has formed tells the others the whole vector, so that
//! a pod that was late forms too. Two vectors can differ only if a disk was lost while the cluster
//! formed; each pod persists one of them at most, so at most one of the two finds a majority.
//!
//! An empty pod that meets a formed one that knows another disk under its number never forms: had it
//! voted before, it has forgotten how. It waits until the others have agreed that its disk takes the place of
//! the lost one, and learns of that, with all they know, from whoever answers first.

use super::Timing;
use super::handshake::{self, LinkError};
use super::hello::{Hello, Refusal, Reply};
use super::identity::Formed;
use super::quiet::Quiet;
use bytes::BytesMut;
use kassa_protocols::ids::{DiskId, PodId};
use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{info, warn};

/// What one pod has learned of its cluster so far.
#[derive(Clone, Debug)]
pub struct Forming {
    pods: BTreeSet<PodId>,
    hello: Hello,
    heard: BTreeMap<PodId, DiskId>,
    formed: Option<Formed>,
    /// The disk that formed pods know under this pod's number, if it is not this one.
    replaced_by: Option<DiskId>,
}

impl Forming {
    /// A pod that introduces itself by `hello`, and knows that the cluster is of `pods`.
    #[must_use]
    pub fn new(hello: Hello, pods: BTreeSet<PodId>) -> Self {
        let heard = [(hello.pod, hello.disk)].into();
        let mut forming = Self { pods, hello, heard, formed: None, replaced_by: None };
        forming.conclude();
        forming
    }

    /// Takes what a peer said of itself; its terms have been checked.
    ///
    /// # Errors
    /// If it is not of this cluster, or knows that this disk is not.
    pub fn learn(&mut self, theirs: &Hello) -> Result<(), Refusal> {
        self.hello.check(theirs)?;
        if !self.pods.contains(&theirs.pod) {
            return Err(Refusal::UnknownPod { theirs: theirs.pod });
        }
        let Some(formed) = &theirs.formed else {
            self.heard.insert(theirs.pod, theirs.disk);
            self.conclude();
            return Ok(());
        };
        let same_pods = formed.disks.keys().eq(&self.pods);
        if !same_pods || !formed.is_consistent() || formed.disk_of(theirs.pod) != Some(theirs.disk) {
            return Err(Refusal::UnknownPod { theirs: theirs.pod });
        }
        let known = formed.disk_of(self.hello.pod).ok_or(Refusal::UnknownPod { theirs: theirs.pod })?;
        if known == self.hello.disk && formed.times_replaced(self.hello.pod) > 0 {
            self.replaced_by = None;
        }
        if known != self.hello.disk {
            self.replaced_by = Some(known);
            let (pod, disk) = (self.hello.pod, self.hello.disk);
            return Err(Refusal::OtherDisk { pod, theirs: disk, ours: known });
        }
        if self.replaced_by.is_none() {
            self.formed = Some(formed.clone());
        }
        Ok(())
    }

    fn conclude(&mut self) {
        if self.replaced_by.is_none() && self.heard.keys().eq(&self.pods) {
            self.formed = Some(Formed::new(self.heard.clone()));
        }
    }

    /// The cluster, once all is known.
    #[must_use]
    pub const fn formed(&self) -> Option<&Formed> {
        self.formed.as_ref()
    }

    /// What the pod waits for, for people.
    #[must_use]
    pub fn waits_for(&self) -> String {
        if let Some(known) = self.replaced_by {
            return format!(
                "the disk of this pod ({}) is not the one that the cluster knows for {} ({known}): it waits to be replaced; \
                 type `kassa replace --pod {}` if that disk is lost, or put its directory back",
                self.hello.disk, self.hello.pod, self.hello.pod.0
            );
        }
        let missing: Vec<String> =
            self.pods.iter().filter(|pod| !self.heard.contains_key(pod)).map(PodId::to_string).collect();
        format!("the cluster has not formed yet: waiting for {}", missing.join(", "))
    }
}

/// Connections that may be in the middle of the handshake at once; more are closed unheard.
const HANDSHAKES_MAX: usize = 64;

/// Forms the cluster: answers whoever connects to `listener` and dials `peers`, until all is known.
/// `report` is told, whenever it changes, what is still waited for.
pub async fn form(
    listener: &TcpListener,
    forming: Forming,
    peers: &BTreeMap<PodId, String>,
    timing: Timing,
    report: impl Fn(String) + Send + Sync + 'static,
) -> Formed {
    let shared = Arc::new(Shared {
        forming: Mutex::new(forming),
        quiet: Mutex::default(),
        done: Notify::new(),
        timing,
        report: Box::new(report),
    });
    shared.tell();
    let mut tasks = JoinSet::new();
    for (&peer, address) in peers {
        tasks.spawn(ask(shared.clone(), peer, address.clone()));
    }
    let room = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        if let Some(formed) = shared.lock().formed() {
            return formed.clone();
        }
        tokio::select! {
            () = shared.done.notified() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    if let Ok(permit) = room.clone().try_acquire_owned() {
                        let shared = shared.clone();
                        tasks.spawn(async move {
                            tell(shared, stream, from.ip()).await;
                            drop(permit);
                        });
                    }
                }
                // Out of file handles, say: it passes, and must not keep a core busy meanwhile.
                Err(_) => sleep(timing.dial_min).await,
            },
            Some(_) = tasks.join_next() => {}
        }
    }
}

struct Shared {
    forming: Mutex<Forming>,
    quiet: Mutex<Quiet>,
    done: Notify,
    timing: Timing,
    report: Box<dyn Fn(String) + Send + Sync>,
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Forming> {
        self.forming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hello(&self) -> Hello {
        self.lock().hello.clone()
    }

    fn learn(&self, theirs: &Hello) -> Result<(), Refusal> {
        let learned = self.lock().learn(theirs);
        self.tell();
        learned
    }

    fn tell(&self) {
        let forming = self.lock();
        if forming.formed().is_some() {
            self.done.notify_one();
            return;
        }
        let waits_for = forming.waits_for();
        drop(forming);
        if self.says(&waits_for) {
            info!("{waits_for}");
            (self.report)(waits_for);
        }
    }

    fn says(&self, line: &str) -> bool {
        self.quiet.lock().unwrap_or_else(PoisonError::into_inner).allows(line, Instant::now())
    }
}

/// Asks one peer again and again until its disk is known (or this pod's turns out to be replaced).
async fn ask(shared: Arc<Shared>, peer: PodId, address: String) {
    let mut wait = shared.timing.dial_min;
    loop {
        let dialed = handshake::dial(&address, peer, &shared.hello(), shared.timing.handshake).await;
        let error = match dialed {
            Ok((_, theirs)) => match shared.learn(&theirs) {
                // Asked again: it may form meanwhile, and what it then knows is the whole vector.
                Ok(()) => None,
                Err(refusal) => Some(LinkError::Refused(refusal)),
            },
            // Not there yet: what is waited for says so already.
            Err(LinkError::Io(_)) => None,
            Err(error) => Some(error),
        };
        if let Some(error) = error {
            let line = format!("no link to {peer} at {address}: {error}");
            if shared.says(&line) {
                warn!("{line}");
            }
        }
        sleep(shared.timing.jittered(wait)).await;
        wait = (wait * 2).min(shared.timing.dial_max);
    }
}

/// Answers one that dialed.
async fn tell(shared: Arc<Shared>, mut stream: TcpStream, from: IpAddr) {
    let within = shared.timing.handshake;
    let heard = handshake::hear(&mut stream, &mut BytesMut::new(), within).await;
    let (kind, line) = match heard {
        Ok(theirs) => match shared.learn(&theirs) {
            Ok(()) => {
                // An error is the dialer's to notice and to repeat.
                let _ = handshake::answer(&mut stream, &Reply::Welcome(shared.hello()), within).await;
                return;
            }
            Err(Refusal::OtherDisk { .. }) => {
                // It knows better whose disk is the wrong one: it gets to see this pod's.
                let _ = handshake::answer(&mut stream, &Reply::Welcome(shared.hello()), within).await;
                return;
            }
            Err(refusal) => {
                let reply = Reply::Refused(refusal.to_string());
                let _ = handshake::answer(&mut stream, &reply, within).await;
                let kind = format!("{} {:?}", theirs.pod, discriminant(&refusal));
                (kind, format!("{} is refused: {refusal}", theirs.pod))
            }
        },
        Err(error) => {
            (format!("{from} {}", error.kind()), format!("a connection from {from} is refused: {error}"))
        }
    };
    if shared.says(&kind) {
        warn!("{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::hello::Terms;
    use expect_test::expect;
    use kassa_protocols::ids::Replacement;

    fn hello(pod: u8, disk: u128) -> Hello {
        Hello {
            pod: PodId(pod),
            disk: DiskId(disk),
            boot: u64::from(pod),
            dial: 0,
            terms: Terms::default(),
            formed: None,
        }
    }

    fn forming(pod: u8, disk: u128) -> Forming {
        Forming::new(hello(pod, disk), (0..3).map(PodId).collect())
    }

    #[test]
    fn all_who_hear_all_agree() {
        let disks = [10, 11, 12];
        let formed = [0_u8, 1, 2].map(|me| {
            let mut forming = forming(me, disks[usize::from(me)]);
            for pod in (0..3).filter(|&pod| pod != me) {
                assert_eq!(forming.formed(), None);
                forming.learn(&hello(pod, disks[usize::from(pod)])).unwrap();
            }
            forming.formed().unwrap().clone()
        });
        assert_eq!(formed[0], formed[1]);
        assert_eq!(formed[1], formed[2]);
    }

    #[test]
    fn a_late_pod_takes_the_vector_of_a_formed_one() {
        let vector = Formed::new([(0, 10), (1, 11), (2, 12)].map(|(p, d)| (PodId(p), DiskId(d))).into());
        let mut late = forming(2, 12);
        late.learn(&Hello { formed: Some(vector.clone()), ..hello(0, 10) }).unwrap();
        assert_eq!(late.formed(), Some(&vector));
    }

    #[test]
    fn a_wiped_pod_never_forms() {
        let vector = Formed::new([(0, 10), (1, 11), (2, 12)].map(|(p, d)| (PodId(p), DiskId(d))).into());
        let mut wiped = forming(2, 99);
        wiped.learn(&Hello { formed: Some(vector), ..hello(0, 10) }).unwrap_err();
        wiped.learn(&hello(0, 10)).unwrap();
        wiped.learn(&hello(1, 11)).unwrap();
        assert_eq!(wiped.formed(), None);
        expect!["the disk of this pod (00000000000000000000000000000063) is not the one that the cluster knows for p2 (0000000000000000000000000000000c): it waits to be replaced; type `kassa replace --pod 2` if that disk is lost, or put its directory back"]
            .assert_eq(&wiped.waits_for());
    }

    #[test]
    fn a_wiped_pod_joins_once_its_disk_is_the_known_one() {
        let mut vector = Formed::new([(0, 10), (1, 11), (2, 12)].map(|(p, d)| (PodId(p), DiskId(d))).into());
        let mut wiped = forming(2, 99);
        wiped.learn(&Hello { formed: Some(vector.clone()), ..hello(0, 10) }).unwrap_err();
        // Another was let in before it.
        vector.replaced.insert(PodId(2), Replacement { disk: DiskId(98), count: 1 });
        wiped.learn(&Hello { formed: Some(vector.clone()), ..hello(0, 10) }).unwrap_err();
        vector.replaced.insert(PodId(2), Replacement { disk: DiskId(99), count: 2 });
        wiped.learn(&Hello { formed: Some(vector.clone()), ..hello(0, 10) }).unwrap();
        assert_eq!(wiped.formed(), Some(&vector));
    }

    #[test]
    fn a_single_pod_is_a_cluster_by_itself() {
        let alone = Forming::new(hello(0, 10), [PodId(0)].into());
        assert!(alone.formed().is_some());
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut first = forming(0, 10);
        first.learn(&hello(2, 12)).unwrap();
        expect!["the cluster has not formed yet: waiting for p1"].assert_eq(&first.waits_for());
        assert!(first.learn(&hello(7, 12)).is_err());
    }
}
