//! Idempotency keys: a repeat gives the first outcome again and changes nothing.

use super::http::{number, text};
use super::shop::{Order, batch_turn, new_key, shop};
use std::thread;

/// Sends the same request under one key to every pod, twice around, and checks that all the answers
/// are the first one.
#[track_caller]
fn repeat(key: &str, method: &str, path: &str, first: &str) {
    let shop = shop();
    for _ in 0..2 * shop.pods.len() {
        let again = shop.call_as(key, method, path);
        assert_eq!((again.status, again.body.as_str()), (200, first), "{method} {path}");
    }
}

/// The first request under a new key: the key and the answer's body.
#[track_caller]
fn first(method: &str, path: &str) -> (String, String) {
    let key = new_key();
    let response = shop().call_as(&key, method, path);
    assert_eq!(response.status, 200, "{method} {path}: {response:?}");
    (key, response.body)
}

#[test]
fn creating_twice_under_a_key_creates_once() {
    let shop = shop();
    let user = shop.user("0");
    for (path, member) in [
        ("/payment/create_user".to_owned(), "user_id"),
        ("/stock/item/create/7.25".to_owned(), "item_id"),
        (format!("/orders/create/{user}"), "order_id"),
    ] {
        let (key, body) = first("POST", &path);
        repeat(&key, "POST", &path, &body);
        let other = text(&shop.post(&path).ok(), member);
        assert!(!body.contains(&other), "another key is another one");
    }
}

#[test]
fn stock_moves_once_under_a_key_whatever_happened_since() {
    let shop = shop();
    let item = shop.item("1", 10);
    let (add, sub) = (format!("/stock/add/{item}/5"), format!("/stock/subtract/{item}/3"));
    let (add_key, added) = first("POST", &add);
    let (sub_key, subtracted) = first("POST", &sub);
    assert_eq!(shop.stock(&item), 12);
    shop.post(&format!("/stock/subtract/{item}/12")).ok();
    repeat(&add_key, "POST", &add, &added);
    // There is not enough for it now, but it has been done.
    repeat(&sub_key, "POST", &sub, &subtracted);
    assert_eq!(shop.stock(&item), 0);
}

#[test]
fn credit_moves_once_under_a_key_whatever_happened_since() {
    let shop = shop();
    let user = shop.user("10");
    let order = shop.order(&user, &[]);
    let paths = [
        format!("/payment/add_funds/{user}/5"),
        format!("/payment/pay/{user}/7"),
        format!("/payment/pay/{user}/{order}/2"),
    ];
    let firsts: Vec<_> = paths.iter().map(|path| first("POST", path)).collect();
    assert_eq!(shop.credit(&user), "6");
    shop.post(&format!("/payment/pay/{user}/6")).ok();
    for (path, (key, body)) in paths.iter().zip(&firsts) {
        repeat(key, "POST", path, body);
    }
    assert_eq!(shop.credit(&user), "0");
}

#[test]
fn a_cancel_is_repeated_without_a_second_refund() {
    let shop = shop();
    let (user, item) = (shop.user("10"), shop.item("4", 9));
    let order = shop.order(&user, &[(&item, 1)]);
    let cancel = format!("/payment/cancel/{user}/{order}");
    shop.checkout(&order).ok();
    let (key, body) = first("POST", &cancel);
    repeat(&key, "POST", &cancel, &body);
    assert_eq!(shop.credit(&user), "10");
    // Nor does it touch a later payment.
    shop.checkout(&order).ok();
    repeat(&key, "POST", &cancel, &body);
    assert!(shop.find(&order).paid);
    assert_eq!(shop.credit(&user), "6");
}

#[test]
fn a_payment_of_an_order_is_not_made_anew_after_its_cancel() {
    let shop = shop();
    let user = shop.user("10");
    let order = shop.order(&user, &[]);
    let pay = format!("/payment/pay/{user}/{order}/4");
    let (key, body) = first("POST", &pay);
    shop.post(&format!("/payment/cancel/{user}/{order}")).ok();
    repeat(&key, "POST", &pay, &body);
    assert_eq!(shop.credit(&user), "10");
    assert!(!shop.has_paid(&user, &order));
}

