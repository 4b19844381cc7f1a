//! What `bench` loads before the clock runs: orders that can each be checked out once.

use super::random::{Random, Wishes};
use super::settings::{Pace, Settings};
use crate::cli::crowd::{self, Ask};
use crate::cli::fail;
use crate::cli::http::{Target, field};
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};

/// Every order, however it is made, holds this many units at a price of 1: two items, once each.
pub const UNITS: u64 = 2;
/// A `batch_init` takes no more.
const BATCH_MAX: u64 = 1_000_000;
/// Loading is done by so many at once at most: more are not faster, and may be refused.
pub const LOADERS_MAX: usize = 64;
/// More orders than any machine checks out: a batch costs the same whatever its size.
const BATCH_ORDERS_PER_SECOND: u64 = 40_000;
/// Enough to spread reads over, where nothing is checked out.
const ORDERS_TO_READ: u64 = 10_000;
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

/// Chance is not above the mean by more than this where arrivals are many, or by that many where they are few.
const CHANCE_SHARE: f64 = 1.1;
const CHANCE_ORDERS: f64 = 1_000.0;

impl Settings {
    fn order_count(&self) -> u64 {
        if !self.mix.has_checkouts() {
            // They are read at most.
            return self.count.unwrap_or(ORDERS_TO_READ);
        }
        let per_second = match self.source {
            Source::Batch => BATCH_ORDERS_PER_SECOND,
            Source::Http => HTTP_ORDERS_PER_SECOND,
        };
        let enough = self.whole().as_secs().saturating_add(1).saturating_mul(per_second);
        let enough = match self.pace {
            Pace::Closed => enough,
            Pace::Open { rate_per_second } => {
                let due = rate_per_second * self.whole().as_secs_f64() * CHANCE_SHARE + CHANCE_ORDERS;
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
                let due = due as u64;
                due.min(enough)
            }
        };
        self.count.unwrap_or(enough).min(BATCH_MAX)
    }
}

/// Loads a shop in which no checkout needs to be refused.
///
/// # Errors
/// Where the cluster does not answer, or not as it should.
pub async fn load(settings: &Settings) -> anyhow::Result<Shop> {
    let targets = &settings.targets;
    let (orders, items, users) = (settings.order_count(), settings.items, settings.users);
    let stock = orders * UNITS;
    let credit = orders * UNITS;
    match settings.source {
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
        Source::Http => one_by_one(settings, [orders, items, users], stock, credit).await,
    }
}

async fn one_by_one(
    settings: &Settings,
    [orders, items, users]: [u64; 3],
    stock: u64,
    credit: u64,
) -> anyhow::Result<Shop> {
    let loader = Loader {
        targets: &settings.targets,
        clients: settings.clients.min(LOADERS_MAX),
        run: crowd::run_word(),
    };
    let times = |path: &str, count: u64| (0..count).map(|_| path.to_owned()).collect::<Vec<_>>();
    let items = loader.ids("items", times("/stock/item/create/1", items), "item_id").await?;
    let users = loader.ids("users", times("/payment/create_user", users), "user_id").await?;
    let stocks = items.iter().map(|item| format!("/stock/add/{item}/{stock}")).collect();
    loader.all("stock", stocks).await?;
    let funds = users.iter().map(|user| format!("/payment/add_funds/{user}/{credit}")).collect();
    loader.all("credit", funds).await?;
    let mut random = Random::seeded();
    let mut wishes = Wishes::new(settings.skew, items.len())?;
    let paths = (0..orders).map(|_| format!("/orders/create/{}", random.of(&users))).collect();
    let orders = loader.ids("orders", paths, "order_id").await?;
    let mut lines = Vec::with_capacity(orders.len() * 2);
    for order in &orders {
        for _ in 0..UNITS {
            lines.push(format!("/orders/addItem/{order}/{}/1", wishes.of(&items)));
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
