//! The cluster under test, and the contract's shapes.

use super::http::{Conn, Members, Response, number, text};
use super::wait::eventually_some;
use rand::RngExt;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// What listens, and whose turn it is.
pub struct Shop {
    pub pods: Vec<SocketAddr>,
    turn: AtomicUsize,
}

/// The cluster of this run: started by the first test that asks.
pub fn shop() -> &'static Shop {
    static SHOP: OnceLock<Shop> = OnceLock::new();
    SHOP.get_or_init(|| {
        let pods = match std::env::var("KASSA_URLS") {
            Ok(urls) => urls.split(',').map(resolve).collect(),
            Err(_) => start(),
        };
        wait_until_ready(&pods);
        Shop { pods, turn: AtomicUsize::new(0) }
    })
}

fn resolve(url: &str) -> SocketAddr {
    let host = url.trim().trim_start_matches("http://").trim_end_matches('/');
    host.to_socket_addrs().unwrap_or_else(|error| panic!("KASSA_URLS: {url}: {error}")).next().unwrap()
}

/// Starts a cluster that ends with this process, however that ends: a shell waits for its standard
/// input to close, ends the cluster and removes its data.
fn start() -> Vec<SocketAddr> {
    const KEEPER: &str = r#"
        directory=$1; shift
        "$@" >"$directory/up.log" 2>&1 </dev/null & up=$!
        echo started
        cat >/dev/null
        kill "$up"; wait "$up"; rm -rf "$directory""#;
    let directory = tempfile::tempdir().unwrap().keep();
    let port = free_ports();
    let mut keeper = Command::new("sh")
        .args(["-c", KEEPER, "keeper"])
        .arg(&directory)
        .args([env!("CARGO_BIN_EXE_kassa"), "up", "--pods", "3", "--http-port"])
        .arg(port.to_string())
        .arg("--data")
        .arg(directory.join("data"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "started\n");
    // Never dropped, so that its standard input closes when this process ends and not before.
    std::mem::forget(keeper);
    eprintln!("the cluster's log is {}", directory.join("up.log").display());
    (port..port + 3).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect()
}

/// A first port such that those that `up` derives from it are free: below the range from which the
/// kernel takes ports for outgoing connections.
fn free_ports() -> u16 {
    let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    loop {
        let port = rand::rng().random_range(10_000..30_000);
        let mut derived = (port..port + 3).chain(port + 200..port + 203).chain([port - 100]);
        if derived.all(free) {
            return port;
        }
    }
}

fn wait_until_ready(pods: &[SocketAddr]) {
    for &pod in pods {
        eventually_some(&format!("{pod} is ready"), || {
            if TcpStream::connect(pod).is_err() {
                return Err("it does not listen".to_owned());
            }
            let response = Conn::open(pod).request("GET", "/readyz", None);
            if response.status == 200 { Ok(()) } else { Err(response.body) }
        });
    }
}

impl Shop {
    /// A connection to the pod whose turn it is.
    pub fn conn(&self) -> Conn {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        Conn::open(self.pods[turn % self.pods.len()])
    }

    #[track_caller]
    pub fn call(&self, method: &str, path: &str) -> Response {
        let response = self.conn().request(method, path, None);
        response.check(None, method != "HEAD");
        response
    }

    #[track_caller]
    pub fn call_as(&self, key: &str, method: &str, path: &str) -> Response {
        let response = self.conn().request(method, path, Some(key));
        response.check(Some(key), method != "HEAD");
        response
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.call("GET", path)
    }

    #[track_caller]
    pub fn post(&self, path: &str) -> Response {
        self.call("POST", path)
    }

    #[track_caller]
    pub fn delete(&self, path: &str) -> Response {
        self.call("DELETE", path)
    }

    /// What is answered to `bytes`, which need be no HTTP.
    #[track_caller]
    pub fn raw(&self, bytes: &[u8]) -> Response {
        let mut conn = self.conn();
        conn.send(bytes);
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]);
        let response = conn.response(true).unwrap_or_else(|error| panic!("{start}: {error}"));
        response.check(None, true);
        response
    }

    /// A new user with `credit`.
    #[track_caller]
    pub fn user(&self, credit: &str) -> String {
        let user = text(&self.post("/payment/create_user").has(&["user_id"]), "user_id");
        if credit != "0" {
            self.post(&format!("/payment/add_funds/{user}/{credit}")).ok();
        }
        user
    }

    /// A new item at `price`, with `stock` units.
    #[track_caller]
    pub fn item(&self, price: &str, stock: u64) -> String {
        let item = text(&self.post(&format!("/stock/item/create/{price}")).has(&["item_id"]), "item_id");
        if stock > 0 {
            self.post(&format!("/stock/add/{item}/{stock}")).ok();
        }
        item
    }

    /// A new order of `user` for the `items` and quantities.
    #[track_caller]
    pub fn order(&self, user: &str, items: &[(&str, u64)]) -> String {
        let order = text(&self.post(&format!("/orders/create/{user}")).has(&["order_id"]), "order_id");
        for (item, units) in items {
            self.post(&format!("/orders/addItem/{order}/{item}/{units}")).ok();
        }
        order
    }

    #[track_caller]
    pub fn credit(&self, user: &str) -> String {
        number(&self.get(&format!("/payment/find_user/{user}")).has(&["user_id", "credit"]), "credit")
    }

    #[track_caller]
    pub fn stock(&self, item: &str) -> u64 {
        let found = self.get(&format!("/stock/find/{item}")).has(&["item_id", "stock", "price"]);
        number(&found, "stock").parse().unwrap()
    }

    #[track_caller]
    pub fn find(&self, order: &str) -> Order {
        Order::of(self.get(&format!("/orders/find/{order}")))
    }

    #[track_caller]
    pub fn checkout(&self, order: &str) -> Response {
        self.post(&format!("/orders/checkout/{order}"))
    }

    /// Whether `status` says that `user` has paid for `order`; asked in both ways.
    #[track_caller]
    pub fn has_paid(&self, user: &str, order: &str) -> bool {
        let path = format!("/payment/status/{user}/{order}");
        let got = self.get(&path).has(&["paid"])["paid"].get().to_owned();
        let posted = self.post(&path).has(&["paid"])["paid"].get().to_owned();
        assert_eq!(got, posted);
        got == "true"
    }
}

/// An order as `find` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub id: String,
    pub user: String,
    pub paid: bool,
    pub items: Vec<(String, u64)>,
    pub total_cost: String,
}

impl Order {
    #[track_caller]
    pub fn of(response: Response) -> Self {
        let members: Members = response.has(&["order_id", "paid", "items", "user_id", "total_cost"]);
        Self {
            id: text(&members, "order_id"),
            user: text(&members, "user_id"),
            paid: serde_json::from_str(members["paid"].get()).unwrap(),
            items: serde_json::from_str(members["items"].get()).unwrap(),
            total_cost: number(&members, "total_cost"),
        }
    }

    pub fn units(&self, item: &str) -> u64 {
        self.items.iter().find(|(id, _)| id == item).map_or(0, |(_, units)| *units)
    }
}

/// The turn of a test that loads batches, over the ids that all of them overwrite.
pub fn batch_turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A key that no other request has.
pub fn new_key() -> String {
    format!("test-{:032x}", rand::random::<u128>())
}
