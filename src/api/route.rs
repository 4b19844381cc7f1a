//! From method and path to an operation: the contract's table of paths.
//!
//! A match on the path's segments instead of a router: the table is small and fixed, it reads like the
//! contract, and each failure gets exactly the answer the contract names: an unknown path, a known one
//! with another method, an id or an amount that is none. The arguments are judged last.

use super::problem::{Code, Problem};
use crate::modules::money::{Money, MoneyError, TEXT_BYTES_MAX};
use crate::modules::request::{BATCH_MAX, ID_BYTES_MAX, Op, UNITS_MAX};
use hyper::Method;
use kassa_protocols::ids::PodId;
use std::borrow::Cow;

/// What a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An operation of the contract.
    Op(Op),
    /// The process lives.
    Health,
    /// The pod can answer.
    Ready,
    /// What the pod knows of itself.
    Status,
    /// An operator's word: the disk of this pod is lost, and the empty one that waits takes its place.
    Replace(PodId),
}

/// The most segments that a path of the contract has.
const SEGMENTS_MAX: usize = 6;

const GET: &[Method] = &[Method::GET];
const POST: &[Method] = &[Method::POST];
const DELETE: &[Method] = &[Method::DELETE];
const GET_POST: &[Method] = &[Method::GET, Method::POST];

/// Finds what `method` on `path` (as it came, percent-encoded, without a query) asks for.
///
/// # Errors
/// 404 for a path that is none of the contract's, 405 for a method that it does not take, 400 for an
/// argument, in this order.
pub fn route(method: &Method, path: &str) -> Result<Target, Problem> {
    let mut all = [""; SEGMENTS_MAX];
    let mut count = 0;
    // "/a/b" is an empty segment before the first slash, then the segments proper.
    let mut parts = path.split('/');
    if parts.next() != Some("") {
        return Err(no_such_path());
    }
    for part in parts {
        *all.get_mut(count).ok_or_else(no_such_path)? = part;
        count += 1;
    }
    match &all[..count] {
        [] | [.., ""] => Err(no_such_path()),
        ["orders", rest @ ..] => orders(method, rest).map(Target::Op),
        ["stock", rest @ ..] => stock(method, rest).map(Target::Op),
        ["payment", rest @ ..] => payment(method, rest).map(Target::Op),
        ["healthz"] => on(method, GET).map(|()| Target::Health),
        ["readyz"] => on(method, GET).map(|()| Target::Ready),
        ["status"] => on(method, GET).map(|()| Target::Status),
        ["replace", pod] => {
            on(method, POST)?;
            let no_pod = |_| Problem::new(Code::PodNotFound, "a pod's number is from 0 to 255");
            pod.parse().map(|pod| Target::Replace(PodId(pod))).map_err(no_pod)
        }
        _ => Err(no_such_path()),
    }
}

fn orders(method: &Method, path: &[&str]) -> Result<Op, Problem> {
    match *path {
        ["create", user] => {
            on(method, POST)?;
            Ok(Op::CreateOrder { user: id(user, "user")? })
        }
        ["remove", order] => {
            on(method, DELETE)?;
            Ok(Op::RemoveOrder { order: id(order, "order")? })
        }
        ["addItem", order, item] => {
            on(method, POST)?;
            Ok(Op::AddItem { order: id(order, "order")?, item: id(item, "item")?, units: 1 })
        }
        ["addItem", order, item, units] => {
            on(method, POST)?;
            let units = count(units, "quantity", 1, UNITS_MAX)?;
            Ok(Op::AddItem { order: id(order, "order")?, item: id(item, "item")?, units })
        }
        ["removeItem", order, item] => {
            on(method, DELETE)?;
            Ok(Op::RemoveItem { order: id(order, "order")?, item: id(item, "item")?, units: 1 })
        }
        ["removeItem", order, item, units] => {
            on(method, DELETE)?;
            let units = count(units, "quantity", 1, UNITS_MAX)?;
            Ok(Op::RemoveItem { order: id(order, "order")?, item: id(item, "item")?, units })
        }
        ["find", order] => {
            on(method, GET)?;
            Ok(Op::FindOrder { order: id(order, "order")? })
        }
        ["checkout", order] => {
            on(method, POST)?;
            Ok(Op::Checkout { order: id(order, "order")? })
        }
        ["batch_init", n, n_items, n_users, item_price] => {
            on(method, POST)?;
            Ok(Op::LoadOrders {
                n: count(n, "n", 1, BATCH_MAX)?,
                n_items: count(n_items, "n_items", 1, BATCH_MAX)?,
                n_users: count(n_users, "n_users", 1, BATCH_MAX)?,
                item_price: money(item_price, "item_price")?,
            })
        }
        _ => Err(no_such_path()),
    }
}

