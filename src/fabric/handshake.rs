//! The first words on a connection, for whoever dials and whoever accepts.

use super::frame::{self, FrameError};
use super::hello::{HELLO_BYTES_MAX, Hello, Refusal, Reply, shortened};
use bytes::BytesMut;
use kassa_protocols::ids::PodId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::mem::discriminant;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Why there is no link, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("it is refused: {0}")]
    Refused(#[from] Refusal),
    #[error("it refuses this pod: {0}")]
    RefusedByPeer(String),
    #[error("it has not joined the cluster yet")]
    NotFormed,
    #[error("it closed the connection")]
    Closed,
    #[error("it was silent for {} ms", .0.as_millis())]
    Silent(Duration),
    #[error("it took nothing for {} ms", .0.as_millis())]
    Stalled(Duration),
    #[error("over {0} bytes wait to be sent")]
    Overflow(usize),
    #[error("this pod has no room for its frames")]
    InboxFull,
    #[error("a later link of the same pod took its place")]
    Superseded,
    #[error("its own link to this pod broke")]
    OtherHalfBroke,
    #[error("its disk was replaced")]
    Replaced,
}

impl LinkError {
    /// The kind of the error, without the numbers in it: those are a stranger's to vary.
    pub fn kind(&self) -> String {
        let frame = if let Self::Frame(error) = self { Some(discriminant(error)) } else { None };
        format!("{:?} {frame:?}", discriminant(self))
    }
}

/// Connects to `peer` and introduces this pod by `hello`; gives what it said of itself, checked.
///
/// # Errors
/// If nobody answers within `within`, or either side refuses the other.
pub async fn dial(
    address: &str,
    peer: PodId,
    hello: &Hello,
    within: Duration,
) -> Result<(TcpStream, Hello), LinkError> {
    let talk = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        write(&mut stream, hello).await?;
        // Nothing but the reply comes on a dialed connection, so the buffer can be dropped.
        let theirs = match read(&mut stream, &mut BytesMut::new()).await? {
            Reply::Welcome(theirs) => theirs,
            Reply::Refused(why) => return Err(LinkError::RefusedByPeer(shortened(&why))),
        };
        if theirs.pod != peer {
            return Err(Refusal::WrongPod { theirs: theirs.pod, expected: peer }.into());
        }
        hello.check(&theirs)?;
        Ok((stream, theirs))
    };
    timeout(within, talk).await.unwrap_or(Err(LinkError::Silent(within)))
}

/// Hears who dialed. What came behind its hello stays in `buffer`.
///
/// # Errors
/// If it says nothing within `within`, or nothing that makes sense.
pub async fn hear(
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
    within: Duration,
) -> Result<Hello, LinkError> {
    stream.set_nodelay(true)?;
    let heard = timeout(within, read(stream, buffer)).await.unwrap_or(Err(LinkError::Silent(within)));
    if let Err(error @ LinkError::Frame(_)) = &heard {
        // Told in a frame of this version, which a kassa of any version can name.
        let _ = timeout(within, refuse(stream, &error.to_string())).await;
    }
    heard
}

/// Answers a hello.
///
/// # Errors
/// If the connection does not take it within `within`.
pub async fn answer(stream: &mut TcpStream, reply: &Reply, within: Duration) -> Result<(), LinkError> {
    timeout(within, write(stream, reply)).await.unwrap_or(Err(LinkError::Silent(within)))
}

async fn refuse(stream: &mut TcpStream, why: &str) -> Result<(), LinkError> {
    write(stream, &Reply::Refused(why.to_owned())).await?;
    Ok(stream.shutdown().await?)
}

async fn write<T: Serialize>(stream: &mut TcpStream, value: &T) -> Result<(), LinkError> {
    let mut bytes = Vec::new();
    frame::encode(value, &mut bytes)?;
    Ok(stream.write_all(&bytes).await?)
}

async fn read<T: DeserializeOwned>(stream: &mut TcpStream, buffer: &mut BytesMut) -> Result<T, LinkError> {
    loop {
        if let Some(payload) = frame::split(buffer, HELLO_BYTES_MAX)? {
            return Ok(frame::decode(&payload)?);
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(LinkError::Closed);
        }
    }
}
