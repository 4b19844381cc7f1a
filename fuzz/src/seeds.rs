//! Writes a few good inputs of each target into `corpus`, for the fuzzer to begin with.

use kassa::fabric::frame;
use kassa::fabric::hello::{Hello, Reply, Terms};
use kassa::fabric::identity::Formed;
use kassa::node::Message;
use kassa::node::log::pack;
use kassa_fuzz::store;
use kassa_protocols::ids::{Ballot, DiskId, Module, PodId, Shard, ShardNo, TxnId};
use kassa_protocols::paxos::{self, Body, Entry};
use kassa_protocols::quorum::{self, Beat, Version};
use kassa_protocols::time::ShardTime;
use std::fs;
use std::path::Path;

fn main() {
    for (target, seeds) in [
        ("frames", frames()),
        ("hello", hellos()),
        ("journal", journals()),
        ("records", records()),
        ("request", requests()),
        (
            "config",
            vec![
                kassa::cli::config::print().into_bytes(),
                b"pod = 0\ndata = \"x\"\npeers = [{pod = 0, fabric = \"h:1\"}]\n[limits]\nrequests_max = 5\n"
                    .to_vec(),
            ],
        ),
    ] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        fs::create_dir_all(&folder).expect("a folder");
        for (n, seed) in seeds.iter().enumerate() {
            fs::write(folder.join(format!("seed-{n}")), seed).expect("a file");
        }
    }
}

fn messages() -> Vec<Message> {
    let ballot = Ballot::new(1, 3, PodId(1));
    let version = |seq| Version { ballot, seq };
    let entry =
        Entry { time: ShardTime(9), origin: ballot, body: Body::Commands(bytes::Bytes::from_static(b"abc")) };
    let txn = TxnId { shard: ShardNo(3), ballot, n: 7 };
    let shard = Shard::new(Module::Payment, 3);
    vec![
        Message::Paxos {
            shard,
            message: paxos::Message::Accept { ballot, start: 1, index: 2, committed: 1, entry },
        },
        Message::Quorum {
            shard: Shard::new(Module::Stock, 3),
            message: quorum::Message::Heartbeat {
                ballot,
                tip: version(4),
                beat: Beat { commit: version(3), floor: version(2), round: 9 },
            },
        },
        Message::Resolve { shard: ShardNo(3), confirm: vec![txn], release: vec![], watermark: txn },
    ]
}

fn frames() -> Vec<Vec<u8>> {
    let bare = postcard::to_stdvec(&messages()).expect("a form");
    vec![framed(&messages()), bare]
}

fn hellos() -> Vec<Vec<u8>> {
    let disks = [(PodId(0), DiskId(1)), (PodId(1), DiskId(2))].into();
    let terms = Terms::new(vec![("cluster.shards".into(), "24".into())]);
    let hello =
        Hello { pod: PodId(0), disk: DiskId(1), boot: 3, dial: 4, terms, formed: Some(Formed::new(disks)) };
    let (welcome, refused) = (Reply::Welcome(hello.clone()), Reply::Refused("no\nnot you".into()));
    let bare = |value: &Reply| postcard::to_stdvec(value).expect("a form");
    let bare_hello = postcard::to_stdvec(&hello).expect("a form");
    vec![framed(&hello), framed(&welcome), bare_hello, bare(&welcome), bare(&refused)]
}

fn records() -> Vec<Vec<u8>> {
    let ballot = Ballot::new(1, 3, PodId(1));
    let promised = kassa_protocols::paxos::Record::Promised { ballot };
    let packed = pack(&[(Shard::new(Module::Payment, 3), kassa::node::log::Record::Paxos(promised))]);
    let identity = "version = 1\npod = 1\ndisk = \"00000000000000000000000000000063\"\n";
    vec![packed.to_vec(), identity.into()]
}

fn requests() -> Vec<Vec<u8>> {
    let paths = [
        "\x01/stock/item/create/7.25",
        "\x01/orders/addItem/o-1/a%20b/2\0key-1",
        "\x00/payment/find_user/9",
        "\x02/orders/remove/x",
        "\x01/payment/pay/u/o/1e3",
    ];
    paths.iter().map(|path| path.as_bytes().to_vec()).collect()
}

fn journals() -> Vec<Vec<u8>> {
    vec![good_journal(), b"FJL\x03".to_vec()]
}

/// What the journal holds, up to where nothing was ever written.
fn good_journal() -> Vec<u8> {
    let mut bytes = fs::read(&store().1).expect("it can be read");
    bytes.truncate(bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1));
    bytes
}

fn framed<T: serde::Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(value, &mut bytes).expect("it fits a frame");
    bytes
}
