//! Every row of the table of paths, and what is no row of it.

use super::http::{encode, number, text};
use super::shop::{Order, shop};

/// Each path of the contract with the methods that it takes; the arguments of all but the batches are
/// of nothing that exists.
const ROWS: &[(&str, &[&str])] = &[
    ("/orders/create/nobody", &["POST"]),
    ("/orders/remove/none", &["DELETE"]),
    ("/orders/addItem/none/none", &["POST"]),
    ("/orders/addItem/none/none/2", &["POST"]),
    ("/orders/removeItem/none/none", &["DELETE"]),
    ("/orders/removeItem/none/none/2", &["DELETE"]),
    ("/orders/find/none", &["GET"]),
    ("/orders/checkout/none", &["POST"]),
    ("/orders/batch_init/0/1/1/1", &["POST"]),
    ("/stock/item/create/5", &["POST"]),
    ("/stock/find/none", &["GET"]),
    ("/stock/add/none/1", &["POST"]),
    ("/stock/subtract/none/1", &["POST"]),
    ("/stock/batch_init/0/1/1", &["POST"]),
    ("/payment/create_user", &["POST"]),
    ("/payment/find_user/none", &["GET"]),
    ("/payment/add_funds/none/1", &["POST"]),
    ("/payment/pay/none/1", &["POST"]),
    ("/payment/pay/none/none/1", &["POST"]),
    ("/payment/cancel/none/none", &["POST"]),
    ("/payment/status/none/none", &["GET", "POST"]),
    ("/payment/batch_init/0/1", &["POST"]),
];

#[test]
fn orders() {
    let shop = shop();
    let (user, item) = (shop.user("100"), shop.item("7.25", 10));
    let created = shop.post(&format!("/orders/create/{user}")).has(&["order_id"]);
    let order = text(&created, "order_id");
    let empty = Order {
        id: order.clone(),
        user: user.clone(),
        paid: false,
        items: vec![],
        total_cost: "0".to_owned(),
    };
    assert_eq!(shop.find(&order), empty);

    let with = |units: u64, total_cost: &str| Order {
        items: vec![(item.clone(), units)],
        total_cost: total_cost.to_owned(),
        ..empty.clone()
    };
    let one = Order::of(shop.post(&format!("/orders/addItem/{order}/{item}")));
    assert_eq!(one, with(1, "7.25"));
    let four = Order::of(shop.post(&format!("/orders/addItem/{order}/{item}/3")));
    assert_eq!(four, with(4, "29"));
    assert_eq!(shop.find(&order), four);
    assert_eq!(Order::of(shop.delete(&format!("/orders/removeItem/{order}/{item}"))), with(3, "21.75"));
    assert_eq!(Order::of(shop.delete(&format!("/orders/removeItem/{order}/{item}/2"))), with(1, "7.25"));

    let paid = shop.checkout(&order).has(&["order_id", "paid", "total_cost"]);
    assert_eq!((text(&paid, "order_id"), paid["paid"].get()), (order.clone(), "true"));
    assert_eq!(number(&paid, "total_cost"), "7.25");
    assert_eq!(shop.find(&order), Order { paid: true, ..with(1, "7.25") });

    let other = shop.order(&user, &[(&item, 1)]);
    assert_eq!(text(&shop.delete(&format!("/orders/remove/{other}")).has(&["order_id"]), "order_id"), other);
}

#[test]
fn stock() {
    let shop = shop();
    let item = text(&shop.post("/stock/item/create/7.25").has(&["item_id"]), "item_id");
    let found = shop.get(&format!("/stock/find/{item}")).has(&["item_id", "stock", "price"]);
    assert_eq!(text(&found, "item_id"), item);
    assert_eq!((number(&found, "stock").as_str(), number(&found, "price").as_str()), ("0", "7.25"));
    for (path, stock) in [("add", "7"), ("subtract", "0"), ("add", "7")] {
        let members = shop.post(&format!("/stock/{path}/{item}/7")).has(&["item_id", "stock"]);
        assert_eq!((text(&members, "item_id"), number(&members, "stock")), (item.clone(), stock.to_owned()));
    }
    assert_eq!(shop.stock(&item), 7);
}

#[test]
fn payment() {
    let shop = shop();
    let user = text(&shop.post("/payment/create_user").has(&["user_id"]), "user_id");
    let found = shop.get(&format!("/payment/find_user/{user}")).has(&["user_id", "credit"]);
    assert_eq!((text(&found, "user_id"), number(&found, "credit")), (user.clone(), "0".to_owned()));

    let funds = shop.post(&format!("/payment/add_funds/{user}/50")).has(&["done", "user_id", "credit"]);
    assert_eq!((funds["done"].get(), text(&funds, "user_id")), ("true", user.clone()));
    assert_eq!(number(&funds, "credit"), "50");

    let debit = shop.post(&format!("/payment/pay/{user}/7.5")).has(&["user_id", "credit"]);
    assert_eq!((text(&debit, "user_id"), number(&debit, "credit")), (user.clone(), "42.5".to_owned()));

    let order = shop.order(&user, &[]);
    assert!(!shop.has_paid(&user, &order));
    let paid = shop.post(&format!("/payment/pay/{user}/{order}/2.5")).has(&["user_id", "credit"]);
    assert_eq!((text(&paid, "user_id"), number(&paid, "credit")), (user.clone(), "40".to_owned()));
    assert!(shop.has_paid(&user, &order));
    let back = shop.post(&format!("/payment/cancel/{user}/{order}")).has(&["user_id", "credit"]);
    assert_eq!((text(&back, "user_id"), number(&back, "credit")), (user.clone(), "42.5".to_owned()));
    assert!(!shop.has_paid(&user, &order));
    assert_eq!(shop.credit(&user), "42.5");
}

