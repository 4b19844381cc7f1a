//! Answers as JSON text, written in one pass into one buffer.
//!
//! By hand, because money must stand there as an exact plain number: through a generic serializer it
//! would have to be a float or a string.

use crate::modules::money::Money;
use crate::modules::request::{Answer, OrderView};
use bytes::Bytes;
use std::io::Write;

/// A JSON text under construction.
pub struct Json(Vec<u8>);

/// Room for an answer with two ids and two numbers of common length.
const COMMON_BYTES: usize = 160;

/// The body of a success.
#[must_use]
pub fn answer(answer: &Answer, loaded: &str) -> Bytes {
    let mut json = Json::with_capacity(COMMON_BYTES);
    match answer {
        Answer::OrderCreated { order } | Answer::OrderRemoved { order } => {
            json.raw("{\"order_id\":").text(order.as_str());
        }
        Answer::Order(view) => json.order(view),
        Answer::CheckedOut { order, total_cost } => {
            json.raw("{\"order_id\":").text(order.as_str());
            json.raw(",\"paid\":true,\"total_cost\":").money(*total_cost);
        }
        Answer::ItemCreated { item } => {
            json.raw("{\"item_id\":").text(item.as_str());
        }
        Answer::Item { item, stock, price } => {
            json.raw("{\"item_id\":").text(item.as_str());
            json.raw(",\"stock\":").count(*stock).raw(",\"price\":").money(*price);
        }
        Answer::Stock { item, stock } => {
            json.raw("{\"item_id\":").text(item.as_str());
            json.raw(",\"stock\":").count(*stock);
        }
        Answer::UserCreated { user } => {
            json.raw("{\"user_id\":").text(user.as_str());
        }
        Answer::User { user, credit } | Answer::Credit { user, credit } => {
            json.raw("{\"user_id\":").text(user.as_str());
            json.raw(",\"credit\":").money(*credit);
        }
        Answer::Funds { user, credit } => {
            json.raw("{\"done\":true,\"user_id\":").text(user.as_str());
            json.raw(",\"credit\":").money(*credit);
        }
        Answer::PaymentStatus { paid } => {
            json.raw("{\"paid\":").boolean(*paid);
        }
        Answer::Loaded { n } => {
            json.raw("{\"msg\":\"Batch init for ")
                .raw(loaded)
                .raw(" successful: ")
                .count(*n)
                .raw(" of them\"");
        }
        Answer::Replaced(replacement) => {
            json.raw("{\"disk\":").text(&replacement.disk.to_string());
            json.raw(",\"replaced\":").count(u64::from(replacement.count));
        }
    }
    json.raw("}").finish()
}

impl Json {
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }
    /// Text that is JSON already.
    pub fn raw(&mut self, json: &str) -> &mut Self {
        self.0.extend_from_slice(json.as_bytes());
        self
    }
    /// A string, quoted and escaped.
    pub fn text(&mut self, text: &str) -> &mut Self {
        serde_json::to_writer(&mut self.0, text).expect("a string has a JSON form, and a Vec takes all");
        self
    }
    pub fn count(&mut self, count: u64) -> &mut Self {
        write!(self.0, "{count}").expect("a Vec takes all");
        self
    }
    /// A number, exact: [`Money`] shows itself in plain decimal notation.
    pub fn money(&mut self, money: Money) -> &mut Self {
        write!(self.0, "{money}").expect("a Vec takes all");
        self
    }
    fn boolean(&mut self, value: bool) -> &mut Self {
        self.raw(if value { "true" } else { "false" })
    }
    /// An order as `find` shows it, up to its closing brace.
    fn order(&mut self, view: &OrderView) {
        self.raw("{\"order_id\":").text(view.order.as_str());
        self.raw(",\"paid\":").boolean(view.paid).raw(",\"items\":[");
        for (i, (item, units)) in view.items.iter().enumerate() {
            self.raw(if i == 0 { "[" } else { ",[" }).text(item.as_str());
            self.raw(",").count(*units).raw("]");
        }
        self.raw("],\"user_id\":").text(view.user.as_str());
        self.raw(",\"total_cost\":").money(view.total_cost);
    }
    #[must_use]
    pub fn finish(&mut self) -> Bytes {
        std::mem::take(&mut self.0).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(value: &Answer, want: Expect) {
        let body = answer(value, "stock");
        let _: serde_json::Value = serde_json::from_slice(&body).unwrap();
        want.assert_eq(std::str::from_utf8(&body).unwrap());
    }

    fn money(text: &str) -> Money {
        Money::parse(text).unwrap()
    }

    #[test]
    fn every_answer_has_the_shape_of_the_contract() {
        let (order, item, user) = ("o", "i", "u");
        check(&Answer::OrderCreated { order: order.into() }, expect![[r#"{"order_id":"o"}"#]]);
        check(&Answer::OrderRemoved { order: order.into() }, expect![[r#"{"order_id":"o"}"#]]);
        check(
            &Answer::Order(OrderView {
                order: order.into(),
                user: user.into(),
                paid: false,
                items: vec![("a".into(), 2), ("b\"\\\u{e9}".into(), (1 << 53) - 1)],
                total_cost: money("14.578749964748246"),
            }),
            expect![[
                r#"{"order_id":"o","paid":false,"items":[["a",2],["b\"\\é",9007199254740991]],"user_id":"u","total_cost":14.578749964748246}"#
            ]],
        );
        check(
            &Answer::Order(OrderView {
                order: order.into(),
                user: user.into(),
                paid: true,
                items: vec![],
                total_cost: Money::ZERO,
            }),
            expect![[r#"{"order_id":"o","paid":true,"items":[],"user_id":"u","total_cost":0}"#]],
        );
        check(
            &Answer::CheckedOut { order: order.into(), total_cost: money("1e-3") },
            expect![[r#"{"order_id":"o","paid":true,"total_cost":0.001}"#]],
        );
        check(&Answer::ItemCreated { item: item.into() }, expect![[r#"{"item_id":"i"}"#]]);
        check(
            &Answer::Item { item: item.into(), stock: 0, price: money("5.0") },
            expect![[r#"{"item_id":"i","stock":0,"price":5}"#]],
        );
        check(&Answer::Stock { item: item.into(), stock: 7 }, expect![[r#"{"item_id":"i","stock":7}"#]]);
        check(&Answer::UserCreated { user: user.into() }, expect![[r#"{"user_id":"u"}"#]]);
        let credit = money("999999999999999.999999999999999999");
        check(
            &Answer::User { user: user.into(), credit },
            expect![[r#"{"user_id":"u","credit":999999999999999.999999999999999999}"#]],
        );
        check(
            &Answer::Funds { user: user.into(), credit: money("7.25") },
            expect![[r#"{"done":true,"user_id":"u","credit":7.25}"#]],
        );
        check(
            &Answer::Credit { user: user.into(), credit: money("0") },
            expect![[r#"{"user_id":"u","credit":0}"#]],
        );
        check(&Answer::PaymentStatus { paid: true }, expect![[r#"{"paid":true}"#]]);
        check(&Answer::PaymentStatus { paid: false }, expect![[r#"{"paid":false}"#]]);
        check(
            &Answer::Loaded { n: 100_000 },
            expect![[r#"{"msg":"Batch init for stock successful: 100000 of them"}"#]],
        );
    }
}
