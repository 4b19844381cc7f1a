//! `kassa verify`: the consistency test in the box.
//!
//! It loads users, items and orders through the API, too little stock and credit for all of them, checks
//! the orders out at once, some of them twice, and then compares three books: what was loaded, what
//! clients were told, and what the stores hold. "In the logs" is what clients were told; "in the
//! database" what the stores hold.

mod books;

use super::crowd::{self, Ask, Told};
use super::fail::Exit;
use super::http::{Target, field};
use super::{place, print};
use crate::exit::say;
use crate::modules::money::Money;
use anyhow::Context;
use books::{Books, Item, Order, Seen, User, Verdict};
use clap::Args;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::{Duration, Instant};

/// Disagreements that are listed one by one.
const SHOWN_MAX: usize = 20;
/// Units that a pod had set aside when it died come back once the others have agreed what became of them:
/// seconds after one of them asks. What is missing for longer is lost.
const SET_ASIDE_MAX: Duration = Duration::from_secs(15);
const READ_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Among them long decimals, as a client gets from a random float.
const PRICES: [&str; 5] = ["7.25", "0.1", "3", "7.289374982374123", "12.000000000000000001"];

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  kassa verify --url http://127.0.0.1:7900 --orders 5000

All n must be 0; the exit code is 1 otherwise. Kill a pod meanwhile and see them stay 0:
  kill -9 $(cat kassa-data/pod-1/pid)
Next: `kassa bench` for how fast, `kassa status` for who leads what.")]
pub struct VerifyArgs {
    /// Where the cluster is; may be given several times [default: the one in ./kassa-data, else port 8000]
    #[arg(long, value_name = "URL")]
    pub url: Vec<String>,
    /// How many orders are checked out
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub orders: u32,
    /// How many clients at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub clients: u16,
    /// Makes the same orders again
    #[arg(long)]
    pub seed: Option<u64>,
}

/// Runs the test and prints its lines.
///
/// # Errors
/// Where the cluster cannot be asked.
pub fn run(args: &VerifyArgs) -> anyhow::Result<Exit> {
    let targets = place::shop(&args.url)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let report = runtime.block_on(verify(targets, args))?;
    for (what, count) in report.lines() {
        print::line(&format!("verify - {what}: {count}"));
    }
    print::line(&format!("verify - {}", report.checked));
    for fault in report.books.all().take(SHOWN_MAX) {
        say(&fault.to_string());
    }
    Ok(if report.books.is_good() { Exit::Done } else { Exit::Wrong })
}

/// What was found.
#[derive(Debug)]
pub struct Report {
    pub books: books::Report,
    /// What was checked, in one line.
    pub checked: String,
}

impl Report {
    /// The four lines that every verification ends with.
    #[must_use]
    pub const fn lines(&self) -> [(&'static str, usize); 4] {
        let books = &self.books;
        [
            ("Stock service inconsistencies in the logs", books.stock_told.len()),
            ("Stock service inconsistencies in the database", books.stock_held.len()),
            ("Payment service inconsistencies in the logs", books.payment_told.len()),
            ("Payment service inconsistencies in the database", books.payment_held.len()),
        ]
    }
}

/// Runs the test.
///
/// # Errors
/// Where the cluster cannot be asked.
pub async fn verify(targets: Vec<Target>, args: &VerifyArgs) -> anyhow::Result<Report> {
    Verification::new(targets, args).run().await
}

struct Verification {
    targets: Vec<Target>,
    clients: usize,
    orders: usize,
    random: StdRng,
    run: String,
    keys: usize,
}

impl Verification {
    fn new(targets: Vec<Target>, args: &VerifyArgs) -> Self {
        let run = crowd::run_word();
        let seed = args.seed.unwrap_or_else(|| xxhash_rust::xxh3::xxh3_64(run.as_bytes()));
        Self {
            targets,
            clients: usize::from(args.clients),
            orders: usize::try_from(args.orders).unwrap_or(usize::MAX),
            random: StdRng::seed_from_u64(seed),
            run,
            keys: 0,
        }
    }

