//! What the clients want: all operations of the contract, on few entities, so that they meet.
//!
//! A client either runs an errand (set up the shop, load a batch), fills an order of its own line by
//! line, or does something at random to what is there: checks out an order that others check out too,
//! edits it meanwhile, pays, cancels, removes, repeats an old request under its old key.

mod learn;

use super::shop::{BASE, Key, MADE_ITEMS_MAX, Shop, Target};
use crate::modules::money::Money;
use crate::modules::request::{Op, OrderId};
use kassa_protocols::ids::OpId;
use rand::{Rng, RngExt};
use std::collections::VecDeque;

/// Units of one line that a client asks for at once, and lines it adds to an order: their product
/// stays below [`BASE`].
const UNITS_AT_ONCE_MAX: u64 = 4;
const ADDS_PER_ORDER_MAX: u8 = 6;
/// The orders that random actions fall on: few, so that they race.
const ORDERS_IN_PLAY: usize = 6;

/// The next request of a client.
#[derive(Debug)]
pub struct Planned {
    pub op: Op,
    pub target: Target,
    /// An old key to use again.
    pub key: Option<usize>,
}

/// The size of a shop and how much is asked of it.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub clients: usize,
    /// Operations in all, the last reads not counted.
    pub operations: usize,
    pub users: usize,
    pub items: usize,
    /// Entities of each batch; 0 for none.
    pub batch: u64,
    /// Batches loaded over the first ones in the middle of the run.
    pub reloads: u32,
    /// Users get this many items' worth of credit at a time, and items that many units.
    pub plenty: u64,
}

#[derive(Debug)]
enum Visit {
    Nothing,
    Filling { order: usize, left: u8, edited: bool },
    CheckingOut { order: usize },
}

/// A batch is to be loaded over one that is in use: what of it is left alone until it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frozen {
    Nothing,
    /// The items by name: an addition that is asked again behind the batch would count twice. Orders with
    /// them are checked out all the while, so that reservations outlive their items.
    Items,
    Everything,
}

#[derive(Debug)]
pub struct Workload {
    errands: VecDeque<Planned>,
    visits: Vec<Visit>,
    pub left: usize,
    reloads_left: u32,
    reload_after: usize,
    frozen: Frozen,
    /// Requests under way about what a batch made, and those of them that name an item.
    batch_in_flight: usize,
    items_in_flight: usize,
    unit: Money,
    plenty: u64,
    batch: u64,
}

impl Workload {
    pub fn new(plan: &Plan, rng: &mut impl Rng) -> Self {
        let unit = ["1", "0.37", "0.000000000000000001", "7.289374982374123"][rng.random_range(0..4)];
        let mut workload = Self {
            errands: VecDeque::new(),
            visits: (0..plan.clients).map(|_| Visit::Nothing).collect(),
            left: plan.operations,
            reloads_left: plan.reloads,
            reload_after: 0,
            frozen: Frozen::Nothing,
            batch_in_flight: 0,
            items_in_flight: 0,
            unit: Money::parse(unit).expect("a plain decimal"),
            plenty: plan.plenty,
            batch: plan.batch,
        };
        workload.plan_reload();
        for n in 0..plan.users.max(plan.items.min(MADE_ITEMS_MAX)) {
            if n < plan.users {
                workload.errand(Op::CreateUser, Target::default());
            }
            if n < plan.items.min(MADE_ITEMS_MAX) {
                let price = workload.price(n);
                workload.errand(Op::CreateItem { price }, Target::default());
            }
        }
        if workload.batch > 0 {
            let batch = Target { batch: true, ..Target::default() };
            let credit = workload.some_credit(rng);
            workload.errand(Op::LoadUsers { n: workload.batch, credit }, batch);
            let (n, stock, price) = (workload.batch, workload.plenty, workload.batch_price());
            workload.errand(Op::LoadItems { n, stock, price }, batch);
        }
        workload
    }

    fn price(&self, n: usize) -> Money {
        let times = BASE.pow(u32::try_from(n).expect("a few items"));
        self.unit.checked_mul(times).expect("a small price")
    }

    fn batch_price(&self) -> Money {
        self.unit.checked_mul(7).expect("a small price")
    }

    /// Enough for some orders and not for many.
    fn some_credit(&self, rng: &mut impl Rng) -> Money {
        let item = rng.random_range(0..MADE_ITEMS_MAX);
        self.price(item).checked_mul(rng.random_range(1..=self.plenty)).expect("a small amount")
    }

