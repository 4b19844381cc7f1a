//! A real listener, a client that may send anything, and a test that plays the event loop.

use super::*;
use crate::modules::money::Money;
use crate::modules::request::{Answer, Op, Outcome, Refusal, Request};
use crate::node::Status;
use crate::runtime::clock::Clock;
use crate::runtime::handle::Event;
use crossbeam_channel::Receiver;
use kassa_protocols::time::Time;
use std::net::SocketAddr;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Longer than anything here takes: a test that waits for this fails.
const PATIENCE: Duration = Duration::from_secs(20);

struct Pod {
    address: SocketAddr,
    handle: Handle,
    events: Receiver<Event>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

async fn pod(limits: Limits) -> Pod {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (handle, events) = Handle::channel(64, Clock::start());
    handle.readiness().open();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(serve(listener, handle.clone(), limits, stopped));
    Pod { address, handle, events, stop, serving }
}

impl Pod {
    async fn client(&self) -> Client {
        Client { stream: TcpStream::connect(self.address).await.unwrap(), read: Vec::new() }
    }
    /// The next event of the inbox.
    async fn event(&self) -> Event {
        let events = self.events.clone();
        tokio::task::spawn_blocking(move || events.recv_timeout(PATIENCE).unwrap()).await.unwrap()
    }
    async fn asked(&self) -> (Request, Time, oneshot::Sender<Outcome>) {
        let event = self.event().await;
        let Event::Ask { request, deadline, reply, .. } = event else { panic!("{event:?}") };
        (request, deadline, reply)
    }
    async fn answer(&self, outcome: Outcome) -> Request {
        let (request, _, reply) = self.asked().await;
        reply.send(outcome).unwrap();
        request
    }
}

struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Client {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await.unwrap().unwrap();
    }
    async fn reply(&mut self) -> Reply {
        self.reply_to(true).await
    }
    async fn reply_to(&mut self, has_body: bool) -> Reply {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(self.more().await, "closed in a head: {}", String::from_utf8_lossy(&self.read));
        };
        let head = String::from_utf8(self.read.drain(..end).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut reply = Reply { status, head, body: String::new() };
        let length: usize = reply.header("content-length").unwrap().parse().unwrap();
        if has_body {
            while self.read.len() < length {
                assert!(self.more().await, "closed in a body");
            }
            reply.body = String::from_utf8(self.read.drain(..length).collect()).unwrap();
        }
        reply
    }
    async fn more(&mut self) -> bool {
        timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await.unwrap().unwrap() > 0
    }
    /// The server ends the connection, and in good order.
    async fn is_closed(&mut self) -> bool {
        !self.more().await
    }
    async fn get(&mut self, path: &str) -> Reply {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        self.reply().await
    }
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
    /// The code of a problem; checks that it is one in full.
    fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert!(self.header("idempotency-key").is_some_and(|key| !key.is_empty()), "{self:?}");
        let problem: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(problem["status"], self.status);
        for member in ["type", "title", "detail"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {self:?}");
        }
        problem["code"].as_str().unwrap().to_owned()
    }
}

fn paid() -> Outcome {
    Outcome::Done(Answer::CheckedOut { order: "o".into(), total_cost: Money::parse("14.5").unwrap() })
}

