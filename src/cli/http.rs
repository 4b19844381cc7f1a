//! A lean HTTP/1.1 client for `bench`, `verify`, `status` and `up`: one keep-alive connection that takes
//! requests as ready bytes. It shares the machine with the servers that it measures, so it does no more
//! than find the status and the body. It never retries: a broken connection is the caller's to see.

use super::fail::{self, Failure};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer may be this large, headers included; `/status` of the largest clusters is well below.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Longer than the longest deadline of the contract (60 s), so that a server can always speak first.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(70);

/// Where requests go: `http://host:port`, without a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub address: SocketAddr,
    host: String,
}

impl Target {
    /// # Errors
    /// [`super::Exit::Usage`] where the text is no such URL or its host is unknown.
    pub fn parse(url: &str) -> Result<Self, Failure> {
        let bad = |why: &str| fail::usage(format!("--url {url}: {why}; it looks like http://127.0.0.1:8000"));
        let rest = match url.split_once("://") {
            Some(("http", rest)) => rest,
            Some(_) => return Err(bad("only http is spoken here")),
            None => url,
        };
        let host = rest.strip_suffix('/').unwrap_or(rest);
        if host.is_empty() || host.contains(['/', '?', '#', '@', ' ']) {
            return Err(bad("a host and a port are all it may have"));
        }
        let with_port = match host.rsplit_once(':') {
            Some((_, port)) if port.parse::<u16>().is_ok() => host.to_owned(),
            Some(_) => return Err(bad("the port is no number up to 65535")),
            None => format!("{host}:80"),
        };
        let mut addresses = with_port.to_socket_addrs().map_err(|_| bad("the host is not known"))?;
        let address = addresses.next().ok_or_else(|| bad("the host has no address"))?;
        Ok(Self { address, host: host.to_owned() })
    }

    /// On this machine.
    #[must_use]
    pub fn local(port: u16) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Self { address, host: address.to_string() }
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.host)
    }

    /// The bytes of a request without a body.
    #[must_use]
    pub fn request(&self, method: &str, path: &str, key: Option<&str>) -> Vec<u8> {
        let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
        let key = key.map_or_else(String::new, |key| format!("Idempotency-Key: {key}\r\n"));
        format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n{length}{key}\r\n", self.host).into_bytes()
    }
}

/// How a request ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("connection refused")]
    Refused,
    #[error("connection closed without an answer")]
    Closed,
    #[error("no answer in time")]
    TimedOut,
    #[error("the answer is not HTTP")]
    Malformed,
}

impl Broken {
    /// The word under which `bench` counts it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Refused => "connection_refused",
            Self::Closed => "connection_closed",
            Self::TimedOut => "no_answer",
            Self::Malformed => "not_http",
        }
    }
}

/// A whole answer; the body borrows the connection's buffer.
#[derive(Debug)]
pub struct Answer<'a> {
    pub status: u16,
    pub body: &'a [u8],
}

/// What is kept of an answer whose connection goes on to something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub status: u16,
    pub body: String,
}

#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Connection {
    #[must_use]
    pub fn new(target: &Target) -> Self {
        Self { address: target.address, stream: None, buffer: Vec::with_capacity(4096) }
    }

    /// Sends ready bytes and waits for the answer, opening the connection where there is none.
    ///
    /// # Errors
    /// How it broke; the next request opens a new connection.
    pub async fn send(&mut self, request: &[u8]) -> Result<Answer<'_>, Broken> {
        let result = match tokio::time::timeout(ANSWER_WAIT_MAX, self.exchange(request)).await {
            Ok(result) => result,
            Err(_) => Err(Broken::TimedOut),
        };
        match result {
            Ok((head, keep)) => {
                if !keep {
                    self.stream = None;
                }
                Ok(Answer { status: head.status, body: &self.buffer[head.body_start..head.body_end] })
            }
            Err(broken) => {
                self.stream = None;
                Err(broken)
            }
        }
    }

    /// As [`Self::send`], with the body copied out.
    ///
    /// # Errors
    /// As there.
    pub async fn ask(&mut self, request: &[u8]) -> Result<Kept, Broken> {
        let answer = self.send(request).await?;
        Ok(Kept { status: answer.status, body: String::from_utf8_lossy(answer.body).into_owned() })
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<(Whole, bool), Broken> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let stream = TcpStream::connect(self.address).await.map_err(|_| Broken::Refused)?;
                stream.set_nodelay(true).map_err(|_| Broken::Closed)?;
                none.insert(stream)
            }
        };
        stream.write_all(request).await.map_err(|_| Broken::Closed)?;
        self.buffer.clear();
        let mut head = None;
        loop {
            if head.is_none() {
                head = Head::parse(&self.buffer)?;
            }
            if let Some(head) = &head
                && let Some(whole) = head.whole(&mut self.buffer, false)?
            {
                return Ok((whole, head.keep));
            }
            if self.buffer.len() > ANSWER_BYTES_MAX {
                return Err(Broken::Malformed);
            }
            if stream.read_buf(&mut self.buffer).await.map_err(|_| Broken::Closed)? == 0 {
                let head = head.ok_or(Broken::Closed)?;
                let whole = head.whole(&mut self.buffer, true)?.ok_or(Broken::Closed)?;
                return Ok((whole, false));
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Known(usize),
    Chunked,
    ToTheEnd,
}

#[derive(Debug)]
struct Head {
    status: u16,
    start: usize,
    length: Length,
    keep: bool,
}

#[derive(Debug)]
struct Whole {
    status: u16,
    body_start: usize,
    body_end: usize,
}

impl Head {
    fn parse(bytes: &[u8]) -> Result<Option<Self>, Broken> {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
        let text = std::str::from_utf8(&bytes[..end]).map_err(|_| Broken::Malformed)?;
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let status =
            first.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).ok_or(Broken::Malformed)?;
        let status = status.parse().map_err(|_| Broken::Malformed)?;
        let (mut length, mut keep) = (Length::ToTheEnd, true);
        for line in lines {
            let (name, value) = line.split_once(':').ok_or(Broken::Malformed)?;
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                length = Length::Known(value.parse().map_err(|_| Broken::Malformed)?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                length = Length::Chunked;
            } else if name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case("close") {
                keep = false;
            }
        }
        Ok(Some(Self { status, start: end + 4, length, keep }))
    }

    /// The whole answer, if it is there; a chunked body is put together in place.
    fn whole(&self, buffer: &mut Vec<u8>, ended: bool) -> Result<Option<Whole>, Broken> {
        let of = |end| Some(Whole { status: self.status, body_start: self.start, body_end: end });
        match self.length {
            Length::Known(length) => {
                let end = self.start.checked_add(length).ok_or(Broken::Malformed)?;
                Ok(if buffer.len() >= end { of(end) } else { None })
            }
            Length::ToTheEnd => Ok(if ended { of(buffer.len()) } else { None }),
            Length::Chunked => {
                let Some(body) = unchunk(&buffer[self.start..])? else { return Ok(None) };
                buffer.truncate(self.start);
                buffer.extend_from_slice(&body);
                Ok(of(buffer.len()))
            }
        }
    }
}

