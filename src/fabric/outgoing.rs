//! The dialed half of a pair of links: what this pod says to one peer.
//!
//! The event loop writes to the socket itself, without waiting: a frame costs no hand-over to another
//! thread. What the socket does not take at once is queued, in bytes and within a bound; a task per
//! peer drains the queue, watches for the peer's end, and dials again.

use super::faults::{Illness, until};
use super::handshake::{self, LinkError};
use super::hello::{Hello, Refusal};
use super::quiet::Quiet;
use super::{Event, LinkNo, Shared};
use bytes::{Buf, BytesMut};
use kassa_protocols::ids::PodId;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

/// Bytes that may wait for a peer that reads too slowly: two of the largest frames, or about a second
/// of the heaviest load. Beyond it the link is reset, and the protocols repeat what they need to.
pub const BACKLOG_BYTES_MAX: usize = 32 << 20;
/// A link that has lived for this long is not part of a quarrel over who resets whose: its peer's
/// link to this pod having broken is news.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// One peer, as this pod dials it.
#[derive(Debug)]
pub struct Outgoing {
    pub peer: PodId,
    address: String,
    wire: Mutex<Wire>,
    illness: watch::Receiver<Illness>,
    /// Something is queued.
    queued: Notify,
    /// The link is to end; `Wire::cut` says why.
    ended: Notify,
    /// The peer has just dialed this pod, so it lives: dial now.
    seen: Notify,
}

#[derive(Debug)]
struct Wire {
    up: Option<Up>,
    backlog: BytesMut,
    cut: Option<LinkError>,
}

#[derive(Debug)]
struct Up {
    link: LinkNo,
    stream: Arc<TcpStream>,
    since: Instant,
}

