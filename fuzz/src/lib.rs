//! One function for each way in which bytes of others come into kassa. Each takes anything, and panics only if
//! kassa did what it must not: a crash, a limit passed, or a value that does not survive being written again.
//!
//! `fuzz_targets` feeds them from libFuzzer; `tests/hostile.rs`, in every `cargo test`, from `corpus`.

use bytes::BytesMut;
use hyper::Method;
use hyper::header::{HeaderMap, HeaderValue};
use kassa::api::key;
use kassa::api::route::{self, decode, route};
use kassa::cli::config::{Config, Sources};
use kassa::fabric::frame::{self, FRAME_BYTES_MAX};
use kassa::fabric::hello::{HELLO_BYTES_MAX, Hello, Reply, shortened};
use kassa::fabric::identity::Identity;
use kassa::modules::money::Money;
use kassa::modules::order::parse_order_id;
use kassa::node::Message;
use kassa::node::log::{pack, unpack};
use kassa_protocols::ids::Module;
use kassa_storage::{Batch, Options, Store};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Where a store's files are written for the preflight to read.
const SCRATCH: &str = "/dev/shm";
/// A key may have so many bytes.
const KEY_BYTES_MAX: usize = 255;

/// Takes anything.
type Target = fn(&[u8]);

/// All targets, by name: that of the file in `fuzz_targets` and of the folder in `corpus`.
pub const TARGETS: [(&str, Target); 6] = [
    ("frames", frames),
    ("hello", hello),
    ("journal", journal),
    ("records", records),
    ("request", request),
    ("config", config),
];

/// What a peer sends behind its hello: frames of messages, cut anywhere.
pub fn frames(bytes: &[u8]) {
    let mut buffer = BytesMut::from(bytes);
    while let Ok(Some(payload)) = frame::split(&mut buffer, FRAME_BYTES_MAX) {
        assert!(payload.len() <= FRAME_BYTES_MAX, "a frame is longer than one may be");
        let Ok(messages) = frame::decode::<Vec<Message>>(&payload) else { return };
        let mut again = Vec::new();
        frame::encode(&messages, &mut again).expect("what came in one frame fits one");
        let mut again = BytesMut::from(&again[..]);
        let payload = frame::split(&mut again, FRAME_BYTES_MAX).expect("our own frame").expect("all of it");
        assert_eq!(frame::decode::<Vec<Message>>(&payload).expect("our own messages"), messages);
    }
    // Without its length and checksum, which nothing but luck would find.
    if let Ok(messages) = postcard::from_bytes::<Vec<Message>>(bytes) {
        let again = postcard::to_stdvec(&messages).expect("messages have a form");
        assert_eq!(postcard::from_bytes::<Vec<Message>>(&again).expect("our own"), messages);
    }
}

/// The first words on a connection, of whoever dialed or was dialed, and what is said of them.
pub fn hello(bytes: &[u8]) {
    let mut buffer = BytesMut::from(bytes);
    if let Ok(Some(payload)) = frame::split(&mut buffer, HELLO_BYTES_MAX) {
        assert!(payload.len() <= HELLO_BYTES_MAX, "a hello is longer than one may be");
        let _ = frame::decode::<Hello>(&payload);
        let _ = frame::decode::<Reply>(&payload);
    }
    let hello = postcard::from_bytes::<Hello>(bytes).ok();
    let reply = postcard::from_bytes::<Reply>(bytes).ok();
    for hello in hello.iter().chain(reply.iter().filter_map(|reply| match reply {
        Reply::Welcome(hello) => Some(hello),
        Reply::Refused(_) => None,
    })) {
        if let Err(refusal) = hello.check(hello) {
            assert!(!refusal.to_string().is_empty());
        }
    }
    if let Some(Reply::Refused(why)) = reply {
        // It goes into a log line.
        assert!(!shortened(&why).chars().any(char::is_control), "a stranger writes lines of its own");
    }
}

