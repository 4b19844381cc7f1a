//! Links over real sockets: what arrives, what is lost, what is refused.

use super::faults::Faults;
use super::formation::{Forming, form};
use super::frame::{self, FORMAT_VERSION, FRAME_BYTES_MAX, HEADER_BYTES};
use super::hello::{Hello, Reply, Terms};
use super::identity::Formed;
use super::{Admitted, Event, Links, Timing, start};
use bytes::BytesMut;
use crossbeam_channel::{Receiver, bounded};
use kassa_protocols::ids::{DiskId, PodId};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// When a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);
const TIMING: Timing = Timing {
    dial_min: Duration::from_millis(5),
    dial_max: Duration::from_millis(50),
    handshake: Duration::from_millis(300),
    stall: PATIENCE,
};

fn formed() -> Formed {
    Formed::new([(PodId(0), DiskId(10)), (PodId(1), DiskId(11))].into())
}

fn hello(pod: u8, boot: u64, dial: u64) -> Hello {
    Hello {
        pod: PodId(pod),
        disk: DiskId(10 + u128::from(pod)),
        boot,
        dial,
        terms: Terms::new(vec![("cluster.shards".into(), "24".into())]),
        formed: Some(formed()),
    }
}

/// A pod's fabric, and the inbox that it fills.
struct Pod {
    links: Links,
    faults: Arc<Faults>,
    events: Receiver<Event<String>>,
}

impl Pod {
    fn start(me: u8, listener: TcpListener, peer: SocketAddr, inbox: usize) -> Self {
        Self::start_with(TIMING, me, listener, peer, inbox)
    }

    fn start_with(timing: Timing, me: u8, listener: TcpListener, peer: SocketAddr, inbox: usize) -> Self {
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let (sender, events) = bounded(inbox);
        let deliver = Box::new(move |event| {
            sender.try_send(event).map_err(crossbeam_channel::TrySendError::into_inner)
        });
        let peers = BTreeMap::from([(PodId(1 - me), peer.to_string())]);
        let boot = u64::from(rand::random::<u32>());
        let faults = Arc::new(Faults::none([PodId(1 - me)]));
        let links = start(listener, hello(me, boot, 0), &peers, timing, faults.clone(), deliver);
        Self { links, faults, events }
    }

    fn next(&mut self) -> Admitted<String> {
        loop {
            let event = self.events.recv_timeout(PATIENCE).expect("an event comes in time");
            if let Some(admitted) = self.links.admit(event) {
                return admitted;
            }
        }
    }

    fn wait_link(&mut self, up: bool) {
        let peer = self.links.peers.keys().next().copied().unwrap();
        while self.next() != (Admitted::Link { peer, up }) {}
    }

    fn next_messages(&mut self) -> Vec<String> {
        loop {
            if let Admitted::Frame { messages, .. } = self.next() {
                return messages;
            }
        }
    }

