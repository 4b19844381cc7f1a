//! Payment: debits, and what is paid for one order besides its checkout.

use super::http::number;
use super::shop::shop;

#[test]
fn credit_never_goes_below_zero() {
    let shop = shop();
    let user = shop.user("5");
    let order = shop.order(&user, &[]);
    shop.post(&format!("/payment/pay/{user}/5.000000000000000001")).refused(409, "insufficient_credit");
    shop.post(&format!("/payment/pay/{user}/{order}/6")).refused(409, "insufficient_credit");
    assert_eq!(shop.credit(&user), "5");
    assert!(!shop.has_paid(&user, &order));
    assert_eq!(number(&shop.post(&format!("/payment/pay/{user}/5")).ok(), "credit"), "0");
    shop.post(&format!("/payment/pay/{user}/0.01")).refused(409, "insufficient_credit");
}

#[test]
fn pay_for_an_order_debits_once() {
    let shop = shop();
    let user = shop.user("100");
    let order = shop.order(&user, &[]);
    let path = format!("/payment/pay/{user}/{order}/30");
    for _ in 0..4 {
        assert_eq!(number(&shop.post(&path).ok(), "credit"), "70");
    }
    for other in ["29", "31", "0"] {
        shop.post(&format!("/payment/pay/{user}/{order}/{other}")).refused(409, "payment_mismatch");
    }
    assert_eq!(shop.credit(&user), "70");
    assert!(shop.has_paid(&user, &order));
    // A plain debit has nothing to do with it.
    assert_eq!(number(&shop.post(&format!("/payment/pay/{user}/30")).ok(), "credit"), "40");
}

#[test]
fn pay_shows_in_status_and_in_find_only_after_the_checkout() {
    let shop = shop();
    let (user, item) = (shop.user("100"), shop.item("15", 5));
    let order = shop.order(&user, &[(&item, 2)]);
    shop.post(&format!("/payment/pay/{user}/{order}/30")).ok();
    assert!(shop.has_paid(&user, &order));
    assert!(!shop.find(&order).paid);
    assert_eq!(shop.stock(&item), 5);
    // The checkout uses that payment and debits nothing.
    assert_eq!(number(&shop.checkout(&order).ok(), "total_cost"), "30");
    assert_eq!((shop.credit(&user).as_str(), shop.stock(&item)), ("70", 3));
    assert!(shop.find(&order).paid);
    assert!(shop.has_paid(&user, &order));
    // And its cancel gives that payment back.
    assert_eq!(number(&shop.post(&format!("/payment/cancel/{user}/{order}")).ok(), "credit"), "100");
    assert!(!shop.find(&order).paid);
}

#[test]
fn a_checkout_of_an_order_paid_for_with_another_amount_is_refused() {
    let shop = shop();
    let (user, item) = (shop.user("100"), shop.item("15", 5));
    let order = shop.order(&user, &[(&item, 2)]);
    shop.post(&format!("/payment/pay/{user}/{order}/29.99")).ok();
    for _ in &shop.pods {
        shop.checkout(&order).refused(409, "payment_mismatch");
        assert_eq!((shop.credit(&user).as_str(), shop.stock(&item)), ("70.01", 5));
        assert!(!shop.find(&order).paid);
    }
    shop.post(&format!("/payment/cancel/{user}/{order}")).ok();
    shop.checkout(&order).ok();
    assert_eq!((shop.credit(&user).as_str(), shop.stock(&item)), ("70", 3));
}

#[test]
fn an_order_that_is_paid_for_but_not_checked_out_can_be_edited_to_match() {
    let shop = shop();
    let (user, item) = (shop.user("100"), shop.item("10", 5));
    let order = shop.order(&user, &[(&item, 1)]);
    shop.post(&format!("/payment/pay/{user}/{order}/20")).ok();
    shop.checkout(&order).refused(409, "payment_mismatch");
    shop.post(&format!("/orders/addItem/{order}/{item}")).ok();
    shop.checkout(&order).ok();
    assert_eq!((shop.credit(&user).as_str(), shop.stock(&item)), ("80", 3));
}

#[test]
fn pay_for_a_checked_out_order_debits_nothing() {
    let shop = shop();
    let (user, item) = (shop.user("100"), shop.item("15", 5));
    let order = shop.order(&user, &[(&item, 2)]);
    shop.checkout(&order).ok();
    assert_eq!(number(&shop.post(&format!("/payment/pay/{user}/{order}/30")).ok(), "credit"), "70");
    shop.post(&format!("/payment/pay/{user}/{order}/31")).refused(409, "payment_mismatch");
    assert_eq!(shop.credit(&user), "70");
}

#[test]
fn only_a_payment_by_the_orders_own_user_counts() {
    let shop = shop();
    let (owner, friend, item) = (shop.user("100"), shop.user("100"), shop.item("15", 5));
    let order = shop.order(&owner, &[(&item, 2)]);
    shop.post(&format!("/payment/pay/{friend}/{order}/30")).ok();
    assert!(shop.has_paid(&friend, &order));
    assert!(!shop.has_paid(&owner, &order));
    shop.checkout(&order).ok();
    assert_eq!((shop.credit(&owner).as_str(), shop.credit(&friend).as_str()), ("70", "70"));
    assert!(shop.has_paid(&owner, &order));
    assert_eq!(number(&shop.post(&format!("/payment/cancel/{friend}/{order}")).ok(), "credit"), "100");
    // The order's own payment is another one, and stands.
    assert!(shop.find(&order).paid);
    assert_eq!(shop.credit(&owner), "70");
}

#[test]
fn cancel_is_of_that_users_payment_of_that_order() {
    let shop = shop();
    let (user, other) = (shop.user("10"), shop.user("10"));
    let (paid, unpaid) = (shop.order(&user, &[]), shop.order(&user, &[]));
    shop.post(&format!("/payment/pay/{user}/{paid}/4")).ok();
    for (who, order) in [(&user, &unpaid), (&other, &paid)] {
        shop.post(&format!("/payment/cancel/{who}/{order}")).refused(404, "payment_not_found");
    }
    assert_eq!(number(&shop.post(&format!("/payment/cancel/{user}/{paid}")).ok(), "credit"), "10");
    shop.post(&format!("/payment/cancel/{user}/{paid}")).refused(404, "payment_not_found");
    // It can be paid for again, with another amount.
    assert_eq!(number(&shop.post(&format!("/payment/pay/{user}/{paid}/5")).ok(), "credit"), "5");
}

#[test]
fn an_order_with_a_standing_payment_cannot_be_removed() {
    let shop = shop();
    let user = shop.user("10");
    let order = shop.order(&user, &[]);
    shop.post(&format!("/payment/pay/{user}/{order}/4")).ok();
    shop.delete(&format!("/orders/remove/{order}")).refused(409, "order_paid");
    assert_eq!(shop.find(&order).id, order);
    shop.post(&format!("/payment/cancel/{user}/{order}")).ok();
    shop.delete(&format!("/orders/remove/{order}")).ok();
    assert_eq!(shop.credit(&user), "10");
}

#[test]
fn status_of_an_order_never_paid_for_is_no_error() {
    let shop = shop();
    let (user, other) = (shop.user("10"), shop.user("10"));
    let order = shop.order(&user, &[]);
    assert!(!shop.has_paid(&user, &order));
    assert!(!shop.has_paid(&other, &order));
}