    async fn run(mut self) -> anyhow::Result<Report> {
        crowd::reach(&self.targets).await?;
        let started = Instant::now();
        let mut books = self.load().await?;
        books.told = self.check_out(&books).await;
        let told_at = Instant::now();
        let mut seen = self.read(&books).await?;
        while books.may_be_set_aside(&seen) && told_at.elapsed() < SET_ASIDE_MAX {
            tokio::time::sleep(READ_AGAIN_AFTER).await;
            seen = self.read(&books).await?;
        }
        let paid = (0..books.orders.len()).filter(|&order| books.is_told_paid(order)).count();
        let refused = |like: fn(&Verdict) -> bool| {
            books.told.iter().filter(|told| told.first().is_some_and(like)).count()
        };
        let checked = format!(
            "checked {} items, {} users and {} orders: {paid} checkouts went through, {} were out of stock, {} lacked credit ({:.1} s)",
            books.items.len(),
            books.users.len(),
            books.orders.len(),
            refused(|verdict| matches!(verdict, Verdict::OutOfStock(_))),
            refused(|verdict| matches!(verdict, Verdict::NoCredit)),
            started.elapsed().as_secs_f64()
        );
        Ok(Report { books: books.judge(&seen), checked })
    }

    fn post(&mut self, path: String) -> Ask {
        self.keys += 1;
        Ask::post(path, crowd::key(&self.run, self.keys))
    }

    async fn posts(&mut self, paths: Vec<String>) -> anyhow::Result<Vec<String>> {
        let asks = paths.into_iter().map(|path| self.post(path)).collect();
        crowd::all_good(&self.targets, self.clients, asks, |_| {}).await
    }

    /// Makes up a shop in which half of the items are scarce and a quarter of the users poor, and loads it.
    async fn load(&mut self) -> anyhow::Result<Books> {
        let item_count = (self.orders / 50).clamp(2, 1000);
        let user_count = (self.orders / 5).clamp(4, 10_000);
        let mut books = Books::default();
        for number in 0..item_count {
            let price = Money::parse(PRICES[number % PRICES.len()]).context("a price of ours")?;
            books.items.push(Item { id: String::new(), price, stock: 0 });
        }
        books.users.resize(user_count, User { id: String::new(), credit: Money::ZERO });
        for _ in 0..self.orders {
            let user = self.random.random_range(0..user_count);
            let mut lines: Vec<(usize, u64)> = Vec::new();
            for _ in 0..self.random.random_range(1..=3) {
                let item = self.random.random_range(0..item_count);
                if lines.iter().all(|&(other, _)| other != item) {
                    lines.push((item, self.random.random_range(1..=3)));
                }
            }
            books.orders.push(Order { id: String::new(), user, lines });
        }
        provide(&mut books)?;

        let paths = books.items.iter().map(|item| format!("/stock/item/create/{}", item.price)).collect();
        let named = ids(&self.posts(paths).await?, "item_id")?;
        books.items.iter_mut().zip(named).for_each(|(item, id)| item.id = id);
        let named = ids(&self.posts(vec!["/payment/create_user".into(); user_count]).await?, "user_id")?;
        books.users.iter_mut().zip(named).for_each(|(user, id)| user.id = id);
        let paths = books.items.iter().map(|item| format!("/stock/add/{}/{}", item.id, item.stock));
        let funds = books.users.iter().map(|user| format!("/payment/add_funds/{}/{}", user.id, user.credit));
        self.posts(paths.chain(funds).collect()).await?;

        let paths = books.orders.iter().map(|order| format!("/orders/create/{}", books.users[order.user].id));
        let named = ids(&self.posts(paths.collect()).await?, "order_id")?;
        books.orders.iter_mut().zip(named).for_each(|(order, id)| order.id = id);
        let line = |order: &Order, &(item, units): &(usize, u64)| {
            format!("/orders/addItem/{}/{}/{units}", order.id, books.items[item].id)
        };
        let paths = books.orders.iter().flat_map(|order| order.lines.iter().map(move |l| line(order, l)));
        let paths = paths.collect();
        self.posts(paths).await?;
        Ok(books)
    }