    fn errand(&mut self, op: Op, target: Target) {
        self.errands.push_back(Planned { op, target, key: None });
    }

    fn plan_reload(&mut self) {
        self.reload_after = self.left.saturating_sub(self.left / (self.reloads_left as usize + 1));
    }

    /// What `client` asks next; nothing once enough has been asked.
    /// Orders are loaded anew only while it is `quiet`.
    pub fn next(
        &mut self,
        client: usize,
        shop: &mut Shop,
        quiet: bool,
        rng: &mut impl Rng,
    ) -> Option<Planned> {
        let planned = self.pick(client, shop, quiet, rng)?;
        self.left = self.left.saturating_sub(1);
        self.batch_in_flight += usize::from(planned.target.batch);
        self.items_in_flight += usize::from(planned.target.batch && planned.target.item.is_some());
        Some(planned)
    }

    fn pick(&mut self, client: usize, shop: &mut Shop, quiet: bool, rng: &mut impl Rng) -> Option<Planned> {
        if let Some(first) = self.errands.front()
            && (self.is_idle() || !first.op.is_load())
        {
            return self.errands.pop_front();
        }
        if let Some(planned) = self.visit(client, shop, rng) {
            return Some(planned);
        }
        if self.left == 0 {
            return None;
        }
        if self.reloads_left > 0 && self.left <= self.reload_after && self.batch_is_there(shop) {
            self.reload(quiet, rng);
        }
        for _ in 0..20 {
            if let Some(planned) = self.at_random(shop, rng) {
                return Some(planned);
            }
        }
        // Nothing is there yet to ask about.
        Some(about_nothing(rng))
    }

    /// Whether nothing is under way that a batch must not meet.
    const fn is_idle(&self) -> bool {
        match self.frozen {
            Frozen::Nothing => true,
            Frozen::Items => self.items_in_flight == 0,
            Frozen::Everything => self.batch_in_flight == 0,
        }
    }

    fn batch_is_there(&self, shop: &Shop) -> bool {
        let there = shop.orders.iter().filter(|order| order.batch && !order.replaced).count();
        self.frozen == Frozen::Nothing && there as u64 == self.batch
    }

    fn reload(&mut self, quiet: bool, rng: &mut impl Rng) {
        self.reloads_left -= 1;
        self.plan_reload();
        self.frozen = Frozen::Everything;
        let batch = Target { batch: true, ..Target::default() };
        let n = self.batch;
        let op = match rng.random_range(0..if quiet { 4 } else { 2 }) {
            0 => Op::LoadUsers { n, credit: self.some_credit(rng) },
            1 => {
                self.frozen = Frozen::Items;
                Op::LoadItems { n, stock: rng.random_range(0..self.plenty), price: self.batch_price() }
            }
            _ => self.load_orders(),
        };
        self.errand(op, batch);
    }

    fn load_orders(&self) -> Op {
        let n = self.batch;
        Op::LoadOrders { n, n_items: n, n_users: n, item_price: self.batch_price() }
    }

    fn visit(&mut self, client: usize, shop: &mut Shop, rng: &mut impl Rng) -> Option<Planned> {
        match self.visits[client] {
            Visit::Nothing => None,
            Visit::Filling { order, left: 0, edited } => {
                shop.orders[order].sealed |= !edited;
                self.visits[client] = Visit::CheckingOut { order };
                self.visit(client, shop, rng)
            }
            // It leaves its order half filled: others may still check it out.
            Visit::Filling { .. } if rng.random_ratio(1, 20) => {
                self.visits[client] = Visit::Nothing;
                None
            }
            Visit::Filling { order, left, edited } => {
                self.visits[client] = Visit::Filling { order, left: left - 1, edited };
                add_line(order, shop, rng)
            }
            Visit::CheckingOut { order } => {
                self.visits[client] = Visit::Nothing;
                about_order(shop, order, |order| Op::Checkout { order })
            }
        }
    }

