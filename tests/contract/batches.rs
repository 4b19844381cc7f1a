//! `batch_init`: the ids "0" to "n−1", overwritten at once, through any pod.

use super::http::{number, text};
use super::shop::{Order, Shop, batch_turn, shop};
use std::collections::BTreeSet;

/// Loads `n` of each: items with `stock` at `price`, users with `credit`, and orders over all of them.
#[track_caller]
fn load(shop: &Shop, n: u64, stock: u64, price: &str, credit: &str) {
    for path in [
        format!("/stock/batch_init/{n}/{stock}/{price}"),
        format!("/payment/batch_init/{n}/{credit}"),
        format!("/orders/batch_init/{n}/{n}/{n}/{price}"),
    ] {
        let loaded = shop.post(&path).has(&["msg"]);
        assert!(!text(&loaded, "msg").is_empty());
    }
}

#[test]
fn a_hundred_thousand_of_each_are_there_on_every_pod() {
    let shop = shop();
    let _turn = batch_turn();
    const N: u64 = 100_000;
    load(shop, N, 100, "7.25", "1000000");
    let (mut items, mut users) = (BTreeSet::new(), BTreeSet::new());
    for id in [0, 1, 2, 17, 999, 12_345, 54_321, 99_998, 99_999] {
        let id = id.to_string();
        for _ in &shop.pods {
            let found = shop.get(&format!("/stock/find/{id}")).ok();
            assert_eq!((text(&found, "item_id"), number(&found, "price")), (id.clone(), "7.25".to_owned()));
            assert_eq!(number(&found, "stock"), "100");
            assert_eq!(shop.credit(&id), "1000000");
        }
    }
    for id in (0..N).step_by(997) {
        let order = shop.find(&id.to_string());
        assert_eq!(
            (order.id.as_str(), order.paid, order.total_cost.as_str()),
            (&*id.to_string(), false, "14.5")
        );
        assert_eq!(order.items.iter().map(|(_, units)| units).sum::<u64>(), 2, "{order:?}");
        assert!(order.items.iter().all(|(item, _)| item.parse::<u64>().unwrap() < N), "{order:?}");
        assert!(order.user.parse::<u64>().unwrap() < N, "{order:?}");
        for _ in &shop.pods {
            assert_eq!(shop.find(&id.to_string()), order, "the same for every reader");
        }
        items.extend(order.items.into_iter().map(|(item, _)| item));
        users.insert(order.user);
    }
    // Chosen at random: about 200 items and 100 users, of 100,000 each.
    assert!(items.len() > 150 && users.len() > 80, "{} items, {} users", items.len(), users.len());

    let mut spent = 0;
    for id in (0..N).step_by(4_999) {
        let (id, order) = (id.to_string(), shop.find(&id.to_string()));
        assert_eq!(number(&shop.checkout(&id).ok(), "total_cost"), "14.5");
        assert!(shop.find(&id).paid);
        assert!(shop.has_paid(&order.user, &id));
        assert!(order.items.iter().all(|(item, units)| shop.stock(item) <= 100 - units));
        spent += 1;
    }
    assert_eq!(spent, 21);
}

#[test]
fn a_batch_order_is_edited_like_any_other() {
    let shop = shop();
    let _turn = batch_turn();
    load(shop, 10, 5, "2", "100");
    let order = shop.find("4");
    let extra = shop.item("0.5", 5);
    let edited = Order::of(shop.post(&format!("/orders/addItem/4/{extra}/3")));
    assert_eq!((edited.units(&extra), edited.total_cost.as_str()), (3, "5.5"));
    let first = &order.items[0].0;
    let edited = Order::of(shop.delete(&format!("/orders/removeItem/4/{first}")));
    assert_eq!(edited.total_cost, "3.5");
    shop.checkout("4").ok();
    assert_eq!((shop.credit(&order.user).as_str(), shop.stock(&extra)), ("96.5", 2));
    shop.delete("/orders/remove/5").ok();
    shop.get("/orders/find/5").refused(404, "order_not_found");
    shop.checkout("5").refused(404, "order_not_found");
}

