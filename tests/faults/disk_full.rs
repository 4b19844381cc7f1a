//! A disk without room. A limit on the size of files stands for it: every write to a file fails, for one
//! process alone.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::pods::{
    Plan, Pod, ask, eventually, field, good, kassa, kill, limit_files, ports_of_up, scratch, told,
};
use rustix::process::Signal;

/// Sales of each buyer before and after a fault.
const SALES: u64 = 15;
const STOCK: u64 = 1_000_000;

/// Buyers that go on through a fault; each answer that is not 200 fails the test.
struct Shop {
    item: String,
    ends: AtomicBool,
    sold: [AtomicU64; 2],
    users: Mutex<Vec<String>>,
}

impl Shop {
    fn open(port: u16) -> Self {
        let item = field(&good(port, "POST", "/stock/item/create/3"), "item_id");
        good(port, "POST", &format!("/stock/add/{item}/{STOCK}"));
        Self { item, ends: AtomicBool::new(false), sold: Default::default(), users: Mutex::default() }
    }

    fn buy_on(&self, buyer: usize, port: u16) {
        while !self.ends.load(Ordering::Relaxed) {
            let user = field(&good(port, "POST", "/payment/create_user"), "user_id");
            good(port, "POST", &format!("/payment/add_funds/{user}/5"));
            let order = field(&good(port, "POST", &format!("/orders/create/{user}")), "order_id");
            good(port, "POST", &format!("/orders/addItem/{order}/{}/1", self.item));
            good(port, "POST", &format!("/orders/checkout/{order}"));
            self.users.lock().unwrap().push(user);
            self.sold[buyer].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits for sales of every buyer from now on.
    fn wait_for_sales(&self) {
        for sold in &self.sold {
            let before = sold.load(Ordering::Relaxed);
            eventually("they sell on", || sold.load(Ordering::Relaxed) >= before + SALES);
        }
    }

    /// That what a pod shows is what was sold.
    fn audit(&self, port: u16) {
        let users = self.users.lock().unwrap();
        let stock = field(&good(port, "GET", &format!("/stock/find/{}", self.item)), "stock");
        assert_eq!(stock, (STOCK - users.len() as u64).to_string());
        for user in users.iter() {
            assert_eq!(field(&good(port, "GET", &format!("/payment/find_user/{user}")), "credit"), "2");
        }
    }
}

/// Runs `fault` while buyers buy at the two pods, and until they have bought more behind it.
fn under_load(shop: &Shop, at: [u16; 2], fault: impl FnOnce()) {
    std::thread::scope(|scope| {
        for (buyer, port) in at.into_iter().enumerate() {
            scope.spawn(move || shop.buy_on(buyer, port));
        }
        // However this ends, the buyers are told.
        struct End<'a>(&'a AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _end = End(&shop.ends);
        shop.wait_for_sales();
        fault();
        shop.wait_for_sales();
    });
}

#[test]
fn a_pod_without_room_names_the_store_and_stops_and_the_others_sell_on() {
    let dir = scratch();
    let plan = Plan::new(dir.path(), 3, &[]);
    let mut pods = plan.start_all();
    let shop = Shop::open(plan.http(0));
    let full = &mut pods[1];
    under_load(&shop, [plan.http(0), plan.http(2)], || {
        limit_files(full.pid(), Some(0));
        let (code, lines) = full.wait();
        assert_eq!(code, Some(70), "{lines:#?}");
        let last = lines.last().unwrap();
        let stores = ["order", "stock", "payment"].map(|store| plan.data(1).join(store));
        let named = stores.iter().any(|store| last.contains(&format!("{}: ", store.display())));
        assert!(named && last.contains("File too large"), "{lines:#?}");
    });

    // As long as there is no room it refuses in the same way, and harms nothing.
    let mut command = std::process::Command::new("sh");
    let kassa = plan.command(1);
    command.args(["-c", "ulimit -f 0; exec \"$0\" \"$@\""]).arg(kassa.get_program()).args(kassa.get_args());
    let (code, said) = told(&mut command);
    assert_eq!(code, Some(70), "{said}");
    assert!(said.contains(&plan.data(1).display().to_string()) && said.contains("File too large"), "{said}");

    pods[1] = plan.start(1);
    pods[1].wait_ready();
    shop.audit(plan.http(1));
    for pod in pods {
        assert_eq!(pod.terminate().0, Some(0));
    }
    let (code, said) = told(self::kassa().arg("check").arg(dir.path()));
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn up_starts_a_pod_again_once_there_is_room() {
    let dir = scratch();
    let data = dir.path().join("data");
    let port = ports_of_up();
    let mut command = kassa();
    command.args(["up", "--http-port", &port.to_string(), "--data"]).arg(&data);
    let up = Pod::start(command, port);
    let ready = |pod: u16| {
        eventually("ready", || ask(port + pod, "GET", "/readyz").is_some_and(|(status, _)| status == 200));
    };
    (0..3).for_each(ready);
    let shop = Shop::open(port);
    let pid = || std::fs::read_to_string(data.join("pod-1/pid")).ok()?.trim().parse::<i32>().ok();
    let first = pid().unwrap();
    // Its log lies on the same disk, so that not even its last words find room.
    under_load(&shop, [port, port + 2], || {
        limit_files(first, Some(0));
        up.wait_line("pod 1 ended (exit code 70");
    });
    eventually("a new process", || pid().is_some_and(|pid| pid != first));
    ready(1);
    shop.audit(port + 1);
    assert_eq!(up.lines_with("ended ("), 1, "{:#?}", up.lines());
    let mut up = up;
    kill(up.pid(), Signal::TERM);
    assert_eq!(up.wait().0, Some(0));
    let (code, said) = told(kassa().arg("check").arg(&data));
    assert_eq!(code, Some(0), "{said}");
}
