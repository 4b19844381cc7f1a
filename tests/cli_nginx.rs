//! nginx's configuration against pods that are scripted to shed, break, hang or be gone: what a client
//! is told must be true of what the attempts did.
//!
//! Where there is no nginx these tests have nothing to run and say so; CI installs one.

use kassa::cli::up::nginx::{Front, Nginx, open_files_max, worker_user};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What a scripted pod does with each request it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Answer(u16, &'static str),
    /// Closes the connection without an answer, as a pod that is killed.
    Close,
    /// Never answers, as a pod that is stopped.
    Hang,
}

struct Pod {
    address: SocketAddr,
    /// Request line and key of all requests seen.
    seen: Arc<Mutex<Vec<(String, String)>>>,
}

impl Pod {
    fn start(act: Act) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("bound");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, seen) = (stream.expect("accepted"), Arc::clone(&shared));
                std::thread::spawn(move || serve(stream, act, &seen));
            }
        });
        Self { address, seen }
    }

    fn seen(&self) -> Vec<(String, String)> {
        self.seen.lock().expect("not poisoned").clone()
    }
}

fn serve(stream: TcpStream, act: Act, seen: &Mutex<Vec<(String, String)>>) {
    let mut reader = BufReader::new(stream);
    loop {
        let Some((first, headers)) = read_head(&mut reader) else { return };
        let length = header(&headers, "content-length").map_or(0, |text| text.parse().expect("a length"));
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("the body");
        let key = header(&headers, "idempotency-key").unwrap_or_default().to_owned();
        seen.lock().expect("not poisoned").push((first, key.clone()));
        match act {
            Act::Close => return,
            Act::Hang => {
                let _ = reader.read(&mut [0]);
                return;
            }
            Act::Answer(status, body) => {
                let answer = format!(
                    "HTTP/1.1 {status} X\r\nContent-Type: application/problem+json\r\nRetry-After: 7\r\nIdempotency-Key: {key}\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                reader.get_mut().write_all(answer.as_bytes()).expect("sent");
            }
        }
    }
}

fn read_head(reader: &mut BufReader<TcpStream>) -> Option<(String, Vec<String>)> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            text => lines.push(text.to_owned()),
        }
    }
    let first = lines.remove(0);
    Some((first, lines))
}

fn header<'a>(headers: &'a [String], name: &str) -> Option<&'a str> {
    let mut values = headers.iter().filter_map(|line| line.split_once(':'));
    values.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

struct Running {
    _dir: tempfile::TempDir,
    child: Child,
    listen: SocketAddr,
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<String>,
    body: String,
}

impl Answer {
    fn code(&self) -> String {
        let json: serde_json::Value = serde_json::from_str(&self.body).expect("a problem in JSON");
        assert_eq!(json["status"], self.status, "{self:?}");
        assert_eq!(header(&self.headers, "content-type"), Some("application/problem+json"), "{self:?}");
        assert!(header(&self.headers, "idempotency-key").is_some_and(|key| !key.is_empty()), "{self:?}");
        json["code"].as_str().expect("a code").to_owned()
    }
}