#[test]
fn the_same_item_twice_is_quantity_2() {
    let shop = shop();
    let _turn = batch_turn();
    shop.post("/stock/batch_init/1/10/2").ok();
    shop.post("/payment/batch_init/1/100").ok();
    shop.post("/orders/batch_init/5/1/1/2").ok();
    for id in ["0", "4"] {
        let order = shop.find(id);
        assert_eq!((order.items, order.user.as_str()), (vec![("0".to_owned(), 2)], "0"));
        assert_eq!(order.total_cost, "4");
        shop.checkout(id).ok();
    }
    assert_eq!((shop.stock("0"), shop.credit("0").as_str()), (6, "92"));
}

#[test]
fn a_batch_order_costs_what_its_batch_says() {
    let shop = shop();
    let _turn = batch_turn();
    shop.post("/stock/batch_init/3/10/50").ok();
    shop.post("/payment/batch_init/3/100").ok();
    shop.post("/orders/batch_init/3/3/3/7.289374982374123").ok();
    assert_eq!(shop.find("1").total_cost, "14.578749964748246");
    let user = shop.find("1").user;
    shop.checkout("1").ok();
    assert_eq!(shop.credit(&user), "85.421250035251754");
}

#[test]
fn a_batch_overwrites_what_stands_under_its_ids_and_nothing_else() {
    let shop = shop();
    let _turn = batch_turn();
    load(shop, 20, 5, "2", "100");
    let (item, user) = (shop.item("3", 7), shop.user("9"));
    let order = shop.order(&user, &[(&item, 1)]);
    shop.post("/stock/add/3/4").ok();
    shop.post("/payment/pay/3/40").ok();
    shop.delete("/orders/remove/2").ok();
    shop.post(&format!("/orders/addItem/3/{item}")).ok();
    assert_eq!((shop.stock("3"), shop.credit("3").as_str()), (9, "60"));
    // A smaller batch covers the first ids only.
    load(shop, 10, 8, "1.5", "50");
    for id in ["0", "2", "3", "9"] {
        let found = shop.get(&format!("/stock/find/{id}")).ok();
        assert_eq!((number(&found, "stock").as_str(), number(&found, "price").as_str()), ("8", "1.5"));
        assert_eq!(shop.credit(id), "50");
        assert_eq!((shop.find(id).total_cost.as_str(), shop.find(id).units(&item)), ("3", 0));
    }
    for id in ["10", "19"] {
        assert_eq!((shop.stock(id), shop.credit(id).as_str()), (5, "100"));
        assert_eq!(shop.find(id).total_cost, "4");
    }
    assert_eq!((shop.stock(&item), shop.credit(&user).as_str()), (7, "9"));
    assert_eq!(shop.find(&order).total_cost, "3");
}

#[test]
fn a_batch_of_users_resets_credit_and_payments_and_leaves_paid_orders_paid() {
    let shop = shop();
    let _turn = batch_turn();
    load(shop, 10, 50, "2", "100");
    let (paid, open) = (shop.find("1"), shop.find("2"));
    shop.checkout("1").ok();
    shop.post(&format!("/payment/pay/{}/2/33", open.user)).ok();
    assert!(shop.has_paid(&paid.user, "1") && shop.has_paid(&open.user, "2"));
    let stock = shop.stock(&paid.items[0].0);
    shop.post("/payment/batch_init/10/70").ok();
    for _ in &shop.pods {
        assert_eq!((shop.credit(&paid.user).as_str(), shop.credit(&open.user).as_str()), ("70", "70"));
        assert!(shop.find("1").paid);
        assert!(!shop.has_paid(&open.user, "2"));
        shop.post(&format!("/payment/cancel/{}/1", paid.user)).refused(404, "payment_not_found");
        shop.post(&format!("/payment/cancel/{}/2", open.user)).refused(404, "payment_not_found");
        shop.post(&format!("/orders/addItem/1/{}", paid.items[0].0)).refused(409, "order_paid");
        shop.delete("/orders/remove/1").refused(409, "order_paid");
        shop.checkout("1").ok();
    }
    assert_eq!((shop.credit(&paid.user).as_str(), shop.stock(&paid.items[0].0)), ("70", stock));
    // The other is open and unpaid, and is charged in full.
    shop.checkout("2").ok();
    let spent = if paid.user == open.user { "66" } else { "70" };
    assert_eq!((shop.credit(&open.user).as_str(), shop.credit(&paid.user).as_str()), ("66", spent));
}