    /// Every order at once, one in ten of them by two clients.
    async fn check_out(&mut self, books: &Books) -> Vec<Vec<Verdict>> {
        let mut asks = Vec::new();
        let mut whose = Vec::new();
        for (number, order) in books.orders.iter().enumerate() {
            for _ in 0..if number % 10 == 0 { 2 } else { 1 } {
                asks.push(self.post(format!("/orders/checkout/{}", order.id)));
                whose.push(number);
            }
        }
        let told = crowd::ask_all(&self.targets, self.clients, asks, |_| {}).await;
        let mut verdicts = vec![Vec::new(); books.orders.len()];
        for (told, number) in told.into_iter().zip(whose) {
            verdicts[number].push(verdict(told));
        }
        verdicts
    }

    async fn read(&self, books: &Books) -> anyhow::Result<Seen> {
        let items = books.items.iter().map(|item| Ask::get(format!("/stock/find/{}", item.id)));
        let users = books.users.iter().map(|user| Ask::get(format!("/payment/find_user/{}", user.id)));
        let orders = books.orders.iter().map(|order| Ask::get(format!("/orders/find/{}", order.id)));
        let asks = items.chain(users).chain(orders).collect();
        let bodies = crowd::all_good(&self.targets, self.clients, asks, |_| {}).await?;
        let (items, rest) = bodies.split_at(books.items.len());
        let (users, orders) = rest.split_at(books.users.len());
        let read = |body: &String, name: &str| {
            field(body, name).map(str::to_owned).with_context(|| format!("no {name} in the answer {body}"))
        };
        let stock = items.iter().map(|body| Ok(read(body, "stock")?.parse()?));
        let credit = users.iter().map(|body| Ok(Money::parse(&read(body, "credit")?)?));
        let paid = orders.iter().map(|body| Ok(read(body, "paid")? == "true"));
        Ok(Seen {
            stock: stock.collect::<anyhow::Result<_>>()?,
            credit: credit.collect::<anyhow::Result<_>>()?,
            paid: paid.collect::<anyhow::Result<_>>()?,
        })
    }
}

/// Stock for two fifths of what is wanted of every second item, and for all of the rest; likewise credit
/// for half of what every fourth user orders.
fn provide(books: &mut Books) -> anyhow::Result<()> {
    let mut wanted = vec![0_u64; books.items.len()];
    let mut bill = vec![Money::ZERO; books.users.len()];
    for order in &books.orders {
        for &(item, units) in &order.lines {
            wanted[item] += units;
        }
        let total = books.total(order);
        bill[order.user] = bill[order.user].checked_add(total).context("the orders cost too much")?;
    }
    for (number, (item, wanted)) in books.items.iter_mut().zip(wanted).enumerate() {
        item.stock = if number % 2 == 0 { wanted * 2 / 5 } else { wanted };
    }
    for (number, (user, bill)) in books.users.iter_mut().zip(bill).enumerate() {
        // Half of the bill in whole units of money is near enough to a half.
        let whole: u32 = bill.to_string().split('.').next().unwrap_or_default().parse().unwrap_or(u32::MAX);
        user.credit = if number % 4 == 0 { Money::whole(whole / 2) } else { bill };
    }
    Ok(())
}

fn ids(bodies: &[String], name: &str) -> anyhow::Result<Vec<String>> {
    let id =
        |body: &String| field(body, name).map(str::to_owned).with_context(|| format!("no {name}: {body}"));
    bodies.iter().map(id).collect()
}

fn verdict(told: Told) -> Verdict {
    let answer = match told {
        Told::Answer(answer) => answer,
        Told::Unknown(heard) => return Verdict::Strange(heard),
    };
    let get = |name| field(&answer.body, name).map(str::to_owned);
    match (answer.status, get("code").as_deref()) {
        (200, _) => Verdict::Paid { total_cost: get("total_cost").unwrap_or_default() },
        (409, Some("out_of_stock")) => Verdict::OutOfStock(get("item_id").or_else(|| get("item"))),
        (409, Some("insufficient_credit")) => Verdict::NoCredit,
        (status, _) => Verdict::Strange(format!("{status} {}", answer.body.trim())),
    }
}
