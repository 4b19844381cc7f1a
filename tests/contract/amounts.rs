//! Money, stock, quantities and counts: what is taken, what is refused, and that sums are exact.

use super::http::number;
use super::shop::{Order, shop};

const UNITS_MAX: u64 = (1 << 53) - 1;

/// Paths that take money, `{}`, of the user `u`, item `i` and order `o` given.
fn money_paths(user: &str, order: &str) -> Vec<String> {
    vec![
        "/stock/item/create/{}".to_owned(),
        format!("/payment/add_funds/{user}/{{}}"),
        format!("/payment/pay/{user}/{{}}"),
        format!("/payment/pay/{user}/{order}/{{}}"),
        "/payment/batch_init/1/{}".to_owned(),
        "/stock/batch_init/1/1/{}".to_owned(),
        "/orders/batch_init/1/1/1/{}".to_owned(),
    ]
}

#[test]
fn what_is_no_money_is_refused_everywhere() {
    let shop = shop();
    let user = shop.user("1000");
    let order = shop.order(&user, &[]);
    let long = "1".repeat(65);
    for path in money_paths(&user, &order) {
        for bad in [
            "x",
            "-1",
            "+1",
            "%2B1",
            "1_000",
            "1%20",
            "%201",
            "1,5",
            "nan",
            "NaN",
            "inf",
            "Infinity",
            "0x10",
            "1e",
            "e5",
            ".",
            "1.2.3",
            "1e1e1",
            "--1",
            "1-",
            "%FF",
            "٣",
            "1e15",
            "1000000000000000",
            "1e999999999",
            "1e99999999999999999999",
            "1e-19",
            "0.0000000000000000001",
            "1e-999999999",
            "1%2F2",
            "true",
            &long,
        ] {
            shop.post(&path.replace("{}", bad)).refused(400, "bad_amount");
        }
    }
    assert_eq!(shop.credit(&user), "1000");
    assert!(!shop.has_paid(&user, &order));
}

#[test]
fn what_is_money_is_shown_as_a_plain_exact_number() {
    let shop = shop();
    for (text, shown) in [
        ("7.25", "7.25"),
        ("5", "5"),
        ("5.0", "5"),
        ("005", "5"),
        ("1e-3", "0.001"),
        ("1E2", "100"),
        ("1e%2B2", "100"),
        ("1e+2", "100"),
        ("2.50e1", "25"),
        ("0", "0"),
        ("0.0", "0"),
        (".5", "0.5"),
        ("5.", "5"),
        ("7.289374982374123", "7.289374982374123"),
        ("0.1", "0.1"),
        ("1e14", "100000000000000"),
        ("0.000000000000000001", "0.000000000000000001"),
        ("999999999999999.999999999999999999", "999999999999999.999999999999999999"),
    ] {
        let item = shop.item(text, 0);
        let found = shop.get(&format!("/stock/find/{item}")).ok();
        assert_eq!(number(&found, "price"), shown, "{text}");
        let user = shop.user("0");
        let funds = shop.post(&format!("/payment/add_funds/{user}/{text}")).ok();
        assert_eq!(number(&funds, "credit"), shown, "{text}");
        assert_eq!(shop.credit(&user), shown, "{text}");
        let rest = shop.post(&format!("/payment/pay/{user}/{text}")).ok();
        assert_eq!(number(&rest, "credit"), "0", "{text}");
    }
}

#[test]
fn sums_are_exact() {
    let shop = shop();
    let user = shop.user("0");
    for (amount, credit) in [
        ("0.1", "0.1"),
        ("0.2", "0.3"),
        ("7.289374982374123", "7.589374982374123"),
        ("7.289374982374123", "14.878749964748246"),
        ("0.000000000000000001", "14.878749964748246001"),
        ("999999999999999.999999999999999999", "1000000000000014.878749964748246"),
    ] {
        let funds = shop.post(&format!("/payment/add_funds/{user}/{amount}")).ok();
        assert_eq!(number(&funds, "credit"), credit);
    }
    for (amount, credit) in
        [("999999999999999.999999999999999999", "14.878749964748246001"), ("14.878749964748246001", "0")]
    {
        assert_eq!(number(&shop.post(&format!("/payment/pay/{user}/{amount}")).ok(), "credit"), credit);
    }
    shop.post(&format!("/payment/pay/{user}/0.000000000000000001")).refused(409, "insufficient_credit");
}

#[test]
fn a_total_is_exact() {
    let shop = shop();
    let (a, b) = (shop.item("7.289374982374123", 100), shop.item("0.1", 100));
    let user = shop.user("72.893749823741231");
    let order = shop.order(&user, &[(&a, 7), (&b, 3), (&a, 3)]);
    assert_eq!(shop.find(&order).total_cost, "73.19374982374123");
    shop.checkout(&order).refused(409, "insufficient_credit");
    let left = Order::of(shop.delete(&format!("/orders/removeItem/{order}/{b}/3")));
    assert_eq!(left.total_cost, "72.89374982374123");
    assert_eq!(number(&shop.checkout(&order).ok(), "total_cost"), "72.89374982374123");
    assert_eq!(shop.credit(&user), "0.000000000000001");
}

