//! A frame of a busy round: what it costs to put it on a link, and to believe it at the other end.

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kassa::fabric::frame::{self, FRAME_BYTES_MAX};
use kassa::modules::request::ItemId;
use kassa::node::Message;
use kassa_protocols::ids::{Ballot, Module, PodId, Shard, ShardNo, TxnId};
use kassa_protocols::paxos::{self, Body, Entry};
use kassa_protocols::quorum::{self, Beat, Version, Write};
use kassa_protocols::time::ShardTime;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

/// Shards of each kind that a pod leads and that have something to say in one round.
const SHARDS: u16 = 8;
/// A charge of two lines, encoded, is of about this length.
const CHARGE_BYTES: usize = 200;
/// An item, and a reservation.
const RECORD_BYTES: [usize; 2] = [40, 90];

/// Of each shard an entry and its acknowledgement, a write and its acknowledgement, a reservation and
/// the confirmation of earlier ones.
fn typical() -> Vec<Message> {
    (0..SHARDS).flat_map(messages_of).collect()
}

fn messages_of(no: u16) -> [Message; 6] {
    let ballot = Ballot::new(1, 3, PodId(1));
    let payment = |message| Message::Paxos { shard: Shard::new(Module::Payment, no), message };
    let stock = |message| Message::Quorum { shard: Shard::new(Module::Stock, no), message };
    let version = |seq| Version { ballot, seq };
    let txn = TxnId { shard: ShardNo(no), ballot, n: 123_456 };
    let item = |n: u16| ItemId::from(n.to_string());
    let record =
        |bytes: usize| (Bytes::from(format!("i{no:08}-{bytes}")), Some(Bytes::from(vec![0x5a; bytes])));
    let entry = Entry {
        time: ShardTime(1_234_567_890),
        origin: ballot,
        body: Body::Commands(Bytes::from(vec![0xa5; CHARGE_BYTES])),
    };
    let write = Write {
        version: version(100_001),
        prev: version(100_000),
        time: ShardTime(1_234_567_890),
        records: RECORD_BYTES.map(record).to_vec(),
    };
    [
        payment(paxos::Message::Accept { ballot, start: 7, index: 100_001, committed: 100_000, entry }),
        payment(paxos::Message::Accepted { ballot, accepted: 100_001, applied: 100_000 }),
        stock(quorum::Message::Write {
            write: Arc::new(write),
            beat: Beat { commit: version(100_000), floor: version(90_000), round: 200_001 },
        }),
        stock(quorum::Message::Ack {
            ballot,
            accepted: version(100_001),
            round: 200_001,
            durable: version(90_000),
        }),
        Message::Reserve {
            shard: ShardNo(no),
            txn,
            lines: vec![(item(517), 1), (item(942), 1)],
            wait: false,
            watermark: txn,
        },
        Message::Resolve { shard: ShardNo(no), confirm: vec![txn; 4], release: Vec::new(), watermark: txn },
    ]
}

fn frames(criterion: &mut Criterion) {
    let messages = typical();
    let mut bytes = Vec::new();
    frame::encode(&messages, &mut bytes).expect("far below the largest frame");
    let mut group = criterion.benchmark_group("fabric/frame");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("encode", |bencher| {
        let mut buffer = Vec::with_capacity(bytes.len());
        bencher.iter(|| {
            buffer.clear();
            frame::encode(black_box(&messages), &mut buffer)
        });
    });
    group.bench_function("decode", |bencher| {
        bencher.iter_batched(
            || BytesMut::from(&bytes[..]),
            |mut received| {
                let payload = frame::split(&mut received, FRAME_BYTES_MAX).expect("it was framed above");
                let payload = payload.expect("all of it is there");
                frame::decode::<Vec<Message>>(&payload).expect("it was encoded above")
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = frames
}
criterion_main!(benches);
