//! What a client is told when its request was not done: one stable code each, as problem details (RFC 9457).

use super::json::Json;
use bytes::Bytes;
use hyper::StatusCode;
use std::borrow::Cow;

/// Every way in which a request can fail, whoever notices it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    BadRequest,
    BadAmount,
    BadId,
    BadKey,
    OrderNotFound,
    ItemNotFound,
    UserNotFound,
    PaymentNotFound,
    NoSuchPath,
    MethodNotAllowed,
    OutOfStock,
    InsufficientCredit,
    OrderPaid,
    PaymentMismatch,
    PodNotFound,
    NotReplaced,
    BodyTooLarge,
    UriTooLong,
    HeadersTooLarge,
    Overloaded,
    Unavailable,
    NotReady,
    OutcomeUnknown,
}

/// One failure: its code, and a text for the person who reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub code: Code,
    pub detail: Cow<'static, str>,
    /// The methods that the path takes, where it was asked with another.
    pub allow: Option<&'static str>,
    /// A member of this kind of problem alone: its name and text.
    pub extra: Option<(&'static str, Box<str>)>,
}

impl Problem {
    #[must_use]
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), allow: None, extra: None }
    }

    #[must_use]
    pub fn with(mut self, name: &'static str, text: &str) -> Self {
        self.extra = Some((name, text.into()));
        self
    }

    /// The body: the five members of every problem, and the one of its kind.
    #[must_use]
    pub fn body(&self) -> Bytes {
        let mut json = Json::with_capacity(256 + self.detail.len());
        json.raw("{\"type\":\"urn:kassa:problem:").raw(self.code.word());
        json.raw("\",\"title\":").text(self.code.title());
        json.raw(",\"status\":").raw(self.code.status().as_str());
        json.raw(",\"detail\":").text(&self.detail);
        json.raw(",\"code\":").text(self.code.word());
        if let Some((name, value)) = &self.extra {
            json.raw(",").text(name).raw(":").text(value);
        }
        json.raw("}").finish()
    }
}

impl Code {
    /// The one place where a failure becomes a status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest | Self::BadAmount | Self::BadId | Self::BadKey => StatusCode::BAD_REQUEST,
            Self::OrderNotFound
            | Self::ItemNotFound
            | Self::UserNotFound
            | Self::PaymentNotFound
            | Self::PodNotFound
            | Self::NoSuchPath => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::OutOfStock
            | Self::InsufficientCredit
            | Self::OrderPaid
            | Self::PaymentMismatch
            | Self::NotReplaced => StatusCode::CONFLICT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable | Self::NotReady => StatusCode::SERVICE_UNAVAILABLE,
            Self::OutcomeUnknown => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Whether the same request may well succeed soon: the answer carries `Retry-After`.
    #[must_use]
    pub const fn is_passing(self) -> bool {
        matches!(self, Self::Overloaded | Self::Unavailable | Self::NotReady)
    }

    /// The stable word that programs match.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::BadAmount => "bad_amount",
            Self::BadId => "bad_id",
            Self::BadKey => "bad_key",
            Self::OrderNotFound => "order_not_found",
            Self::ItemNotFound => "item_not_found",
            Self::UserNotFound => "user_not_found",
            Self::PaymentNotFound => "payment_not_found",
            Self::NoSuchPath => "no_such_path",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::OutOfStock => "out_of_stock",
            Self::InsufficientCredit => "insufficient_credit",
            Self::OrderPaid => "order_paid",
            Self::PaymentMismatch => "payment_mismatch",
            Self::PodNotFound => "pod_not_found",
            Self::NotReplaced => "not_replaced",
            Self::BodyTooLarge => "body_too_large",
            Self::UriTooLong => "uri_too_long",
            Self::HeadersTooLarge => "headers_too_large",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::NotReady => "not_ready",
            Self::OutcomeUnknown => "outcome_unknown",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "Malformed HTTP request",
            Self::BadAmount => "Not a valid amount, quantity or count",
            Self::BadId => "Not a valid id",
            Self::BadKey => "Not a valid idempotency key",
            Self::OrderNotFound => "No such order",
            Self::ItemNotFound => "No such item",
            Self::UserNotFound => "No such user",
            Self::PaymentNotFound => "No such payment",
            Self::NoSuchPath => "No such path",
            Self::MethodNotAllowed => "Method not allowed",
            Self::OutOfStock => "Out of stock",
            Self::InsufficientCredit => "Insufficient credit",
            Self::OrderPaid => "Order already paid",
            Self::PaymentMismatch => "Paid with another amount",
            Self::PodNotFound => "No such pod",
            Self::NotReplaced => "Disk not replaced",
            Self::BodyTooLarge => "Body too large",
            Self::UriTooLong => "URI too long",
            Self::HeadersTooLarge => "Headers too large",
            Self::Overloaded => "Overloaded",
            Self::Unavailable => "Unavailable",
            Self::NotReady => "Not ready",
            Self::OutcomeUnknown => "Outcome unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_body_has_the_members_of_the_standard_and_a_code() {
        let problem =
            Problem::new(Code::OutOfStock, "\"blue\tshoe\" is sold out").with("item_id", "blue\tshoe");
        let body = problem.body();
        expect![[r#"{"type":"urn:kassa:problem:out_of_stock","title":"Out of stock","status":409,"detail":"\"blue\tshoe\" is sold out","code":"out_of_stock","item_id":"blue\tshoe"}"#]]
            .assert_eq(std::str::from_utf8(&body).unwrap());
    }
}
