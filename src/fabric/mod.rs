//! Links between pods: TCP, one frame per peer and round.
//!
//! Each pod dials every other; a dialed connection carries frames one way, so that a pair of pods has
//! two links, each with one end that decides about it. A link is FIFO and at most once. A new one
//! supersedes the old one of the same direction, and what was queued on the old one is dropped: the
//! protocols repeat what they need to, and never see a frame from before a gap behind it.
//!
//! A frame sent between the loop's `Up` and `Down` of a link travels on that link or not at all.
//!
//! # Layout
//! [`frame`] is the codec, [`hello`] who speaks under which terms, [`handshake`] the first words of a
//! connection, [`identity`] the file that makes a directory a pod, [`formation`] how a cluster begins,
//! `outgoing` and `incoming` the two ends of a link, [`faults`] what may be wrong with it on purpose, `quiet` keeps the log readable.

pub mod faults;
pub mod formation;
pub mod frame;
pub mod handshake;
pub mod hello;
pub mod identity;
mod incoming;
mod outgoing;
mod quiet;

#[cfg(test)]
mod tests;

use faults::Faults;
use handshake::LinkError;
use hello::Hello;
use incoming::Incoming;
use kassa_protocols::ids::{DiskId, PodId, Replacement};
use outgoing::{CurrentLink, Outgoing};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::error;

/// What the fabric tells the event loop.
#[derive(Debug)]
pub enum Event<M> {
    /// One frame, in the order sent on its link.
    Frame { from: PodId, link: LinkNo, messages: Vec<M> },
    /// The outgoing link to a peer came up.
    Up { peer: PodId, link: LinkNo },
    /// The outgoing link to a peer went down; what was queued on it is lost.
    Down { peer: PodId, link: LinkNo },
    /// A peer says that another disk has taken the place of this pod's.
    Replaced { why: String },
}

/// Numbers the links of one pod, in the order in which they were shaken hands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkNo(pub u64);

/// The intervals of the fabric.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The first pause before dialing again; it doubles up to `dial_max`.
    pub dial_min: Duration,
    pub dial_max: Duration,
    /// A connection on which the handshake takes longer is cut.
    pub handshake: Duration,
    /// A link whose peer takes none of what is queued for longer is cut.
    pub stall: Duration,
}

impl Timing {
    /// Between half of `wait` and all of it, so that pods do not dial in step.
    fn jittered(&self, wait: Duration) -> Duration {
        wait.mul_f64(rand::random_range(0.5..=1.0))
    }
}

/// Takes an event without waiting, or gives it back if there is no room.
pub type Deliver<M> = Box<dyn Fn(Event<M>) -> Result<(), Event<M>> + Send + Sync>;

/// How long a task waits before it offers an event again that the loop had no room for.
const OFFER_AGAIN_AFTER: Duration = Duration::from_millis(1);

/// What the fabric's tasks share.
struct Shared<M> {
    hello: Arc<Mutex<Hello>>,
    waiting: Arc<Mutex<BTreeMap<PodId, (DiskId, Instant)>>>,
    timing: Timing,
    faults: Arc<Faults>,
    deliver: Deliver<M>,
    links: AtomicU64,
    dials: AtomicU64,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

/// An empty pod that was not heard for so long waits no more: it asks again at least as often as links are dialed.
const WAITS_FOR: Duration = Duration::from_secs(10);

impl<M> Shared<M> {
    fn hello(&self) -> MutexGuard<'_, Hello> {
        self.hello.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty pod has introduced itself by this disk.
    fn note_waiting(&self, pod: PodId, disk: DiskId) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.insert(pod, (disk, Instant::now()));
    }

