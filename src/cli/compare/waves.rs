//! Who can buy? Every item and every user of a shop is tried at once, by checkouts of their own.
//!
//! An item is tried by a buyer whom nobody else knows; a user by an order that holds nothing, so that no item can be
//! in the way. Whoever does not succeed within a second counts as stuck.

use super::figures::Wave;
use super::pods;
use crate::cli::bench::prepare::Shop;
use crate::cli::bench::settings::Settings;
use crate::cli::crowd::{self, Ask};
use crate::cli::http::{Connection, Target, field};
use anyhow::Context;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// A shop's customers do not wait for longer.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// Loading is done by so many at once.
const LOADERS: usize = 64;
/// What every buyer of an item has: more than all the units that it tries to buy.
const CREDIT: u64 = 1_000;

/// Orders for some waves, and what came of those that were sent.
pub struct Tries {
    targets: Vec<Target>,
    pods: Vec<Target>,
    /// By wave, those not yet sent: of items, and of users.
    waves: Vec<(Vec<String>, Vec<String>)>,
    sent: Vec<String>,
    told: Vec<Wave>,
}

impl Tries {
    /// Makes the orders of so many waves.
    ///
    /// # Errors
    /// Where the cluster does not answer, or not as it should.
    pub async fn load(pods: &[Target], settings: &Settings, shop: &Shop, count: u64) -> anyhow::Result<Self> {
        let loader = Loader { targets: &settings.targets, run: crowd::run_word() };
        let made = vec!["/payment/create_user".to_owned(); shop.items.len()];
        let buyers = ids(&loader.all("buyers", made).await?, "user_id")?;
        let funds = buyers.iter().map(|buyer| format!("/payment/add_funds/{buyer}/{CREDIT}"));
        loader.all("funds", funds.collect()).await?;
        let mut waves = Vec::new();
        for wave in 0..count {
            let create = buyers.iter().chain(&shop.users).map(|user| format!("/orders/create/{user}"));
            let mut orders =
                ids(&loader.all(&format!("orders-{wave}"), create.collect()).await?, "order_id")?;
            let users = orders.split_off(buyers.len());
            let lines = orders
                .iter()
                .zip(&shop.items)
                .map(|(order, item)| format!("/orders/addItem/{order}/{item}/1"));
            loader.all(&format!("lines-{wave}"), lines.collect()).await?;
            waves.push((orders, users));
        }
        Ok(Self {
            targets: settings.targets.clone(),
            pods: pods.to_vec(),
            waves,
            sent: Vec::new(),
            told: Vec::new(),
        })
    }

    /// Tries all; returns when the last has succeeded, or a second has passed. Does nothing where no orders are left.
    pub async fn wave(&mut self, died: Instant, is_back: bool) {
        let Some((items, users)) = self.waves.pop() else { return };
        let began = Instant::now();
        let after_death_ms = match began.checked_duration_since(died) {
            Some(after) => after.as_secs_f64() * 1_000.0,
            None => -(died - began).as_secs_f64() * 1_000.0,
        };
        let mut tries = JoinSet::new();
        for (number, (order, is_item)) in items
            .iter()
            .map(|order| (order, true))
            .chain(users.iter().map(|order| (order, false)))
            .enumerate()
        {
            let target = self.targets[number % self.targets.len()].clone();
            let request = target.request("POST", &format!("/orders/checkout/{order}"), None);
            tries.spawn_local(async move {
                let mut connection = Connection::new(&target);
                let told = tokio::time::timeout(PATIENCE, connection.send(&request)).await;
                (is_item, matches!(told, Ok(Ok(answer)) if answer.status == 200))
            });
        }
        let locks = pods::locks(&pods::all(&self.pods).await);
        let (mut items_bought, mut users_bought) = (0, 0);
        while let Some(tried) = tries.join_next().await {
            match tried {
                Ok((true, true)) => items_bought += 1,
                Ok((false, true)) => users_bought += 1,
                Ok((_, false)) | Err(_) => {}
            }
        }
        let count = |all: &Vec<String>| u64::try_from(all.len()).unwrap_or(u64::MAX);
        self.told.push(Wave {
            after_death_ms,
            is_back,
            items_tried: count(&items),
            items_stuck: count(&items) - items_bought,
            users_tried: count(&users),
            users_stuck: count(&users) - users_bought,
            items_locked: locks.items,
            users_locked: locks.users,
            in_doubt: locks.in_doubt,
        });
        self.sent.extend(items);
    }

    /// Units that were bought by all of it, told or not, as of now.
    ///
    /// # Errors
    /// Where the cluster cannot be read.
    pub async fn bought(&self) -> anyhow::Result<u64> {
        let asks = self.sent.iter().map(|order| Ask::get(format!("/orders/find/{order}"))).collect();
        let bodies = crowd::all_good(&self.targets, LOADERS, asks, |_| {}).await?;
        let paid = bodies.iter().filter(|body| field(body, "paid") == Some("true")).count();
        Ok(u64::try_from(paid).unwrap_or(u64::MAX))
    }

    #[must_use]
    pub fn told(self) -> Vec<Wave> {
        self.told
    }
}

struct Loader<'a> {
    targets: &'a [Target],
    run: String,
}

impl Loader<'_> {
    async fn all(&self, what: &str, paths: Vec<String>) -> anyhow::Result<Vec<String>> {
        let key = |number| crowd::key(&format!("{}-{what}", self.run), number);
        let asks = paths.into_iter().enumerate().map(|(number, path)| Ask::post(path, key(number)));
        crowd::all_good(self.targets, LOADERS, asks.collect(), |_| {}).await
    }
}

fn ids(bodies: &[String], name: &str) -> anyhow::Result<Vec<String>> {
    let id =
        |body: &String| field(body, name).map(str::to_owned).with_context(|| format!("no {name}: {body}"));
    bodies.iter().map(id).collect()
}
