//! Many clients at once: nothing is sold or charged twice, nothing that is there is refused.

use super::http::{Conn, Response, text};
use super::shop::{Shop, new_key, shop};
use rand::seq::SliceRandom;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Sends all `requests`, each once and under a key of its own, over `connections` connections spread
/// over the pods; the answers are in the order of the requests.
fn at_once(shop: &Shop, connections: usize, requests: &[(&str, String)]) -> Vec<Response> {
    let next = AtomicUsize::new(0);
    let answers = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                let mut conn: Conn = shop.conn();
                loop {
                    let which = next.fetch_add(1, Ordering::Relaxed);
                    let Some((method, path)) = requests.get(which) else { break };
                    let key = new_key();
                    let response = conn.request(method, path, Some(&key));
                    response.check(Some(&key), true);
                    answers.lock().unwrap().push((which, response));
                }
            });
        }
    });
    let mut answers = answers.into_inner().unwrap();
    answers.sort_by_key(|(which, _)| *which);
    assert_eq!(answers.len(), requests.len());
    answers.into_iter().map(|(_, response)| response).collect()
}

fn checkouts(orders: &[String]) -> Vec<(&'static str, String)> {
    orders.iter().map(|order| ("POST", format!("/orders/checkout/{order}"))).collect()
}

fn count(responses: &[Response], status: u16, code: &str) -> usize {
    responses.iter().filter(|r| r.status == status && (status == 200 || r.code() == code)).count()
}

/// Ids made by many clients at once.
fn make(shop: &Shop, n: usize, path: &str, member: &str) -> Vec<String> {
    let requests: Vec<_> = (0..n).map(|_| ("POST", path.to_owned())).collect();
    at_once(shop, 32, &requests).into_iter().map(|response| text(&response.ok(), member)).collect()
}

#[test]
fn an_order_checked_out_by_many_at_once_is_charged_once() {
    let shop = shop();
    for _ in 0..4 {
        let (user, item) = (shop.user("100"), shop.item("3", 50));
        let order = shop.order(&user, &[(&item, 2)]);
        let answers = at_once(shop, 32, &checkouts(&vec![order.clone(); 32]));
        assert_eq!(count(&answers, 200, ""), 32, "{answers:?}");
        assert_eq!((shop.credit(&user).as_str(), shop.stock(&item)), ("94", 48));
        assert!(shop.find(&order).paid);
    }
}

#[test]
fn a_flash_sale_sells_exactly_what_there_is() {
    let shop = shop();
    let item = shop.item("7.25", 100);
    let users = make(shop, 1_000, "/payment/create_user", "user_id");
    let funds: Vec<_> = users.iter().map(|user| ("POST", format!("/payment/add_funds/{user}/10"))).collect();
    assert_eq!(count(&at_once(shop, 64, &funds), 200, ""), 1_000);
    let create: Vec<_> = users.iter().map(|user| ("POST", format!("/orders/create/{user}"))).collect();
    let orders: Vec<String> =
        at_once(shop, 64, &create).into_iter().map(|r| text(&r.ok(), "order_id")).collect();
    let add: Vec<_> =
        orders.iter().map(|order| ("POST", format!("/orders/addItem/{order}/{item}/1"))).collect();
    assert_eq!(count(&at_once(shop, 64, &add), 200, ""), 1_000);

    let answers = at_once(shop, 64, &checkouts(&orders));
    assert_eq!(count(&answers, 200, ""), 100);
    assert_eq!(count(&answers, 409, "out_of_stock"), 900);
    assert_eq!(shop.stock(&item), 0);
    for ((answer, user), order) in answers.iter().zip(&users).zip(&orders) {
        let (paid, credit) = if answer.status == 200 { (true, "2.75") } else { (false, "10") };
        assert_eq!((shop.find(order).paid, shop.credit(user).as_str()), (paid, credit));
    }
}

#[test]
fn scarce_items_in_any_order_deadlock_nobody_and_refuse_nobody_falsely() {
    let shop = shop();
    // 60 orders of three of ten items each, one unit of each: every item is wanted 18 times, and all
    // of it is there.
    let items: Vec<String> = (0..10).map(|_| shop.item("1", 18)).collect();
    let user = shop.user("1000");
    let mut orders = Vec::new();
    let mut random = rand::rng();
    for round in 0..6 {
        for first in 0..10 {
            let mut three: Vec<&str> =
                [0, 1 + round % 3, 4 + round % 5].iter().map(|step| &*items[(first + step) % 10]).collect();
            three.shuffle(&mut random);
            orders.push(shop.order(&user, &three.iter().map(|item| (*item, 1)).collect::<Vec<_>>()));
        }
    }
    orders.shuffle(&mut random);
    let answers = at_once(shop, 60, &checkouts(&orders));
    assert_eq!(count(&answers, 200, ""), 60, "{answers:?}");
    for item in &items {
        assert_eq!(shop.stock(item), 0);
    }
    assert_eq!(shop.credit(&user), "820");
}