    fn next_link(&self) -> LinkNo {
        LinkNo(self.links.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Delivers what must not be lost, however busy the loop is.
    async fn tell(&self, event: Event<M>) {
        let mut offered = (self.deliver)(event);
        while let Err(event) = offered {
            sleep(OFFER_AGAIN_AFTER).await;
            offered = (self.deliver)(event);
        }
    }

    /// Runs `task` until it ends or the fabric does.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        // Forgets those that have ended. None has panicked: that ends the process, whichever thread it is.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}

/// What the event loop holds of the fabric. Dropping it ends all links.
pub struct Links {
    peers: BTreeMap<PodId, Link>,
    hello: Arc<Mutex<Hello>>,
    /// Disks of empty pods that wait to take the place of others, and when they last said so.
    waiting: Arc<Mutex<BTreeMap<PodId, (DiskId, Instant)>>>,
    incoming: Arc<Incoming>,
    /// Holds one encoded frame at a time.
    scratch: Vec<u8>,
    sent: Sent,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

struct Link {
    outgoing: Arc<Outgoing>,
    current: Arc<CurrentLink>,
    /// The outgoing link, from when the loop heard of it until it hears of its end.
    up: Option<LinkNo>,
}

/// What is left of an event for the node.
#[derive(Debug, PartialEq, Eq)]
pub enum Admitted<M> {
    Frame {
        from: PodId,
        messages: Vec<M>,
    },
    Link {
        peer: PodId,
        up: bool,
    },
    /// This pod's disk was replaced, so that it may take part in nothing any more.
    Replaced {
        why: String,
    },
}

/// Starts the links of the pod that introduces itself by `hello`, on the current tokio runtime.
///
/// # Panics
/// If `hello` names no formed cluster, or the cluster another set of peers.
pub fn start<M>(
    listener: TcpListener,
    hello: Hello,
    peers: &BTreeMap<PodId, String>,
    timing: Timing,
    faults: Arc<Faults>,
    deliver: Deliver<M>,
) -> Links
where
    M: DeserializeOwned + Send + 'static,
{
    let formed = hello.formed.as_ref().expect("only a formed pod has links");
    let others = formed.disks.keys().filter(|&&pod| pod != hello.pod);
    assert!(others.eq(peers.keys()), "the peers are those of the cluster");

    let tasks = Arc::new(Mutex::new(JoinSet::new()));
    let (links, dials) = (AtomicU64::new(0), AtomicU64::new(1));
    let (hello, waiting) = (Arc::new(Mutex::new(hello)), Arc::default());
    let (hello, waiting) = (&hello, &waiting);
    let shared = Arc::new(Shared {
        hello: Arc::clone(hello),
        waiting: Arc::clone(waiting),
        timing,
        faults,
        deliver,
        links,
        dials,
        tasks: tasks.clone(),
    });
    let peers: BTreeMap<PodId, Link> = peers
        .iter()
        .map(|(&peer, address)| {
            let outgoing = Arc::new(Outgoing::new(peer, address.clone(), shared.faults.of(peer)));
            (peer, Link { outgoing, current: Arc::default(), up: None })
        })
        .collect();
    for link in peers.values() {
        shared.spawn(link.outgoing.clone().run(shared.clone()));
    }
    let halves = peers.values().map(|link| (link.outgoing.clone(), link.current.clone()));
    let incoming = Arc::new(Incoming::new(halves));
    shared.spawn(incoming.clone().run(shared.clone(), listener));
    let (hello, waiting) = (Arc::clone(hello), Arc::clone(waiting));
    Links { peers, hello, waiting, incoming, scratch: Vec::new(), sent: Sent::default(), tasks }
}

/// What was sent on links that were up, since the pod started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    pub frames: u64,
    pub messages: u64,
    pub bytes: u64,
}

impl Links {
    #[must_use]
    pub const fn sent(&self) -> Sent {
        self.sent
    }

    /// Takes note of an event, and gives what the node is to hear of it: nothing if the link that it
    /// came on does not count any more.
    pub fn admit<M>(&mut self, event: Event<M>) -> Option<Admitted<M>> {
        match event {
            Event::Frame { from, link, messages } => {
                let counts = self.peers.get(&from).is_some_and(|peer| peer.current.is(link));
                counts.then_some(Admitted::Frame { from, messages })
            }
            Event::Up { peer, link } => {
                self.peers.get_mut(&peer)?.up = Some(link);
                Some(Admitted::Link { peer, up: true })
            }
            Event::Down { peer, link } => {
                let known = self.peers.get_mut(&peer)?;
                known.up.take_if(|up| *up == link)?;
                Some(Admitted::Link { peer, up: false })
            }
            Event::Replaced { why } => Some(Admitted::Replaced { why }),
        }
    }

    /// The cluster knows another disk of `pod` from now on: its links are cut, and of the old disk not even what
    /// waits in the inbox is admitted.
    pub fn replaced(&mut self, pod: PodId, replacement: Replacement) {
        let mut hello = self.hello.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(formed) = &mut hello.formed {
            formed.replaced.insert(pod, replacement);
        }
        // Under the same lock as what lets a link in.
        self.incoming.cut(pod);
        drop(hello);
        if let Some(link) = self.peers.get(&pod) {
            link.outgoing.reset(LinkError::Replaced);
        }
    }

    /// The disk of an empty pod that waits to be let in as `pod`.
    #[must_use]
    pub fn waiting(&self, pod: PodId) -> Option<DiskId> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.get(&pod).filter(|(_, heard)| heard.elapsed() < WAITS_FOR).map(|(disk, _)| *disk)
    }

    /// Sends `messages` to `peer` as one frame, in order, without waiting; they are lost if the link
    /// is down. What does not fit one frame goes in several.
    pub fn send<M: Serialize>(&mut self, peer: PodId, messages: &[M]) {
        let Some(Link { outgoing, up: Some(link), .. }) = self.peers.get(&peer) else { return };
        self.scratch.clear();
        match frame::encode(&messages, &mut self.scratch) {
            Ok(()) => {
                self.sent.frames += 1;
                self.sent.messages += messages.len() as u64;
                self.sent.bytes += self.scratch.len() as u64;
                outgoing.send(*link, &self.scratch);
            }
            Err(_) if messages.len() > 1 => {
                let (first, second) = messages.split_at(messages.len() / 2);
                self.send(peer, first);
                self.send(peer, second);
            }
            Err(error) => {
                error!(%peer, "one message is too large to send: {error}");
                outgoing.reset(LinkError::Frame(error));
            }
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}
