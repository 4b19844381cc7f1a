//! Every key of a pod's configuration: default, bounds, unit, meaning.

/// One key.
#[derive(Debug)]
pub struct Key {
    /// As written on the command line; in the file the part before the dot is a section.
    pub path: &'static str,
    pub kind: Kind,
    pub unit: &'static str,
    pub meaning: &'static str,
}

/// What a key's value may be.
#[derive(Debug)]
pub enum Kind {
    Number {
        default: Option<u64>,
        min: u64,
        max: u64,
    },
    /// An address to listen on.
    Address {
        default: &'static str,
    },
    Path,
    Choice {
        of: &'static [&'static str],
    },
    /// A number of the things counted, or `all` of them.
    OrAll {
        /// `all` if none.
        default: Option<u64>,
    },
    /// Pods and their fabric addresses.
    Peers,
}

/// The most pods: a handshake names them all, and each holds a link to each.
pub const PODS_MAX: u64 = 64;
const REPLICAS_MAX: u64 = 7;
const PROTOCOLS: &[&str] = &["paxos", "quorum"];

const fn count(
    path: &'static str,
    default: u64,
    (min, max): (u64, u64),
    unit: &'static str,
    meaning: &'static str,
) -> Key {
    Key { path, kind: Kind::Number { default: Some(default), min, max }, unit, meaning }
}

const fn ms(path: &'static str, default: u64, bounds: (u64, u64), meaning: &'static str) -> Key {
    count(path, default, bounds, "ms", meaning)
}

const fn key(path: &'static str, kind: Kind, unit: &'static str, meaning: &'static str) -> Key {
    Key { path, kind, unit, meaning }
}

/// All keys, in the order in which `--print-config` shows them; those without a dot come first.
pub const KEYS: &[Key] = &[
    key(
        "pod",
        Kind::Number { default: None, min: 0, max: PODS_MAX - 1 },
        "",
        "this pod's number; it stays with the pod's data for ever",
    ),
    key("data", Kind::Path, "", "this pod's directory"),
    key("http", Kind::Address { default: "127.0.0.1:8000" }, "", "where clients are served"),
    key(
        "fabric",
        Kind::Address { default: "127.0.0.1:8200" },
        "",
        "where the other pods connect; on loopback only, as links carry no secret yet",
    ),
    key(
        "peers",
        Kind::Peers,
        "",
        "every pod's number and fabric address, this one's included; in the environment and in flags: \
         0=HOST:PORT,1=HOST:PORT",
    ),
    count(
        "cluster.shards",
        24,
        (1, crate::runtime::stores::SHARDS_MAX as u64),
        "shards a module",
        "slices of each module's keys; fixed when the cluster forms",
    ),
    count(
        "cluster.replicas",
        3,
        (1, REPLICAS_MAX),
        "pods a shard",
        "copies of each shard, of which a majority must live: one or two bear no loss; fixed when the cluster \
         forms",
    ),
    key(
        "payment.protocol",
        Kind::Choice { of: PROTOCOLS },
        "",
        "how payment is replicated; fixed when the cluster forms",
    ),
    key(
        "payment.pods",
        Kind::OrAll { default: None },
        "pods",
        "that hold payment, and orders with it: the first ones; fixed when the cluster forms",
    ),
    key(
        "stock.protocol",
        Kind::Choice { of: &["quorum", "paxos"] },
        "",
        "how stock is replicated; fixed when the cluster forms",
    ),
    key(
        "stock.write_quorum",
        Kind::OrAll { default: Some(2) },
        "replicas",
        "that must accept a write where a module runs on read and write quorums: more than half of them, \
         which is the default; \"all\": one dead pod stops it. The read quorum follows. Fixed when the \
         cluster forms",
    ),
    key(
        "stock.pods",
        Kind::OrAll { default: None },
        "pods",
        "that hold stock: the last ones; fixed when the cluster forms",
    ),
    key(
        "checkout.commit",
        Kind::Choice { of: &["reserve", "blocking"] },
        "",
        "how checkouts commit: by reservations, which lock nothing; or, for comparison, by the textbook's two-phase \
         commit, which locks items and users, and waits for a coordinator that is gone; fixed when the cluster forms",
    ),
    count("limits.connections_max", 4_096, (1, 1_000_000), "connections", "of clients"),
    count("limits.requests_max", 8_192, (1, 1_000_000), "requests", "held at a time; more are shed"),
    count(
        "limits.served_max",
        192,
        (1, 1_000_000),
        "requests",
        "of clients served at a time; more wait their turn",
    ),
    count(
        "limits.inbox_events_max",
        32_768,
        (64, 1 << 24),
        "events",
        "that wait for the event loop; clients may fill half of it",
    ),
    count(
        "limits.log_bytes_max",
        8 << 20,
        (64 << 10, 1 << 30),
        "bytes a store",
        "of log beyond which the shard that needs the oldest is checkpointed",
    ),
    count(
        "limits.dirty_records_max",
        6_144,
        (16, 1 << 24),
        "records a shard",
        "in memory beyond which it is checkpointed",
    ),
    count(
        "limits.confirm_batch_max",
        512,
        (1, 65_536),
        "transactions",
        "confirmed in one message to a stock shard",
    ),
    count(
        "limits.io_threads",
        1,
        (1, 256),
        "threads",
        "that serve clients and links, beside the event loop's own",
    ),
    ms("timing.heartbeat_ms", 50, (1, 60_000), "between a leader's heartbeats"),
    ms(
        "timing.election_ms",
        250,
        (2, 600_000),
        "without its leader after which a pod stands; at least twice the heartbeat",
    ),
    ms("timing.ask_again_ms", 500, (1, 60_000), "without an answer after which a question is asked again"),
    ms(
        "timing.anywhere_after_ms",
        1_500,
        (1, 60_000),
        "that an order's operation waits for its owner before any replica takes it",
    ),
    ms("timing.confirm_after_ms", 25, (1, 60_000), "for which confirmations are gathered"),
    ms("timing.finish_after_ms", 50, (1, 60_000), "for which finished charges are gathered"),
    ms(
        "timing.watermark_every_ms",
        500,
        (1, 60_000),
        "between watermarks to a shard that hears nothing else",
    ),
    ms("timing.dial_min_ms", 20, (1, 60_000), "before a broken link is dialed again; doubles up to the next"),
    ms("timing.dial_max_ms", 1_000, (1, 600_000), "between attempts to dial a pod, at the most"),
    ms("timing.handshake_ms", 2_000, (10, 60_000), "for the first words on a link"),
    ms("timing.stall_ms", 2_000, (10, 600_000), "in which a peer takes nothing, after which its link is cut"),
    ms(
        "timing.commit_stall_ms",
        10_000,
        (100, 600_000),
        "in a commit to the disk, after which the pod stops itself",
    ),
    ms("timing.head_wait_ms", 10_000, (10, 600_000), "for the head of a client's request"),
    ms(
        "timing.idle_wait_ms",
        75_000,
        (10, 86_400_000),
        "for the next request on a connection; longer than the proxy keeps an idle one",
    ),
    ms("timing.queue_wait_ms", 600, (0, 9_000), "for a request's turn to be served, after which it is shed"),
    ms("timing.drain_wait_ms", 3_000, (0, 4_500), "for the requests in flight when the pod is told to stop"),
];
