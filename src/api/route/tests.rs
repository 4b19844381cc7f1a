use super::*;
use proptest::prelude::*;

fn op(method: &Method, path: &str) -> Op {
    match route(method, path) {
        Ok(Target::Op(op)) => op,
        other => panic!("{method} {path}: {other:?}"),
    }
}

#[test]
fn every_row_of_the_contract_is_found() {
    let (user, order, item) = (|| "u".into(), || "o".into(), || "i".into());
    let m = |text| Money::parse(text).unwrap();
    let (post, get, delete) = (Method::POST, Method::GET, Method::DELETE);
    for (method, path, want) in [
        (&post, "/orders/create/u", Op::CreateOrder { user: user() }),
        (&delete, "/orders/remove/o", Op::RemoveOrder { order: order() }),
        (&post, "/orders/addItem/o/i", Op::AddItem { order: order(), item: item(), units: 1 }),
        (&post, "/orders/addItem/o/i/3", Op::AddItem { order: order(), item: item(), units: 3 }),
        (&delete, "/orders/removeItem/o/i", Op::RemoveItem { order: order(), item: item(), units: 1 }),
        (&delete, "/orders/removeItem/o/i/3", Op::RemoveItem { order: order(), item: item(), units: 3 }),
        (&get, "/orders/find/o", Op::FindOrder { order: order() }),
        (&post, "/orders/checkout/o", Op::Checkout { order: order() }),
        (
            &post,
            "/orders/batch_init/5/4/3/7.25",
            Op::LoadOrders { n: 5, n_items: 4, n_users: 3, item_price: m("7.25") },
        ),
        (&post, "/stock/item/create/1e-3", Op::CreateItem { price: m("0.001") }),
        (&get, "/stock/find/i", Op::FindItem { item: item() }),
        (&post, "/stock/add/i/0", Op::AddStock { item: item(), units: 0 }),
        (&post, "/stock/subtract/i/9007199254740991", Op::SubtractStock { item: item(), units: UNITS_MAX }),
        (&post, "/stock/batch_init/1000000/0/5", Op::LoadItems { n: 1_000_000, stock: 0, price: m("5") }),
        (&post, "/payment/create_user", Op::CreateUser),
        (&get, "/payment/find_user/u", Op::FindUser { user: user() }),
        (&post, "/payment/add_funds/u/5", Op::AddFunds { user: user(), amount: m("5") }),
        (&post, "/payment/pay/u/5", Op::Pay { user: user(), amount: m("5") }),
        (&post, "/payment/pay/u/o/5", Op::PayOrder { user: user(), order: order(), amount: m("5") }),
        (&post, "/payment/cancel/u/o", Op::CancelPayment { user: user(), order: order() }),
        (&get, "/payment/status/u/o", Op::PaymentStatus { user: user(), order: order() }),
        (&post, "/payment/status/u/o", Op::PaymentStatus { user: user(), order: order() }),
        (&post, "/payment/batch_init/1/0", Op::LoadUsers { n: 1, credit: Money::ZERO }),
    ] {
        assert_eq!(op(method, path), want, "{method} {path}");
    }
    assert_eq!(route(&get, "/healthz"), Ok(Target::Health));
    assert_eq!(route(&get, "/readyz"), Ok(Target::Ready));
    assert_eq!(route(&get, "/status"), Ok(Target::Status));
}

#[test]
fn ids_are_decoded() {
    for (segment, want) in [
        ("a%2Fb", "a/b"),
        ("%C3%A9", "é"),
        ("é", "é"),
        ("a+b", "a+b"),
        ("a%20b", "a b"),
        ("%25", "%"),
        ("..", ".."),
        ("😀", "😀"),
    ] {
        assert_eq!(
            op(&Method::GET, &format!("/orders/find/{segment}")),
            Op::FindOrder { order: want.into() },
            "{segment}"
        );
    }
    let longest = "x".repeat(ID_BYTES_MAX);
    assert_eq!(op(&Method::GET, &format!("/stock/find/{longest}")), Op::FindItem { item: longest.into() });
    // 128 bytes are judged after decoding.
    let encoded = "%C3%A9".repeat(64);
    assert_eq!(
        op(&Method::GET, &format!("/stock/find/{encoded}")),
        Op::FindItem { item: "é".repeat(64).into() }
    );
}

