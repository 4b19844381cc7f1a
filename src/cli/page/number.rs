//! Figures as people read them.

/// Counts and times in a report are far below 2^53, where this would begin to round.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
#[must_use]
pub const fn float(count: u64) -> f64 {
    count as f64
}

/// `229,326`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three digits of it, or all before the point: `0.0123`, `1.23`, `12.3`, `1,230`.
#[must_use]
pub fn short(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        return "–".to_owned();
    }
    if size >= 99.95 {
        let sign = if value < 0.0 { "−" } else { "" };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "figures of a report")]
        let whole = size.round() as u64;
        return format!("{sign}{}", grouped(whole));
    }
    let digits = match size {
        size if size >= 9.995 => 1,
        size if size >= 0.9995 => 2,
        size if size >= 0.09995 => 3,
        _ => 4,
    };
    let text = format!("{value:.digits$}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" || text.is_empty() { "0".to_owned() } else { text.replace('-', "−") }
}

/// The next number that is easy to halve and to read.
#[must_use]
pub fn round_up(most: f64) -> f64 {
    if !(most.is_finite() && most > 0.0) {
        return 1.0;
    }
    let step = 10_f64.powf(most.log10().floor());
    let fits = |times: &f64| most <= times * step * (1.0 + f64::EPSILON);
    [1.0, 2.0, 4.0, 6.0].into_iter().find(fits).unwrap_or(10.0) * step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn numbers_have_as_many_digits_as_they_need() {
        for (number, text) in [
            (0.0, "0"),
            (0.000_01, "0"),
            (0.012_34, "0.0123"),
            (0.5, "0.5"),
            (1.234, "1.23"),
            (9.999, "10"),
            (12.34, "12.3"),
            (-12.34, "−12.3"),
            (123.4, "123"),
            (99.97, "100"),
            (12_345.6, "12,346"),
            (f64::NAN, "–"),
        ] {
            assert_eq!(short(number), text);
        }
    }

    #[test]
    fn scales_end_at_numbers_that_are_easy_to_read() {
        for (most, top) in
            [(1.0, 1.0), (3.0, 4.0), (7.0, 10.0), (11.0, 20.0), (359.0, 400.0), (601.0, 1_000.0), (0.3, 0.4)]
        {
            assert!((round_up(most) - top).abs() < 1e-9 * top, "{most}: {}", round_up(most));
        }
        assert!((round_up(0.0) - 1.0).abs() < 1e-9);
    }
}
