//! One request from its head to its answer.

use super::door::Door;
use super::problem::{Code, Problem};
use super::route::{Target, route};
use super::{
    BATCH_WAIT, BODY_BYTES_MAX, BODY_READ_AWAY_BYTES_MAX, HEADERS_BYTES_MAX, Limits, REQUEST_WAIT,
    URI_BYTES_MAX,
};
use super::{key, outcome};
use crate::failpoint;
use crate::modules::request::{Op, Outcome, Request};
use crate::runtime::Handle;
use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, EXPECT, HeaderValue, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use std::time::Duration;

/// For a body to arrive: long enough for what is read away at 5 Mbit/s.
const BODY_WAIT: Duration = Duration::from_secs(30);
/// When a client that was shed may come back; a shard's failover is over by then.
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("1");

/// The media type of every error.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// What the connections of a pod share.
#[derive(Debug)]
pub struct Service {
    handle: Handle,
    door: Door,
}

impl Service {
    #[must_use]
    pub const fn new(handle: Handle, limits: &Limits) -> Self {
        let door = Door::new(limits.requests_in_flight_max, limits.served_max, limits.queue_wait);
        Self { handle, door }
    }

    /// Answers `request`; with `shed`, which is for connections beyond the pod's limit, only health
    /// checks are answered and everything else is put off.
    ///
    /// If the client goes away the future is dropped. The operation is handed over in one step, before
    /// anything of it is waited for: it is then either not begun or finished without the client.
    pub async fn answer(&self, request: hyper::Request<Incoming>, shed: bool) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let (key, key_fault) = match key::of(&head.headers) {
            Ok(key) => (key, None),
            Err(problem) => (key::fresh(), Some(problem)),
        };
        let result = self.result(&head, body, &key, key_fault, shed).await;
        respond(result, key)
    }

    async fn result(
        &self,
        head: &Parts,
        body: Incoming,
        key: &HeaderValue,
        key_fault: Option<Problem>,
        shed: bool,
    ) -> Result<Bytes, Problem> {
        check_sizes(head)?;
        if !shed && !body.is_end_stream() {
            read_away(head, body).await?;
        }
        let op = match route(&head.method, head.uri.path())? {
            Target::Op(op) => op,
            Target::Health => return Ok(Bytes::from_static(b"{\"status\":\"alive\"}")),
            Target::Ready => return self.ready(),
            Target::Status => return self.status().await,
            Target::Replace(pod) => {
                let outcome = self.handle.replace(pod, REQUEST_WAIT).await;
                return outcome::tell(outcome, "", key.to_str().unwrap_or_default());
            }
        };
        if let Some(problem) = key_fault {
            return Err(problem);
        }
        if shed {
            return Err(outcome::overloaded());
        }
        let loaded = loaded(&op);
        let wait = if op.is_load() { BATCH_WAIT } else { REQUEST_WAIT };
        let request = Request { op, key: key::op_id(key, head) };
        let outcome = self.door.serve(|| self.handle.ask(request, wait)).await.unwrap_or(Outcome::Overloaded);
        failpoint::hit("answer.before");
        outcome::tell(outcome, loaded, key.to_str().unwrap_or_default())
    }

    fn ready(&self) -> Result<Bytes, Problem> {
        match self.handle.ready() {
            Ok(()) => Ok(Bytes::from_static(b"{\"status\":\"ready\"}")),
            Err(reasons) => Err(Problem::new(Code::NotReady, reasons.join("; "))),
        }
    }

    async fn status(&self) -> Result<Bytes, Problem> {
        let status = self.handle.status().await.ok_or_else(|| {
            Problem::new(Code::Unavailable, "this pod is not running yet, or too busy to describe itself")
        })?;
        Ok(serde_json::to_vec(&status).expect("names, numbers and lists have a JSON form").into())
    }
}

/// What a batch is of, for its answer.
fn loaded(op: &Op) -> &'static str {
    match op {
        Op::LoadOrders { .. } => "orders",
        Op::LoadItems { .. } => "stock",
        Op::LoadUsers { .. } => "users",
        Op::CreateOrder { .. }
        | Op::RemoveOrder { .. }
        | Op::AddItem { .. }
        | Op::RemoveItem { .. }
        | Op::FindOrder { .. }
        | Op::Checkout { .. }
        | Op::CreateItem { .. }
        | Op::FindItem { .. }
        | Op::AddStock { .. }
        | Op::SubtractStock { .. }
        | Op::CreateUser
        | Op::FindUser { .. }
        | Op::AddFunds { .. }
        | Op::Pay { .. }
        | Op::PayOrder { .. }
        | Op::CancelPayment { .. }
        | Op::PaymentStatus { .. }
        | Op::Replace { .. } => "",
    }
}

fn check_sizes(head: &Parts) -> Result<(), Problem> {
    let uri_bytes = head.uri.path().len() + head.uri.query().map_or(0, |query| query.len() + 1);
    if uri_bytes > URI_BYTES_MAX {
        return Err(uri_too_long());
    }
    let header_bytes: usize =
        head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if header_bytes > HEADERS_BYTES_MAX {
        return Err(headers_too_large());
    }
    Ok(())
}

#[must_use]
pub fn uri_too_long() -> Problem {
    Problem::new(Code::UriTooLong, "the URI is over 8 KiB: no path of the contract is as long")
}

#[must_use]
pub fn headers_too_large() -> Problem {
    Problem::new(Code::HeadersTooLarge, "the headers are over 16 KiB or more than 100 lines: send fewer")
}

/// Reads a body and drops it: the contract's arguments are all in the path.
async fn read_away(head: &Parts, mut body: Incoming) -> Result<(), Problem> {
    let too_large = || Problem::new(Code::BodyTooLarge, "the body is over 64 KiB: no request needs one");
    if body.size_hint().lower() > BODY_BYTES_MAX && head.headers.contains_key(EXPECT) {
        // This client reads before it sends.
        return Err(too_large());
    }
    let mut bytes = 0_u64;
    let reading = async {
        while let Some(frame) = body.frame().await {
            let data_bytes = frame?.data_ref().map_or(0, Buf::remaining);
            bytes = bytes.saturating_add(data_bytes as u64);
            if bytes > BODY_READ_AWAY_BYTES_MAX {
                break;
            }
        }
        Ok::<(), hyper::Error>(())
    };
    let end = tokio::time::timeout(BODY_WAIT, reading).await;
    if bytes > BODY_BYTES_MAX {
        return Err(too_large());
    }
    match end {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Problem::new(Code::BadRequest, "the body does not end as its headers say")),
        Err(_) => Err(Problem::new(Code::BadRequest, "the body did not arrive within 30 s")),
    }
}

fn respond(result: Result<Bytes, Problem>, key: HeaderValue) -> Response<Full<Bytes>> {
    let (mut response, problem) = match result {
        Ok(body) => (Response::new(Full::new(body)), None),
        Err(problem) => (Response::new(Full::new(problem.body())), Some(problem)),
    };
    let media_type = if problem.is_some() { PROBLEM_JSON } else { "application/json" };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(&key::HEADER, key);
    let Some(problem) = problem else { return response };
    if let Some(allow) = problem.allow {
        headers.insert(ALLOW, HeaderValue::from_static(allow));
    }
    if problem.code.is_passing() {
        headers.insert(RETRY_AFTER, RETRY_AFTER_S);
    }
    let status = problem.code.status();
    if matches!(status, StatusCode::PAYLOAD_TOO_LARGE) || problem.code == Code::BadRequest {
        // Some of the body may not have been read: what follows it is no request.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    *response.status_mut() = status;
    response
}
