//! A client's connection underneath hyper: time limits, and no bare answers.
//!
//! hyper answers what it cannot parse by itself, with a status and an empty body, where the contract
//! promises problem details on every error. Each answer of ours has a content type and hyper's own have
//! none; so [`Wire`] holds back a head without one, and whoever drives the connection sends a proper
//! answer in its place.
//!
//! hyper's one timer covers both the wait for a request and the reading of its head. Here they are two,
//! as a client may well be idle for long, but not slow in the middle of a head; and the timer is armed
//! once and pushed on lazily instead of made anew for each request.

use crate::failpoint;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    /// From the first byte of a request's head (or from the start of the connection) to its last.
    pub head: Duration,
    /// Between two requests, and for taking what was answered.
    pub idle: Duration,
}

/// The stream that hyper reads and writes.
#[derive(Debug)]
pub struct Wire {
    stream: TokioIo<TcpStream>,
    waits: Waits,
    /// Whether a request is being answered: then its own deadline counts.
    busy: Arc<AtomicBool>,
    /// Since when the client is waited for; `None` while it is not.
    waiting_since: Option<Instant>,
    /// Whether what it has sent up to now is part of a head.
    in_head: bool,
    alarm: Pin<Box<Sleep>>,
    held_back: Option<HeldBack>,
}

/// The status of an answer that hyper wanted to make by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldBack {
    pub status: u16,
}

impl Wire {
    #[must_use]
    pub fn new(stream: TcpStream, waits: Waits, busy: Arc<AtomicBool>) -> Self {
        let now = Instant::now();
        Self {
            stream: TokioIo::new(stream),
            waits,
            busy,
            waiting_since: Some(now),
            in_head: true,
            alarm: Box::pin(sleep_until(now + waits.head)),
            held_back: None,
        }
    }

    /// The stream, and the answer that was held back: hyper's last word on this connection.
    #[must_use]
    pub fn into_parts(self) -> (TcpStream, Option<HeldBack>) {
        (self.stream.into_inner(), self.held_back)
    }

    /// Called when the client keeps us waiting: an error once it has done so for too long.
    fn poll_patience(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let deadline = since + if self.in_head { self.waits.head } else { self.waits.idle };
        // The alarm may be set to an earlier deadline, since passed by; never leave it at a later one.
        if self.alarm.deadline() > deadline {
            self.alarm.as_mut().reset(deadline);
        }
        while self.alarm.as_mut().poll(context).is_ready() {
            if Instant::now() >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.alarm.as_mut().reset(deadline);
        }
        Ok(())
    }
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match Pin::new(&mut this.stream).poll_read(context, buffer) {
            Poll::Ready(result) => {
                if !this.in_head {
                    this.in_head = true;
                    this.waiting_since = None;
                }
                Poll::Ready(result)
            }
            Poll::Pending if this.busy.load(Ordering::Relaxed) => Poll::Pending,
            Poll::Pending => match this.poll_patience(context) {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            },
        }
    }
}

impl Write for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let own = match bare_answer(buffer) {
            Some((0, status)) => {
                this.held_back = Some(HeldBack { status });
                return Poll::Ready(Ok(buffer.len()));
            }
            Some((ours, _)) => &buffer[..ours],
            None => buffer,
        };
        match Pin::new(&mut this.stream).poll_write(context, own) {
            Poll::Ready(result) => {
                failpoint::hit("answer.after");
                // The head that was read is answered: what comes next is the wait for another. It
                // begins here, since hyper does not read again before there is something to read.
                this.in_head = false;
                this.waiting_since = None;
                Poll::Ready(this.poll_patience(context).and(result))
            }
            Poll::Pending => match this.poll_patience(context) {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            },
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Leaves the stream open: an answer may have to follow, and the close lingers.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// hyper then puts head and body into one buffer and one write: answers are small.
    fn is_write_vectored(&self) -> bool {
        false
    }
}

/// Where in `written` an answer of hyper's own begins, and its status. It is always the last thing
/// that hyper writes and has no body, so whatever ends otherwise costs four bytes' comparison.
fn bare_answer(written: &[u8]) -> Option<(usize, u16)> {
    if !written.ends_with(b"\r\n\r\n") {
        return None;
    }
    const START: &[u8] = b"HTTP/1.";
    let start = written.windows(START.len()).rposition(|window| window == START)?;
    let head = &written[start..];
    let status = std::str::from_utf8(head.get(9..12)?).ok()?.parse().ok()?;
    const TYPE: &[u8] = b"\r\ncontent-type:";
    // 1xx is no answer but hyper's leave to go on with a body.
    let is_bare = status >= 200 && !head.windows(TYPE.len()).any(|window| window == TYPE);
    is_bare.then_some((start, status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_without_a_content_type_is_held_back() {
        let bare =
            b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(bare_answer(bare), Some((0, 431)));
        let ours = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(bare_answer(ours), None);
        let both = [&ours[..], &bare[..]].concat();
        assert_eq!(bare_answer(&both), Some((ours.len(), 431)));
        let to_head = b"HTTP/1.1 405 Method Not Allowed\r\ncontent-type: application/problem+json\r\ncontent-length: 99\r\n\r\n";
        assert_eq!(bare_answer(to_head), None);
        assert_eq!(bare_answer(b"HTTP/1.1 100 Continue\r\n\r\n"), None);
        assert_eq!(bare_answer(b""), None);
        assert_eq!(bare_answer(b"\r\n\r\n"), None);
    }
}