#[tokio::test]
async fn a_request_is_asked_and_its_outcome_answered() {
    let pod = pod(Limits::default()).await;
    let mut client = pod.client().await;
    let text = "POST /orders/checkout/o HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\n\r\n";
    client.send(text).await;
    let first = pod.answer(paid()).await;
    assert_eq!(first.op, Op::Checkout { order: "o".into() });
    let reply = client.reply().await;
    assert_eq!((reply.status, &*reply.body), (200, r#"{"order_id":"o","paid":true,"total_cost":14.5}"#));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("idempotency-key"), Some("k"));

    // The same again, on the same connection, is the same request.
    client.send(text).await;
    let refusal = Outcome::Refused(Refusal::OutOfStock("i".into()));
    assert_eq!(pod.answer(refusal).await.key, first.key);
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.code()), (409, "out_of_stock".to_owned()));
    assert_eq!(reply.header("idempotency-key"), Some("k"));

    // Without a key it is another one each time, and the answer says under which key.
    for outcome in [Outcome::Unknown, Outcome::Unavailable, Outcome::Overloaded] {
        client.send("POST /orders/checkout/o HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_ne!(pod.answer(outcome.clone()).await.key, first.key);
        let reply = client.reply().await;
        let key = reply.header("idempotency-key").unwrap().to_owned();
        assert_eq!(key.len(), 32);
        match outcome {
            Outcome::Unknown => {
                assert_eq!((reply.status, reply.code()), (504, "outcome_unknown".to_owned()));
                assert!(reply.body.contains(&key), "the body names the key too");
            }
            Outcome::Unavailable => assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1"))),
            Outcome::Overloaded | Outcome::Done(_) | Outcome::Refused(_) => {
                assert_eq!((reply.status, reply.header("retry-after")), (429, Some("1")))
            }
        }
    }
}

#[tokio::test]
async fn a_batch_is_waited_for_longer() {
    let pod = pod(Limits::default()).await;
    let mut client = pod.client().await;
    for (path, wait) in [("payment/create_user", 10), ("payment/batch_init/5/1", 60)] {
        client.send(format!("POST /{path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        let (_, deadline, reply) = pod.asked().await;
        let second = 1_000_000;
        let left = deadline.0 - pod.handle.clock().now().0;
        assert!(left > (wait - 9) * second && left <= wait * second, "{path}: {left} µs left");
        reply.send(Outcome::Done(Answer::Loaded { n: 5 })).unwrap();
        assert_eq!(client.reply().await.status, 200);
    }
}

#[tokio::test]
async fn whatever_is_sent_gets_a_problem() {
    let pod = pod(Limits::default()).await;
    let long = |n| "x".repeat(n);
    let lines: String = (0..101).map(|i| format!("h{i}: x\r\n")).collect();
    for (raw, status, code) in [
        ("GET /nothing HTTP/1.1\r\n\r\n".to_owned(), 404, "no_such_path"),
        ("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 404, "no_such_path"),
        ("CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 404, "no_such_path"),
        ("PUT /orders/find/o HTTP/1.1\r\n\r\n".to_owned(), 405, "method_not_allowed"),
        ("BREW /orders/find/o HTTP/1.1\r\n\r\n".to_owned(), 405, "method_not_allowed"),
        ("GET /orders/find/%FF HTTP/1.0\r\n\r\n".to_owned(), 400, "bad_id"),
        ("GET /orders/find/a\x01 HTTP/1.1\r\n\r\n".to_owned(), 400, "bad_id"),
        ("POST /stock/add/i/-1 HTTP/1.1\r\n\r\n".to_owned(), 400, "bad_amount"),
        ("POST /payment/create_user HTTP/1.1\r\nIdempotency-Key: a b\r\n\r\n".to_owned(), 400, "bad_key"),
        ("POST /payment/create_user HTTP/1.1\r\nIdempotency-Key:\r\n\r\n".to_owned(), 400, "bad_key"),
        ("GET /orders/find/<o> HTTP/1.1\r\n\r\n".to_owned(), 400, "bad_request"),
        ("GET /orders/find/o HTTP/3.0\r\n\r\n".to_owned(), 400, "bad_request"),
        ("nonsense\r\n\r\n".to_owned(), 400, "bad_request"),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), 400, "bad_request"),
        ("POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n".to_owned(), 400, "bad_request"),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(), 400, "bad_request"),
        (format!("GET /orders/find/{} HTTP/1.1\r\n\r\n", long(8_200)), 414, "uri_too_long"),
        (format!("GET /orders/find/o?{} HTTP/1.1\r\n\r\n", long(8_200)), 414, "uri_too_long"),
        (format!("GET /orders/find/{} HTTP/1.1\r\n\r\n", long(30_000)), 414, "uri_too_long"),
        (format!("GET /orders/find/{} HTTP/1.1\r\n\r\n", long(70_000)), 414, "uri_too_long"),
        (format!("GET /orders/find/{} HTTP/1.1\r\n\r\n", long(2_000_000)), 414, "uri_too_long"),
        (format!("GET /orders/find/o HTTP/1.1\r\na: {}\r\n\r\n", long(16_500)), 431, "headers_too_large"),
        (format!("GET /orders/find/o HTTP/1.1\r\na: {}\r\n\r\n", long(2_000_000)), 431, "headers_too_large"),
        (format!("GET /orders/find/o HTTP/1.1\r\n{lines}\r\n"), 431, "headers_too_large"),
    ] {
        let mut client = pod.client().await;
        client.send(&raw).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, &*reply.code()), (status, code), "{}", &raw[..raw.len().min(80)]);
    }
    assert!(pod.events.is_empty(), "nothing of this reaches the loop");
}