    fn at_random(&self, shop: &mut Shop, rng: &mut impl Rng) -> Option<Planned> {
        let die = rng.random_range(0..100);
        match die {
            0..16 => {
                let user = some_of(rng, 0..shop.users.len(), |&user| !shop.users[user].batch)?;
                let id = shop.users[user].id.clone();
                Some(Planned {
                    op: Op::CreateOrder { user: id },
                    target: Target { user: Some(user), ..Target::default() },
                    key: None,
                })
            }
            16..40 => {
                let order = self.order(shop, rng)?;
                about_order(shop, order, |order| Op::Checkout { order })
            }
            40..50 => self.edit(shop, rng),
            50..57 => {
                let order = self.order(shop, rng)?;
                let user = shop.users[shop.orders[order].user].id.clone();
                about_order(shop, order, |order| Op::CancelPayment { user, order })
            }
            57..62 => self.pay_order(shop, rng),
            62..65 => {
                let order = self.order(shop, rng)?;
                about_order(shop, order, |order| Op::RemoveOrder { order })
            }
            65..68 => {
                let order = self.order(shop, rng)?;
                about_order(shop, order, |order| Op::FindOrder { order })
            }
            68..70 => {
                let order = self.order(shop, rng)?;
                let user = shop.users[shop.orders[order].user].id.clone();
                about_order(shop, order, |order| Op::PaymentStatus { user, order })
            }
            70..80 => self.about_user(shop, rng),
            80..91 => self.about_item(shop, rng),
            91..93 => Some(about_nothing(rng)),
            _ => self.repeat(shop, rng),
        }
    }

    fn order(&self, shop: &Shop, rng: &mut impl Rng) -> Option<usize> {
        let live = |&order: &usize| {
            let info = &shop.orders[order];
            !(info.replaced || info.batch && self.frozen == Frozen::Everything)
        };
        let mut recent = (0..shop.orders.len()).rev().filter(live);
        let nth = rng.random_range(0..ORDERS_IN_PLAY);
        let batch = rng.random_ratio(1, 3);
        if batch {
            some_of(rng, 0..shop.orders.len(), |o| shop.orders[*o].batch && live(o))
        } else {
            recent.nth(nth)
        }
    }

    fn edit(&self, shop: &mut Shop, rng: &mut impl Rng) -> Option<Planned> {
        let order = self.order(shop, rng).filter(|&order| !shop.orders[order].sealed)?;
        if rng.random_bool(0.6) {
            return add_line(order, shop, rng);
        }
        let item = some_of(rng, 0..shop.items.len(), |&item| !shop.items[item].batch)?;
        let id = shop.items[item].id.clone();
        let units = rng.random_range(1..=2);
        let mut planned = about_order(shop, order, |order| Op::RemoveItem { order, item: id, units })?;
        planned.target.item = Some(item);
        Some(planned)
    }

    fn pay_order(&self, shop: &mut Shop, rng: &mut impl Rng) -> Option<Planned> {
        let order = self.order(shop, rng)?;
        let total = shop.most_total(order);
        let offer = *shop.orders[order].offer.get_or_insert_with(|| {
            if rng.random_ratio(3, 4) { total } else { total.checked_add(self.unit).expect("small") }
        });
        let user = shop.users[shop.orders[order].user].id.clone();
        about_order(shop, order, |order| Op::PayOrder { user, order, amount: offer })
    }

    fn about_user(&self, shop: &Shop, rng: &mut impl Rng) -> Option<Planned> {
        let left_alone = |user: usize| self.frozen == Frozen::Everything && shop.users[user].batch;
        let user = some_of(rng, 0..shop.users.len(), |&user| !left_alone(user))?;
        let info = &shop.users[user];
        let id = info.id.clone();
        let op = match rng.random_range(0..4) {
            0 | 1 => Op::FindUser { user: id },
            2 => Op::AddFunds { user: id, amount: self.some_credit(rng) },
            _ => Op::Pay { user: id, amount: self.price(rng.random_range(0..3)) },
        };
        Some(Planned {
            op,
            target: Target { user: Some(user), batch: info.batch, ..Target::default() },
            key: None,
        })
    }

    fn about_item(&self, shop: &Shop, rng: &mut impl Rng) -> Option<Planned> {
        let left_alone = |item: usize| self.frozen != Frozen::Nothing && shop.items[item].batch;
        let item = some_of(rng, 0..shop.items.len(), |&item| !left_alone(item))?;
        let info = &shop.items[item];
        let id = info.id.clone();
        let op = match rng.random_range(0..4) {
            0 | 1 => Op::FindItem { item: id },
            2 => Op::AddStock { item: id, units: rng.random_range(0..=self.plenty) },
            _ => Op::SubtractStock { item: id, units: rng.random_range(0..=self.plenty.div_ceil(3)) },
        };
        Some(Planned {
            op,
            target: Target { item: Some(item), batch: info.batch, ..Target::default() },
            key: None,
        })
    }

