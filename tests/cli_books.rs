//! `verify` and `bench` against a till that is honest, and against tills that cheat in one way each: what
//! they are for is to notice.

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

/// How a till cheats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cheat {
    Honest,
    /// Every hundredth checkout is paid for twice.
    ChargesTwice,
    /// Every hundredth checkout takes no stock.
    ForgetsStock,
    /// Every hundredth checkout that is told 200 does nothing.
    Lies,
    /// Sells on when the stock is gone.
    Oversells,
    /// Says "sold out" while there is stock.
    FalselySoldOut,
    /// Every hundredth checkout takes effect, but is answered 504; a repeat tells.
    LosesAnswers,
}

/// Amounts in units of 10^-18.
#[derive(Debug)]
struct Till {
    cheat: Cheat,
    checkouts: u64,
    next_id: u64,
    items: BTreeMap<String, (i128, u64)>,
    users: BTreeMap<String, i128>,
    orders: BTreeMap<String, Order>,
}

#[derive(Clone, Debug, Default)]
struct Order {
    user: String,
    lines: Vec<(String, u64)>,
    paid: bool,
}

const ONE: i128 = 1_000_000_000_000_000_000;

fn amount(text: &str) -> i128 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{fraction:0<18}").parse().expect("an amount")
}

fn shown(amount: i128) -> String {
    let text = format!("{}.{:018}", amount / ONE, amount % ONE);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

type Reply = (StatusCode, String);

impl Till {
    fn answer(&mut self, path: &str) -> Reply {
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let number = |text: &str| text.parse::<u64>().expect("a number");
        match parts.as_slice() {
            ["stock", "item", "create", price] => {
                let id = self.id();
                self.items.insert(id.clone(), (amount(price), 0));
                good(format!(r#"{{"item_id":"{id}"}}"#))
            }
            ["stock", "add", item, units] => {
                self.items.get_mut(*item).expect("an item").1 += number(units);
                good("{}".into())
            }
            ["stock", "find", item] => good(format!(r#"{{"stock":{},"price":1}}"#, self.items[*item].1)),
            ["stock", "batch_init", n, stock, price] => {
                let item = (amount(price), number(stock));
                self.items = (0..number(n)).map(|id| (id.to_string(), item)).collect();
                good("{}".into())
            }
            ["payment", "create_user"] => {
                let id = self.id();
                self.users.insert(id.clone(), 0);
                good(format!(r#"{{"user_id":"{id}"}}"#))
            }
            ["payment", "add_funds", user, credit] => {
                *self.users.get_mut(*user).expect("a user") += amount(credit);
                good("{}".into())
            }
            ["payment", "find_user", user] => good(format!(r#"{{"credit":{}}}"#, shown(self.users[*user]))),
            ["payment", "batch_init", n, credit] => {
                self.users = (0..number(n)).map(|id| (id.to_string(), amount(credit))).collect();
                good("{}".into())
            }
            ["orders", "create", user] => {
                let id = self.id();
                self.orders.insert(id.clone(), Order { user: (*user).into(), ..Order::default() });
                good(format!(r#"{{"order_id":"{id}"}}"#))
            }
            ["orders", "addItem", order, item, units] => {
                let line = ((*item).to_owned(), number(units));
                self.orders.get_mut(*order).expect("an order").lines.push(line);
                good("{}".into())
            }
            ["orders", "batch_init", n, items, users, _] => {
                let (items, users) = (number(items), number(users));
                let order = |id: u64| Order {
                    user: (id % users).to_string(),
                    lines: vec![((id % items).to_string(), 1), ((id / 7 % items).to_string(), 1)],
                    paid: false,
                };
                self.orders = (0..number(n)).map(|id| (id.to_string(), order(id))).collect();
                good("{}".into())
            }
            ["orders", "find", order] => good(format!(r#"{{"paid":{}}}"#, self.orders[*order].paid)),
            ["orders", "checkout", order] => self.check_out(order),
            ["healthz"] => good("{}".into()),
            _ => panic!("no such path: {path}"),
        }
    }

    fn id(&mut self) -> String {
        self.next_id += 1;
        format!("id-{}", self.next_id)
    }

    fn check_out(&mut self, id: &str) -> Reply {
        self.checkouts += 1;
        let at_times = self.checkouts.is_multiple_of(100);
        let order = self.orders[id].clone();
        let total: i128 =
            order.lines.iter().map(|(item, units)| self.items[item].0 * i128::from(*units)).sum();
        let paid = good(format!(r#"{{"order_id":"{id}","paid":true,"total_cost":{}}}"#, shown(total)));
        if order.paid || (at_times && self.cheat == Cheat::Lies) {
            return paid;
        }
        let short = order.lines.iter().find(|(item, units)| self.items[item].1 < *units);
        if let Some((item, _)) = short
            && self.cheat != Cheat::Oversells
        {
            return refused("out_of_stock", item);
        }
        if at_times && self.cheat == Cheat::FalselySoldOut {
            return refused("out_of_stock", &order.lines[0].0);
        }
        if self.users[&order.user] < total {
            return refused("insufficient_credit", "");
        }
        for (item, units) in &order.lines {
            let stock = &mut self.items.get_mut(item).expect("an item").1;
            if !(at_times && self.cheat == Cheat::ForgetsStock) {
                *stock = stock.saturating_sub(*units);
            }
        }
        let times = if at_times && self.cheat == Cheat::ChargesTwice { 2 } else { 1 };
        *self.users.get_mut(&order.user).expect("a user") -= times * total;
        self.orders.get_mut(id).expect("an order").paid = true;
        if at_times && self.cheat == Cheat::LosesAnswers {
            return (StatusCode::GATEWAY_TIMEOUT, r#"{"code":"outcome_unknown"}"#.into());
        }
        paid
    }
}

fn good(body: String) -> Reply {
    (StatusCode::OK, body)
}

fn refused(code: &str, item: &str) -> Reply {
    (StatusCode::CONFLICT, format!(r#"{{"code":"{code}","item_id":"{item}"}}"#))
}

fn open(cheat: Cheat) -> SocketAddr {
    let till = Till {
        cheat,
        checkouts: 0,
        next_id: 0,
        items: BTreeMap::new(),
        users: BTreeMap::new(),
        orders: BTreeMap::new(),
    };
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            sender.send(listener.local_addr().expect("bound")).expect("awaited");
            let answer = |State(till): State<Arc<Mutex<Till>>>, _: Method, uri: Uri| async move {
                till.lock().expect("not poisoned").answer(uri.path())
            };
            let app = Router::new().fallback(answer).with_state(Arc::new(Mutex::new(till)));
            axum::serve(listener, app).await.expect("served");
        });
    });
    receiver.recv().expect("the till opens")
}

fn kassa(arguments: &[&str], till: SocketAddr) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kassa"));
    command.args(arguments).args(["--url", &format!("http://{till}")]).output().expect("it runs")
}

/// The four numbers, the line after them, and the exit code.
fn verify(cheat: Cheat) -> ([u64; 4], String, Option<i32>) {
    let output = kassa(&["verify", "--orders", "600", "--clients", "16", "--seed", "7"], open(cheat));
    let text = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    let names = [
        "verify - Stock service inconsistencies in the logs: ",
        "verify - Stock service inconsistencies in the database: ",
        "verify - Payment service inconsistencies in the logs: ",
        "verify - Payment service inconsistencies in the database: ",
    ];
    assert_eq!(lines.len(), 5, "{cheat:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    let number = |at: usize| {
        let number = lines[at].strip_prefix(names[at]).unwrap_or_else(|| panic!("line {at} of {text}"));
        number.parse().expect("a number")
    };
    ([number(0), number(1), number(2), number(3)], lines[4].to_owned(), output.status.code())
}

#[test]
fn verify_finds_nothing_in_an_honest_till() {
    for cheat in [Cheat::Honest, Cheat::LosesAnswers] {
        let (numbers, line, code) = verify(cheat);
        assert_eq!((numbers, code), ([0; 4], Some(0)), "{cheat:?}: {line}");
        for refused in [" 0 checkouts went through", " 0 were out of stock", " 0 lacked credit"] {
            assert!(!line.contains(refused), "all kinds of outcome occur: {line}");
        }
    }
}

#[test]
fn verify_finds_every_cheat() {
    for (cheat, found) in [
        (Cheat::ChargesTwice, [false, false, false, true]),
        (Cheat::ForgetsStock, [false, true, false, false]),
        (Cheat::Lies, [false, true, false, true]),
        (Cheat::Oversells, [true, true, false, false]),
        (Cheat::FalselySoldOut, [true, false, false, false]),
    ] {
        let (numbers, line, code) = verify(cheat);
        for (number, found) in numbers.iter().zip(found) {
            assert!(*number > 0 || !found, "{cheat:?}: {numbers:?} {line}");
        }
        assert_eq!(code, Some(1), "{cheat:?}: {numbers:?} {line}");
    }
}

fn bench(cheat: Cheat, more: &[&str]) -> (serde_json::Value, Option<i32>) {
    let arguments =
        ["bench", "--json", "--seconds", "5", "--count", "2000", "--clients", "8", "--items", "20"];
    let output = kassa(&[&arguments, more].concat(), open(cheat));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    (serde_json::from_slice(&output.stdout).expect(&error), output.status.code())
}

#[test]
fn bench_counts_what_was_committed() {
    for orders in ["batch", "http"] {
        let (report, code) = bench(Cheat::Honest, &["--orders", orders, "--users", "10"]);
        assert_eq!(code, Some(0), "{report}");
        // The orders ran out long before the time did.
        assert_eq!(report["committed"], 2000, "{report}");
        assert_eq!(report["orders_ran_out"], true, "{report}");
        assert_eq!(report["errors_total"], 0, "{report}");
        assert_eq!(report["books"]["units_gone"], 4000, "{report}");
    }
    let (report, code) = bench(Cheat::Honest, &["--mix", "checkout=1,edit=1,read=1", "--hot"]);
    assert_eq!((code, &report["committed"]), (Some(0), &2000.into()), "{report}");
    assert!(report["others_per_second"].as_f64().expect("a number") > 0.0, "{report}");
}

#[test]
fn bench_tells_a_lost_answer_from_a_lost_order() {
    let (report, code) = bench(Cheat::LosesAnswers, &[]);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(report["errors"]["outcome_unknown"], 20, "{report}");
    assert_eq!(report["books"]["paid_but_untold"], 20, "{report}");
    assert_eq!(report["committed"], 1980, "{report}");
}

#[test]
fn bench_fails_if_the_books_disagree() {
    for cheat in [Cheat::ChargesTwice, Cheat::ForgetsStock] {
        let (report, code) = bench(cheat, &[]);
        assert_eq!((code, &report["books"]["agree"]), (Some(1), &false.into()), "{cheat:?}: {report}");
    }
}

const OPEN: [&str; 8] = ["bench", "--clients", "2", "--items", "20", "--rate", "200", "--seconds"];

#[test]
fn bench_writes_what_it_measured() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (page, hdr) = (path("page.html"), path("latency.hgrm"));
    let more = ["3", "--warm-up", "1", "--mix", "checkout=3,edit=1,read=1", "--report", &page, "--hdr", &hdr];
    let output = kassa(&[&OPEN[..], &more[..], &["--json"]].concat(), open(Cheat::LosesAnswers));
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&report["mode"], &report["seconds"]), (&"open".into(), &3.0.into()), "{report}");
    let samples = &report["samples"];
    for of in ["committed", "others", "errors", "p50_ms", "p99_ms", "max_ms"] {
        assert_eq!(samples[of].as_array().map(Vec::len), Some(3), "{of}: {samples}");
    }
    // The warm-up sold too, and the books know.
    let told = report["books"]["units_told"].as_u64().expect("a count");
    assert!(told > 2 * report["committed"].as_u64().expect("a count"), "{report}");
    assert!(report["others_latency_ms"]["p99"].as_f64() > Some(0.0), "{report}");

    let page = std::fs::read_to_string(page).expect("a page");
    for told in
        ["Throughput over time", "Latency by percentile", "outcome_unknown", "<svg", "checkout=3,edit=1"]
    {
        assert!(page.contains(told), "{told}: {page}");
    }
    for foreign in ["<script", "src=", "href="] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    let hdr = std::fs::read_to_string(hdr).expect("a file");
    assert!(hdr.trim_start().starts_with("Value ") && hdr.contains("#[Max "), "{hdr}");
}

#[test]
fn bench_tells_what_is_slower() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let run = |more: &[&str]| kassa(&[&OPEN[..], &["6", "--json"], more].concat(), open(Cheat::Honest));
    let first = run(&[]);
    let mut earlier: serde_json::Value = serde_json::from_slice(&first.stdout).expect("JSON");
    let (same, fast) = (path("same.json"), path("fast.json"));
    // What an earlier run would have said of a cluster that sells ten times as much.
    let now = earlier["samples"]["committed"].clone();
    let counts = now.as_array().expect("samples").iter().map(|count| count.as_u64().expect("a count"));
    for (file, times) in [(&same, 1), (&fast, 10)] {
        earlier["samples"]["committed"] = counts.clone().map(|count| count * times).collect();
        std::fs::write(file, earlier.to_string()).expect("written");
    }
    for (old, fail, code) in [(&same, false, 0), (&fast, false, 0), (&fast, true, 1)] {
        let fail = if fail { &["--fail-if-slower"][..] } else { &[] };
        let output = run(&[&["--compare", old], fail].concat());
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let told = &report["comparison"]["measures"][0];
        // Of two runs of the same, one pair in a hundred differs by chance: the verdict on those is left to the
        // tests of the statistics.
        assert!(told["margin"].as_f64().expect("a margin") > 0.0, "{told}");
        assert_eq!(told["change"].as_f64().expect("a change") < -0.8, old == &fast, "{told}");
        assert!(old == &same || told["verdict"] == "slower", "{told}");
        assert_eq!(output.status.code(), Some(code), "{report}");
        assert_eq!(report["comparison"]["differing"], serde_json::json!([]), "{report}");
    }
}
