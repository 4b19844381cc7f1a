//! The accepted half of the links: what peers say to this pod.
//!
//! A later link of a pod supersedes its earlier one: frames of that are not delivered any more, not
//! even those that wait in the event loop's inbox.

use super::faults::{Illness, until};
use super::frame::{self, FRAME_BYTES_MAX};
use super::handshake::{self, LinkError};
use super::hello::{Hello, Refusal, Reply};
use super::outgoing::{CurrentLink, Outgoing};
use super::quiet::Quiet;
use super::{Event, LinkNo, Shared};
use bytes::BytesMut;
use kassa_protocols::ids::PodId;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::mem::discriminant;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

/// Connections that may be in the middle of the handshake at once: a cluster's pods all starting
/// together need far fewer; what comes beyond is closed unheard.
const HANDSHAKES_MAX: usize = 64;
/// What a reader reserves at a time: a busy round's frame in one read.
const READ_BYTES: usize = 256 << 10;

/// The peers' links to this pod.
#[derive(Debug)]
pub struct Incoming {
    peers: BTreeMap<PodId, Peer>,
    /// What was said of connections that named no pod, apart from what was said of pods: strangers
    /// must not silence that.
    strangers: Mutex<Quiet>,
    quiet: Mutex<Quiet>,
}

#[derive(Debug)]
struct Peer {
    current: Arc<CurrentLink>,
    latest: Mutex<Option<Latest>>,
    outgoing: Arc<Outgoing>,
}

/// The last link that a peer was welcomed on.
#[derive(Debug)]
struct Latest {
    boot: u64,
    dial: u64,
    /// Dropped to end that link.
    _ends: oneshot::Sender<()>,
}

impl Incoming {
    pub fn new(peers: impl Iterator<Item = (Arc<Outgoing>, Arc<CurrentLink>)>) -> Self {
        let peers = peers
            .map(|(outgoing, current)| (outgoing.peer, Peer { current, latest: Mutex::default(), outgoing }));
        Self { peers: peers.collect(), strangers: Mutex::default(), quiet: Mutex::default() }
    }