#[test]
fn a_flash_sale_of_three_of_ten_items_refuses_only_what_cannot_be_filled() {
    let shop = shop();
    // A thousand orders of three of ten items each: three times what there is of each.
    let items: Vec<String> = (0..10).map(|_| shop.item("1", 100)).collect();
    let users: Vec<String> = (0..10).map(|_| shop.user("1000")).collect();
    let mut random = rand::rng();
    let wanted: Vec<Vec<usize>> = (0..1_000)
        .map(|_| {
            let mut all: Vec<usize> = (0..10).collect();
            all.shuffle(&mut random);
            all.truncate(3);
            all
        })
        .collect();
    let create: Vec<_> =
        (0..1_000).map(|n| ("POST", format!("/orders/create/{}", users[n % users.len()]))).collect();
    let orders: Vec<String> =
        at_once(shop, 64, &create).into_iter().map(|r| text(&r.ok(), "order_id")).collect();
    for line in 0..3 {
        let add: Vec<_> = orders
            .iter()
            .zip(&wanted)
            .map(|(order, wanted)| ("POST", format!("/orders/addItem/{order}/{}/1", items[wanted[line]])))
            .collect();
        assert_eq!(count(&at_once(shop, 64, &add), 200, ""), 1_000);
    }

    let answers = at_once(shop, 64, &checkouts(&orders));
    let left: Vec<u64> = items.iter().map(|item| shop.stock(item)).collect();
    let mut sold = [0; 10];
    for (answer, wanted) in answers.iter().zip(&wanted) {
        if answer.status == 200 {
            for &item in wanted {
                sold[item] += 1;
            }
        } else {
            assert_eq!((answer.status, answer.code().as_str()), (409, "out_of_stock"), "{answer:?}");
            assert!(wanted.iter().any(|&item| left[item] == 0), "refused, and it could be filled: {left:?}");
        }
    }
    for (sold, left) in sold.iter().zip(&left) {
        assert_eq!(sold + left, 100);
    }
    let spent: u64 = users.iter().map(|user| 1_000 - shop.credit(user).parse::<u64>().unwrap()).sum();
    assert_eq!(spent, sold.iter().sum::<u64>());
}

#[test]
fn who_cannot_pay_keeps_nobody_else_from_buying() {
    let shop = shop();
    let item = shop.item("5", 20);
    let (rich, poor) = (shop.user("1000"), shop.user("4"));
    let mut orders = Vec::new();
    for _ in 0..20 {
        orders.push(shop.order(&poor, &[(&item, 20)]));
        orders.push(shop.order(&rich, &[(&item, 1)]));
    }
    let answers = at_once(shop, 40, &checkouts(&orders));
    let (of_poor, of_rich): (Vec<_>, Vec<_>) = answers.into_iter().enumerate().partition(|(i, _)| i % 2 == 0);
    for (_, answer) in of_rich {
        assert_eq!(answer.status, 200, "all 20 units are there for those who can pay: {answer:?}");
    }
    for (_, answer) in of_poor {
        assert!(matches!(&*answer.code(), "insufficient_credit" | "out_of_stock"), "{answer:?}");
    }
    assert_eq!(shop.stock(&item), 0);
    assert_eq!((shop.credit(&rich).as_str(), shop.credit(&poor).as_str()), ("900", "4"));
}

#[test]
fn a_credit_is_spent_once() {
    let shop = shop();
    let (user, item) = (shop.user("50"), shop.item("7", 100));
    let orders: Vec<String> = (0..20).map(|_| shop.order(&user, &[(&item, 1)])).collect();
    let mut requests = checkouts(&orders);
    requests.extend((0..20).map(|_| ("POST", format!("/payment/pay/{user}/7"))));
    requests.shuffle(&mut rand::rng());
    let answers = at_once(shop, 40, &requests);
    assert_eq!(count(&answers, 200, ""), 7);
    assert_eq!(count(&answers, 409, "insufficient_credit"), 33);
    let sold =
        requests.iter().zip(&answers).filter(|((_, path), a)| path.contains("checkout") && a.status == 200);
    assert_eq!(shop.stock(&item), 100 - sold.count() as u64);
    assert_eq!(shop.credit(&user), "1");
}

