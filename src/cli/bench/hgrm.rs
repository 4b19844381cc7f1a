//! The percentile distribution as HdrHistogram prints it (`.hgrm`), in milliseconds, for its plotters.

use crate::cli::page::number::float;
use hdrhistogram::Histogram;
use std::fmt::Write;

/// Rows for each halving of the distance to 100 %, as the Java library prints by default.
const TICKS_PER_HALF: u32 = 5;
const US_PER_MS: f64 = 1_000.0;

/// The file's text.
#[must_use]
pub fn text(latency_us: &Histogram<u64>) -> String {
    let mut text =
        format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    let mut total = 0;
    for step in latency_us.iter_quantiles(TICKS_PER_HALF) {
        total += step.count_since_last_iteration();
        let value = float(step.value_iterated_to()) / US_PER_MS;
        let quantile = step.quantile_iterated_to();
        let _ = write!(text, "{value:>12.3} {quantile:>14.12} {total:>10}");
        if quantile < 1.0 {
            let _ = write!(text, " {:>14.2}", 1.0 / (1.0 - quantile));
        }
        text.push('\n');
    }
    let ms = |us: f64| us / US_PER_MS;
    // `Buckets` and `SubBuckets` describe the memory of the histogram that printed it.
    let sub_buckets = (2 * 10_usize.pow(u32::from(latency_us.sigfig()))).next_power_of_two();
    let _ = write!(
        text,
        "#[Mean    = {:>12.3}, StdDeviation   = {:>12.3}]\n#[Max     = {:>12.3}, Total count    = {:>12}]\n#[Buckets = {:>12}, SubBuckets     = {:>12}]\n",
        ms(latency_us.mean()),
        ms(latency_us.stdev()),
        ms(float(latency_us.max())),
        latency_us.len(),
        latency_us.buckets(),
        sub_buckets
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plotters_find_what_they_look_for() {
        let mut latency = Histogram::new_with_bounds(1, 100_000_000, 3).expect("bounds");
        for ms in 1..=1000 {
            latency.saturating_record(ms * 1_000);
        }
        let text = text(&latency);
        let lines: Vec<&str> = text.lines().collect();
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(lines[0]), ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]);
        assert_eq!(lines[1], "");
        let rows: Vec<Vec<f64>> = lines[2..lines.len() - 3]
            .iter()
            .map(|line| words(line).iter().map(|word| word.parse().expect(line)).collect())
            .collect();
        let half = rows.iter().find(|row| (row[1] - 0.5).abs() < 1e-9).expect("the median");
        assert!((half[0] - 500.0).abs() <= 0.5 && (half[2] - 500.0).abs() < 1e-9, "{half:?}");
        assert!((half[3] - 2.0).abs() < 1e-9, "{half:?}");
        let last = rows.last().expect("rows");
        assert_eq!((last.len(), last[2]), (3, 1000.0));
        assert!(rows.windows(2).all(|two| two[0][1] <= two[1][1] && two[0][2] <= two[1][2]));
        assert!(
            text.contains("#[Mean    =      500.") && text.contains("Total count    =         1000]"),
            "{text}"
        );
        assert!(text.ends_with("SubBuckets     =         2048]\n"), "{text}");
    }
}