#[test]
fn what_is_not_there_is_404_under_its_own_name() {
    let shop = shop();
    let user = shop.user("0");
    let order = shop.order(&user, &[]);
    for (method, path, code) in [
        ("DELETE", "/orders/remove/none".to_owned(), "order_not_found"),
        ("POST", "/orders/addItem/none/none".to_owned(), "order_not_found"),
        ("POST", format!("/orders/addItem/{order}/none"), "item_not_found"),
        ("POST", format!("/orders/addItem/{order}/none/2"), "item_not_found"),
        ("DELETE", "/orders/removeItem/none/none".to_owned(), "order_not_found"),
        ("DELETE", format!("/orders/removeItem/{order}/none"), "item_not_found"),
        ("DELETE", format!("/orders/removeItem/{order}/none/2"), "item_not_found"),
        ("GET", "/orders/find/none".to_owned(), "order_not_found"),
        ("GET", format!("/orders/find/{user}"), "order_not_found"),
        ("POST", "/orders/checkout/none".to_owned(), "order_not_found"),
        ("GET", "/stock/find/none".to_owned(), "item_not_found"),
        ("POST", "/stock/add/none/1".to_owned(), "item_not_found"),
        ("POST", "/stock/subtract/none/1".to_owned(), "item_not_found"),
        ("POST", "/stock/subtract/none/0".to_owned(), "item_not_found"),
        ("GET", "/payment/find_user/none".to_owned(), "user_not_found"),
        ("POST", "/payment/add_funds/none/1".to_owned(), "user_not_found"),
        ("POST", "/payment/pay/none/1".to_owned(), "user_not_found"),
        ("POST", format!("/payment/cancel/{user}/{order}"), "payment_not_found"),
        // Numbers that no batch can have made.
        ("GET", "/stock/find/1000000".to_owned(), "item_not_found"),
        ("GET", "/stock/find/00".to_owned(), "item_not_found"),
        ("GET", "/payment/find_user/1000000".to_owned(), "user_not_found"),
        ("GET", "/orders/find/1000000".to_owned(), "order_not_found"),
        ("GET", "/orders/find/18446744073709551616".to_owned(), "order_not_found"),
    ] {
        for _ in &shop.pods {
            shop.call(method, &path).refused(404, code);
        }
    }
}

#[test]
fn what_is_no_path() {
    let shop = shop();
    for path in [
        "/",
        "/x",
        "/orders",
        "/orders/",
        "/orders/find",
        "/orders/find/",
        "/orders/find/o/",
        "/orders/find/o/x",
        "/Orders/find/o",
        "/orders/Find/o",
        "/orders/additem/o/i",
        "/orders/create/",
        "/orders/addItem/o",
        "/orders/addItem/o/i/1/",
        "/orders/addItem/o/i/1/1",
        "/orders/batch_init/1/1/1",
        "/stock/create/5",
        "/stock/item/create/",
        "/stock/add/i/",
        "/stock/batch_init/1/1",
        "/payment/create_user/u",
        "/payment/pay/u/",
        "/payment/pay/u/o/",
        "/payment/pay/u/o/1/1",
        "/payment/batch_init/1",
        "/order/find/o",
        "/healthz/",
        "/readyz/x",
        "/a/b/c/d/e/f/g/h/i/j",
    ] {
        for method in ["GET", "POST", "DELETE", "PUT"] {
            shop.call(method, path).refused(404, "no_such_path");
        }
    }
}

#[test]
fn another_method_is_405_and_names_those_that_are_taken() {
    let shop = shop();
    for (path, taken) in ROWS {
        for method in ["GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS", "BREW"] {
            if taken.contains(&method) {
                continue;
            }
            let response = shop.call(method, path);
            let allow: Vec<&str> = response.header("allow").unwrap_or_default().split(", ").collect();
            assert_eq!((response.status, &*allow), (405, *taken), "{method} {path}");
            if method != "HEAD" {
                response.refused(405, "method_not_allowed");
            }
        }
    }
}

#[test]
fn a_query_is_of_no_meaning() {
    let shop = shop();
    let item = shop.item("1", 1);
    assert_eq!(number(&shop.get(&format!("/stock/find/{item}?a=1&b=%FF")).ok(), "stock"), "1");
    assert_eq!(number(&shop.post(&format!("/stock/add/{}/1?x", encode(&item))).ok(), "stock"), "2");
}

#[test]
fn every_pod_answers_the_same() {
    let shop = shop();
    let (user, item) = (shop.user("10"), shop.item("2", 3));
    let order = shop.order(&user, &[(&item, 2)]);
    shop.checkout(&order).ok();
    // At once, on each pod, twice around.
    for _ in 0..2 * shop.pods.len() {
        assert_eq!((shop.credit(&user).as_str(), shop.stock(&item)), ("6", 1));
        let found = shop.find(&order);
        assert_eq!((found.paid, &*found.items), (true, &[(item.clone(), 2)][..]));
        assert!(shop.has_paid(&user, &order));
    }
}

#[test]
fn health_and_readiness() {
    let shop = shop();
    for path in ["/healthz", "/readyz", "/status"] {
        for _ in &shop.pods {
            assert_eq!(shop.get(path).status, 200);
            let refused = shop.post(path);
            assert_eq!(refused.header("allow"), Some("GET"));
            refused.refused(405, "method_not_allowed");
        }
    }
}
