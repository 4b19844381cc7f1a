//! What `bench` loads before the clock runs: orders that can each be checked out once.

use super::BenchArgs;
use crate::cli::crowd::{self, Ask};
use crate::cli::fail;
use crate::cli::http::{Target, field};
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};

/// Every order, however it is made, holds this many units at a price of 1: two items, once each.
pub const UNITS: u64 = 2;
/// A `batch_init` takes no more.
const BATCH_MAX: u64 = 1_000_000;
/// More orders than any machine checks out: a batch costs the same whatever its size.
const BATCH_ORDERS_PER_SECOND: u64 = 40_000;
/// Made one by one, an order costs three requests; this many last on two cores.
const HTTP_ORDERS_PER_SECOND: u64 = 10_000;

/// Where orders come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Source {
    /// One `batch_init`; it overwrites the ids 0, 1, 2, … of all three kinds
    Batch,
    /// Made one by one, as a shop's customers do; touches nothing that is there
    Http,
}

/// A loaded shop: positions name entities, ids are what the server calls them.
#[derive(Debug)]
pub struct Shop {
    pub items: Vec<String>,
    pub users: Vec<String>,
    pub orders: Vec<String>,
    /// What every item and every user began with.
    pub stock: u64,
    pub credit: u64,
}

impl BenchArgs {
    fn order_count(&self) -> u64 {
        let per_second = match self.orders {
            Source::Batch => BATCH_ORDERS_PER_SECOND,
            Source::Http => HTTP_ORDERS_PER_SECOND,
        };
        self.count.unwrap_or_else(|| self.seconds.saturating_mul(per_second)).min(BATCH_MAX)
    }

    fn item_count(&self) -> u64 {
        if self.hot { 1 } else { self.items }
    }
}

/// Loads a shop in which no checkout needs to be refused.
///
/// # Errors
/// Where the cluster does not answer, or not as it should.
pub async fn load(args: &BenchArgs, targets: &[Target]) -> anyhow::Result<Shop> {
    let (orders, items, users) = (args.order_count(), args.item_count(), args.users);
    let stock = orders * UNITS;
    let credit = orders * UNITS;
    match args.orders {
        Source::Batch => {
            let run = crowd::run_word();
            let paths = [
                format!("/stock/batch_init/{items}/{stock}/1"),
                format!("/payment/batch_init/{users}/{credit}"),
                format!("/orders/batch_init/{orders}/{items}/{users}/1"),
            ];
            for (number, path) in paths.into_iter().enumerate() {
                let ask = Ask::post(path, crowd::key(&run, number));
                crowd::all_good(targets, 1, vec![ask], |_| {}).await?;
            }
            let ids = |count: u64| (0..count).map(|id| id.to_string()).collect();
            Ok(Shop { items: ids(items), users: ids(users), orders: ids(orders), stock, credit })
        }
        Source::Http => one_by_one(args, targets, [orders, items, users], stock, credit).await,
    }
}

async fn one_by_one(
    args: &BenchArgs,
    targets: &[Target],
    [orders, items, users]: [u64; 3],
    stock: u64,
    credit: u64,
) -> anyhow::Result<Shop> {
    let loader = Loader { targets, clients: usize::from(args.clients), run: crowd::run_word() };
    let times = |path: &str, count: u64| (0..count).map(|_| path.to_owned()).collect::<Vec<_>>();
    let items = loader.ids("items", times("/stock/item/create/1", items), "item_id").await?;
    let users = loader.ids("users", times("/payment/create_user", users), "user_id").await?;
    let stocks = items.iter().map(|item| format!("/stock/add/{item}/{stock}")).collect();
    loader.all("stock", stocks).await?;
    let funds = users.iter().map(|user| format!("/payment/add_funds/{user}/{credit}")).collect();
    loader.all("credit", funds).await?;
    let mut random = super::Random::seeded();
    let paths = (0..orders).map(|_| format!("/orders/create/{}", random.of(&users))).collect();
    let orders = loader.ids("orders", paths, "order_id").await?;
    let mut lines = Vec::with_capacity(orders.len() * 2);
    for order in &orders {
        for _ in 0..UNITS {
            lines.push(format!("/orders/addItem/{order}/{}/1", random.of(&items)));
        }
    }
    loader.all("lines", lines).await?;
    Ok(Shop { items, users, orders, stock, credit })
}

struct Loader<'a> {
    targets: &'a [Target],
    clients: usize,
    run: String,
}

impl Loader<'_> {
    async fn all(&self, what: &str, paths: Vec<String>) -> anyhow::Result<Vec<String>> {
        let bar = bar(what, paths.len());
        let asks = paths
            .into_iter()
            .enumerate()
            .map(|(number, path)| Ask::post(path, crowd::key(&format!("{}-{what}", self.run), number)))
            .collect();
        let bodies = crowd::all_good(self.targets, self.clients, asks, |done| {
            bar.set_position(u64::try_from(done).unwrap_or(u64::MAX));
        })
        .await?;
        bar.finish_and_clear();
        Ok(bodies)
    }

    async fn ids(&self, what: &str, paths: Vec<String>, name: &str) -> anyhow::Result<Vec<String>> {
        let bodies = self.all(what, paths).await?;
        let id = |body: &String| {
            field(body, name).map(str::to_owned).with_context(|| format!("no {name}: {body}"))
        };
        bodies.iter().map(id).collect()
    }
}

/// Shown on a terminal only.
fn bar(what: &str, count: usize) -> ProgressBar {
    let bar =
        ProgressBar::new(u64::try_from(count).unwrap_or(u64::MAX)).with_message(format!("loading {what}"));
    if let Ok(style) = ProgressStyle::with_template("{msg:16} {wide_bar} {pos}/{len} {eta}") {
        bar.set_style(style);
    }
    bar
}

/// What the stores hold now, against what they began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drop {
    pub units: i128,
    pub credit: i128,
}

impl Shop {
    /// How far stock and credit have fallen in all.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub async fn fall(&self, targets: &[Target], clients: usize) -> anyhow::Result<Drop> {
        let items = self.items.iter().map(|item| Ask::get(format!("/stock/find/{item}")));
        let users = self.users.iter().map(|user| Ask::get(format!("/payment/find_user/{user}")));
        let bodies = crowd::all_good(targets, clients, items.chain(users).collect(), |_| {}).await?;
        let (items, users) = bodies.split_at(self.items.len());
        let fall = |bodies: &[String], name: &str, began: u64| -> anyhow::Result<i128> {
            let mut sum = 0;
            for body in bodies {
                let now = field(body, name).and_then(|text| text.parse::<i128>().ok());
                let now =
                    now.ok_or_else(|| fail::impossible(format!("no whole {name} in the answer {body}")))?;
                sum += i128::from(began) - now;
            }
            Ok(sum)
        };
        Ok(Drop { units: fall(items, "stock", self.stock)?, credit: fall(users, "credit", self.credit)? })
    }

    /// How many of these orders are paid.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub async fn paid(&self, orders: &[usize], targets: &[Target], clients: usize) -> anyhow::Result<u64> {
        let asks = orders.iter().map(|&order| Ask::get(format!("/orders/find/{}", self.orders[order])));
        let bodies = crowd::all_good(targets, clients, asks.collect(), |_| {}).await?;
        let paid = bodies.iter().filter(|body| field(body, "paid") == Some("true")).count();
        Ok(u64::try_from(paid).unwrap_or(u64::MAX))
    }
}