    /// The same key, method and path again. A batch over its subject may have taken the key away.
    fn repeat(&self, shop: &Shop, rng: &mut impl Rng) -> Option<Planned> {
        let fit = |&key: &usize| {
            let key: &Key = &shop.keys[key];
            !key.busy && !key.op.is_read() && !key.op.is_load() && !key.target.batch
        };
        let key = some_of(rng, 0..shop.keys.len(), fit)?;
        let Key { op, target, .. } = &shop.keys[key];
        Some(Planned { op: op.clone(), target: *target, key: Some(key) })
    }

    /// Reads everything back, once for each time it is called.
    pub fn read_everything(&mut self, shop: &Shop) {
        self.left = 0;
        self.errands.clear();
        // Whoever stopped in the middle of something does not go on with it now.
        self.visits.fill_with(|| Visit::Nothing);
        for user in 0..shop.users.len() {
            let target = Target { user: Some(user), batch: shop.users[user].batch, ..Target::default() };
            self.errand(Op::FindUser { user: shop.users[user].id.clone() }, target);
        }
        for item in 0..shop.items.len() {
            let target = Target { item: Some(item), batch: shop.items[item].batch, ..Target::default() };
            self.errand(Op::FindItem { item: shop.items[item].id.clone() }, target);
        }
        for order in (0..shop.orders.len()).filter(|&order| !shop.orders[order].replaced) {
            let user = shop.users[shop.orders[order].user].id.clone();
            self.errands.extend(about_order(shop, order, |order| Op::FindOrder { order }));
            self.errands.extend(about_order(shop, order, |order| Op::PaymentStatus { user, order }));
        }
    }
}

fn some_of(rng: &mut impl Rng, all: std::ops::Range<usize>, fit: impl Fn(&usize) -> bool) -> Option<usize> {
    let fitting: Vec<usize> = all.filter(fit).collect();
    (!fitting.is_empty()).then(|| fitting[rng.random_range(0..fitting.len())])
}

/// A request about something that does not exist.
fn about_nothing(rng: &mut impl Rng) -> Planned {
    let op = match rng.random_range(0..6) {
        0 => Op::FindOrder { order: "no-such-order".into() },
        1 => Op::Checkout { order: "no-such-order".into() },
        2 => Op::FindUser { user: "nobody".into() },
        3 => Op::AddFunds { user: "nobody".into(), amount: Money::whole(1) },
        4 => Op::FindItem { item: "nothing".into() },
        _ => Op::SubtractStock { item: "nothing".into(), units: 0 },
    };
    Planned { op, target: Target::default(), key: None }
}

fn about_order(shop: &Shop, order: usize, op: impl FnOnce(OrderId) -> Op) -> Option<Planned> {
    let info = &shop.orders[order];
    let target = Target { user: Some(info.user), item: None, order: Some(order), batch: info.batch };
    Some(Planned { op: op(info.id.clone()), target, key: None })
}

fn add_line(order: usize, shop: &mut Shop, rng: &mut impl Rng) -> Option<Planned> {
    let item = some_of(rng, 0..shop.items.len(), |&item| !shop.items[item].batch)?;
    let units = rng.random_range(1..=UNITS_AT_ONCE_MAX);
    let most = &mut shop.orders[order].most;
    match most.iter_mut().find(|(of, _)| *of == item) {
        Some((_, sum)) if *sum + units >= BASE => return None,
        Some((_, sum)) => *sum += units,
        None => most.push((item, units)),
    }
    let id = shop.items[item].id.clone();
    let mut planned = about_order(shop, order, |order| Op::AddItem { order, item: id, units })?;
    planned.target.item = Some(item);
    Some(planned)
}

/// A key for a request that has none yet.
pub fn fresh_key(shop: &mut Shop, rng: &mut impl Rng, planned: &Planned) -> usize {
    let id = OpId(rng.random());
    shop.keys.push(Key { id, op: planned.op.clone(), target: planned.target, done: None, busy: false });
    shop.keys.len() - 1
}
