//! Operations as HTTP, and answers as outcomes: the contract as a client sees it.

use crate::cli::http::field;
use crate::modules::money::Money;
use crate::modules::request::{Answer, Op, OrderView, Outcome, Refusal};

/// Method and path of an operation.
#[must_use]
pub fn request(op: &Op) -> (&'static str, String) {
    match op {
        Op::CreateOrder { user } => ("POST", format!("/orders/create/{user}")),
        Op::RemoveOrder { order } => ("DELETE", format!("/orders/remove/{order}")),
        Op::AddItem { order, item, units } => ("POST", format!("/orders/addItem/{order}/{item}/{units}")),
        Op::RemoveItem { order, item, units } => {
            ("DELETE", format!("/orders/removeItem/{order}/{item}/{units}"))
        }
        Op::FindOrder { order } => ("GET", format!("/orders/find/{order}")),
        Op::Checkout { order } => ("POST", format!("/orders/checkout/{order}")),
        Op::LoadOrders { n, n_items, n_users, item_price } => {
            ("POST", format!("/orders/batch_init/{n}/{n_items}/{n_users}/{item_price}"))
        }
        Op::CreateItem { price } => ("POST", format!("/stock/item/create/{price}")),
        Op::FindItem { item } => ("GET", format!("/stock/find/{item}")),
        Op::AddStock { item, units } => ("POST", format!("/stock/add/{item}/{units}")),
        Op::SubtractStock { item, units } => ("POST", format!("/stock/subtract/{item}/{units}")),
        Op::LoadItems { n, stock, price } => ("POST", format!("/stock/batch_init/{n}/{stock}/{price}")),
        Op::CreateUser => ("POST", "/payment/create_user".to_owned()),
        Op::FindUser { user } => ("GET", format!("/payment/find_user/{user}")),
        Op::AddFunds { user, amount } => ("POST", format!("/payment/add_funds/{user}/{amount}")),
        Op::Pay { user, amount } => ("POST", format!("/payment/pay/{user}/{amount}")),
        Op::PayOrder { user, order, amount } => ("POST", format!("/payment/pay/{user}/{order}/{amount}")),
        Op::CancelPayment { user, order } => ("POST", format!("/payment/cancel/{user}/{order}")),
        Op::PaymentStatus { user, order } => ("GET", format!("/payment/status/{user}/{order}")),
        Op::LoadUsers { n, credit } => ("POST", format!("/payment/batch_init/{n}/{credit}")),
        Op::Replace { pod, .. } => ("POST", format!("/replace/{}", pod.0)),
    }
}

/// What an answer means.
///
/// # Errors
/// Where the contract has no such answer to that question.
pub fn outcome(op: &Op, status: u16, body: &str) -> Result<Outcome, String> {
    let strange = || format!("{} {} was answered {status}: {}", request(op).0, request(op).1, body.trim());
    if status == 200 {
        return answer(op, body).map(Outcome::Done).ok_or_else(strange);
    }
    let detail = field(body, "detail").unwrap_or_default();
    let refusal = match (status, field(body, "code").unwrap_or_default()) {
        (400, "bad_amount") => Refusal::BadAmount(detail.to_owned()),
        (404, "order_not_found") => Refusal::OrderNotFound(op.order().ok_or_else(strange)?.clone()),
        (404, "item_not_found") => Refusal::ItemNotFound(item(op, body).ok_or_else(strange)?.into()),
        (404, "user_not_found") => Refusal::UserNotFound(named(body).unwrap_or_default().into()),
        (404, "payment_not_found") => Refusal::PaymentNotFound,
        (409, "out_of_stock") => Refusal::OutOfStock(field(body, "item_id").ok_or_else(strange)?.into()),
        (409, "insufficient_credit") => Refusal::InsufficientCredit,
        (409, "order_paid") => Refusal::OrderPaid(op.order().ok_or_else(strange)?.clone()),
        (409, "payment_mismatch") => Refusal::PaymentMismatch,
        (429, _) => return Ok(Outcome::Overloaded),
        (503, _) => return Ok(Outcome::Unavailable),
        (504, _) => return Ok(Outcome::Unknown),
        _ => return Err(strange()),
    };
    Ok(Outcome::Refused(refusal))
}

fn answer(op: &Op, body: &str) -> Option<Answer> {
    let id = |name: &str| field(body, name).map(str::to_owned);
    let money = |name: &str| Money::parse(field(body, name)?).ok();
    let count = |name: &str| field(body, name)?.parse::<u64>().ok();
    Some(match op {
        Op::CreateOrder { .. } => Answer::OrderCreated { order: id("order_id")?.into() },
        Op::RemoveOrder { .. } => Answer::OrderRemoved { order: id("order_id")?.into() },
        Op::AddItem { .. } | Op::RemoveItem { .. } | Op::FindOrder { .. } => Answer::Order(view(body)?),
        Op::Checkout { .. } => {
            field(body, "paid").filter(|paid| *paid == "true")?;
            Answer::CheckedOut { order: id("order_id")?.into(), total_cost: money("total_cost")? }
        }
        Op::CreateItem { .. } => Answer::ItemCreated { item: id("item_id")?.into() },
        Op::FindItem { .. } => {
            Answer::Item { item: id("item_id")?.into(), stock: count("stock")?, price: money("price")? }
        }
        Op::AddStock { .. } | Op::SubtractStock { .. } => {
            Answer::Stock { item: id("item_id")?.into(), stock: count("stock")? }
        }
        Op::CreateUser => Answer::UserCreated { user: id("user_id")?.into() },
        Op::FindUser { .. } => Answer::User { user: id("user_id")?.into(), credit: money("credit")? },
        Op::AddFunds { .. } => Answer::Funds { user: id("user_id")?.into(), credit: money("credit")? },
        Op::Pay { .. } | Op::PayOrder { .. } | Op::CancelPayment { .. } => {
            Answer::Credit { user: id("user_id")?.into(), credit: money("credit")? }
        }
        Op::PaymentStatus { .. } => match field(body, "paid")? {
            "true" => Answer::PaymentStatus { paid: true },
            "false" => Answer::PaymentStatus { paid: false },
            _ => return None,
        },
        Op::LoadOrders { n, .. } | Op::LoadItems { n, .. } | Op::LoadUsers { n, .. } => {
            field(body, "msg")?;
            Answer::Loaded { n: *n }
        }
        // An operator's, not a client's.
        Op::Replace { .. } => return None,
    })
}