    fn say(&mut self, text: &str) {
        let peer = self.links.peers.keys().next().copied().unwrap();
        self.links.send(peer, &[text.to_owned()]);
    }
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A connection driven by hand.
struct Raw(TcpStream);

impl Raw {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }
    fn welcomed(address: SocketAddr, hello: &Hello) -> Self {
        let mut raw = Self::connect(address);
        raw.send(hello);
        assert!(matches!(raw.reply(), Some(Reply::Welcome(_))));
        raw
    }
    fn send<T: serde::Serialize>(&mut self, value: &T) {
        let mut bytes = Vec::new();
        frame::encode(value, &mut bytes).unwrap();
        self.0.write_all(&bytes).unwrap();
    }
    /// The reply, or `None` if the connection is closed without one.
    fn reply(&mut self) -> Option<Reply> {
        let mut buffer = BytesMut::new();
        loop {
            if let Some(payload) = frame::split(&mut buffer, FRAME_BYTES_MAX).unwrap() {
                return Some(frame::decode(&payload).unwrap());
            }
            let mut bytes = [0; 4096];
            match self.0.read(&mut bytes) {
                Ok(0) => return None,
                Ok(read) => buffer.extend_from_slice(&bytes[..read]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }
    fn refusal(&mut self) -> String {
        match self.reply() {
            Some(Reply::Refused(why)) => why,
            other => panic!("expected a refusal: {other:?}"),
        }
    }
    fn is_closed(&mut self) -> bool {
        self.reply().is_none()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_arrive_in_order_both_ways() {
    let ((zero, zero_at), (one, one_at)) = (listen(), listen());
    let mut zero = Pod::start(0, zero, one_at, 1 << 16);
    let mut one = Pod::start(1, one, zero_at, 1 << 16);
    zero.wait_link(true);
    one.wait_link(true);
    for i in 0..2_000 {
        zero.say(&format!("zero {i}"));
        one.say(&format!("one {i}"));
    }
    for i in 0..2_000 {
        assert_eq!(one.next_messages(), [format!("zero {i}")]);
        assert_eq!(zero.next_messages(), [format!("one {i}")]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_exceeds_the_socket_or_a_frame_arrives_whole() {
    let ((zero, zero_at), (one, one_at)) = (listen(), listen());
    let mut zero = Pod::start(0, zero, one_at, 64);
    let mut one = Pod::start(1, one, zero_at, 64);
    zero.wait_link(true);
    let large: Vec<String> = (0..6_u8).map(|i| char::from(b'a' + i).to_string().repeat(4 << 20)).collect();
    zero.links.send(PodId(1), &large);
    let mut got = Vec::new();
    while got.len() < large.len() {
        got.extend(one.next_messages());
    }
    assert!(got == large);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cut_waits_and_then_the_link_is_reset() {
    let ((zero, zero_at), (one, one_at)) = (listen(), listen());
    let impatient = Timing { stall: Duration::from_millis(300), ..TIMING };
    let mut zero = Pod::start_with(impatient, 0, zero, one_at, 64);
    let mut one = Pod::start(1, one, zero_at, 64);
    zero.wait_link(true);
    one.wait_link(true);
    // A short cut delays.
    assert!(zero.faults.change(PodId(1), |link| link.cut_out = true));
    zero.say("delayed");
    one.say("the other way is open");
    assert_eq!(zero.next_messages(), ["the other way is open"]);
    assert!(one.events.is_empty());
    zero.faults.heal();
    assert_eq!(one.next_messages(), ["delayed"]);
    // A long one resets the link, and there is no other before it heals.
    assert!(zero.faults.change(PodId(1), |link| link.cut_out = true));
    zero.say("lost");
    zero.wait_link(false);
    assert!(zero.events.recv_timeout(TIMING.handshake * 3).is_err());
    zero.faults.heal();
    zero.wait_link(true);
    zero.say("after");
    assert_eq!(one.next_messages(), ["after"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_heard_waits() {
    let ((zero, zero_at), (one, one_at)) = (listen(), listen());
    let mut zero = Pod::start(0, zero, one_at, 64);
    let mut one = Pod::start(1, one, zero_at, 64);
    zero.wait_link(true);
    one.wait_link(true);
    assert!(one.faults.change(PodId(0), |link| link.cut_in = true));
    zero.say("unheard");
    one.say("heard");
    assert_eq!(zero.next_messages(), ["heard"]);
    assert!(one.events.is_empty());
    one.faults.heal();
    assert_eq!(one.next_messages(), ["unheard"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_link_is_late_and_in_order() {
    const DELAY: Duration = Duration::from_millis(50);
    let ((zero, zero_at), (one, one_at)) = (listen(), listen());
    let mut zero = Pod::start(0, zero, one_at, 1 << 16);
    let mut one = Pod::start(1, one, zero_at, 1 << 16);
    zero.wait_link(true);
    assert!(zero.faults.change(PodId(1), |link| link.delay = DELAY));
    let began = Instant::now();
    for i in 0..100 {
        zero.say(&format!("{i}"));
    }
    for i in 0..100 {
        assert_eq!(one.next_messages(), [format!("{i}")]);
    }
    assert!(began.elapsed() >= DELAY);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_ends_is_noticed_and_found_again_without_what_was_lost() {
    let ((zero, zero_at), (one, one_at)) = (listen(), listen());
    let mut zero = Pod::start(0, zero, one_at, 64);
    let again = one.try_clone().unwrap();
    let mut one = Pod::start(1, one, zero_at, 64);
    zero.wait_link(true);
    zero.say("before");
    assert_eq!(one.next_messages(), ["before"]);
    drop(one);
    zero.wait_link(false);
    zero.say("lost");
    let mut one = Pod::start(1, again, zero_at, 64);
    zero.say("lost as well, the loop has not heard that the link is up");
    zero.wait_link(true);
    zero.say("after");
    assert_eq!(one.next_messages(), ["after"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_link_supersedes_an_earlier_one() {
    let ((zero, zero_at), (_one, one_at)) = (listen(), listen());
    let mut zero = Pod::start(0, zero, one_at, 64);
    let mut first = Raw::welcomed(zero_at, &hello(1, 7, 1));
    first.send(&vec!["first"]);
    assert_eq!(zero.next_messages(), ["first"]);
    first.send(&vec!["still in the inbox when the next link comes"]);
    while zero.events.is_empty() {
        std::thread::yield_now();
    }
    let mut second = Raw::welcomed(zero_at, &hello(1, 7, 2));
    assert!(first.is_closed());
    // Dialed before the present link by the same process: it has waited somewhere.
    let mut stale = Raw::connect(zero_at);
    stale.send(&hello(1, 7, 1));
    assert!(stale.is_closed());
    second.send(&vec!["second"]);
    assert_eq!(zero.next_messages(), ["second"]);
    // Another process of that pod.
    let mut third = Raw::welcomed(zero_at, &hello(1, 8, 1));
    assert!(second.is_closed());
    third.send(&vec!["third"]);
    assert_eq!(zero.next_messages(), ["third"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_and_the_pod_serves_on() {
    let ((zero, zero_at), (one, one_at)) = (listen(), listen());
    let mut zero = Pod::start(0, zero, one_at, 64);

    let mut random = Raw::connect(zero_at);
    random.0.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(random.refusal(), "these bytes are no frame of kassa");

    let mut huge = Raw::connect(zero_at);
    let mut bytes = Vec::new();
    frame::encode(&"x", &mut bytes).unwrap();
    bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    huge.0.write_all(&bytes[..HEADER_BYTES]).unwrap();
    assert_eq!(huge.refusal(), "a frame of 4294967295 bytes, over the 8192 allowed");

    let mut newer = Raw::connect(zero_at);
    bytes[2..4].copy_from_slice(&(FORMAT_VERSION + 1).to_le_bytes());
    newer.0.write_all(&bytes).unwrap();
    let differs = format!("format version {} there, {FORMAT_VERSION} here", FORMAT_VERSION + 1);
    let refusal = newer.refusal();
    assert!(refusal.starts_with(&differs), "{refusal}");

    let mut other_cluster = hello(1, 1, 1);
    other_cluster.formed = Some(Formed::new([(PodId(0), DiskId(90)), (PodId(1), DiskId(11))].into()));
    let mut other_terms = hello(1, 1, 1);
    other_terms.terms = Terms::new(vec![("cluster.shards".into(), "48".into())]);
    let mut other_disk = hello(1, 1, 1);
    other_disk.disk = DiskId(99);
    for (hello, why) in [
        (other_cluster, "it belongs to another cluster"),
        (other_terms, "cluster.shards is 48 there and 24 here"),
        (other_disk, "the disk of p1 is"),
        (hello(2, 1, 1), "p2 is not among the pods"),
        (hello(0, 1, 1), "p0 is not among the pods"),
    ] {
        let mut raw = Raw::connect(zero_at);
        raw.send(&hello);
        let refusal = raw.refusal();
        assert!(refusal.starts_with(why), "{refusal}");
    }

    let mut silent = Raw::connect(zero_at);
    assert!(silent.is_closed(), "cut after the handshake's time");

    let mut hasty = Raw::connect(zero_at);
    hasty.send(&vec!["a frame before any handshake"]);
    hasty.refusal();

    let mut rotten = Raw::welcomed(zero_at, &hello(1, 1, 1));
    let mut bytes = Vec::new();
    frame::encode(&vec!["x"], &mut bytes).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    rotten.0.write_all(&bytes).unwrap();
    assert!(rotten.is_closed());

    let mut one = Pod::start(1, one, zero_at, 64);
    one.wait_link(true);
    one.say("hello");
    assert_eq!(zero.next_messages(), ["hello"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_takes_nothing_is_cut() {
    let ((zero, _), (one, one_at)) = (listen(), listen());
    let mut zero = Pod::start(0, zero, one_at, 64);
    let (stream, _) = one.accept().unwrap();
    let mut raw = Raw(stream);
    raw.0.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut first = [0; HEADER_BYTES];
    raw.0.read_exact(&mut first).unwrap();
    raw.send(&Reply::Welcome(hello(1, 1, 1)));
    zero.wait_link(true);
    let text = "x".repeat(8 << 20);
    for _ in 0..8 {
        zero.say(&text);
    }
    zero.wait_link(false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_find_no_room_reset_the_link() {
    let ((zero, zero_at), (one, one_at)) = (listen(), listen());
    let mut zero = Pod::start(0, zero, one_at, 64);
    let _one = Pod::start(1, one, zero_at, 3);
    zero.wait_link(true);
    for _ in 0..8 {
        zero.say("too much");
    }
    zero.wait_link(false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_form_one_cluster_and_a_wiped_one_does_not_join() {
    let listeners: Vec<_> = (0..3)
        .map(|_| {
            let (listener, address) = listen();
            listener.set_nonblocking(true).unwrap();
            (tokio::net::TcpListener::from_std(listener).unwrap(), address)
        })
        .collect();
    let pods: std::collections::BTreeSet<PodId> = (0..3).map(PodId).collect();
    let peers = |me: u8| -> BTreeMap<PodId, String> {
        let others = (0..3_u8).filter(|&pod| pod != me);
        others.map(|pod| (PodId(pod), listeners[usize::from(pod)].1.to_string())).collect()
    };
    let unformed = |pod: u8, disk: u128| Hello { disk: DiskId(disk), formed: None, ..hello(pod, 1, 0) };
    let forming = |me: u8| {
        let forming = Forming::new(unformed(me, 20 + u128::from(me)), pods.clone());
        (forming, peers(me))
    };
    let ((f0, p0), (f1, p1), (f2, p2)) = (forming(0), forming(1), forming(2));
    let (zero, one, two) = tokio::time::timeout(PATIENCE, async {
        tokio::join!(
            async {
                let formed = form(&listeners[0].0, f0, &p0, TIMING, |_| {}).await;
                // A formed pod goes on to answer those that are late.
                let (sender, events) = bounded::<Event<String>>(64);
                let deliver = Box::new(move |event| {
                    sender.try_send(event).map_err(crossbeam_channel::TrySendError::into_inner)
                });
                let hello = Hello { formed: Some(formed.clone()), ..unformed(0, 20) };
                let (listener, address) = listen();
                listener.set_nonblocking(true).unwrap();
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                (
                    start(listener, hello, &p0, TIMING, Arc::new(Faults::none(p0.keys().copied())), deliver),
                    formed,
                    address,
                    events,
                )
            },
            form(&listeners[1].0, f1, &p1, TIMING, |_| {}),
            form(&listeners[2].0, f2, &p2, TIMING, |_| {}),
        )
    })
    .await
    .unwrap();
    let (_links, zero, zero_at, _events) = zero;
    assert_eq!(zero.disks, [(PodId(0), DiskId(20)), (PodId(1), DiskId(21)), (PodId(2), DiskId(22))].into());
    assert!(zero == one && one == two);

    let (said, heard) = bounded(64);
    let report = move |waits_for| drop(said.try_send(waits_for));
    let wiped = Forming::new(unformed(2, 99), pods.clone());
    let late = [(PodId(0), zero_at.to_string()), (PodId(1), "127.0.0.1:1".to_owned())].into();
    let never = form(&listeners[2].0, wiped, &late, TIMING, report);
    tokio::select! {
        _ = never => panic!("a wiped pod must not form"),
        () = async {
            while !heard.try_iter().any(|why| why.contains("waits to be replaced")) {
                tokio::task::yield_now().await;
            }
        } => {}
    }
}
