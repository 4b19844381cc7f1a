//! From the outcome of a request to what its client is told.

use super::problem::{Code, Problem};
use crate::modules::disks::NotReplaced;
use crate::modules::request::{Outcome, Refusal};
use bytes::Bytes;

/// The body of a success (`loaded` says what a batch was of), or else the problem.
///
/// # Errors
/// Every outcome but success.
pub fn tell(outcome: Outcome, loaded: &str, key: &str) -> Result<Bytes, Problem> {
    match outcome {
        Outcome::Done(answer) => Ok(super::json::answer(&answer, loaded)),
        Outcome::Refused(refusal) => Err(refuse(refusal)),
        Outcome::Overloaded => Err(overloaded()),
        Outcome::Unavailable => Err(Problem::new(
            Code::Unavailable,
            "no majority of the replicas could be reached in time; nothing was done: try again soon",
        )),
        Outcome::Unknown => Err(Problem::new(
            Code::OutcomeUnknown,
            "the outcome was not known in time, and the request may yet take effect: \
             repeat it with the header `Idempotency-Key` of this answer to learn how it ended",
        )
        .with("idempotency_key", key)),
    }
}

/// Shed, having done nothing.
#[must_use]
pub fn overloaded() -> Problem {
    Problem::new(
        Code::Overloaded,
        "this pod has as much to do as it may take on; nothing was done: try again soon",
    )
}

fn refuse(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::BadAmount(what) => Problem::new(Code::BadAmount, what),
        Refusal::OrderNotFound(order) => {
            Problem::new(Code::OrderNotFound, format!("there is no order \"{order}\""))
        }
        Refusal::ItemNotFound(item) => {
            Problem::new(Code::ItemNotFound, format!("there is no item \"{item}\" here"))
        }
        Refusal::UserNotFound(user) => {
            Problem::new(Code::UserNotFound, format!("there is no user \"{user}\""))
        }
        Refusal::PaymentNotFound => {
            Problem::new(Code::PaymentNotFound, "there is no payment of this order by this user to refund")
        }
        Refusal::OutOfStock(item) => {
            Problem::new(Code::OutOfStock, format!("there are not enough units of item \"{item}\""))
                .with("item_id", item.as_str())
        }
        Refusal::InsufficientCredit => {
            Problem::new(Code::InsufficientCredit, "the user's credit does not cover the amount")
        }
        Refusal::OrderPaid(order) => Problem::new(
            Code::OrderPaid,
            format!("order \"{order}\" is paid, and so closed: cancel its payment to change it"),
        ),
        Refusal::PaymentMismatch => Problem::new(
            Code::PaymentMismatch,
            "this order was paid for with another amount: cancel that payment first",
        ),
        Refusal::NotReplaced(why) => {
            let code = match why {
                NotReplaced::UnknownPod(_) => Code::PodNotFound,
                NotReplaced::IsUp(_)
                | NotReplaced::NobodyWaits(_)
                | NotReplaced::Raced(_)
                | NotReplaced::TooMany { .. }
                | NotReplaced::TooFew(_) => Code::NotReplaced,
            };
            Problem::new(code, why.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_its_status_and_code() {
        for (outcome, status, code) in [
            (Outcome::Refused(Refusal::BadAmount("x".into())), 400, "bad_amount"),
            (Outcome::Refused(Refusal::OrderNotFound("o".into())), 404, "order_not_found"),
            (Outcome::Refused(Refusal::ItemNotFound("i".into())), 404, "item_not_found"),
            (Outcome::Refused(Refusal::UserNotFound("u".into())), 404, "user_not_found"),
            (Outcome::Refused(Refusal::PaymentNotFound), 404, "payment_not_found"),
            (Outcome::Refused(Refusal::OutOfStock("i".into())), 409, "out_of_stock"),
            (Outcome::Refused(Refusal::InsufficientCredit), 409, "insufficient_credit"),
            (Outcome::Refused(Refusal::OrderPaid("o".into())), 409, "order_paid"),
            (Outcome::Refused(Refusal::PaymentMismatch), 409, "payment_mismatch"),
            (Outcome::Overloaded, 429, "overloaded"),
            (Outcome::Unavailable, 503, "unavailable"),
            (Outcome::Unknown, 504, "outcome_unknown"),
        ] {
            let problem = tell(outcome, "", "k").expect_err(code);
            assert_eq!((problem.code.status().as_u16(), problem.code.word()), (status, code));
            assert_eq!(problem.code.is_passing(), matches!(status, 429 | 503), "{code}");
        }
    }
}
