//! What the clients learn from how a request ended.

use super::{ADDS_PER_ORDER_MAX, Frozen, Visit, Workload};
use crate::histories::shop::{ItemInfo, OrderInfo, Shop, Target, UserInfo};
use crate::modules::request::{Answer, Op, OrderId, OrderView, Outcome};
use rand::{Rng, RngExt};

impl Workload {
    /// Learns from how a request ended.
    pub fn ended(&mut self, record: usize, shop: &mut Shop, rng: &mut impl Rng) {
        let (client, target) = (shop.history[record].client, shop.history[record].target);
        // Last reads may be asked again, or left out, by those who lead the clients.
        self.batch_in_flight = self.batch_in_flight.saturating_sub(usize::from(target.batch));
        let names_item = target.batch && target.item.is_some();
        self.items_in_flight = self.items_in_flight.saturating_sub(usize::from(names_item));
        let done = match shop.history[record].outcome.clone() {
            Some(Outcome::Done(answer)) if shop.history[record].repeats.is_none() => answer,
            _ => return,
        };
        match done {
            Answer::UserCreated { user } => {
                shop.users.push(UserInfo { id: user.clone(), batch: false });
                let target = Target { user: Some(shop.users.len() - 1), ..Target::default() };
                let amount = self.some_credit(rng);
                self.errand(Op::AddFunds { user, amount }, target);
            }
            Answer::ItemCreated { item } => {
                let Op::CreateItem { price } = shop.history[record].op else { return };
                shop.items.push(ItemInfo { id: item.clone(), batch: false, price });
                let target = Target { item: Some(shop.items.len() - 1), ..Target::default() };
                self.errand(Op::AddStock { item, units: self.plenty }, target);
            }
            Answer::OrderCreated { order } => self.order_created(client, record, order, shop, rng),
            Answer::Order(view) => self.order_seen(record, view, shop),
            Answer::Loaded { n } => self.loaded(record, n, shop),
            Answer::OrderRemoved { .. }
            | Answer::CheckedOut { .. }
            | Answer::Item { .. }
            | Answer::Stock { .. }
            | Answer::User { .. }
            | Answer::Funds { .. }
            | Answer::Credit { .. }
            | Answer::Replaced(_)
            | Answer::PaymentStatus { .. } => {}
        }
    }

    fn order_created(
        &mut self,
        client: usize,
        record: usize,
        id: OrderId,
        shop: &mut Shop,
        rng: &mut impl Rng,
    ) {
        let user = shop.history[record].target.user.expect("an order is made for a user");
        shop.orders.push(OrderInfo {
            id,
            user,
            batch: false,
            most: Vec::new(),
            sealed: false,
            sure: shop.history[record].calm,
            replaced: false,
            offer: None,
        });
        self.visits[client] = Visit::Filling {
            order: shop.orders.len() - 1,
            left: rng.random_range(0..ADDS_PER_ORDER_MAX / 2),
            edited: rng.random_ratio(1, 3),
        };
    }

    /// A batch order shows its user and its lines; one that clients made shows nothing new.
    fn order_seen(&mut self, record: usize, view: OrderView, shop: &mut Shop) {
        let target = shop.history[record].target;
        if let Some(order) = target.order {
            shop.orders[order].sure &= shop.history[record].calm || shop.history[record].op.is_read();
            return;
        }
        let overwrites =
            shop.batch_before || shop.orders.iter().any(|order| order.id == view.order && order.replaced);
        if overwrites && !shop.history[record].connected {
            // A pod that was cut off may show what the order was before.
            let target = Target { batch: true, ..Target::default() };
            return self.errand(Op::FindOrder { order: view.order }, target);
        }
        let Some(user) = shop.user_named(&view.user) else { return };
        let most =
            view.items.iter().filter_map(|(item, units)| Some((shop.item_named(item)?, *units))).collect();
        let id = view.order;
        if shop.orders.iter().any(|order| order.id == id && !order.replaced) {
            return;
        }
        shop.orders.push(OrderInfo {
            id,
            user,
            batch: true,
            most,
            sealed: true,
            sure: true,
            replaced: false,
            offer: None,
        });
        if self.batch_is_found(shop) {
            self.frozen = Frozen::Nothing;
        }
    }

    fn batch_is_found(&self, shop: &Shop) -> bool {
        shop.orders.iter().filter(|order| order.batch && !order.replaced).count() as u64 == self.batch
    }

    fn loaded(&mut self, record: usize, n: u64, shop: &mut Shop) {
        match shop.history[record].op {
            Op::LoadUsers { .. } => {
                if !shop.users.iter().any(|user| user.batch) {
                    let user = |i: u64| UserInfo { id: i.to_string().into(), batch: true };
                    shop.users.extend((0..n).map(user));
                }
            }
            Op::LoadItems { price, .. } => {
                if shop.items.iter().any(|item| item.batch) {
                    self.frozen = Frozen::Nothing;
                } else {
                    let item = |i: u64| ItemInfo { id: i.to_string().into(), batch: true, price };
                    shop.items.extend((0..n).map(item));
                }
            }
            Op::LoadOrders { .. } => {
                self.frozen = Frozen::Everything;
                for order in shop.orders.iter_mut().filter(|order| order.batch) {
                    order.replaced = true;
                }
                for i in 0..n {
                    let order = OrderId::from(i.to_string());
                    self.errand(Op::FindOrder { order }, Target { batch: true, ..Target::default() });
                }
                return;
            }
            _ => return,
        }
        let both = shop.users.iter().any(|user| user.batch) && shop.items.iter().any(|item| item.batch);
        if both && !shop.orders.iter().any(|order| order.batch) {
            let op = self.load_orders();
            self.errand(op, Target { batch: true, ..Target::default() });
        } else {
            self.frozen = Frozen::Nothing;
        }
    }
}