#[test]
fn concurrent_edits_are_all_there() {
    let shop = shop();
    let items: Vec<String> = (0..3).map(|_| shop.item("2", 1_000)).collect();
    let user = shop.user("1000");
    let order = shop.order(&user, &[]);
    let add: Vec<_> =
        (0..90).map(|i| ("POST", format!("/orders/addItem/{order}/{}", items[i % 3]))).collect();
    assert_eq!(count(&at_once(shop, 30, &add), 200, ""), 90);
    let found = shop.find(&order);
    assert!(items.iter().all(|item| found.units(item) == 30), "{found:?}");
    let remove: Vec<_> =
        (0..60).map(|i| ("DELETE", format!("/orders/removeItem/{order}/{}", items[i % 3]))).collect();
    assert_eq!(count(&at_once(shop, 30, &remove), 200, ""), 60);
    assert!(items.iter().all(|item| shop.find(&order).units(item) == 10));
    shop.checkout(&order).ok();
    assert_eq!(shop.credit(&user), "940");
}

#[test]
fn edits_that_race_a_checkout_are_charged_or_refused() {
    let shop = shop();
    for _ in 0..5 {
        let (user, item) = (shop.user("1000"), shop.item("1", 1_000));
        let order = shop.order(&user, &[(&item, 1)]);
        let mut requests: Vec<_> =
            (0..20).map(|_| ("POST", format!("/orders/addItem/{order}/{item}"))).collect();
        requests.insert(5, ("POST", format!("/orders/checkout/{order}")));
        let answers = at_once(shop, 21, &requests);
        let edits = answers.iter().enumerate().filter(|(i, _)| *i != 5).map(|(_, answer)| answer);
        let mut units = 1;
        for edit in edits {
            match edit.status {
                200 => units += 1,
                _ => assert_eq!(edit.code(), "order_paid"),
            }
        }
        assert_eq!(answers[5].status, 200, "{:?}", answers[5]);
        let found = shop.find(&order);
        assert_eq!((found.paid, found.units(&item)), (true, units));
        assert_eq!((shop.stock(&item), shop.credit(&user)), (1_000 - units, (1_000 - units).to_string()));
    }
}

#[test]
fn cancels_and_checkouts_that_race_leave_the_books_right() {
    let shop = shop();
    let (user, item) = (shop.user("100"), shop.item("10", 1_000));
    let order = shop.order(&user, &[(&item, 1)]);
    let mut requests = checkouts(&vec![order.clone(); 20]);
    requests.extend((0..20).map(|_| ("POST", format!("/payment/cancel/{user}/{order}"))));
    requests.shuffle(&mut rand::rng());
    let answers = at_once(shop, 40, &requests);
    for ((_, path), answer) in requests.iter().zip(&answers) {
        match answer.status {
            200 => {}
            _ => {
                assert!(path.contains("cancel"), "{path}: {answer:?}");
                assert_eq!(answer.code(), "payment_not_found");
            }
        }
    }
    let paid = shop.find(&order).paid;
    assert_eq!(shop.has_paid(&user, &order), paid);
    assert_eq!(shop.credit(&user), if paid { "90" } else { "100" });
    let cancelled =
        requests.iter().zip(&answers).filter(|((_, path), a)| path.contains("cancel") && a.status == 200);
    // Every charge took a unit, and all but the last standing one were cancelled.
    assert_eq!(shop.stock(&item), 1_000 - cancelled.count() as u64 - u64::from(paid));
}

#[test]
fn a_removal_that_races_a_checkout_has_one_winner() {
    let shop = shop();
    for _ in 0..10 {
        let (user, item) = (shop.user("10"), shop.item("4", 9));
        let order = shop.order(&user, &[(&item, 1)]);
        let requests =
            [("POST", format!("/orders/checkout/{order}")), ("DELETE", format!("/orders/remove/{order}"))];
        let answers = at_once(shop, 2, &requests);
        let books = (shop.credit(&user), shop.stock(&item));
        if answers[0].status == 200 {
            assert_eq!((answers[1].status, &*answers[1].code()), (409, "order_paid"));
            assert_eq!(books, ("6".to_owned(), 8));
            assert!(shop.find(&order).paid);
        } else {
            assert_eq!((answers[0].status, &*answers[0].code()), (404, "order_not_found"));
            assert_eq!(answers[1].status, 200);
            assert_eq!(books, ("10".to_owned(), 9));
            shop.get(&format!("/orders/find/{order}")).refused(404, "order_not_found");
        }
    }
}