#[test]
fn what_is_no_count_is_refused_everywhere() {
    let shop = shop();
    let (user, item) = (shop.user("0"), shop.item("1", 5));
    let order = shop.order(&user, &[(&item, 2)]);
    let long = "1".repeat(65);
    let common = [
        "x",
        "-1",
        "+1",
        "%2B1",
        "1.0",
        "1.5",
        "1e3",
        "1_0",
        "%201",
        "1%20",
        "0x1",
        "٣",
        "%FF",
        "true",
        "1%2F2",
        "9007199254740992",
        "18446744073709551616",
        "99999999999999999999999999999999",
        &long,
    ];
    for (method, path, more) in [
        ("POST", format!("/orders/addItem/{order}/{item}/{{}}"), &["0", "00"][..]),
        ("DELETE", format!("/orders/removeItem/{order}/{item}/{{}}"), &["0", "3"]),
        ("POST", format!("/stock/add/{item}/{{}}"), &["9007199254740987"]),
        ("POST", format!("/stock/subtract/{item}/{{}}"), &[]),
        ("POST", "/stock/batch_init/{}/1/1".to_owned(), &["0", "1000001"]),
        ("POST", "/stock/batch_init/1/{}/1".to_owned(), &[]),
        ("POST", "/payment/batch_init/{}/1".to_owned(), &["0", "1000001"]),
        ("POST", "/orders/batch_init/{}/1/1/1".to_owned(), &["0", "1000001"]),
        ("POST", "/orders/batch_init/1/{}/1/1".to_owned(), &["0"]),
        ("POST", "/orders/batch_init/1/1/{}/1".to_owned(), &["0"]),
    ] {
        for bad in common.iter().chain(more) {
            shop.call(method, &path.replace("{}", bad)).refused(400, "bad_amount");
        }
    }
    assert_eq!(shop.stock(&item), 5);
    assert_eq!(shop.find(&order).units(&item), 2);
}

#[test]
fn a_refused_amount_is_told_how_to_mend_it() {
    let shop = shop();
    let detail = shop.post("/stock/item/create/1e15").refused(400, "bad_amount");
    assert!(detail.contains("15 digits"), "{detail}");
    let detail = shop.post("/stock/add/none/1.5").refused(400, "bad_amount");
    assert!(detail.contains("9007199254740991"), "{detail}");
}

#[test]
fn stock_goes_up_to_its_bound_and_down_to_zero() {
    let shop = shop();
    let item = shop.item("1", UNITS_MAX);
    assert_eq!(shop.stock(&item), UNITS_MAX);
    shop.post(&format!("/stock/add/{item}/1")).refused(400, "bad_amount");
    let same = shop.post(&format!("/stock/add/{item}/0")).ok();
    assert_eq!(number(&same, "stock"), UNITS_MAX.to_string());
    let none = shop.post(&format!("/stock/subtract/{item}/{UNITS_MAX}")).ok();
    assert_eq!(number(&none, "stock"), "0");
    // What `find` returned may be subtracted, be it 0.
    assert_eq!(number(&shop.post(&format!("/stock/subtract/{item}/0")).ok(), "stock"), "0");
    assert_eq!(number(&shop.post(&format!("/stock/add/{item}/007")).ok(), "stock"), "7");
}

#[test]
fn a_quantity_is_bounded_as_a_sum_too() {
    let shop = shop();
    let item = shop.item("0", 0);
    let order = shop.order("u", &[(&item, UNITS_MAX)]);
    shop.post(&format!("/orders/addItem/{order}/{item}")).refused(400, "bad_amount");
    assert_eq!(shop.find(&order).units(&item), UNITS_MAX);
    let left = Order::of(shop.delete(&format!("/orders/removeItem/{order}/{item}/{}", UNITS_MAX - 1)));
    assert_eq!(left.units(&item), 1);
}

#[test]
fn a_total_beyond_all_money_is_never_charged() {
    let shop = shop();
    let user = shop.user("999999999999999");
    let item = shop.item("999999999999999", UNITS_MAX);
    let order = shop.order(&user, &[]);
    let added = shop.post(&format!("/orders/addItem/{order}/{item}/{UNITS_MAX}"));
    if added.status == 200 {
        shop.checkout(&order).refused(409, "insufficient_credit");
    } else {
        added.refused(400, "bad_amount");
        assert_eq!(shop.find(&order).items, []);
    }
    assert_eq!((shop.credit(&user).as_str(), shop.stock(&item)), ("999999999999999", UNITS_MAX));
}
