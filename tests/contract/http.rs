//! A blocking HTTP/1.1 client that sends whatever it is told.

use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than the longest deadline of the contract: whoever waits this long has found a fault.
const PATIENCE: Duration = Duration::from_secs(90);

pub struct Conn {
    stream: BufReader<TcpStream>,
}

/// An answer as it came.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

/// The members of a JSON object, each as its text: numbers are compared as they stand there.
pub type Members = BTreeMap<String, Box<RawValue>>;

impl Conn {
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address)
            .unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"));
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// One request without a body, and its answer.
    pub fn request(&mut self, method: &str, path: &str, key: Option<&str>) -> Response {
        let key = key.map_or_else(String::new, |key| format!("Idempotency-Key: {key}\r\n"));
        self.send(format!("{method} {path} HTTP/1.1\r\nHost: kassa\r\n{key}\r\n").as_bytes());
        self.response(method != "HEAD").unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    pub fn send(&mut self, bytes: &[u8]) {
        // A server may have answered and closed before it has read all: then the answer tells.
        let _ = self.stream.get_mut().write_all(bytes);
    }

    pub fn response(&mut self, has_body: bool) -> std::io::Result<Response> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| std::io::Error::other(format!("no status line: {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut response = Response { status, headers, body: String::new() };
        if has_body {
            let length = response.header("content-length").expect("answers have a length").parse().unwrap();
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body)?;
            response.body = String::from_utf8(body).expect("answers are UTF-8");
        }
        Ok(response)
    }
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }

    pub fn members(&self) -> Members {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks that this is a success with exactly the `names` as members.
    #[track_caller]
    pub fn has(self, names: &[&str]) -> Members {
        assert_eq!(self.status, 200, "{self:?}");
        let members = self.members();
        let mut want = names.to_vec();
        want.sort_unstable();
        assert_eq!(members.keys().collect::<Vec<_>>(), want, "{self:?}");
        members
    }

    #[track_caller]
    pub fn ok(self) -> Members {
        assert_eq!(self.status, 200, "{self:?}");
        self.members()
    }

    /// Checks that this is the refusal with `status` and `code`; returns its detail.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> String {
        assert_eq!((self.status, &*self.code()), (status, code), "{self:?}");
        text(&self.members(), "detail")
    }

    /// The code of a problem.
    #[track_caller]
    pub fn code(&self) -> String {
        assert!(self.status >= 400, "{self:?}");
        text(&self.members(), "code")
    }

    /// What every answer owes: its key, and JSON or a complete problem.
    #[track_caller]
    pub fn check(&self, key: Option<&str>, has_body: bool) {
        let carried = self.header("idempotency-key");
        assert!(carried.is_some_and(|carried| key.is_none_or(|key| key == carried)), "{key:?}: {self:?}");
        let media = self.header("content-type").and_then(|value| value.split(';').next());
        let want = if self.status < 400 { "application/json" } else { "application/problem+json" };
        assert_eq!(media, Some(want), "{self:?}");
        if self.status >= 400 && has_body {
            let members = self.members();
            for name in ["type", "title", "detail", "code"] {
                assert!(!text(&members, name).is_empty(), "{name}: {self:?}");
            }
            assert_eq!(members["status"].get(), self.status.to_string(), "{self:?}");
        }
        if matches!(self.status, 429 | 503) {
            let seconds = self.header("retry-after").and_then(|value| value.parse::<u32>().ok());
            assert!(seconds.is_some(), "{self:?}");
        }
    }
}

/// A member that is a string.
#[track_caller]
pub fn text(members: &Members, name: &str) -> String {
    let raw = members.get(name).unwrap_or_else(|| panic!("no {name} in {members:?}"));
    serde_json::from_str(raw.get()).unwrap_or_else(|_| panic!("{name} is no string in {members:?}"))
}

/// A member that is a number, as the text it is written in: digits with at most one point.
#[track_caller]
pub fn number(members: &Members, name: &str) -> String {
    let raw = members.get(name).unwrap_or_else(|| panic!("no {name} in {members:?}")).get();
    assert!(raw.bytes().all(|b| b.is_ascii_digit() || b == b'.'), "{name} in {members:?}");
    if let Some((_, fraction)) = raw.split_once('.') {
        assert!(!fraction.is_empty() && !fraction.bytes().all(|b| b == b'0'), "{name} in {members:?}");
    }
    raw.to_owned()
}

/// Any text as one segment of a path.
pub fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
            _ => format!("%{b:02X}"),
        })
        .collect()
}