impl Outgoing {
    pub fn new(peer: PodId, address: String, illness: watch::Receiver<Illness>) -> Self {
        let wire = Wire { up: None, backlog: BytesMut::new(), cut: None };
        Self {
            peer,
            address,
            wire: Mutex::new(wire),
            illness,
            queued: Notify::new(),
            ended: Notify::new(),
            seen: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends one frame's `bytes` on `link`, without waiting; if that link is no more they are lost.
    pub fn send(&self, link: LinkNo, mut bytes: &[u8]) {
        let mut wire = self.lock();
        let Some(up) = wire.up.as_ref().filter(|up| up.link == link) else { return };
        if wire.backlog.is_empty() && !self.illness.borrow().holds_back() {
            match write_some(&up.stream, &mut bytes) {
                Ok(()) if bytes.is_empty() => return,
                Ok(()) => {}
                Err(error) => return self.cut(wire, error),
            }
        }
        if wire.backlog.len() + bytes.len() > BACKLOG_BYTES_MAX {
            return self.cut(wire, LinkError::Overflow(BACKLOG_BYTES_MAX));
        }
        wire.backlog.extend_from_slice(bytes);
        drop(wire);
        self.queued.notify_one();
    }

    /// Ends the link, if there is one, and drops what is queued on it.
    pub fn reset(&self, why: LinkError) {
        self.cut(self.lock(), why);
    }

    /// The peer's own link to this pod broke, so the peer is most likely gone.
    pub fn other_half_broke(&self) {
        let wire = self.lock();
        if wire.up.as_ref().is_some_and(|up| up.since.elapsed() >= SETTLED_AFTER) {
            self.cut(wire, LinkError::OtherHalfBroke);
        }
    }

    pub fn peer_was_seen(&self) {
        self.seen.notify_one();
    }

    fn cut(&self, mut wire: MutexGuard<'_, Wire>, why: LinkError) {
        if wire.up.take().is_some() {
            wire.backlog = BytesMut::new();
            wire.cut = Some(why);
            drop(wire);
            self.ended.notify_one();
        }
    }

    /// Dials, keeps the link while it lasts, and dials again, for ever.
    pub async fn run<M>(self: Arc<Self>, shared: Arc<Shared<M>>) {
        let timing = shared.timing;
        let mut quiet = Quiet::default();
        let mut wait = timing.dial_min;
        loop {
            let hello =
                Hello { dial: shared.dials.fetch_add(1, Ordering::Relaxed), ..shared.hello().clone() };
            let dialed = self.dial(&hello, timing.handshake).await;
            let dialed = dialed.and_then(|(stream, theirs)| {
                // A peer that has not formed answers, and closes: it learns from this pod's hello.
                if theirs.formed.is_some() { Ok((stream, theirs)) } else { Err(LinkError::NotFormed) }
            });
            if let Err(LinkError::Refused(why @ Refusal::Replaced { pod, .. })) = &dialed
                && *pod == hello.pod
            {
                // The event loop ends the process.
                return shared.tell(Event::Replaced { why: why.to_string() }).await;
            }
            match dialed {
                Ok((stream, theirs)) => {
                    let began = Instant::now();
                    info!(peer = %self.peer, "link up");
                    let why = self.keep(&shared, stream, &theirs).await;
                    info!(peer = %self.peer, "link down: {why}");
                    quiet.forget();
                    if began.elapsed() >= SETTLED_AFTER {
                        wait = timing.dial_min;
                    }
                }
                Err(error) => {
                    let line = format!("no link to {} at {}: {error}", self.peer, self.address);
                    if quiet.allows(&line, Instant::now()) {
                        warn!("{line}");
                    }
                }
            }
            tokio::select! {
                () = sleep(timing.jittered(wait)) => {}
                () = self.seen.notified() => {}
            }
            wait = (wait * 2).min(timing.dial_max);
        }
    }

    async fn dial(&self, hello: &Hello, within: Duration) -> Result<(TcpStream, Hello), LinkError> {
        if timeout(within, until(&mut self.illness.clone(), Illness::lets_talk)).await.is_err() {
            return Err(LinkError::Silent(within));
        }
        handshake::dial(&self.address, self.peer, hello, within).await
    }

    /// Keeps one link until it ends; says why it did.
    async fn keep<M>(&self, shared: &Shared<M>, stream: TcpStream, theirs: &Hello) -> LinkError {
        let stall = shared.timing.stall;
        if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(&stream, millis(stall)) {
            return LinkError::Io(error.into());
        }
        let stream = Arc::new(stream);
        let link = shared.next_link();
        {
            let mut wire = self.lock();
            wire.up = Some(Up { link, stream: stream.clone(), since: Instant::now() });
            wire.cut = None;
        }
        // Its disk may have been replaced since it said which it is, just before this link could be cut.
        if shared.hello().check(theirs).is_err() {
            self.reset(LinkError::Replaced);
        }
        shared.tell(Event::Up { peer: self.peer, link }).await;
        let why = tokio::select! {
            error = peer_ends(&stream) => error,
            error = self.drain(&stream, stall) => error,
            () = self.cut_is_wanted() => LinkError::Closed,
        };
        let cut = {
            let mut wire = self.lock();
            wire.up = None;
            wire.backlog = BytesMut::new();
            wire.cut.take()
        };
        drop(stream);
        shared.tell(Event::Down { peer: self.peer, link }).await;
        cut.unwrap_or(why)
    }

    /// Resolves once the link was cut; a notice left over from an earlier link does not count.
    async fn cut_is_wanted(&self) {
        loop {
            if self.lock().up.is_none() {
                return;
            }
            self.ended.notified().await;
        }
    }

    /// Writes what is queued as the socket takes it. Ends only with an error.
    async fn drain(&self, stream: &TcpStream, stall: Duration) -> LinkError {
        let mut illness = self.illness.clone();
        loop {
            if self.lock().backlog.is_empty() {
                self.queued.notified().await;
                continue;
            }
            let delay = illness.borrow().delay;
            let mut due = usize::MAX;
            if !delay.is_zero() {
                due = self.lock().backlog.len();
                sleep(delay).await;
            }
            if timeout(stall, until(&mut illness, |illness| !illness.cut_out)).await.is_err() {
                return LinkError::Stalled(stall);
            }
            match timeout(stall, stream.writable()).await {
                Err(_) => return LinkError::Stalled(stall),
                Ok(Err(error)) => return error.into(),
                Ok(Ok(())) => {}
            }
            let mut wire = self.lock();
            let mut rest = &wire.backlog[..due.min(wire.backlog.len())];
            let offered = rest.len();
            if let Err(error) = write_some(stream, &mut rest) {
                return error;
            }
            let written = offered - rest.len();
            wire.backlog.advance(written);
            if wire.backlog.is_empty() {
                // Gives back what a burst had it grow to.
                wire.backlog = BytesMut::new();
            }
        }
    }
}

/// Writes as much of `bytes` as the socket takes now, and cuts it off.
fn write_some(stream: &TcpStream, bytes: &mut &[u8]) -> Result<(), LinkError> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(0) => return Err(LinkError::Closed),
            Ok(written) => *bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Resolves when the peer closes or breaks the connection: on a dialed one it has nothing to say.
async fn peer_ends(stream: &TcpStream) -> LinkError {
    let mut byte = [0];
    loop {
        if let Err(error) = stream.readable().await {
            return error.into();
        }
        match stream.try_read(&mut byte) {
            Ok(0) => return LinkError::Closed,
            Ok(_) => return LinkError::Frame(super::frame::FrameError::NoFrame),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return error.into(),
        }
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// Which link of a peer to this pod counts, read by the event loop for each frame.
#[derive(Debug, Default)]
pub struct CurrentLink(AtomicU64);

impl CurrentLink {
    pub fn set(&self, link: LinkNo) {
        self.0.store(link.0, Ordering::Release);
    }
    pub fn is(&self, link: LinkNo) -> bool {
        self.0.load(Ordering::Acquire) == link.0
    }
}
