//! Exact money.
//!
//! An amount is a whole number of 10^-18 units in an `i128`: 15 digits before and 18 after the point
//! fit with room for sums of 170,000 of the largest. Never a binary float anywhere.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Digits after the point.
pub const FRACTION_DIGITS: usize = 18;
/// Digits before the point that an input may have.
pub const WHOLE_DIGITS_MAX: usize = 15;
/// The longest text that is an amount at all, in bytes.
pub const TEXT_BYTES_MAX: usize = 64;

const ONE: i128 = 1_000_000_000_000_000_000;

/// A non-negative exact amount, in units of 10^-18.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Money(i128);

/// Why a text is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    #[error("is empty")]
    Empty,
    #[error("is longer than 64 characters")]
    TooLong,
    #[error("is not a plain decimal such as 7.25, 5 or 1e-3 (no sign, space or underscore)")]
    NotANumber,
    #[error("has more than 15 digits before the point")]
    TooLarge,
    #[error("has more than 18 digits after the point")]
    TooFine,
}

impl Money {
    pub const ZERO: Self = Self(0);
    /// The largest amount that can be held: more than this is refused as an overflow.
    pub const MAX: Self = Self(i128::MAX);

    /// From a count of 10^-18 units.
    #[must_use]
    pub const fn from_units(units: u128) -> Option<Self> {
        if units > i128::MAX.cast_unsigned() { None } else { Some(Self(units.cast_signed())) }
    }
    /// Whole units of the currency, for tests and loads.
    #[must_use]
    pub const fn whole(units: u32) -> Self {
        Self(units as i128 * ONE)
    }
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }
    /// `None` where the result would be negative.
    #[must_use]
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        if self.0 >= other.0 { Some(Self(self.0 - other.0)) } else { None }
    }
    /// This much, `count` times.
    #[must_use]
    pub fn checked_mul(self, count: u64) -> Option<Self> {
        self.0.checked_mul(i128::from(count)).map(Self)
    }

    /// Parses a decimal as clients send it: digits with an optional point and an optional exponent.
    ///
    /// # Errors
    /// What is wrong with it; see [`MoneyError`]. The exponent is bounded before any arithmetic.
    pub fn parse(text: &str) -> Result<Self, MoneyError> {
        if text.is_empty() {
            return Err(MoneyError::Empty);
        }
        if text.len() > TEXT_BYTES_MAX {
            return Err(MoneyError::TooLong);
        }
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)?),
            None => (text, 0),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((_, "")) | Some(("", _)) if mantissa.len() < 2 => return Err(MoneyError::NotANumber),
            Some((whole, fraction)) => (whole, fraction),
            None => (mantissa, ""),
        };
        if (whole.is_empty() && fraction.is_empty())
            || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit())
        {
            return Err(MoneyError::NotANumber);
        }
        // The value is `digits` · 10^(exponent − fraction digits), with no leading or trailing zeros.
        let digits = format!("{whole}{fraction}");
        let mut scale = exponent - i64::try_from(fraction.len()).map_err(|_| MoneyError::TooLong)?;
        let digits = digits.trim_start_matches('0');
        let trimmed = digits.trim_end_matches('0');
        if trimmed.is_empty() {
            return Ok(Self::ZERO);
        }
        scale += i64::try_from(digits.len() - trimmed.len()).map_err(|_| MoneyError::TooLong)?;
        let places = i64::try_from(trimmed.len()).map_err(|_| MoneyError::TooLong)? + scale;
        if places > WHOLE_DIGITS_MAX as i64 {
            return Err(MoneyError::TooLarge);
        }
        if scale < -(FRACTION_DIGITS as i64) {
            return Err(MoneyError::TooFine);
        }
        let mantissa: i128 = trimmed.parse().map_err(|_| MoneyError::TooLarge)?;
        let power = u32::try_from(scale + FRACTION_DIGITS as i64).map_err(|_| MoneyError::TooLarge)?;
        10_i128.checked_pow(power).and_then(|p| mantissa.checked_mul(p)).map(Self).ok_or(MoneyError::TooLarge)
    }
}

fn parse_exponent(text: &str) -> Result<i64, MoneyError> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(MoneyError::NotANumber);
    }
    // At most 62 digits fit the text; any exponent beyond four digits is far out of range either way.
    let magnitude: i64 = digits
        .trim_start_matches('0')
        .get(..5)
        .map_or_else(
            || if digits.trim_start_matches('0').is_empty() { Ok(0) } else { digits.parse() },
            |_| Ok(99_999),
        )
        .map_err(|_| MoneyError::NotANumber)?;
    Ok(if negative { -magnitude } else { magnitude })
}

impl fmt::Display for Money {
    /// Plain notation: no exponent, no trailing zeros, a whole amount without a fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.0 / ONE, self.0 % ONE);
        if fraction == 0 {
            return write!(f, "{whole}");
        }
        let digits = format!("{fraction:018}");
        write!(f, "{whole}.{}", digits.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepts_what_clients_send() {
        for (text, shown) in [
            ("5", "5"),
            ("7.25", "7.25"),
            ("1e-3", "0.001"),
            ("7.289374982374123", "7.289374982374123"),
            ("0", "0"),
            ("0.0", "0"),
            ("000.500", "0.5"),
            ("1.", "1"),
            (".5", "0.5"),
            ("1E2", "100"),
            ("1e+2", "100"),
            ("0.000000000000000001", "0.000000000000000001"),
            ("0e99999999", "0"),
            ("999999999999999.999999999999999999", "999999999999999.999999999999999999"),
            ("1e14", "100000000000000"),
            ("1.50e1", "15"),
            ("1e-0018", "0.000000000000000001"),
        ] {
            assert_eq!(Money::parse(text).map(|m| m.to_string()), Ok(shown.to_owned()), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for (text, why) in [
            ("", MoneyError::Empty),
            ("-1", MoneyError::NotANumber),
            ("+1", MoneyError::NotANumber),
            ("1_000", MoneyError::NotANumber),
            (" 1", MoneyError::NotANumber),
            ("nan", MoneyError::NotANumber),
            ("inf", MoneyError::NotANumber),
            ("1e", MoneyError::NotANumber),
            (".", MoneyError::NotANumber),
            ("1.2.3", MoneyError::NotANumber),
            ("0x10", MoneyError::NotANumber),
            ("1e1e1", MoneyError::NotANumber),
            ("1e15", MoneyError::TooLarge),
            ("1000000000000000", MoneyError::TooLarge),
            ("1e999999999999999999999", MoneyError::TooLarge),
            ("1e-19", MoneyError::TooFine),
            ("1e-999999999999", MoneyError::TooFine),
            ("e5", MoneyError::NotANumber),
            ("٣", MoneyError::NotANumber),
        ] {
            assert_eq!(Money::parse(text), Err(why), "{text}");
        }
        assert_eq!(Money::parse(&"1".repeat(65)), Err(MoneyError::TooLong));
    }

    proptest! {
        #[test]
        fn shown_and_parsed_again_is_the_same(units in 0_u128..1_000_000_000_000_000_000_000_000_000_000_000) {
            let money = Money::from_units(units).expect("in range");
            prop_assert_eq!(Money::parse(&money.to_string()), Ok(money));
        }
        #[test]
        fn parsing_never_panics(text in ".{0,70}") { let _ = Money::parse(&text); }
    }
}
