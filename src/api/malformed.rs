//! The answer to what cannot be parsed as a request at all; the connection ends with it.

use super::problem::{Code, Problem};
use super::wire::HeldBack;
use super::{URI_BYTES_MAX, key};
use hyper::header::{HeaderMap, HeaderValue};

/// A whole HTTP answer for a head that hyper gave up on with `held_back`; `head` is as much of it as
/// is still there.
#[must_use]
pub fn answer(held_back: HeldBack, head: &[u8]) -> Vec<u8> {
    let problem = diagnose(held_back, head);
    let key = key_in(head);
    let body = problem.body();
    let status = problem.code.status();
    let mut answer = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: {}\r\ncontent-length: {}\r\nconnection: close\r\n",
        status.as_str(),
        status.canonical_reason().unwrap_or_default(),
        super::service::PROBLEM_JSON,
        body.len(),
    )
    .into_bytes();
    answer.extend_from_slice(key::HEADER.as_str().as_bytes());
    answer.extend_from_slice(b": ");
    answer.extend_from_slice(key.as_bytes());
    answer.extend_from_slice(b"\r\n\r\n");
    answer.extend_from_slice(&body);
    answer
}

fn diagnose(held_back: HeldBack, head: &[u8]) -> Problem {
    let line = head.split(|&b| b == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let target = line.split(|&b| b == b' ').nth(1).unwrap_or_default();
    if held_back.status == 414 || target.len() > URI_BYTES_MAX {
        return super::service::uri_too_long();
    }
    if held_back.status == 431 {
        return super::service::headers_too_large();
    }
    if line.iter().any(u8::is_ascii_control) {
        return Problem::new(Code::BadId, "there is a control character in the URI: leave it out");
    }
    Problem::new(
        Code::BadRequest,
        "this is not an HTTP/1.1 request: check the request line (all but letters, digits and -._~ \
         percent-encoded in the path), the headers, and that there is one Content-Length at most",
    )
}

/// The key of the request, if it can be made out; else a new one.
fn key_in(head: &[u8]) -> HeaderValue {
    let mut headers = HeaderMap::new();
    // The last line may be cut short.
    let whole = head.iter().rposition(|&b| b == b'\n').unwrap_or(0);
    for line in head[..whole].split(|&b| b == b'\n').skip(1) {
        let Some(colon) = line.iter().position(|&b| b == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(key::HEADER.as_str().as_bytes())
            && let Ok(value) = HeaderValue::from_bytes(value)
        {
            headers.append(&key::HEADER, value);
        }
    }
    key::of(&headers).unwrap_or_else(|_| key::fresh())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_told_from_the_head() {
        let long_line = format!("GET /orders/find/{}", "x".repeat(URI_BYTES_MAX));
        let many = format!("GET / HTTP/1.1\r\na: {}", "x".repeat(40_000));
        for (status, head, code) in [
            (431, long_line.as_bytes(), Code::UriTooLong),
            (431, many.as_bytes(), Code::HeadersTooLarge),
            (414, b"", Code::UriTooLong),
            (400, b"GET /orders/find/a\x01b HTTP/1.1\r\n\r\n", Code::BadId),
            (400, b"GET /orders/find/a\x7fb HTTP/1.1\r\n\r\n", Code::BadId),
            (400, b"GET / HTTP/9.9\r\n\r\n", Code::BadRequest),
            (400, b"", Code::BadRequest),
        ] {
            assert_eq!(diagnose(HeldBack { status }, head).code, code, "{status}");
        }
    }

    #[test]
    fn the_key_is_echoed_if_it_is_there() {
        let head = b"GET / HTTP/9.9\r\nHost: x\r\nIdempotency-key:  k-1 \r\n\r\n";
        let answer = String::from_utf8(answer(HeldBack { status: 400 }, head)).unwrap();
        assert!(answer.contains("\r\nidempotency-key: k-1\r\n"), "{answer}");
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\n"));
        // One that is cut short is not the client's key.
        assert_eq!(key_in(b"GET / HTTP/1.1\r\nIdempotency-Key: k-1").len(), 32);
    }
}