impl Running {
    /// `None` where there is no nginx on this machine.
    fn start(pods: &[SocketAddr]) -> Option<Self> {
        let Some(nginx) = Nginx::find() else {
            eprintln!("no nginx on the PATH: nothing tested");
            return None;
        };
        let dir = tempfile::tempdir().expect("a directory");
        let listen = own_address();
        let front = Front {
            dir: dir.path().to_owned(),
            listen,
            pods: pods.to_vec(),
            worker_user: worker_user(),
            open_files_max: open_files_max(),
        };
        front.write().expect("written");
        let command = nginx.command(&front);
        let child = Command::new(&command[0])
            .args(&command[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx starts");
        let mut running = Self { _dir: dir, child, listen };
        while TcpStream::connect(listen).is_err() {
            let ended = running.child.try_wait().expect("asked");
            assert!(ended.is_none(), "nginx refused its configuration:\n{}", front.render());
            std::thread::yield_now();
        }
        Some(running)
    }

    fn send(&self, request: &[u8]) -> Answer {
        let stream = TcpStream::connect(self.listen).expect("connected");
        let mut reader = BufReader::new(stream);
        reader.get_mut().write_all(request).expect("sent");
        let (first, headers) = read_head(&mut reader).expect("an answer");
        let status = first.split(' ').nth(1).and_then(|text| text.parse().ok()).expect("a status");
        let length = header(&headers, "content-length").expect("a length").parse().expect("a number");
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("the body");
        Answer { status, headers, body: String::from_utf8(body).expect("text") }
    }

    fn post(&self, path: &str, more: &str) -> Answer {
        self.send(format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n{more}\r\n").as_bytes())
    }
}

/// A loopback address that no other test of this machine uses, free or not.
fn own_address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    SocketAddr::from(([127, high | 1, low, NEXT.fetch_add(1, Ordering::Relaxed)], 7900))
}

const DONE: Act = Act::Answer(200, r#"{"paid":true}"#);
const SHED: Act = Act::Answer(503, r#"{"code":"unavailable"}"#);
const CHECKOUT: &str = "/orders/checkout/1";

#[test]
fn a_request_keeps_its_key_over_all_attempts() {
    let pods = [Pod::start(Act::Close), Pod::start(Act::Close), Pod::start(DONE)];
    let Some(nginx) = Running::start(&pods.each_ref().map(|pod| pod.address)) else { return };
    let answer = nginx.post(CHECKOUT, "");
    assert_eq!(answer.status, 200, "{answer:?}");
    let stamped = header(&answer.headers, "idempotency-key").expect("echoed").to_owned();
    for pod in &pods {
        for (_, key) in pod.seen() {
            assert_eq!(key, stamped);
        }
    }
    let answer = nginx.post(CHECKOUT, "Idempotency-Key: my-own\r\n");
    assert_eq!(header(&answer.headers, "idempotency-key"), Some("my-own"));
    assert_eq!(pods[2].seen().last().map(|(_, key)| key.as_str()), Some("my-own"));
}

#[test]
fn a_stopped_pods_requests_are_answered_by_another() {
    let pods = [Pod::start(Act::Hang), Pod::start(DONE)];
    let Some(nginx) = Running::start(&pods.each_ref().map(|pod| pod.address)) else { return };
    let started = Instant::now();
    while pods[0].seen().is_empty() {
        let asked = Instant::now();
        assert_eq!(nginx.post(CHECKOUT, "").status, 200);
        assert!(asked.elapsed() < Duration::from_millis(2500), "{:?}", asked.elapsed());
        assert!(started.elapsed() < Duration::from_secs(20), "the stopped pod was never asked");
    }
}

/// A pod whose clock jumped ahead takes its requests' deadlines for passed, while their clients have time yet.
#[test]
fn what_a_pod_gave_up_too_early_is_asked_of_another() {
    let pods = [Pod::start(Act::Answer(504, "{}")), Pod::start(DONE)];
    let Some(nginx) = Running::start(&pods.each_ref().map(|pod| pod.address)) else { return };
    let started = Instant::now();
    while pods[0].seen().is_empty() {
        assert_eq!(nginx.post(CHECKOUT, "").status, 200);
        assert!(started.elapsed() < Duration::from_secs(20), "the early pod was never asked");
    }
}

#[test]
fn a_shed_request_says_so_only_if_nothing_can_have_been_done() {
    // (what the pods do, or none where nobody listens; what the client is told)
    let cases: [(&[Option<Act>], u16, &str); 8] = [
        (&[Some(SHED), Some(SHED)], 503, "unavailable"),
        (&[None, Some(SHED)], 503, "unavailable"),
        (&[None, None], 503, "unavailable"),
        (&[Some(Act::Answer(429, "{}"))], 429, "overloaded"),
        (&[Some(Act::Close), Some(SHED)], 504, "outcome_unknown"),
        (&[Some(Act::Close), Some(Act::Close)], 504, "outcome_unknown"),
        (&[Some(Act::Close), None], 504, "outcome_unknown"),
        (&[Some(Act::Answer(504, "{}"))], 504, "outcome_unknown"),
    ];
    for (acts, status, code) in cases {
        let pods: Vec<Option<Pod>> = acts.iter().map(|act| act.map(Pod::start)).collect();
        let addresses: Vec<SocketAddr> =
            pods.iter().map(|pod| pod.as_ref().map_or_else(own_address, |pod| pod.address)).collect();
        let Some(nginx) = Running::start(&addresses) else { return };
        // Whoever is asked first, all have been asked by the end.
        for _ in 0..4 {
            let answer = nginx.post(CHECKOUT, "");
            assert_eq!((answer.status, answer.code().as_str()), (status, code), "{acts:?}: {answer:?}");
            let wait = header(&answer.headers, "retry-after");
            assert_eq!(wait.is_some(), status != 504, "{acts:?}: {answer:?}");
        }
    }
}

#[test]
fn a_429_after_an_open_attempt_is_unknown() {
    let pods = [Pod::start(Act::Close), Pod::start(Act::Answer(429, "{}"))];
    let Some(nginx) = Running::start(&pods.each_ref().map(|pod| pod.address)) else { return };
    let mut told = Vec::new();
    let (mut before, started) = (0, Instant::now());
    while !(told.contains(&504) && told.contains(&429)) {
        let answer = nginx.post(CHECKOUT, "");
        let broke = pods[0].seen().len() > before;
        before = pods[0].seen().len();
        assert_eq!(answer.status, if broke { 504 } else { 429 }, "{answer:?}");
        told.push(answer.status);
        assert!(started.elapsed() < Duration::from_secs(20), "{told:?}");
    }
}

#[test]
fn a_pods_own_words_pass() {
    for (status, body) in [
        (400, r#"{"status":400,"code":"bad_amount"}"#),
        (404, r#"{"status":404,"code":"order_not_found"}"#),
        (409, r#"{"status":409,"code":"out_of_stock","item_id":"7"}"#),
        (431, r#"{"status":431,"code":"headers_too_large"}"#),
    ] {
        let pod = Pod::start(Act::Answer(status, body));
        let Some(nginx) = Running::start(&[pod.address]) else { return };
        let answer = nginx.post(CHECKOUT, "");
        assert_eq!((answer.status, answer.body.as_str()), (status, body));
        let chunked = nginx.send(
            format!(
                "POST {CHECKOUT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
            )
            .as_bytes(),
        );
        assert_eq!((chunked.status, chunked.body.as_str()), (status, body));
    }
}

#[test]
fn nginx_speaks_as_the_pods_do() {
    let pod = Pod::start(DONE);
    let Some(nginx) = Running::start(&[pod.address]) else { return };
    let long = |count: usize| "x".repeat(count);
    for (request, status, code) in [
        ("NONSENSE\r\n\r\n".to_owned(), 400, "bad_request"),
        ("POST /stock/find/%00 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 400, "bad_id"),
        ("POST /stock/find/%zz HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 400, "bad_id"),
        ("POST / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n".to_owned(), 400, "bad_request"),
        ("TRACE / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 405, "method_not_allowed"),
        (format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", long(20_000)), 414, "uri_too_long"),
        (format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", long(20_000)), 431, "headers_too_large"),
        (
            format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n{}", long(65_537)),
            413,
            "body_too_large",
        ),
        (
            format!(
                "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n11170\r\n{}\r\n0\r\n\r\n",
                long(70_000)
            ),
            413,
            "body_too_large",
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n".to_owned(),
            400,
            "bad_request",
        ),
        ("GET /.kassa/body HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 404, "no_such_path"),
        ("GET /.kassa/other HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 404, "no_such_path"),
    ] {
        let answer = nginx.send(request.as_bytes());
        let shown = &request[..request.len().min(60)];
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{shown}: {answer:?}");
    }
    assert!(pod.seen().is_empty(), "{:?}", pod.seen());
}

#[test]
fn what_the_pods_judge_themselves_reaches_them() {
    let pod = Pod::start(DONE);
    let Some(nginx) = Running::start(&[pod.address]) else { return };
    // A little over the contract's limits: the pod answers these.
    let path = format!("/{}", "x".repeat(8200));
    assert_eq!(nginx.post(&path, "").status, 200);
    let headers: String = (0..5).map(|n| format!("X-{n}: {}\r\n", "y".repeat(4000))).collect();
    assert_eq!(nginx.post("/", &headers).status, 200);
    let body = "z".repeat(65_536);
    let request = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    assert_eq!(nginx.send(request.as_bytes()).status, 200);
    // The path arrives as it was sent.
    nginx.post("/orders/checkout/a%2Fb//c?d=e", "");
    assert_eq!(pod.seen().last().expect("seen").0, "POST /orders/checkout/a%2Fb//c?d=e HTTP/1.1");
}

#[test]
fn a_plain_client_gets_to_read_why_its_body_is_too_large() {
    let pod = Pod::start(DONE);
    let Some(nginx) = Running::start(&[pod.address]) else { return };
    let body = "z".repeat(16 * 1024 * 1024);
    let request = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    assert_eq!(nginx.send(request.as_bytes()).code(), "body_too_large");
}
