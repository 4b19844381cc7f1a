//! Checkout: all or nothing, at most once, and again after a refund.

use super::http::number;
use super::shop::{Order, shop};

#[test]
fn a_checkout_moves_all_of_it() {
    let shop = shop();
    let (a, b) = (shop.item("2.5", 10), shop.item("7", 10));
    let user = shop.user("100");
    let order = shop.order(&user, &[(&a, 4), (&b, 1), (&a, 2)]);
    assert_eq!(number(&shop.checkout(&order).ok(), "total_cost"), "22");
    assert_eq!((shop.stock(&a), shop.stock(&b), shop.credit(&user).as_str()), (4, 9, "78"));
    assert!(shop.find(&order).paid);
    assert!(shop.has_paid(&user, &order));
}

#[test]
fn a_refused_checkout_moves_none_of_it() {
    let shop = shop();
    let (plenty, scarce) = (shop.item("1", 100), shop.item("1", 2));
    let (rich, poor) = (shop.user("100"), shop.user("4.999999999999999999"));
    let out = shop.order(&rich, &[(&plenty, 5), (&scarce, 3)]);
    let dear = shop.order(&poor, &[(&plenty, 4), (&scarce, 1)]);
    for _ in &shop.pods {
        let detail = shop.checkout(&out).refused(409, "out_of_stock");
        assert!(detail.contains(&scarce) && !detail.contains(&plenty), "{detail}");
        shop.checkout(&dear).refused(409, "insufficient_credit");
        assert_eq!((shop.stock(&plenty), shop.stock(&scarce)), (100, 2));
        assert_eq!(
            (shop.credit(&rich).as_str(), shop.credit(&poor).as_str()),
            ("100", "4.999999999999999999")
        );
        for (user, order) in [(&rich, &out), (&poor, &dear)] {
            assert!(!shop.find(order).paid);
            assert!(!shop.has_paid(user, order));
        }
    }
    // What was missing comes, and the same orders go through.
    shop.post(&format!("/payment/add_funds/{poor}/0.000000000000000001")).ok();
    shop.checkout(&dear).ok();
    assert_eq!(shop.credit(&poor), "0");
    shop.post(&format!("/stock/add/{scarce}/2")).ok();
    shop.checkout(&out).ok();
    assert_eq!((shop.stock(&plenty), shop.stock(&scarce)), (91, 0));
}

#[test]
fn a_paid_order_is_charged_once_however_often_it_is_checked_out() {
    let shop = shop();
    let (user, item) = (shop.user("100"), shop.item("3", 10));
    let order = shop.order(&user, &[(&item, 2)]);
    let first = shop.checkout(&order);
    for _ in 0..6 {
        let again = shop.checkout(&order);
        assert_eq!((again.status, &again.body), (200, &first.body));
    }
    assert_eq!((shop.stock(&item), shop.credit(&user).as_str()), (8, "94"));
}

#[test]
fn an_empty_order_checks_out_for_nothing() {
    let shop = shop();
    let (user, item) = (shop.user("0"), shop.item("1", 1));
    let order = shop.order(&user, &[]);
    assert_eq!(number(&shop.checkout(&order).ok(), "total_cost"), "0");
    let found = shop.find(&order);
    assert_eq!((found.paid, found.total_cost.as_str()), (true, "0"));
    shop.post(&format!("/orders/addItem/{order}/{item}")).refused(409, "order_paid");
    assert!(shop.has_paid(&user, &order));
}

#[test]
fn what_costs_nothing_is_sold_too() {
    let shop = shop();
    let (user, item) = (shop.user("0"), shop.item("0", 2));
    shop.checkout(&shop.order(&user, &[(&item, 2)])).ok();
    assert_eq!((shop.stock(&item), shop.credit(&user).as_str()), (0, "0"));
    shop.checkout(&shop.order(&user, &[(&item, 1)])).refused(409, "out_of_stock");
}

#[test]
fn a_cancel_gives_back_the_money_and_not_the_units() {
    let shop = shop();
    let (user, item) = (shop.user("10"), shop.item("3", 5));
    let order = shop.order(&user, &[(&item, 2)]);
    shop.checkout(&order).ok();
    let back = shop.post(&format!("/payment/cancel/{user}/{order}")).has(&["user_id", "credit"]);
    assert_eq!(number(&back, "credit"), "10");
    assert_eq!((shop.credit(&user).as_str(), shop.stock(&item)), ("10", 3));
    assert!(!shop.has_paid(&user, &order));
    assert!(!shop.find(&order).paid);
    for _ in &shop.pods {
        shop.post(&format!("/payment/cancel/{user}/{order}")).refused(404, "payment_not_found");
    }
    assert_eq!(shop.credit(&user), "10");
}

#[test]
fn a_cancelled_order_is_checked_out_anew_generation_after_generation() {
    let shop = shop();
    let (user, item) = (shop.user("1000"), shop.item("3", 100));
    let order = shop.order(&user, &[(&item, 1)]);
    let mut stock = 100;
    for units in 1..=5_u64 {
        let total = number(&shop.checkout(&order).ok(), "total_cost");
        assert_eq!(total, (3 * units).to_string());
        stock -= units;
        assert_eq!((shop.stock(&item), shop.credit(&user)), (stock, (1000 - 3 * units).to_string()));
        assert_eq!(number(&shop.checkout(&order).ok(), "total_cost"), total);
        let paid = shop.find(&order);
        shop.post(&format!("/payment/cancel/{user}/{order}")).ok();
        assert_eq!(shop.find(&order), Order { paid: false, ..paid });
        assert_eq!(shop.credit(&user), "1000");
        let more = Order::of(shop.post(&format!("/orders/addItem/{order}/{item}")));
        assert_eq!(more.units(&item), units + 1);
    }
}

#[test]
fn a_cancelled_order_may_fail_and_be_mended() {
    let shop = shop();
    let (user, item) = (shop.user("10"), shop.item("2", 3));
    let order = shop.order(&user, &[(&item, 2)]);
    shop.checkout(&order).ok();
    shop.post(&format!("/payment/cancel/{user}/{order}")).ok();
    // One unit is left, and the order wants two.
    shop.checkout(&order).refused(409, "out_of_stock");
    assert_eq!((shop.credit(&user).as_str(), shop.stock(&item)), ("10", 1));
    shop.delete(&format!("/orders/removeItem/{order}/{item}")).ok();
    shop.checkout(&order).ok();
    assert_eq!((shop.credit(&user).as_str(), shop.stock(&item)), ("8", 0));
}