fn stock(method: &Method, path: &[&str]) -> Result<Op, Problem> {
    match *path {
        ["item", "create", price] => {
            on(method, POST)?;
            Ok(Op::CreateItem { price: money(price, "price")? })
        }
        ["find", item] => {
            on(method, GET)?;
            Ok(Op::FindItem { item: id(item, "item")? })
        }
        ["add", item, units] => {
            on(method, POST)?;
            Ok(Op::AddStock { item: id(item, "item")?, units: count(units, "amount", 0, UNITS_MAX)? })
        }
        ["subtract", item, units] => {
            on(method, POST)?;
            Ok(Op::SubtractStock { item: id(item, "item")?, units: count(units, "amount", 0, UNITS_MAX)? })
        }
        ["batch_init", n, stock, price] => {
            on(method, POST)?;
            Ok(Op::LoadItems {
                n: count(n, "n", 1, BATCH_MAX)?,
                stock: count(stock, "starting_stock", 0, UNITS_MAX)?,
                price: money(price, "item_price")?,
            })
        }
        _ => Err(no_such_path()),
    }
}

fn payment(method: &Method, path: &[&str]) -> Result<Op, Problem> {
    match *path {
        ["create_user"] => {
            on(method, POST)?;
            Ok(Op::CreateUser)
        }
        ["find_user", user] => {
            on(method, GET)?;
            Ok(Op::FindUser { user: id(user, "user")? })
        }
        ["add_funds", user, amount] => {
            on(method, POST)?;
            Ok(Op::AddFunds { user: id(user, "user")?, amount: money(amount, "amount")? })
        }
        ["pay", user, amount] => {
            on(method, POST)?;
            Ok(Op::Pay { user: id(user, "user")?, amount: money(amount, "amount")? })
        }
        ["pay", user, order, amount] => {
            on(method, POST)?;
            let amount = money(amount, "amount")?;
            Ok(Op::PayOrder { user: id(user, "user")?, order: id(order, "order")?, amount })
        }
        ["cancel", user, order] => {
            on(method, POST)?;
            Ok(Op::CancelPayment { user: id(user, "user")?, order: id(order, "order")? })
        }
        ["status", user, order] => {
            on(method, GET_POST)?;
            Ok(Op::PaymentStatus { user: id(user, "user")?, order: id(order, "order")? })
        }
        ["batch_init", n, credit] => {
            on(method, POST)?;
            Ok(Op::LoadUsers { n: count(n, "n", 1, BATCH_MAX)?, credit: money(credit, "starting_money")? })
        }
        _ => Err(no_such_path()),
    }
}

fn no_such_path() -> Problem {
    Problem::new(
        Code::NoSuchPath,
        "this path is none of the contract's; see the table of paths in the README",
    )
}

fn on(method: &Method, allowed: &'static [Method]) -> Result<(), Problem> {
    if allowed.contains(method) {
        return Ok(());
    }
    let allow = match allowed {
        [Method::GET] => "GET",
        [Method::POST] => "POST",
        [Method::DELETE] => "DELETE",
        _ => "GET, POST",
    };
    let mut problem = Problem::new(Code::MethodNotAllowed, format!("this path takes {allow} only"));
    problem.allow = Some(allow);
    Err(problem)
}

fn id<T: for<'a> From<&'a str>>(segment: &str, of: &str) -> Result<T, Problem> {
    let bad = |what: &str| Err(Problem::new(Code::BadId, format!("the {of} id {what}")));
    let Some(text) = decode(segment) else {
        return bad("is not UTF-8 in percent-encoding: every byte of a character is %XX with two hex digits");
    };
    if text.is_empty() {
        return bad("is empty: put one between the slashes");
    }
    if text.len() > ID_BYTES_MAX {
        return bad("is over 128 bytes: take a shorter one");
    }
    if text.chars().any(char::is_control) {
        return bad("has a control character: leave it out");
    }
    Ok(T::from(&text))
}

fn money(segment: &str, of: &str) -> Result<Money, Problem> {
    match decode(segment).ok_or(MoneyError::NotANumber).and_then(|text| Money::parse(&text)) {
        Ok(money) => Ok(money),
        Err(error) => Err(Problem::new(
            Code::BadAmount,
            format!("the {of} {error}: send up to 15 digits before and 18 after the point, such as 7.25"),
        )),
    }
}

fn count(segment: &str, of: &str, min: u64, max: u64) -> Result<u64, Problem> {
    let text = decode(segment).unwrap_or_default();
    let bad = |what: &str| {
        Err(Problem::new(
            Code::BadAmount,
            format!("the {of} {what}: send a whole number from {min} to {max}, decimal digits only"),
        ))
    };
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return bad("is not a whole number");
    }
    if text.len() > TEXT_BYTES_MAX {
        return bad("is longer than 64 characters");
    }
    // 64 digits may overflow, and then are too many in any case.
    match text.parse() {
        Ok(count) if count < min => bad("is too small"),
        Ok(count) if count <= max => Ok(count),
        Ok(_) | Err(_) => bad("is too large"),
    }
}

/// The text of a percent-encoded segment; `None` for a broken encoding or what is not UTF-8. A plus
/// sign is one: it stands for a space only in forms.
pub fn decode(segment: &str) -> Option<Cow<'_, str>> {
    if !segment.contains('%') {
        return Some(Cow::Borrowed(segment));
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = rest else { return None };
        bytes.push(hex(*high)? << 4 | hex(*low)?);
        rest = tail;
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
