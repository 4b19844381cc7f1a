//! Stock: what can be sold, and never below zero.

use super::http::number;
use super::shop::shop;

#[test]
fn subtracting_more_than_there_is_is_refused_and_names_the_item() {
    let shop = shop();
    let item = shop.item("1", 3);
    let detail = shop.post(&format!("/stock/subtract/{item}/4")).refused(409, "out_of_stock");
    assert!(detail.contains(&item), "{detail}");
    assert_eq!(shop.stock(&item), 3);
    assert_eq!(number(&shop.post(&format!("/stock/subtract/{item}/3")).ok(), "stock"), "0");
    shop.post(&format!("/stock/subtract/{item}/1")).refused(409, "out_of_stock");
}

#[test]
fn nothing_is_not_too_much() {
    let shop = shop();
    let item = shop.item("1", 0);
    for path in ["add", "subtract"] {
        assert_eq!(number(&shop.post(&format!("/stock/{path}/{item}/0")).ok(), "stock"), "0");
    }
}

#[test]
fn a_new_item_has_no_stock() {
    let shop = shop();
    let found = shop.get(&format!("/stock/find/{}", shop.item("3.5", 0))).ok();
    assert_eq!((number(&found, "stock").as_str(), number(&found, "price").as_str()), ("0", "3.5"));
}

#[test]
fn what_a_refused_checkout_had_set_aside_is_back_when_it_is_answered() {
    let shop = shop();
    let (rich, poor) = (shop.user("100"), shop.user("1"));
    let (item, other) = (shop.item("10", 5), shop.item("1", 0));
    let too_dear = shop.order(&poor, &[(&item, 5)]);
    let out = shop.order(&rich, &[(&item, 5), (&other, 1)]);
    for _ in 0..5 {
        shop.checkout(&too_dear).refused(409, "insufficient_credit");
        assert_eq!(shop.stock(&item), 5);
        shop.checkout(&out).refused(409, "out_of_stock");
        assert_eq!(shop.stock(&item), 5);
    }
    // And so it can be sold to another at once.
    shop.checkout(&shop.order(&rich, &[(&item, 5)])).ok();
    assert_eq!((shop.stock(&item), shop.credit(&rich).as_str()), (0, "50"));
}
