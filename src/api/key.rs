//! The idempotency key of a request, and the operation id made of it.

use super::problem::{Code, Problem};
use super::route::decode;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use kassa_protocols::ids::OpId;
use std::fmt::Write;
use xxhash_rust::xxh3::xxh3_128;

/// The header, of requests and of every answer.
pub static HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// The longest key in bytes.
const KEY_BYTES_MAX: usize = 255;

/// The client's key, or a new one if it sent none.
///
/// # Errors
/// `bad_key` for one that is not 1 to 255 visible ASCII characters, or two of them.
pub fn of(headers: &HeaderMap) -> Result<HeaderValue, Problem> {
    let mut keys = headers.get_all(&HEADER).iter();
    let Some(key) = keys.next() else { return Ok(fresh()) };
    let bad = |what: &str| {
        let detail = format!("the Idempotency-Key {what}: send one of 1 to 255 visible ASCII characters");
        Err(Problem::new(Code::BadKey, detail))
    };
    if keys.next().is_some() {
        return bad("is given more than once");
    }
    match key.as_bytes() {
        [] => bad("is empty"),
        bytes if bytes.len() > KEY_BYTES_MAX => bad("is too long"),
        bytes if !bytes.iter().all(u8::is_ascii_graphic) => bad("has a space or another character"),
        _ => Ok(key.clone()),
    }
}

/// A key that no other request has: 128 random bits in hex.
#[must_use]
pub fn fresh() -> HeaderValue {
    let mut text = String::with_capacity(32);
    write!(text, "{:032x}", rand::random::<u128>()).expect("a String takes all");
    HeaderValue::try_from(text).expect("hex digits are visible ASCII")
}

/// The identity under which a request takes effect once: a hash of key, method and path.
///
/// The path counts as decoded, segment by segment: a retry may come through another proxy, which may
/// encode the same path in another way, and must not take effect a second time. No key, method or
/// decoded segment of a good request has a NUL in it, so one after each keeps them apart. The text of
/// an amount counts as it is, so `5` and `5.0` are two requests, as are the one-unit path and `…/1`.
#[must_use]
pub fn op_id(key: &HeaderValue, head: &Parts) -> OpId {
    let path = head.uri.path();
    let method = head.method.as_str();
    let mut framed = Vec::with_capacity(key.len() + method.len() + path.len() + 3);
    framed.extend_from_slice(key.as_bytes());
    framed.push(0);
    framed.extend_from_slice(method.as_bytes());
    for segment in path.split('/') {
        framed.push(0);
        match decode(segment) {
            Some(text) => framed.extend_from_slice(text.as_bytes()),
            None => framed.extend_from_slice(segment.as_bytes()),
        }
    }
    OpId(xxh3_128(&framed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;
    use std::collections::BTreeSet;

    fn headers(keys: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for key in keys {
            headers.append(&HEADER, HeaderValue::from_bytes(key).unwrap());
        }
        headers
    }

    #[test]
    fn a_key_is_kept_as_it_is() {
        let longest = [b'k'; KEY_BYTES_MAX];
        for key in [&b"k"[..], b"~!\"#", b"0e37df36-f698-11e6-8dd4-cb9ced3df976", &longest] {
            assert_eq!(of(&headers(&[key])).unwrap().as_bytes(), key);
        }
    }

    #[test]
    fn a_key_that_breaks_its_rule_is_refused() {
        let long = [b'k'; KEY_BYTES_MAX + 1];
        for keys in [&[&b""[..]][..], &[b"a b"], &[b"a\tb"], &["é".as_bytes()], &[&long], &[b"a", b"a"]] {
            assert_eq!(of(&headers(keys)).expect_err("breaks the rule").code, Code::BadKey, "{keys:?}");
        }
    }

    #[test]
    fn a_made_key_is_new_and_keeps_the_rule() {
        let (one, other) = (of(&HeaderMap::new()).unwrap(), of(&HeaderMap::new()).unwrap());
        assert_ne!(one, other);
        assert_eq!(of(&headers(&[one.as_bytes()])).unwrap(), one);
        assert_eq!(one.len(), 32);
    }

    fn id(key: &'static str, method: &str, path: &str) -> OpId {
        let (head, ()) = Request::builder().method(method).uri(path).body(()).unwrap().into_parts();
        op_id(&HeaderValue::from_static(key), &head)
    }

    #[test]
    fn each_of_key_method_and_path_counts() {
        let ids = [
            id("k", "POST", "/orders/addItem/o/i"),
            id("k", "POST", "/orders/addItem/o/i/1"),
            id("k", "POST", "/orders/addItem/o/i%2F1"),
            id("k", "POST", "/orders/addItem/o%2Fi/1"),
            id("k", "DELETE", "/orders/addItem/o/i"),
            id("kP", "OST", "/orders/addItem/o/i"),
            id("K", "POST", "/orders/addItem/o/i"),
            id("k", "POST", "/payment/pay/u/5"),
            id("k", "POST", "/payment/pay/u/5.0"),
        ];
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
    }

    #[test]
    fn the_same_path_encoded_in_another_way_is_the_same_request() {
        let plain = id("k", "POST", "/orders/checkout/o-1");
        assert_eq!(plain, id("k", "POST", "/orders/checkout/%6F%2d1"));
        assert_eq!(plain, id("k", "POST", "/orders/checkout/o%2D1?trace=7"));
        assert_ne!(plain, id("k", "POST", "/orders/checkout/o-2"));
    }
}
