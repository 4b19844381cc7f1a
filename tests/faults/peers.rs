//! Whoever speaks wrongly on a pod's fabric port is refused with one line in its log, however often, and the
//! pod sells on in bounded memory.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use bytes::BytesMut;
use kassa::fabric::frame::{self, FORMAT_VERSION, FRAME_BYTES_MAX, HEADER_BYTES};
use kassa::fabric::hello::{Hello, Reply, Terms};
use kassa::fabric::identity::Formed;
use kassa_protocols::ids::{DiskId, PodId};

use crate::pods::{PATIENCE, Plan, Pod, ask, field, good, scratch};

/// How often each stranger tries.
const TRIES: u64 = 40;
/// What a pod may grow by while strangers try: one frame of the largest size, and what the allocator keeps.
const GROWTH_KIB_MAX: u64 = 64 << 10;

/// A connection driven by hand.
pub struct Raw(TcpStream);

impl Raw {
    pub fn connect(port: u16) -> Self {
        Self::of(TcpStream::connect(("127.0.0.1", port)).unwrap())
    }

    pub fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    /// Writes what the other side takes; it may have closed already.
    pub fn say(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    pub fn frame<T: serde::de::DeserializeOwned>(&mut self) -> Option<T> {
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
                Err(error) => panic!("neither answered nor closed: {error}"),
            }
        }
    }

    fn is_refused(&mut self) -> bool {
        !matches!(self.frame::<Reply>(), Some(Reply::Welcome(_)))
    }
}

pub fn framed<T: serde::Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(value, &mut bytes).unwrap();
    bytes
}

/// A header without its payload.
fn header(version: u16, length: u32) -> Vec<u8> {
    let mut bytes = framed(&0_u8)[..HEADER_BYTES].to_vec();
    bytes[2..4].copy_from_slice(&version.to_le_bytes());
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    bytes
}

fn random_bytes(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let random = (0..4_096).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    });
    // Not even by chance the beginning of a frame.
    [b'?'].into_iter().chain(random).collect()
}

/// What `pod` says of itself to a peer that listens where another pod did.
fn hello_of(plan: &Plan, pod: u16, in_place_of: u16) -> Hello {
    let listener = TcpListener::bind(("127.0.0.1", plan.fabric(in_place_of))).unwrap();
    loop {
        let (stream, _) = listener.accept().unwrap();
        let hello: Option<Hello> = Raw::of(stream).frame();
        if let Some(hello) = hello.filter(|hello| u16::from(hello.pod.0) == pod) {
            return hello;
        }
    }
}

fn resident_kib(pod: &Pod) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pod.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// One sale through a pod, from nothing.
fn sell(port: u16) {
    let user = field(&good(port, "POST", "/payment/create_user"), "user_id");
    good(port, "POST", &format!("/payment/add_funds/{user}/10"));
    let item = field(&good(port, "POST", "/stock/item/create/4"), "item_id");
    good(port, "POST", &format!("/stock/add/{item}/3"));
    let order = field(&good(port, "POST", &format!("/orders/create/{user}")), "order_id");
    good(port, "POST", &format!("/orders/addItem/{order}/{item}/2"));
    good(port, "POST", &format!("/orders/checkout/{order}"));
    assert_eq!(field(&good(port, "GET", &format!("/payment/find_user/{user}")), "credit"), "2");
    assert_eq!(field(&good(port, "GET", &format!("/stock/find/{item}")), "stock"), "1");
}

