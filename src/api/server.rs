//! Accepts connections, serves each, and ends them all within bounds.

use super::service::Service;
use super::wire::{Waits, Wire};
use super::{BODY_READ_AWAY_BYTES_MAX, Limits, malformed};
use crate::runtime::Handle;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use rustix::net::sockopt::set_socket_send_buffer_size;
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

/// Connections beyond the limit on which health checks are still answered, and others told to come
/// back. Beyond these, connections wait in the kernel's backlog.
const CONNECTIONS_SPARE: usize = 64;
/// hyper's buffer for a head: what the contract allows, and as much again so that most heads that are
/// too large still get an answer that knows their key.
const HEAD_BUFFER_BYTES: usize = 48 * 1024;
/// What the kernel keeps of answers that a client does not read: by default that is megabytes, enough to have
/// it served thousands of requests that it never looks at.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// For a client to finish sending and close, once it has been answered and the connection is at its
/// end: closing earlier would reset the connection and might destroy the answer on its way.
const LINGER: Duration = Duration::from_secs(2);
/// Before accepting again when there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves the contract on `listener` until `shutdown` resolves; then lets the requests in flight end,
/// for as long as `limits.drain_wait` allows.
pub async fn serve(listener: TcpListener, handle: Handle, limits: Limits, shutdown: impl Future) {
    let service = Arc::new(Service::new(handle, &limits));
    let waits = Waits { head: limits.head_wait, idle: limits.idle_wait };
    let (stop, stopped) = watch::channel(false);
    let mut open = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            _ = &mut shutdown => break,
            Some(ended) = open.join_next() => note(ended),
            accepted = listener.accept(), if open.len() < limits.connections_max + CONNECTIONS_SPARE => {
                match accepted {
                    Ok((stream, _)) => {
                        let shed = open.len() >= limits.connections_max;
                        open.spawn(connection(stream, Arc::clone(&service), waits, shed, stopped.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }
    drop(listener);
    stop.send_replace(true);
    let drain = async {
        while let Some(ended) = open.join_next().await {
            note(ended);
        }
    };
    if timeout(limits.drain_wait, drain).await.is_err() {
        tracing::warn!(connections = open.len(), "ending connections that did not drain in time");
        open.shutdown().await;
    }
}

fn note(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed");
    }
}

async fn connection(
    stream: TcpStream,
    service: Arc<Service>,
    waits: Waits,
    shed: bool,
    mut stopped: watch::Receiver<bool>,
) {
    // Answers are one write each; without this they could wait for an acknowledgement. An error means
    // that the connection is gone, which the first read will tell.
    let _ = stream.set_nodelay(true);
    // The same of an error here.
    let _ = set_socket_send_buffer_size(&stream, SEND_BUFFER_BYTES);
    let busy = Arc::new(AtomicBool::new(false));
    let wire = Wire::new(stream, waits, Arc::clone(&busy));
    let (service, busy) = (&*service, &*busy);
    let serve = service_fn(|request| {
        busy.store(true, Ordering::Relaxed);
        async move {
            let response = service.answer(request, shed).await;
            busy.store(false, Ordering::Relaxed);
            Ok::<_, Infallible>(response)
        }
    });
    let mut connection =
        http1::Builder::new().max_buf_size(HEAD_BUFFER_BYTES).keep_alive(!shed).serve_connection(wire, serve);
    // An error here is the client's: it went away, was too slow, or sent what cannot be parsed.
    let stopping = tokio::select! {
        biased;
        _ = &mut connection => false,
        _ = stopped.wait_for(|stopped| *stopped) => true,
    };
    if stopping {
        Pin::new(&mut connection).graceful_shutdown();
        let _ = (&mut connection).await;
    }
    let parts = connection.into_parts();
    let (stream, held_back) = parts.io.into_parts();
    let last = held_back.map(|held_back| malformed::answer(held_back, &parts.read_buf));
    // Whether the client took it or not, the connection is over.
    let _ = close(stream, last).await;
}

/// Sends the `last` answer, if there is one, and our end of the stream; then reads away what the client
/// still sends, within bounds, until it closes its own end.
async fn close(mut stream: TcpStream, last: Option<Vec<u8>>) -> std::io::Result<()> {
    let deadline = Instant::now() + LINGER;
    if let Some(last) = last {
        timeout_at(deadline, stream.write_all(&last)).await??;
    }
    stream.shutdown().await?;
    // On the heap, since most connections' tasks never need it.
    let mut scratch = vec![0; 16 * 1024];
    let mut bytes = 0_u64;
    while bytes <= BODY_READ_AWAY_BYTES_MAX {
        match timeout_at(deadline, stream.read(&mut scratch)).await?? {
            0 => break,
            read => bytes += read as u64,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