fn view(body: &str) -> Option<OrderView> {
    #[derive(serde::Deserialize)]
    struct Seen {
        order_id: String,
        user_id: String,
        paid: bool,
        items: Vec<(String, u64)>,
    }
    let seen: Seen = serde_json::from_str(body).ok()?;
    // Behind everything else, and exact where a float would not be.
    let (_, total) = body.rsplit_once("\"total_cost\":")?;
    Some(OrderView {
        order: seen.order_id.into(),
        user: seen.user_id.into(),
        paid: seen.paid,
        items: seen.items.into_iter().map(|(item, units)| (item.into(), units)).collect(),
        total_cost: Money::parse(total.trim_end().strip_suffix('}')?).ok()?,
    })
}

/// The item that is asked about; of a checkout, the one that the text for people names.
fn item<'a>(op: &'a Op, body: &'a str) -> Option<&'a str> {
    match op {
        Op::AddItem { item, .. }
        | Op::RemoveItem { item, .. }
        | Op::FindItem { item }
        | Op::AddStock { item, .. }
        | Op::SubtractStock { item, .. } => Some(item.as_str()),
        Op::Checkout { .. } => named(body),
        Op::RemoveOrder { .. }
        | Op::FindOrder { .. }
        | Op::PayOrder { .. }
        | Op::CancelPayment { .. }
        | Op::PaymentStatus { .. }
        | Op::CreateOrder { .. }
        | Op::LoadOrders { .. }
        | Op::CreateItem { .. }
        | Op::LoadItems { .. }
        | Op::CreateUser
        | Op::FindUser { .. }
        | Op::AddFunds { .. }
        | Op::Pay { .. }
        | Op::LoadUsers { .. }
        | Op::Replace { .. } => None,
    }
}

/// What stands between the (escaped) quotes of a problem's detail.
fn named(body: &str) -> Option<&str> {
    body.split("\\\"").nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api;
    use crate::api::route::{Target, route};

    /// Whatever is asked is understood as what it is, and whatever is answered as well.
    #[test]
    fn the_server_means_what_this_client_understands() {
        let (order, item, user) = ("0-ab".into(), "i1".into(), "u1".into());
        let amount = Money::parse("7.289374982374123").unwrap();
        let view = OrderView {
            order: "0-ab".into(),
            user: "u1".into(),
            paid: true,
            items: vec![("i1".into(), 2), ("i2".into(), 1)],
            total_cost: amount,
        };
        let op = Op::AddItem { order, item, units: 3 };
        let cases = [
            (op.clone(), Outcome::Done(Answer::Order(view))),
            (op, Outcome::Refused(Refusal::ItemNotFound("i1".into()))),
            (
                Op::Checkout { order: "0-ab".into() },
                Outcome::Done(Answer::CheckedOut { order: "0-ab".into(), total_cost: amount }),
            ),
            (Op::Checkout { order: "0-ab".into() }, Outcome::Refused(Refusal::ItemNotFound("i7".into()))),
            (Op::Checkout { order: "0-ab".into() }, Outcome::Refused(Refusal::OutOfStock("i7".into()))),
            (Op::AddFunds { user, amount }, Outcome::Refused(Refusal::UserNotFound("u1".into()))),
            (
                Op::PaymentStatus { user: "u1".into(), order: "0-ab".into() },
                Outcome::Done(Answer::PaymentStatus { paid: false }),
            ),
            (Op::LoadItems { n: 3, stock: 4, price: amount }, Outcome::Done(Answer::Loaded { n: 3 })),
            (Op::CreateUser, Outcome::Unknown),
            (Op::CreateUser, Outcome::Overloaded),
        ];
        for (op, told) in cases {
            let (method, path) = request(&op);
            let target = route(&method.parse().unwrap(), &path).unwrap();
            assert_eq!(target, Target::Op(op.clone()));
            let (status, body) = match api::outcome::tell(told.clone(), "stock", "k") {
                Ok(body) => (200, body),
                Err(problem) => (problem.code.status().as_u16(), problem.body()),
            };
            assert_eq!(outcome(&op, status, std::str::from_utf8(&body).unwrap()), Ok(told));
        }
        assert!(outcome(&Op::CreateUser, 500, "{}").is_err());
        assert!(outcome(&Op::CreateUser, 200, "{}").is_err());
    }
}
