//! What another version of kassa has written or says is refused in one line, which names it, both versions, and
//! what to do; and nothing is harmed.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use kassa::fabric::frame::FORMAT_VERSION;
use kassa::fabric::hello::{Hello, Reply};
use kassa_storage::{Batch, Options, Store};
use xxhash_rust::xxh3::xxh3_64;

use crate::peers::{Raw, framed};
use crate::pods::{Plan, field, good, kassa, scratch, told};

/// A version that will not be for long.
const LATER: u8 = 200;

/// Commits something to a store of a pod that has ended.
fn commit(store: &Path, log: Option<&[u8]>, table: Option<(u16, &[u8], &[u8])>) {
    let store = Store::open(store, Options { must_exist: true, ..Options::default() }).unwrap();
    let last = store.log().last().unwrap().unwrap().0;
    let log = log.map(|record| (last + 1, record));
    let tables = table.map(|(shard, key, value)| (shard, key, Some(value)));
    store.commit(Batch { log, tables, cut_below: None, sync: true }).unwrap();
}

/// As the pod wrote it, but of a later version, and with a line of its own.
fn later_identity(path: &Path) {
    let text = fs::read_to_string(path).unwrap();
    let (body, _) = text.rsplit_once("checksum = \"").unwrap();
    let body = body.replace("version = 1\n", &format!("version = {LATER}\ncolour = \"red\"\n"));
    assert!(body.contains("colour"));
    let sum = xxh3_64(body.as_bytes());
    fs::write(path, format!("{body}checksum = \"{sum:016x}\"\n")).unwrap();
}

fn later_marker(path: &Path) {
    let text = fs::read_to_string(path).unwrap();
    let (body, _) = text.trim_end().rsplit_once(' ').unwrap();
    let body = body.replace("kassa-store 1 ", &format!("kassa-store {LATER} "));
    let sum = xxh3_64(body.as_bytes());
    fs::write(path, format!("{body} {sum:016x}\n")).unwrap();
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").args(["-a", "--sparse=always"]).arg(from).arg(to).status();
    assert!(copied.unwrap().success());
}

#[test]
fn what_a_later_kassa_wrote_is_refused_in_one_line() {
    let dir = scratch();
    let plan = Plan::new(dir.path(), 1, &[]);
    let pod = plan.start(0);
    pod.wait_ready();
    let user = field(&good(plan.http(0), "POST", "/payment/create_user"), "user_id");
    assert_eq!(pod.terminate().0, Some(0));
    let (data, aside) = (plan.data(0), dir.path().join("aside"));
    copy(&data, &aside);

    let record = [LATER, 1, 2, 3];
    type Write = fn(&Path, &[u8]);
    let writes: [(&str, Write, &str, i32, i32); 4] = [
        ("identity", |data, _| later_identity(&data.join("identity")), "identity is of version 200", 3, 1),
        (
            "marker",
            |data, _| later_marker(&data.join("stock/kassa")),
            "stock was written by a newer version",
            3,
            3,
        ),
        (
            "log record",
            |data, record| commit(&data.join("payment"), Some(record), None),
            "of the payment store has format version 200",
            3,
            0,
        ),
        (
            "table record",
            |data, record| commit(&data.join("stock"), None, Some((7, b"!", record))),
            "a record has format version 200",
            70,
            0,
        ),
    ];
    for (what, write, said, code, checked) in writes {
        write(&data, &record);
        // Again and again, and never does it mend anything.
        for _ in 0..2 {
            let (ended, lines) = told(&mut plan.command(0));
            assert_eq!(ended, Some(code), "{what}: {lines}");
            let lines: Vec<&str> = lines.lines().filter(|line| line.starts_with("kassa: ")).collect();
            assert!(lines.len() == 1 && lines[0].contains(said), "{what}: {lines:#?}");
            let remedy = ["start the pod with the kassa that wrote it", "use that version"];
            assert!(remedy.iter().any(|remedy| lines[0].contains(remedy)), "{what}: {lines:#?}");
        }
        assert_eq!(told(kassa().arg("check").arg(&data)).0, Some(checked), "{what}");
        fs::remove_dir_all(&data).unwrap();
        copy(&aside, &data);
    }
    let pod = plan.start(0);
    pod.wait_ready();
    assert_eq!(field(&good(plan.http(0), "GET", &format!("/payment/find_user/{user}")), "credit"), "0");
    assert_eq!(pod.terminate().0, Some(0));
}

/// `value` in a frame of another version; how its payload begins is known, if it is at all.
fn framed_as(version: u16, value: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = framed(value);
    bytes[2..4].copy_from_slice(&version.to_le_bytes());
    bytes
}

#[test]
fn a_peer_of_another_version_is_refused_by_both_who_is_dialed_and_who_dials() {
    let dir = scratch();
    let plan = Plan::new(dir.path(), 3, &["--set", "timing.dial_max_ms=50"]);
    let mut pods = plan.start_all();
    pods[2].kill();
    // In the place of the third pod one that answers in its own way, first of a later version and then of an
    // earlier one.
    let listener = TcpListener::bind(("127.0.0.1", plan.fabric(2))).unwrap();
    for version in [FORMAT_VERSION + 1, FORMAT_VERSION - 1] {
        let mut answered = [false; 2];
        while answered != [true; 2] {
            let (stream, _) = listener.accept().unwrap();
            let mut raw = Raw::of(stream);
            let Some(hello) = raw.frame::<Hello>() else { continue };
            raw.say(&framed_as(version, &Reply::Welcome(hello.clone())));
            answered[usize::from(hello.pod.0)] = true;
        }
        let said = format!("no link to p2 at 127.0.0.1:{}: format version {version} there", plan.fabric(2));
        for pod in &pods[..2] {
            pod.wait_line(&said);
            assert_eq!(pod.lines_with(&said), 1, "{:#?}", pod.lines());
            assert_eq!(
                pod.lines_with("run one version of kassa on all pods"),
                pod.lines_with("format version")
            );
        }
    }
    // What such a pod says first, and what it says in the middle of a link, is refused as well, with a reason
    // that it can read.
    for version in [FORMAT_VERSION + 1, FORMAT_VERSION - 1] {
        let mut raw = Raw::connect(plan.fabric(0));
        raw.say(&framed_as(version, &"a hello of some other form"));
        let Some(Reply::Refused(why)) = raw.frame() else { panic!("it is not told why") };
        assert!(
            why.starts_with(&format!("format version {version} there, {FORMAT_VERSION} here: run one")),
            "{why}"
        );
    }
    pods[0].wait_line("a connection from 127.0.0.1 is refused: format version ");
    // And the two go on.
    let item = field(&good(plan.http(0), "POST", "/stock/item/create/4"), "item_id");
    good(plan.http(1), "POST", &format!("/stock/add/{item}/3"));
}
