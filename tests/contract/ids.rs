//! Ids: any text without control characters, up to 128 bytes, percent-encoded in the path.

use super::http::{encode, text};
use super::shop::{Order, shop};

/// Paths with one id left open, `{}`.
const OPEN: &[(&str, &str)] = &[
    ("POST", "/orders/create/{}"),
    ("DELETE", "/orders/remove/{}"),
    ("POST", "/orders/addItem/{}/i"),
    ("POST", "/orders/addItem/o/{}"),
    ("POST", "/orders/addItem/{}/i/2"),
    ("POST", "/orders/addItem/o/{}/2"),
    ("DELETE", "/orders/removeItem/{}/i"),
    ("DELETE", "/orders/removeItem/o/{}"),
    ("DELETE", "/orders/removeItem/{}/i/2"),
    ("DELETE", "/orders/removeItem/o/{}/2"),
    ("GET", "/orders/find/{}"),
    ("POST", "/orders/checkout/{}"),
    ("GET", "/stock/find/{}"),
    ("POST", "/stock/add/{}/1"),
    ("POST", "/stock/subtract/{}/1"),
    ("GET", "/payment/find_user/{}"),
    ("POST", "/payment/add_funds/{}/1"),
    ("POST", "/payment/pay/{}/1"),
    ("POST", "/payment/pay/{}/o/1"),
    ("POST", "/payment/pay/u/{}/1"),
    ("POST", "/payment/cancel/{}/o"),
    ("POST", "/payment/cancel/u/{}"),
    ("GET", "/payment/status/{}/o"),
    ("GET", "/payment/status/u/{}"),
    ("POST", "/payment/status/u/{}"),
];

#[test]
fn bad_ids_are_refused_on_every_path() {
    let shop = shop();
    let long = "x".repeat(129);
    let long_decoded = encode(&"é".repeat(65));
    for (method, path) in OPEN {
        for id in ["%00", "%0A", "a%1Fb", "%7F", "%C2%85", &long, &long_decoded] {
            shop.call(method, &path.replace("{}", id)).refused(400, "bad_id");
        }
    }
}

#[test]
fn what_is_no_percent_encoded_utf8_is_no_id() {
    let shop = shop();
    for (method, path) in OPEN {
        for id in ["%FF", "%C3", "%", "%4", "%zz"] {
            shop.call(method, &path.replace("{}", id)).refused(400, "bad_id");
        }
    }
}

#[test]
fn an_id_that_is_empty_in_the_middle_is_bad_and_at_the_end_no_path() {
    let shop = shop();
    for (method, path) in OPEN {
        let (status, code) = if path.ends_with("{}") { (404, "no_such_path") } else { (400, "bad_id") };
        shop.call(method, &path.replace("{}", "")).refused(status, code);
    }
}

#[test]
fn a_raw_control_character_is_refused() {
    let shop = shop();
    for raw in ["\x01", "\x7f", "\x1f"] {
        let request = format!("GET /orders/find/a{raw}b HTTP/1.1\r\nHost: kassa\r\n\r\n");
        let response = shop.raw(request.as_bytes());
        assert_eq!(response.status, 400, "{response:?}");
    }
}

#[test]
fn any_other_text_is_an_id() {
    let shop = shop();
    let longest = "é".repeat(64);
    for user in [
        "a b",
        "a/b",
        "é",
        "用户",
        "😀",
        "a%b",
        "a+b",
        "\"quoted\" \\ back",
        "<script>",
        "null",
        "-1",
        "x".repeat(128).as_str(),
        &longest,
    ] {
        // An order is created for any user, and says so.
        let created = shop.post(&format!("/orders/create/{}", encode(user))).has(&["order_id"]);
        let order = text(&created, "order_id");
        assert_eq!(shop.find(&order).user, user);
        shop.get(&format!("/payment/find_user/{}", encode(user))).refused(404, "user_not_found");
        shop.get(&format!("/stock/find/{}", encode(user))).refused(404, "item_not_found");
        shop.get(&format!("/orders/find/{}", encode(user))).refused(404, "order_not_found");
    }
}

#[test]
fn an_id_may_be_encoded_more_than_it_needs() {
    let shop = shop();
    let order = shop.order("u", &[]);
    let every_byte: String = order.bytes().map(|b| format!("%{b:02x}")).collect();
    assert_eq!(Order::of(shop.get(&format!("/orders/find/{every_byte}"))).id, order);
}

#[test]
fn created_ids_differ() {
    let shop = shop();
    let mut ids: Vec<String> = (0..10).map(|_| shop.user("0")).collect();
    ids.extend((0..10).map(|_| shop.item("1", 0)));
    ids.extend((0..10).map(|_| shop.order("u", &[])));
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 30);
}