    /// Accepts for ever.
    pub async fn run<M: DeserializeOwned + Send + 'static>(
        self: Arc<Self>,
        shared: Arc<Shared<M>>,
        listener: TcpListener,
    ) {
        let room = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        loop {
            match listener.accept().await {
                Ok((stream, from)) => {
                    let Ok(permit) = room.clone().try_acquire_owned() else {
                        self.say_of_stranger(from.ip(), "", "too many others are at the handshake");
                        continue;
                    };
                    let link = self.clone().serve(shared.clone(), stream, from.ip(), permit);
                    shared.spawn(link);
                }
                // Out of file handles, say: it passes, and must not keep a core busy meanwhile.
                Err(error) => {
                    let line = format!("no connection can be accepted: {error}");
                    self.say(&line, &line);
                    sleep(shared.timing.dial_min).await;
                }
            }
        }
    }

    /// One connection, from hello to end.
    async fn serve<M: DeserializeOwned>(
        self: Arc<Self>,
        shared: Arc<Shared<M>>,
        mut stream: TcpStream,
        from: IpAddr,
        handshaking: OwnedSemaphorePermit,
    ) {
        let within = shared.timing.handshake;
        let mut buffer = BytesMut::new();
        let hello = match handshake::hear(&mut stream, &mut buffer, within).await {
            Ok(hello) => hello,
            Err(error) => return self.say_of_stranger(from, &error.kind(), &error.to_string()),
        };
        let ours = shared.hello().clone();
        if let Err(refusal) = ours.check(&hello) {
            return self.refuse(&shared, stream, ours, &hello, refusal).await;
        }
        if timeout(within, until(&mut shared.faults.of(hello.pod), Illness::lets_talk)).await.is_err() {
            return;
        }
        let welcome = Reply::Welcome(ours);
        if hello.formed.is_none() {
            // It forms by what it hears, and dials again. An error is its to notice.
            let _ = handshake::answer(&mut stream, &welcome, within).await;
            return;
        }
        let peer = self.peers.get(&hello.pod).expect("checked against the pods of the cluster");
        let superseded = {
            // Its disk may have been replaced since.
            let ours = shared.hello();
            if ours.check(&hello).is_ok() { peer.supersede(&hello, &shared) } else { None }
        };
        let Some((link, ended)) = superseded else { return };
        peer.outgoing.peer_was_seen();
        let why = match handshake::answer(&mut stream, &welcome, within).await {
            Ok(()) => {
                drop(handshaking);
                tokio::select! {
                    error = read(&shared, hello.pod, link, stream, buffer) => error,
                    _ = ended => LinkError::Superseded,
                }
            }
            Err(error) => error,
        };
        match why {
            LinkError::Superseded => {}
            LinkError::Closed | LinkError::Io(_) => peer.outgoing.other_half_broke(),
            LinkError::Frame(_)
            | LinkError::Refused(_)
            | LinkError::RefusedByPeer(_)
            | LinkError::NotFormed
            | LinkError::Silent(_)
            | LinkError::Stalled(_)
            | LinkError::Overflow(_)
            | LinkError::InboxFull
            | LinkError::Replaced
            | LinkError::OtherHalfBroke => {
                let kind = format!("{} {}", hello.pod, why.kind());
                self.say(&kind, &format!("the link of {} to this pod is closed: {why}", hello.pod));
            }
        }
    }

    /// Tells one that may not speak why.
    async fn refuse<M>(
        &self,
        shared: &Shared<M>,
        mut stream: TcpStream,
        ours: Hello,
        hello: &Hello,
        refusal: Refusal,
    ) {
        if matches!(refusal, Refusal::Replaced { pod, .. } if pod == ours.pod) {
            // The event loop ends the process.
            return shared.tell(Event::Replaced { why: refusal.to_string() }).await;
        }
        let kind = format!("{} {:?}", hello.pod, discriminant(&refusal));
        self.say(&kind, &format!("{} is refused: {refusal}", hello.pod));
        let waits = matches!(refusal, Refusal::OtherDisk { .. }) && hello.formed.is_none();
        if waits {
            shared.note_waiting(hello.pod, hello.disk);
        }
        // To one whose disk is not the known one, the vector says so better than a refusal.
        let reply = if waits || matches!(refusal, Refusal::Replaced { .. }) {
            Reply::Welcome(ours)
        } else {
            Reply::Refused(refusal.to_string())
        };
        // An error is the dialer's to notice and to repeat.
        let _ = handshake::answer(&mut stream, &reply, shared.timing.handshake).await;
    }

    /// Ends the link of a pod, and has nothing of it admitted any more.
    pub fn cut(&self, pod: PodId) {
        if let Some(peer) = self.peers.get(&pod) {
            peer.current.set(LinkNo(0));
            *peer.latest.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    fn say_of_stranger(&self, from: IpAddr, kind: &str, why: &str) {
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        if strangers.allows(&format!("{from} {kind}"), Instant::now()) {
            warn!("a connection from {from} is refused: {why}");
        }
    }

    /// Says `line` unless one of its kind was said lately.
    fn say(&self, kind: &str, line: &str) {
        if self.quiet.lock().unwrap_or_else(PoisonError::into_inner).allows(kind, Instant::now()) {
            warn!("{line}");
        }
    }
}

impl Peer {
    /// Makes the connection that `hello` came on the one that counts, unless a later one does.
    fn supersede<M>(&self, hello: &Hello, shared: &Shared<M>) -> Option<(LinkNo, oneshot::Receiver<()>)> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.as_ref().is_some_and(|last| last.boot == hello.boot && last.dial >= hello.dial) {
            info!(peer = %hello.pod, "a connection that was dialed before the present one is closed");
            return None;
        }
        let link = shared.next_link();
        let (ends, ended) = oneshot::channel();
        self.current.set(link);
        *latest = Some(Latest { boot: hello.boot, dial: hello.dial, _ends: ends });
        Some((link, ended))
    }
}

/// Delivers frames until there are no more; says why.
async fn read<M: DeserializeOwned>(
    shared: &Shared<M>,
    from: PodId,
    link: LinkNo,
    mut stream: TcpStream,
    mut buffer: BytesMut,
) -> LinkError {
    let mut illness = shared.faults.of(from);
    loop {
        loop {
            let payload = match frame::split(&mut buffer, FRAME_BYTES_MAX) {
                Ok(Some(payload)) => payload,
                Ok(None) => break,
                Err(error) => return error.into(),
            };
            let messages = match frame::decode(&payload) {
                Ok(messages) => messages,
                Err(error) => return error.into(),
            };
            if (shared.deliver)(Event::Frame { from, link, messages }).is_err() {
                return LinkError::InboxFull;
            }
        }
        buffer.reserve(READ_BYTES);
        match stream.read_buf(&mut buffer).await {
            Ok(0) => return LinkError::Closed,
            Ok(_) => until(&mut illness, |illness| !illness.cut_in).await,
            Err(error) => return error.into(),
        }
    }
}