#[tokio::test]
async fn a_bare_answer_of_the_parser_follows_good_ones() {
    let pod = pod(Limits::default()).await;
    let mut client = pod.client().await;
    client.send("GET /healthz HTTP/1.1\r\n\r\nGET /a HTTP/1.1\r\n\r\nnonsense\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 200);
    assert_eq!(client.reply().await.code(), "no_such_path");
    assert_eq!(client.reply().await.code(), "bad_request");
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_head_request_is_not_allowed_and_has_no_body() {
    let pod = pod(Limits::default()).await;
    let mut client = pod.client().await;
    client.send("HEAD /orders/find/o HTTP/1.1\r\n\r\n").await;
    let reply = client.reply_to(false).await;
    assert_eq!((reply.status, reply.header("allow")), (405, Some("GET")));
    assert_eq!(client.get("/nothing").await.code(), "no_such_path");
}

#[tokio::test]
async fn a_body_is_read_away_and_a_long_one_refused() {
    let pod = pod(Limits::default()).await;
    let head = "POST /payment/create_user HTTP/1.1\r\nHost: x\r\n";
    let user = || Outcome::Done(Answer::UserCreated { user: "u".into() });
    let mut client = pod.client().await;
    for length in [0, 1, 65_536] {
        client.send(format!("{head}Content-Length: {length}\r\n\r\n{}", "x".repeat(length))).await;
        pod.answer(user()).await;
        assert_eq!(client.reply().await.status, 200);
    }
    client.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")).await;
    pod.answer(user()).await;
    assert_eq!(client.reply().await.status, 200);

    // A plain client sends everything before it reads.
    for length in [65_537, 10_000_000, 16 * 1024 * 1024, 20_000_000] {
        let mut client = pod.client().await;
        client.send(format!("{head}Content-Length: {length}\r\n\r\n")).await;
        client.send(vec![b'x'; length]).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, &*reply.code()), (413, "body_too_large"), "{length}");
    }
    let mut client = pod.client().await;
    client
        .send(format!(
            "{head}Transfer-Encoding: chunked\r\n\r\n20000\r\n{}\r\n0\r\n\r\n",
            "x".repeat(0x20000)
        ))
        .await;
    assert_eq!(client.reply().await.code(), "body_too_large");
    // A careful one waits to be asked for it.
    let mut client = pod.client().await;
    client.send(format!("{head}Expect: 100-continue\r\nContent-Length: 65537\r\n\r\n")).await;
    assert_eq!(client.reply().await.code(), "body_too_large");
    let mut client = pod.client().await;
    client.send(format!("{head}Transfer-Encoding: chunked\r\n\r\nnonsense\r\n")).await;
    assert_eq!(client.reply().await.code(), "bad_request");
    assert!(pod.events.is_empty(), "nothing of this reaches the loop");
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_wait() {
    let pod = pod(Limits::default()).await;
    let mut client = pod.client().await;
    client.send("POST /orders/checkout/o HTTP/1.1\r\n\r\n").await;
    let Event::Ask { client: asker, mut reply, .. } = pod.event().await else { panic!("asked first") };
    drop(client);
    reply.closed().await;
    assert_eq!(pod.handle.take_gone(), [asker]);
}

#[tokio::test]
async fn a_pod_with_enough_in_flight_sheds_but_says_that_it_lives() {
    let pod = pod(Limits { requests_in_flight_max: 1, ..Limits::default() }).await;
    let (mut first, mut second) = (pod.client().await, pod.client().await);
    first.send("POST /orders/checkout/o HTTP/1.1\r\n\r\n").await;
    let (_, _, reply) = pod.asked().await;
    let shed = second.get("/orders/find/o").await;
    assert_eq!((shed.status, shed.header("retry-after")), (429, Some("1")));
    assert_eq!(shed.code(), "overloaded");
    assert_eq!(second.get("/healthz").await.status, 200);
    reply.send(paid()).unwrap();
    assert_eq!(first.reply().await.status, 200);
    second.send("POST /orders/checkout/o HTTP/1.1\r\n\r\n").await;
    pod.answer(paid()).await;
    assert_eq!(second.reply().await.status, 200, "there is room again");
}

#[tokio::test]
async fn a_request_whose_turn_does_not_come_is_shed_and_was_never_asked() {
    let queue_wait = Duration::from_millis(20);
    let pod = pod(Limits { served_max: 1, queue_wait, ..Limits::default() }).await;
    let (mut first, mut second) = (pod.client().await, pod.client().await);
    first.send("POST /orders/checkout/o HTTP/1.1\r\n\r\n").await;
    let (_, _, reply) = pod.asked().await;
    let shed = second.get("/orders/find/o").await;
    assert_eq!((shed.status, shed.header("retry-after"), shed.code()), (429, Some("1"), "overloaded".into()));
    assert_eq!(second.get("/healthz").await.status, 200, "it waits for no turn");
    reply.send(paid()).unwrap();
    assert_eq!(first.reply().await.status, 200);
    second.send("POST /orders/checkout/o HTTP/1.1\r\n\r\n").await;
    pod.answer(paid()).await;
    assert_eq!(second.reply().await.status, 200, "what was shed never took the place");
}

#[tokio::test]
async fn connections_beyond_the_limit_are_put_off_but_answer_health_checks() {
    let pod = pod(Limits { connections_max: 1, ..Limits::default() }).await;
    let mut first = pod.client().await;
    assert_eq!(first.get("/healthz").await.status, 200);
    let mut second = pod.client().await;
    assert_eq!(second.get("/orders/find/o").await.code(), "overloaded");
    assert!(second.is_closed().await);
    let mut third = pod.client().await;
    assert_eq!(third.get("/healthz").await.status, 200);
    assert!(third.is_closed().await);
    assert_eq!(first.get("/healthz").await.status, 200, "the first is as good as ever");
}

#[tokio::test]
async fn a_slow_head_and_an_idle_connection_end() {
    let short = Duration::from_millis(50);
    let slow = pod(Limits { head_wait: short, ..Limits::default() }).await;
    let mut client = slow.client().await;
    client.send("GET /healthz HT").await;
    assert!(client.is_closed().await);
    let mut silent = slow.client().await;
    assert!(silent.is_closed().await);
    let mut second_head = slow.client().await;
    assert_eq!(second_head.get("/healthz").await.status, 200);
    second_head.send("GET /heal").await;
    assert!(second_head.is_closed().await);

    let idle = pod(Limits { idle_wait: short, ..Limits::default() }).await;
    let mut client = idle.client().await;
    client.send("GET /heal").await;
    client.send("thz HTTP/1.1\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 200);
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_request_may_take_longer_than_an_idle_client() {
    let short = Duration::from_millis(20);
    let pod = pod(Limits { head_wait: short, idle_wait: short, ..Limits::default() }).await;
    let mut client = pod.client().await;
    client.send("POST /orders/checkout/o HTTP/1.1\r\n\r\n").await;
    let (_, _, reply) = pod.asked().await;
    // A second connection shows that both waits have passed by.
    assert!(pod.client().await.is_closed().await);
    reply.send(paid()).unwrap();
    assert_eq!(client.reply().await.status, 200);
}

#[tokio::test]
async fn a_stop_lets_what_is_in_flight_end_and_nothing_else() {
    let pod = pod(Limits { drain_wait: PATIENCE, ..Limits::default() }).await;
    let (mut asking, mut idle) = (pod.client().await, pod.client().await);
    assert_eq!(idle.get("/healthz").await.status, 200);
    asking.send("POST /orders/checkout/o HTTP/1.1\r\n\r\n").await;
    let (_, _, reply) = pod.asked().await;
    pod.stop.send(()).unwrap();
    assert!(idle.is_closed().await);
    assert!(TcpStream::connect(pod.address).await.is_err(), "no new connections");
    reply.send(paid()).unwrap();
    assert_eq!(asking.reply().await.status, 200);
    assert!(asking.is_closed().await);
    drop((asking, idle));
    timeout(PATIENCE, pod.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stop_waits_no_longer_than_it_may() {
    let pod = pod(Limits { drain_wait: Duration::from_millis(50), ..Limits::default() }).await;
    let mut client = pod.client().await;
    client.send("POST /orders/checkout/o HTTP/1.1\r\n\r\n").await;
    let (_, _, _reply) = pod.asked().await;
    pod.stop.send(()).unwrap();
    timeout(PATIENCE, pod.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_pod_says_whether_it_is_ready_and_what_it_knows() {
    let pod = pod(Limits::default()).await;
    let mut client = pod.client().await;
    pod.handle.readiness().publish(vec!["stock/3 has no leader".to_owned(), "so has payment/1".to_owned()]);
    let reply = client.get("/readyz").await;
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
    assert_eq!(reply.code(), "not_ready");
    assert!(reply.body.contains("stock/3 has no leader; so has payment/1"));
    pod.handle.readiness().publish(Vec::new());
    assert_eq!(client.get("/readyz").await.status, 200);

    client.send("GET /status HTTP/1.1\r\n\r\n").await;
    let Event::Status { reply } = pod.event().await else { panic!("asked for its status") };
    reply.send(Status { pod: 7, ..Status::default() }).unwrap();
    let told = client.reply().await;
    assert_eq!(serde_json::from_str::<Status>(&told.body).unwrap().pod, 7);
}