/// A small store, made once, and the path of its only journal.
pub fn store() -> &'static (tempfile::TempDir, PathBuf) {
    static STORE: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    STORE.get_or_init(|| {
        let dir = tempfile::tempdir_in(SCRATCH).expect("a directory");
        let store = Store::open(dir.path(), Options::default()).expect("a new store");
        for position in 1..=3 {
            let tables = [(3, &b"key"[..], Some(&b"value"[..]))].into_iter();
            let batch = Batch { log: Some((position, &b"record"[..])), tables, cut_below: None, sync: true };
            store.commit(batch).expect("it commits");
        }
        drop(store);
        let paths =
            fs::read_dir(dir.path()).expect("a directory").map(|entry| entry.expect("an entry").path());
        let journal = paths.filter(|path| path.extension().is_some_and(|end| end == "jnl")).max();
        (dir, journal.expect("a store has a journal"))
    })
}

/// The newest journal of a store, as a crash or a disk may leave it: read before the storage engine does.
pub fn journal(bytes: &[u8]) {
    let (dir, journal) = store();
    fs::write(journal, bytes).expect("it can be written");
    if let Err(error) = kassa_storage::inspect(dir.path()) {
        assert!(!error.to_string().is_empty());
    }
}

/// A pod's log record, and the file that says which pod it is.
pub fn records(bytes: &[u8]) {
    for store in [Module::Order, Module::Stock, Module::Payment] {
        match unpack(store, 7, bytes) {
            Ok(records) => {
                let again = pack(&records);
                assert_eq!(unpack(store, 7, &again).expect("our own record"), records);
            }
            Err(error) => assert!(error.to_string().contains('7'), "it does not say which record: {error}"),
        }
    }
    let dir = tempfile::tempdir_in(SCRATCH).expect("a directory");
    fs::write(dir.path().join("identity"), bytes).expect("it can be written");
    match Identity::read(dir.path()) {
        Ok(identity) => {
            let identity = identity.expect("it is there");
            identity.persist(dir.path()).expect("it can be written");
            assert_eq!(Identity::read(dir.path()).expect("our own"), Some(identity));
        }
        Err(error) => assert!(error.to_string().contains("identity"), "it does not name the file: {error}"),
    }
}

/// A request line and an idempotency key: the first byte chooses the method, a NUL parts path and key.
pub fn request(bytes: &[u8]) {
    let Some((&first, rest)) = bytes.split_first() else { return };
    let method = [Method::GET, Method::POST, Method::DELETE, Method::PUT][usize::from(first % 4)].clone();
    let mut parts = rest.splitn(2, |&byte| byte == 0);
    let (path, value) = (parts.next().unwrap_or_default(), parts.next());
    if let Ok(path) = std::str::from_utf8(path) {
        if let Ok(route::Target::Op(_)) = route(&method, path) {
            let decoded = |segment| decode(segment).expect("what is routed can be decoded");
            assert!(
                !path.split('/').any(|segment| decoded(segment).contains('\0')),
                "an id that parts others"
            );
        }
        for segment in path.split('/') {
            if let Ok(amount) = Money::parse(segment) {
                assert_eq!(
                    Money::parse(&amount.to_string()),
                    Ok(amount),
                    "{segment} is not told as it was heard"
                );
            }
            let _ = parse_order_id(segment);
        }
    }
    if let Some(Ok(value)) = value.map(HeaderValue::from_bytes) {
        let mut headers = HeaderMap::new();
        headers.insert(&key::HEADER, value);
        if let Ok(key) = key::of(&headers) {
            let bytes = key.as_bytes();
            assert!(
                bytes.len() <= KEY_BYTES_MAX && bytes.iter().all(u8::is_ascii_graphic) && !bytes.is_empty()
            );
        }
    }
}

/// A configuration file.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let path = Path::new("pod.toml");
    let sources = Sources { file: Some((path, text)), ..Sources::default() };
    match Config::read(&sources) {
        Ok(config) => assert!(config.peers.contains_key(&config.pod), "a pod that is none of its peers"),
        Err(error) => {
            let error = error.to_string();
            assert!(error.lines().count() <= 2, "an error of many lines: {error}");
        }
    }
}