#[test]
fn a_batch_of_orders_opens_what_was_paid() {
    let shop = shop();
    let _turn = batch_turn();
    load(shop, 5, 50, "2", "100");
    shop.checkout("3").ok();
    assert!(shop.find("3").paid);
    shop.post("/orders/batch_init/5/5/5/3").ok();
    let anew = shop.find("3");
    assert_eq!((anew.paid, anew.total_cost.as_str()), (false, "6"));
    let before: u64 = (0..5).map(|id| shop.stock(&id.to_string())).sum();
    shop.checkout("3").ok();
    assert!(shop.find("3").paid);
    assert_eq!((0..5).map(|id| shop.stock(&id.to_string())).sum::<u64>(), before - 2);
}

#[test]
fn the_price_is_read_when_an_item_is_added() {
    let shop = shop();
    let _turn = batch_turn();
    shop.post("/stock/batch_init/2/10/5").ok();
    let user = shop.user("100");
    let order = shop.order(&user, &[("1", 2)]);
    shop.post("/stock/batch_init/2/10/7").ok();
    assert_eq!(shop.find(&order).total_cost, "10");
    let both = Order::of(shop.post(&format!("/orders/addItem/{order}/1/3")));
    // One pair, though it was added at two prices.
    assert_eq!((both.items, both.total_cost.as_str()), (vec![("1".to_owned(), 5)], "31"));
    // The newest units go first.
    let left = Order::of(shop.delete(&format!("/orders/removeItem/{order}/1/2")));
    assert_eq!((left.units("1"), left.total_cost.as_str()), (3, "17"));
    let left = Order::of(shop.delete(&format!("/orders/removeItem/{order}/1/2")));
    assert_eq!((left.units("1"), left.total_cost.as_str()), (1, "5"));
    shop.checkout(&order).ok();
    assert_eq!((shop.credit(&user).as_str(), shop.stock("1")), ("95", 9));
}

#[test]
fn the_smallest_and_the_largest_batch() {
    let shop = shop();
    let _turn = batch_turn();
    load(shop, 1_000_000, 3, "1", "5");
    for id in ["0", "500000", "999999"] {
        assert_eq!((shop.stock(id), shop.credit(id).as_str()), (3, "5"));
        assert_eq!(shop.find(id).total_cost, "2");
    }
    for path in ["/stock/find/1000000", "/orders/find/1000000", "/payment/find_user/1000000"] {
        assert_eq!(shop.get(path).status, 404);
    }
    load(shop, 1, 0, "0", "0");
    assert_eq!((shop.stock("0"), shop.credit("0").as_str()), (0, "0"));
    let order = shop.find("0");
    assert_eq!((order.items, order.total_cost.as_str()), (vec![("0".to_owned(), 2)], "0"));
    assert_eq!((shop.stock("1"), shop.credit("1").as_str()), (3, "5"));
}

#[test]
fn ids_that_only_look_like_a_batchs_are_none() {
    let shop = shop();
    let _turn = batch_turn();
    load(shop, 10, 5, "1", "5");
    for id in ["00", "01", "+1", "1.0", "1e0", "%201", "0x1", "-0"] {
        shop.get(&format!("/stock/find/{id}")).refused(404, "item_not_found");
        shop.get(&format!("/payment/find_user/{id}")).refused(404, "user_not_found");
        shop.get(&format!("/orders/find/{id}")).refused(404, "order_not_found");
    }
}