fn unchunk(mut rest: &[u8]) -> Result<Option<Vec<u8>>, Broken> {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&rest[..end]).map_err(|_| Broken::Malformed)?;
        let size = size.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| Broken::Malformed)?;
        let from = end + 2;
        let to = from.checked_add(size).ok_or(Broken::Malformed)?;
        let Some(chunk) = rest.get(from..to) else { return Ok(None) };
        if rest.len() < to + 2 {
            return Ok(None);
        }
        if size == 0 {
            return Ok(Some(body));
        }
        body.extend_from_slice(chunk);
        rest = &rest[to + 2..];
    }
}

/// The text of a top-level JSON string or number of the answers that the contract gives, unescaped
/// values only: enough for ids, counts and money, and exact where a float would not be.
#[must_use]
pub fn field<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    let mut from = 0;
    loop {
        let at = from + body[from..].find(name)?;
        from = at + name.len();
        let before = body[..at].ends_with('"');
        let Some(value) = body[from..].strip_prefix("\":").filter(|_| before) else { continue };
        let value = value.trim_start();
        return match value.strip_prefix('"') {
            Some(text) => text.split('"').next(),
            None => value.split([',', '}', ']']).next().map(str::trim_end),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<(u16, String, bool)>, Broken> {
        let mut bytes = text.as_bytes().to_vec();
        let Some(head) = Head::parse(&bytes)? else { return Ok(None) };
        let whole = head.whole(&mut bytes, false)?;
        Ok(whole.map(|w| {
            (w.status, String::from_utf8_lossy(&bytes[w.body_start..w.body_end]).into_owned(), head.keep)
        }))
    }

    #[test]
    fn answers_are_whole_or_awaited() {
        let text = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
        assert_eq!(parse(text), Ok(Some((200, "hello".into(), true))));
        for end in 0..text.len() {
            assert_eq!(parse(&text[..end]), Ok(None), "{end} bytes");
        }
        let text = "HTTP/1.1 504 X\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
        assert_eq!(parse(text), Ok(Some((504, "abcde".into(), false))));
        for end in 0..text.len() {
            assert_eq!(parse(&text[..end]), Ok(None), "{end} bytes");
        }
        assert_eq!(parse("SSH-2.0-x\r\n\r\n"), Err(Broken::Malformed));
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let body = r#"{"order_id":"a-1","paid":true,"total_cost":7.25,"note":"paid","items":[["1",2]]}"#;
        assert_eq!(field(body, "order_id"), Some("a-1"));
        assert_eq!(field(body, "paid"), Some("true"));
        assert_eq!(field(body, "total_cost"), Some("7.25"));
        assert_eq!(field(body, "id"), None);
        assert_eq!(field(r#"{"credit": 12 }"#, "credit"), Some("12"));
    }

    #[test]
    fn targets_are_urls_without_a_path() {
        assert_eq!(Target::parse("http://127.0.0.1:8000/").expect("a URL"), Target::local(8000));
        assert_eq!(Target::parse("127.0.0.1:8000").expect("short"), Target::local(8000));
        for bad in ["https://127.0.0.1:1", "http://", "http://127.0.0.1:x", "http://127.0.0.1:1/orders"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }
}