#[test]
fn strangers_are_refused_with_one_line_and_the_pod_sells_on() {
    let dir = scratch();
    let plan = Plan::new(dir.path(), 3, &["--set", "timing.handshake_ms=500"]);
    let mut pods = plan.start_all();
    pods[2].kill();
    let zero = &pods[0];
    let port = plan.fabric(0);
    let known = hello_of(&plan, 0, 2);
    let formed = known.formed.clone().unwrap();
    let peer = |dial: u64| Hello {
        pod: PodId(2),
        disk: formed.disks[&PodId(2)],
        boot: 7,
        dial,
        terms: known.terms.clone(),
        formed: Some(formed.clone()),
    };
    sell(plan.http(0));
    let before_kib = resident_kib(zero);

    for n in 0..TRIES {
        let mut other_cluster = peer(n);
        other_cluster.formed =
            Some(Formed::new([(PodId(0), DiskId(1)), (PodId(2), other_cluster.disk)].into()));
        let other_terms = Terms::new(vec![(format!("setting-{n}"), n.to_string())]);
        for stranger in [
            random_bytes(n),
            header(FORMAT_VERSION, u32::MAX - u32::try_from(n).unwrap()),
            header(FORMAT_VERSION + 1 + u16::try_from(n).unwrap(), 5),
            framed(&Hello { pod: PodId(9), ..peer(n) }),
            framed(&Hello { pod: PodId(0), ..peer(n) }),
            framed(&Hello { disk: DiskId(5), ..peer(n) }),
            framed(&other_cluster),
            framed(&Hello { terms: other_terms, ..peer(n) }),
            framed(&vec!["no hello"]),
        ] {
            let mut raw = Raw::connect(port);
            raw.say(&stranger);
            assert!(raw.is_refused());
        }
    }
    let mut silent: Vec<Raw> = (0..TRIES).map(|_| Raw::connect(port)).collect();
    assert!(silent.iter_mut().all(Raw::is_refused));
    // One that is who it says, and then breaks its word: the largest frame there is, and a wrong one.
    for n in 0..TRIES {
        let mut raw = Raw::connect(port);
        raw.say(&framed(&peer(n + 1)));
        assert!(matches!(raw.frame(), Some(Reply::Welcome(_))));
        if n + 1 < TRIES {
            raw.say(&header(FORMAT_VERSION, u32::try_from(FRAME_BYTES_MAX).unwrap()));
        } else {
            let mut rotten = framed(&vec![1_u64]);
            *rotten.last_mut().unwrap() ^= 1;
            raw.say(&rotten);
            assert!(raw.frame::<Reply>().is_none());
        }
    }

    sell(plan.http(0));
    let grown_kib = resident_kib(zero).saturating_sub(before_kib);
    assert!(grown_kib < GROWTH_KIB_MAX, "it has grown by {grown_kib} KiB");
    let said = [
        "a connection from 127.0.0.1 is refused: these bytes are no frame of kassa",
        "a connection from 127.0.0.1 is refused: a frame of 4294967295 bytes",
        &format!("a connection from 127.0.0.1 is refused: format version {} there", FORMAT_VERSION + 1),
        "a connection from 127.0.0.1 is refused: a frame does not decode",
        "a connection from 127.0.0.1 is refused: it was silent for 500 ms",
        "p9 is refused: p9 is not among the pods",
        "p0 is refused: p0 is not among the pods",
        "p2 is refused: the disk of p2 is",
        "p2 is refused: it belongs to another cluster",
        "p2 is refused: checkout.commit is unknown there and reserve here",
        "the link of p2 to this pod is closed: a frame fails its checksum",
    ];
    zero.wait_line(said[10]);
    for line in said {
        assert_eq!(zero.lines_with(line), 1, "{line}: {:#?}", zero.lines());
    }
    let refusals = zero.lines_with(" is refused: ") + zero.lines_with("is closed");
    assert_eq!(refusals, said.len(), "{:#?}", zero.lines());
}

#[test]
fn pods_of_another_cluster_are_refused_on_both_sides() {
    let dir = scratch();
    let mut other = Plan::new(dir.path(), 3, &["--set", "timing.dial_max_ms=100"]);
    let ours = Plan { dir: dir.path().join("ours"), ..other.clone() };
    other.dir = dir.path().join("other");
    for plan in [&ours, &other] {
        std::fs::create_dir(&plan.dir).unwrap();
    }
    // Both have formed, one after the other, on the same ports.
    for pod in other.start_all() {
        assert_eq!(pod.terminate().0, Some(0));
    }
    let mut pods = ours.start_all();
    pods[2].kill();
    sell(ours.http(0));

    let intruder = other.start(2);
    intruder.wait_line("it refuses this pod: it belongs to another cluster");
    pods[0].wait_line("p2 is refused: it belongs to another cluster");
    drop(intruder);

    // A new pod of a cluster of its own, one of whose peers is ours by mistake.
    let peers = ours.peers.replace(&format!("1=127.0.0.1:{}", ours.fabric(1)), "1=127.0.0.1:9");
    let elsewhere = Plan { dir: dir.path().join("elsewhere"), peers, ..other };
    std::fs::create_dir(&elsewhere.dir).unwrap();
    let stranger = elsewhere.start(2);
    stranger.wait_line("it waits to be replaced");
    pods[0].wait_line("p2 is refused: the disk of p2 is");
    let (status, why) = ask(elsewhere.http(2), "GET", "/readyz").unwrap();
    assert_eq!(status, 503, "{why}");

    sell(ours.http(0));
    sell(ours.http(1));
    for line in ["p2 is refused: it belongs to another cluster", "p2 is refused: the disk of p2 is"] {
        assert_eq!(pods[0].lines_with(line), 1, "{:#?}", pods[0].lines());
    }
    assert_eq!(stranger.lines_with("the disk of p2 is"), 1, "{:#?}", stranger.lines());
}

#[test]
fn a_pod_that_waits_for_its_cluster_bears_strangers_too() {
    let dir = scratch();
    let plan = Plan::new(dir.path(), 2, &["--set", "timing.handshake_ms=500"]);
    let zero = plan.start(0);
    zero.wait_line("waiting for p1");
    for n in 0..TRIES {
        for stranger in [random_bytes(n), header(FORMAT_VERSION + 1, 5), header(FORMAT_VERSION, u32::MAX)] {
            let mut raw = Raw::connect(plan.fabric(0));
            raw.say(&stranger);
            assert!(raw.is_refused());
        }
    }
    let mut silent: Vec<Raw> = (0..TRIES).map(|_| Raw::connect(plan.fabric(0))).collect();
    assert!(silent.iter_mut().all(Raw::is_refused));
    let one = plan.start(1);
    zero.wait_ready();
    one.wait_ready();
    sell(plan.http(1));
    assert_eq!(zero.lines_with("is refused"), 4, "{:#?}", zero.lines());
}