#[test]
fn what_is_refused_and_why() {
    let long = format!("/stock/find/{}", "x".repeat(ID_BYTES_MAX + 1));
    let long_decoded = format!("/stock/find/{}", "%C3%A9".repeat(65));
    let digits = format!("/stock/add/i/{}", "1".repeat(65));
    for (code, method, paths) in [
        (
            Code::NoSuchPath,
            Method::GET,
            &[
                "",
                "*",
                "/",
                "//",
                "/x",
                "/orders",
                "/orders/",
                "/orders/find",
                "/orders/find/",
                "//orders/find/o",
                "/orders/find/o/",
                "/orders/find/o/x",
                "/Orders/find/o",
                "/orders/Find/o",
                "/stock/add/i/",
                "/orders/addItem/o/",
                "/orders/addItem//",
                "/payment/pay/u/",
                "/healthz/",
                "/a/b/c/d/e/f/g/h",
                "/stock/item/create",
                "/orders/batch_init/1/2/3",
                "/payment/create_user/u",
                "orders/find/o",
                "/nothing/%FF",
            ][..],
        ),
        (
            Code::MethodNotAllowed,
            Method::PUT,
            &["/orders/find/o", "/payment/status/u/o", "/orders/find/%FF", "/stock/add/i/x", "/healthz"],
        ),
        (Code::MethodNotAllowed, Method::HEAD, &["/orders/find/o", "/readyz", "/payment/status/u/o"]),
        (Code::MethodNotAllowed, Method::OPTIONS, &["/orders/create/u"]),
        (Code::MethodNotAllowed, Method::GET, &["/orders/checkout/o", "/orders/remove/o"]),
        (
            Code::BadId,
            Method::GET,
            &[
                "/orders/find/%FF",
                "/orders/find/%",
                "/orders/find/%4",
                "/orders/find/%zz",
                "/orders/find/%C3",
                "/orders/find/%00",
                "/orders/find/a%0Ab",
                "/orders/find/%7F",
                "/orders/find/%C2%85",
                "/orders/find/%+1",
                "/payment/status//o",
                &long,
                &long_decoded,
            ],
        ),
        (
            Code::BadId,
            Method::POST,
            &[
                "/orders/addItem//i",
                "/orders/addItem/o//1",
                "/stock/add//5",
                "/payment/pay//5",
                "/payment/pay/u//5",
            ],
        ),
        (
            Code::BadAmount,
            Method::POST,
            &[
                "/orders/addItem/o/i/0",
                "/orders/addItem/o/i/-1",
                "/orders/addItem/o/i/1.0",
                "/orders/addItem/o/i/1e3",
                "/orders/addItem/o/i/9007199254740992",
                "/stock/add/i/+1",
                "/stock/add/i/x",
                "/stock/add/i/1_0",
                "/stock/add/i/%FF",
                "/stock/add/i/%201",
                "/stock/add/i/٣",
                "/stock/subtract/i/99999999999999999999999999",
                &digits,
                "/stock/batch_init/0/1/1",
                "/stock/batch_init/1000001/1/1",
                "/stock/batch_init/1/-1/1",
                "/stock/batch_init/1/1/x",
                "/payment/batch_init/0/1",
                "/payment/batch_init/1/-1",
                "/orders/batch_init/1/0/1/1",
                "/orders/batch_init/1/1/0/1",
                "/orders/batch_init/1/1/1/x",
                "/payment/add_funds/u/-1",
                "/payment/add_funds/u/+1",
                "/payment/add_funds/u/nan",
                "/payment/pay/u/1_0",
                "/payment/pay/u/o/%FF",
                "/stock/item/create/1e15",
                "/stock/item/create/1e-19",
                "/stock/item/create/0x1",
                "/payment/pay/u/%20",
            ],
        ),
    ] {
        for path in paths {
            let problem = route(&method, path).expect_err(path);
            assert_eq!(problem.code, code, "{method} {path}: {}", problem.detail);
        }
    }
}

#[test]
fn a_405_names_the_methods_that_are_taken() {
    for (path, allow) in [
        ("/orders/find/o", "GET"),
        ("/orders/checkout/o", "POST"),
        ("/orders/removeItem/o/i", "DELETE"),
        ("/payment/status/u/o", "GET, POST"),
    ] {
        assert_eq!(route(&Method::PATCH, path).expect_err(path).allow, Some(allow));
    }
}

proptest! {
    #[test]
    fn any_id_finds_its_way_through(text in "[^\\p{Cc}]{1,32}") {
        let encoded: String = text.bytes().map(|b| format!("%{b:02X}")).collect();
        prop_assert_eq!(
            op(&Method::GET, &format!("/orders/find/{encoded}")),
            Op::FindOrder { order: text.into() }
        );
    }
    #[test]
    fn no_path_is_a_panic(path in ".{0,80}") { let _ = route(&Method::POST, &path); }
    #[test]
    fn no_argument_is_a_panic(argument in "[^/]{0,80}") {
        let _ = route(&Method::POST, &format!("/stock/add/{argument}/{argument}"));
    }
}
