//! Orders: their lines, and when they are closed. Nothing is sold here.

use super::shop::{Order, shop};

#[test]
fn an_order_needs_no_user_until_its_checkout() {
    let shop = shop();
    let item = shop.item("1", 5);
    let order = shop.order("nobody-knows-me", &[(&item, 1)]);
    assert_eq!(shop.find(&order).user, "nobody-knows-me");
    shop.checkout(&order).refused(404, "user_not_found");
    assert_eq!(shop.stock(&item), 5);
    assert!(!shop.find(&order).paid);
    shop.checkout(&shop.order("nobody-knows-me", &[])).refused(404, "user_not_found");
}

#[test]
fn an_item_needs_no_stock_until_the_checkout() {
    let shop = shop();
    let (user, item) = (shop.user("100"), shop.item("1", 0));
    let order = shop.order(&user, &[(&item, 3)]);
    assert_eq!(shop.find(&order).units(&item), 3);
    shop.checkout(&order).refused(409, "out_of_stock");
    shop.post(&format!("/stock/add/{item}/3")).ok();
    shop.checkout(&order).ok();
    assert_eq!(shop.stock(&item), 0);
}

#[test]
fn items_are_one_pair_each_in_order_of_first_adding() {
    let shop = shop();
    let (a, b, c) = (shop.item("1", 0), shop.item("10", 0), shop.item("100", 0));
    let order = shop.order("u", &[(&c, 1), (&a, 2), (&b, 1), (&c, 1), (&a, 1)]);
    let want = vec![(c.clone(), 2), (a.clone(), 3), (b.clone(), 1)];
    for _ in &shop.pods {
        let found = shop.find(&order);
        assert_eq!((&found.items, found.total_cost.as_str()), (&want, "213"));
    }
    let left = Order::of(shop.delete(&format!("/orders/removeItem/{order}/{c}/1")));
    assert_eq!(left.items, [(c, 1), (a, 3), (b, 1)]);
    assert_eq!(left.total_cost, "113");
}

#[test]
fn no_more_is_removed_than_there_is() {
    let shop = shop();
    let (a, b) = (shop.item("1", 0), shop.item("1", 0));
    let order = shop.order("u", &[(&a, 2)]);
    shop.delete(&format!("/orders/removeItem/{order}/{a}/3")).refused(400, "bad_amount");
    shop.delete(&format!("/orders/removeItem/{order}/{b}")).refused(404, "item_not_found");
    assert_eq!(shop.find(&order).units(&a), 2);
    let left = Order::of(shop.delete(&format!("/orders/removeItem/{order}/{a}/2")));
    assert_eq!((left.items, left.total_cost.as_str()), (vec![], "0"));
    shop.delete(&format!("/orders/removeItem/{order}/{a}")).refused(404, "item_not_found");
    let again = Order::of(shop.post(&format!("/orders/addItem/{order}/{a}")));
    assert_eq!(again.items, [(a, 1)]);
}

#[test]
fn a_removed_order_is_404_everywhere() {
    let shop = shop();
    let (user, item) = (shop.user("10"), shop.item("1", 5));
    let order = shop.order(&user, &[(&item, 1)]);
    shop.delete(&format!("/orders/remove/{order}")).ok();
    for _ in &shop.pods {
        for (method, path) in [
            ("GET", format!("/orders/find/{order}")),
            ("POST", format!("/orders/addItem/{order}/{item}")),
            ("POST", format!("/orders/addItem/{order}/{item}/2")),
            ("DELETE", format!("/orders/removeItem/{order}/{item}")),
            ("DELETE", format!("/orders/removeItem/{order}/{item}/1")),
            ("POST", format!("/orders/checkout/{order}")),
            ("DELETE", format!("/orders/remove/{order}")),
            ("POST", format!("/payment/pay/{user}/{order}/1")),
            ("GET", format!("/payment/status/{user}/{order}")),
            ("POST", format!("/payment/status/{user}/{order}")),
        ] {
            shop.call(method, &path).refused(404, "order_not_found");
        }
        let cancel = shop.post(&format!("/payment/cancel/{user}/{order}"));
        assert_eq!(cancel.status, 404, "{cancel:?}");
    }
    assert_eq!((shop.credit(&user).as_str(), shop.stock(&item)), ("10", 5));
}

#[test]
fn a_paid_order_is_closed_until_its_payment_is_cancelled() {
    let shop = shop();
    let (user, item, other) = (shop.user("10"), shop.item("2", 9), shop.item("1", 9));
    let order = shop.order(&user, &[(&item, 2)]);
    shop.checkout(&order).ok();
    let paid = shop.find(&order);
    assert!(paid.paid);
    for _ in &shop.pods {
        for (method, path) in [
            ("POST", format!("/orders/addItem/{order}/{other}")),
            ("POST", format!("/orders/addItem/{order}/{item}/2")),
            ("DELETE", format!("/orders/removeItem/{order}/{item}")),
            ("DELETE", format!("/orders/removeItem/{order}/{item}/2")),
            ("DELETE", format!("/orders/remove/{order}")),
        ] {
            shop.call(method, &path).refused(409, "order_paid");
        }
        assert_eq!(shop.find(&order), paid);
    }
    shop.post(&format!("/payment/cancel/{user}/{order}")).ok();
    let open = shop.find(&order);
    assert_eq!(open, Order { paid: false, ..paid });
    let edited = Order::of(shop.post(&format!("/orders/addItem/{order}/{other}/3")));
    assert_eq!(edited.items, [(item.clone(), 2), (other.clone(), 3)]);
    assert_eq!(edited.total_cost, "7");
    let edited = Order::of(shop.delete(&format!("/orders/removeItem/{order}/{item}")));
    assert_eq!((edited.units(&item), edited.total_cost.as_str()), (1, "5"));
    shop.delete(&format!("/orders/remove/{order}")).ok();
    shop.get(&format!("/orders/find/{order}")).refused(404, "order_not_found");
}

#[test]
fn an_edit_that_was_answered_is_in_every_later_read_and_checkout() {
    let shop = shop();
    let user = shop.user("1000");
    let item = shop.item("1", 1_000);
    let order = shop.order(&user, &[]);
    for n in 1..=30 {
        let shown = Order::of(shop.post(&format!("/orders/addItem/{order}/{item}")));
        assert_eq!(shown.units(&item), n);
        assert_eq!(shop.find(&order).units(&item), n);
    }
    shop.checkout(&order).ok();
    assert_eq!((shop.stock(&item), shop.credit(&user).as_str()), (970, "970"));
}