#[test]
fn a_checkout_that_was_cancelled_is_not_charged_anew() {
    let shop = shop();
    let (user, item) = (shop.user("10"), shop.item("4", 9));
    let order = shop.order(&user, &[(&item, 1)]);
    let path = format!("/orders/checkout/{order}");
    let (key, body) = first("POST", &path);
    repeat(&key, "POST", &path, &body);
    // One that finds it paid has an outcome to repeat as well.
    let (later_key, later_body) = first("POST", &path);
    shop.post(&format!("/payment/cancel/{user}/{order}")).ok();
    repeat(&key, "POST", &path, &body);
    repeat(&later_key, "POST", &path, &later_body);
    assert_eq!((shop.credit(&user).as_str(), shop.stock(&item)), ("10", 8));
    assert!(!shop.find(&order).paid);
    // A new key is a new checkout.
    shop.checkout(&order).ok();
    assert_eq!((shop.credit(&user).as_str(), shop.stock(&item)), ("6", 7));
}

#[test]
fn an_edit_is_made_once_and_shows_the_order_as_it_now_stands() {
    let shop = shop();
    let (user, item, other) = (shop.user("100"), shop.item("4", 9), shop.item("1", 9));
    let order = shop.order(&user, &[]);
    let add = format!("/orders/addItem/{order}/{item}/3");
    let remove = format!("/orders/removeItem/{order}/{item}");
    let (add_key, _) = first("POST", &add);
    let (remove_key, _) = first("DELETE", &remove);
    shop.post(&format!("/orders/addItem/{order}/{other}")).ok();
    let now = shop.find(&order);
    assert_eq!(now.items, [(item, 2), (other, 1)]);
    for _ in &shop.pods {
        assert_eq!(Order::of(shop.call_as(&add_key, "POST", &add)), now);
        assert_eq!(Order::of(shop.call_as(&remove_key, "DELETE", &remove)), now);
    }
    // So it does when the order is closed by now.
    shop.checkout(&order).ok();
    for _ in &shop.pods {
        assert_eq!(Order::of(shop.call_as(&add_key, "POST", &add)), Order { paid: true, ..now.clone() });
    }
    assert_eq!(shop.find(&order), Order { paid: true, ..now });
}

#[test]
fn a_removal_is_repeated_though_the_order_is_gone() {
    let shop = shop();
    let order = shop.order("u", &[]);
    let path = format!("/orders/remove/{order}");
    let (key, body) = first("DELETE", &path);
    repeat(&key, "DELETE", &path, &body);
    shop.delete(&path).refused(404, "order_not_found");
}

#[test]
fn a_batch_is_loaded_once_under_a_key() {
    let shop = shop();
    let _turn = batch_turn();
    let path = "/stock/batch_init/10/5/1";
    let (key, body) = first("POST", path);
    shop.post("/stock/add/3/2").ok();
    repeat(&key, "POST", path, &body);
    assert_eq!(shop.stock("3"), 7);
    shop.post(path).ok();
    assert_eq!(shop.stock("3"), 5);
}

#[test]
fn a_refused_request_is_tried_anew() {
    let shop = shop();
    let (user, item) = (shop.user("0"), shop.item("5", 0));
    let order = shop.order(&user, &[(&item, 1)]);
    let cases = [
        (format!("/stock/subtract/{item}/2"), "out_of_stock"),
        (format!("/payment/pay/{user}/1"), "insufficient_credit"),
        (format!("/payment/pay/{user}/{order}/5"), "insufficient_credit"),
        (format!("/orders/checkout/{order}"), "out_of_stock"),
    ];
    let keys: Vec<String> = cases.iter().map(|_| new_key()).collect();
    for _ in 0..2 {
        for ((path, code), key) in cases.iter().zip(&keys) {
            shop.call_as(key, "POST", path).refused(409, code);
        }
    }
    shop.post(&format!("/stock/add/{item}/3")).ok();
    shop.post(&format!("/payment/add_funds/{user}/6")).ok();
    for ((path, _), key) in cases.iter().zip(&keys) {
        shop.call_as(key, "POST", path).ok();
    }
    // 1 by the debit and 5 for the order, which its checkout used; 2 subtracted and 1 sold.
    assert_eq!((shop.credit(&user).as_str(), shop.stock(&item)), ("0", 0));
    for ((path, _), key) in cases.iter().zip(&keys) {
        shop.call_as(key, "POST", path).ok();
    }
    assert_eq!((shop.credit(&user).as_str(), shop.stock(&item)), ("0", 0));
}

