//! What is too large, what is no HTTP, and that none of it harms anybody.

use super::shop::shop;

/// A pod is as good as ever: a user can be made and found.
fn unharmed() {
    let shop = shop();
    for _ in &shop.pods {
        assert_eq!(shop.get("/healthz").status, 200);
        let user = shop.user("3");
        assert_eq!(shop.credit(&user), "3");
    }
}

fn with_body(head: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!("POST /payment/create_user HTTP/1.1\r\nHost: kassa\r\n{head}\r\n").into_bytes();
    request.extend_from_slice(body);
    request
}

#[test]
fn a_body_that_nobody_needs_is_taken() {
    let shop = shop();
    for bytes in [0, 1, 1_000, 65_536] {
        let head = format!("Content-Length: {bytes}\r\n");
        shop.raw(&with_body(&head, &vec![b'x'; bytes])).has(&["user_id"]);
    }
    shop.raw(&with_body("Content-Type: application/json\r\nContent-Length: 2\r\n", b"{}")).has(&["user_id"]);
    let chunked = b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n";
    shop.raw(&with_body("Transfer-Encoding: chunked\r\n", chunked)).has(&["user_id"]);
}

#[test]
fn a_longer_body_is_refused_and_a_plain_client_reads_the_answer() {
    let shop = shop();
    for bytes in [65_537, 1_000_000, 10_000_000, 16 * 1024 * 1024] {
        let head = format!("Content-Length: {bytes}\r\n");
        shop.raw(&with_body(&head, &vec![b'x'; bytes])).refused(413, "body_too_large");
    }
    let mut chunk = b"20000\r\n".to_vec();
    chunk.extend_from_slice(&[b'x'; 0x20000]);
    chunk.extend_from_slice(b"\r\n0\r\n\r\n");
    shop.raw(&with_body("Transfer-Encoding: chunked\r\n", &chunk)).refused(413, "body_too_large");
    unharmed();
}

#[test]
fn a_body_that_is_too_long_changes_nothing() {
    let shop = shop();
    let user = shop.user("5");
    let mut request =
        format!("POST /payment/add_funds/{user}/1 HTTP/1.1\r\nHost: kassa\r\nContent-Length: 100000\r\n\r\n")
            .into_bytes();
    request.resize(request.len() + 100_000, b'x');
    shop.raw(&request).refused(413, "body_too_large");
    assert_eq!(shop.credit(&user), "5");
}

#[test]
fn a_uri_of_more_than_8_kib_is_refused() {
    let shop = shop();
    // Up to there it is the id that is too long.
    let path = format!("/stock/find/{}", "x".repeat(7_900));
    shop.get(&path).refused(400, "bad_id");
    for bytes in [8_300, 12_000, 30_000, 70_000] {
        let path = format!("/stock/find/{}", "x".repeat(bytes));
        shop.raw(format!("GET {path} HTTP/1.1\r\nHost: kassa\r\n\r\n").as_bytes())
            .refused(414, "uri_too_long");
    }
    unharmed();
}

#[test]
fn headers_of_more_than_16_kib_are_refused() {
    let shop = shop();
    let get = |headers: &str| {
        shop.raw(format!("GET /stock/find/none HTTP/1.1\r\nHost: kassa\r\n{headers}\r\n").as_bytes())
    };
    get(&format!("X-One: {}\r\n", "x".repeat(7_000))).refused(404, "item_not_found");
    for bytes in [17_000, 40_000, 500_000] {
        get(&format!("X-One: {}\r\n", "x".repeat(bytes))).refused(431, "headers_too_large");
    }
    let many: String = (0..80).map(|i| format!("X-{i}: {}\r\n", "x".repeat(250))).collect();
    get(&many).refused(431, "headers_too_large");
    unharmed();
}

#[test]
fn what_is_no_http_gets_a_problem_and_harms_nobody() {
    let shop = shop();
    for raw in [
        "nonsense\r\n\r\n",
        "GET\r\n\r\n",
        "GET /stock/find/none HTTP/9.9\r\nHost: kassa\r\n\r\n",
        "GET /stock/find/none HTTP/1.1\r\nHost: kassa\r\nno colon here\r\n\r\n",
        "GET /stock/find/none HTTP/1.1\r\nHost: kassa\r\n: no name\r\n\r\n",
        "POST /payment/create_user HTTP/1.1\r\nHost: kassa\r\nContent-Length: x\r\n\r\n",
        "POST /payment/create_user HTTP/1.1\r\nHost: kassa\r\nContent-Length: -1\r\n\r\n",
        "POST /payment/create_user HTTP/1.1\r\nHost: kassa\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    ] {
        let response = shop.raw(raw.as_bytes());
        assert_eq!(response.status / 100, 4, "{raw:?}: {response:?}");
    }
    unharmed();
}

#[test]
fn requests_one_after_the_other_on_a_connection_are_answered_in_order() {
    let shop = shop();
    let item = shop.item("1", 0);
    let mut conn = shop.conn();
    for units in 1..=50 {
        let response = conn.request("POST", &format!("/stock/add/{item}/1"), None);
        assert_eq!(super::http::number(&response.ok(), "stock"), units.to_string());
    }
    // And before any was answered.
    let request = format!("GET /stock/find/{item} HTTP/1.1\r\nHost: kassa\r\n\r\n");
    let missing = "GET /stock/find/none HTTP/1.1\r\nHost: kassa\r\n\r\n";
    conn.send([request.as_str(), missing].concat().repeat(5).as_bytes());
    for _ in 0..5 {
        assert_eq!(conn.response(true).unwrap().status, 200);
        assert_eq!(conn.response(true).unwrap().status, 404);
    }
}

#[test]
fn clients_that_stop_in_the_middle_harm_nobody() {
    let shop = shop();
    let mut stuck = Vec::new();
    for part in ["", "GET /sto", "GET /stock/find/none HTTP/1.1\r\nHost: ka", "\r\n"] {
        for _ in 0..20 {
            let mut conn = shop.conn();
            conn.send(part.as_bytes());
            stuck.push(conn);
        }
    }
    for _ in 0..10 {
        let mut conn = shop.conn();
        conn.send(&with_body("Content-Length: 1000\r\n", b"half"));
        stuck.push(conn);
    }
    unharmed();
    drop(stuck);
    unharmed();
}
