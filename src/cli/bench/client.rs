//! One client with a connection of its own: what it asks for next, and what the answer means. It never retries.

use super::engine::Run;
use super::mix::Kind;
use super::random::Random;
use super::tally::{Asked, Ended};
use crate::cli::http::{Answer, Broken, Connection, Target, field};
use std::time::Instant;

/// There is no order left to check out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RanOut;

#[derive(Debug)]
pub struct Client {
    connection: Connection,
    target: Target,
    random: Random,
    /// An order to edit, made when the mix first asks for one.
    cart: Option<String>,
}

impl Client {
    #[must_use]
    pub fn new(target: &Target) -> Self {
        Self {
            connection: Connection::new(target),
            target: target.clone(),
            random: Random::seeded(),
            cart: None,
        }
    }

    /// Sends one request, which was due at `due`, and counts its answer.
    pub async fn act(&mut self, run: &Run, due: Instant) -> Result<(), RanOut> {
        let kind = run.mix.pick(&mut self.random);
        let (order, request) = match kind {
            Kind::Checkout => {
                let order = run.next_order().ok_or(RanOut)?;
                let path = format!("/orders/checkout/{}", run.shop.orders[order]);
                (Some(order), self.target.request("POST", &path, None))
            }
            Kind::Edit => {
                let path = match &self.cart {
                    Some(cart) => format!("/orders/addItem/{cart}/{}/1", run.item()),
                    None => format!("/orders/create/{}", self.random.of(&run.shop.users)),
                };
                (None, self.target.request("POST", &path, None))
            }
            Kind::Read => {
                let path = match self.random.below(3) {
                    0 => format!("/stock/find/{}", run.item()),
                    1 => format!("/payment/find_user/{}", self.random.of(&run.shop.users)),
                    _ => format!("/orders/find/{}", self.random.of(&run.shop.orders)),
                };
                (None, self.target.request("GET", &path, None))
            }
        };
        let answer = self.connection.send(&request).await;
        let now = Instant::now();
        if let (Kind::Edit, None, Ok(answer)) = (kind, &self.cart, &answer) {
            let body = String::from_utf8_lossy(answer.body);
            self.cart = field(&body, "order_id").map(str::to_owned);
        }
        run.count(Asked { order, due }, now, ended(answer));
        Ok(())
    }
}

fn ended(answer: Result<Answer<'_>, Broken>) -> Ended {
    match answer {
        Ok(Answer { status: 200, .. }) => Ended::Good,
        Ok(Answer { status, body }) => {
            let body = String::from_utf8_lossy(body);
            let code = field(&body, "code").map_or_else(|| format!("http_{status}"), str::to_owned);
            // A refusal means that nothing changed, as do 429 and 503.
            if status < 500 || status == 503 {
                Ended::Refused { code, by_shop: status < 500 }
            } else {
                Ended::Open { code }
            }
        }
        Err(broken) => Ended::Open { code: broken.word().to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_for_what_the_contract_says() {
        let refused = |code: &str, by_shop| Ended::Refused { code: code.to_owned(), by_shop };
        let open = |code: &str| Ended::Open { code: code.to_owned() };
        let body = br#"{"code":"c"}"#;
        for (status, body, expected) in [
            (200, &b"{}"[..], Ended::Good),
            (409, body, refused("c", true)),
            (429, body, refused("c", true)),
            (503, body, refused("c", false)),
            (504, body, open("c")),
            (500, b"oops", open("http_500")),
            (404, b"", refused("http_404", true)),
        ] {
            assert_eq!(ended(Ok(Answer { status, body })), expected, "{status}");
        }
        assert_eq!(ended(Err(Broken::Refused)), open("connection_refused"));
    }
}