#[test]
fn on_another_path_a_key_means_another_request() {
    let shop = shop();
    let key = new_key();
    let (one, other, item) = (shop.user("0"), shop.user("0"), shop.item("1", 0));
    for user in [&one, &other] {
        for amount in ["5", "5.0", "7"] {
            shop.call_as(&key, "POST", &format!("/payment/add_funds/{user}/{amount}")).ok();
        }
        assert_eq!(shop.credit(user), "17");
    }
    shop.call_as(&key, "POST", &format!("/stock/add/{item}/5")).ok();
    shop.call_as(&key, "POST", &format!("/stock/subtract/{item}/5")).ok();
    assert_eq!(shop.stock(&item), 0);
    // The path for one unit is another than that for 1, and POST another method than DELETE.
    let order = shop.order("u", &[]);
    for suffix in ["", "/1"] {
        shop.call_as(&key, "POST", &format!("/orders/addItem/{order}/{item}{suffix}")).ok();
    }
    assert_eq!(shop.find(&order).units(&item), 2);
}

#[test]
fn one_key_sent_to_all_pods_at_once_takes_effect_once() {
    let shop = shop();
    let (user, item) = (shop.user("100"), shop.item("1", 100));
    let order = shop.order(&user, &[]);
    let paid = shop.order(&user, &[]);
    for (path, check) in [
        (format!("/payment/add_funds/{user}/5"), "credit"),
        (format!("/payment/pay/{user}/{paid}/5"), "credit"),
        (format!("/stock/subtract/{item}/3"), "stock"),
        (format!("/orders/addItem/{order}/{item}/2"), "total_cost"),
        ("/payment/create_user".to_owned(), "user_id"),
    ] {
        let key = new_key();
        let answers: Vec<String> = thread::scope(|scope| {
            let threads: Vec<_> = (0..12)
                .map(|_| scope.spawn(|| shop.call_as(&key, "POST", &path).ok()[check].get().to_owned()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{path}: {answers:?}");
    }
    assert_eq!((shop.credit(&user).as_str(), shop.stock(&item)), ("100", 97));
    assert_eq!(shop.find(&order).units(&item), 2);
}

#[test]
fn every_answer_carries_its_key() {
    let shop = shop();
    let user = shop.user("0");
    let longest = "k".repeat(255);
    for key in ["k", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", "0e37df36-f698-11e6-8dd4-cb9ced3df976", &longest] {
        // Checked by `call_as`: for a success, a refusal, and what is no path or method at all.
        shop.call_as(key, "POST", &format!("/payment/add_funds/{user}/0")).ok();
        shop.call_as(key, "POST", &format!("/payment/pay/{user}/1")).refused(409, "insufficient_credit");
        shop.call_as(key, "POST", &format!("/payment/pay/{user}/x")).refused(400, "bad_amount");
        shop.call_as(key, "GET", "/stock/find/none").refused(404, "item_not_found");
        shop.call_as(key, "GET", "/nothing").refused(404, "no_such_path");
        shop.call_as(key, "PUT", "/payment/create_user").refused(405, "method_not_allowed");
    }
    // Where there is none, one is made, and it works as one.
    let path = format!("/payment/add_funds/{user}/5");
    let (one, other) = (shop.post(&path), shop.post(&path));
    let (one_key, other_key) =
        (one.header("idempotency-key").unwrap(), other.header("idempotency-key").unwrap());
    assert_ne!(one_key, other_key);
    assert_eq!(number(&other.members(), "credit"), "10");
    repeat(one_key, "POST", &path, &one.body);
    assert_eq!(shop.credit(&user), "10");
}

#[test]
fn a_key_that_breaks_its_rule_is_refused() {
    let shop = shop();
    let user = shop.user("5");
    let long = "k".repeat(256);
    // nginx cannot tell an empty header from none, and gives such a request a key of its own.
    let empty = if std::env::var_os("KASSA_URLS").is_some() { "a b" } else { "" };
    for key in [empty, "a b", "a\tb", "é", &long] {
        for path in [format!("/payment/add_funds/{user}/1"), "/payment/create_user".to_owned()] {
            let request = format!("POST {path} HTTP/1.1\r\nHost: kassa\r\nIdempotency-Key: {key}\r\n\r\n");
            let response = shop.raw(request.as_bytes());
            assert_eq!((response.status, &*response.code()), (400, "bad_key"), "{key:?}: {response:?}");
        }
    }
    assert_eq!(shop.credit(&user), "5");
}
