//! Whether two runs differ by more than their own noise.
//!
//! What is compared are samples of a second: throughput as it is, latencies by their logarithm, so that what is
//! told is a ratio. The difference of the means is judged by Welch's test (B. L. Welch, 1947: the variances need
//! not be alike), at 99 %. Neighbouring seconds resemble each other, so that there is less to know than there are
//! samples: their number is reduced by their autocorrelation at lag one, as for a first-order autoregressive series,
//! as far as it is more than so few samples show by chance.

/// With fewer samples a side nothing is said.
pub const SAMPLES_MIN: usize = 5;
/// The reduction never goes below this many, nor further than for such a correlation.
const EFFECTIVE_MIN: f64 = 2.0;
const CORRELATION_MAX: f64 = 0.9;

/// Which way is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Good {
    /// More of it, as of throughput.
    More,
    /// Less of it, as of latency.
    Less,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Faster,
    Slower,
    /// No difference that can be told.
    Same,
    /// Too few samples to say anything.
    TooFew,
}

/// The difference, as a share of what was before, and how uncertain it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    pub change: f64,
    pub margin: f64,
    pub verdict: Verdict,
}

const TOO_FEW: Difference = Difference { change: f64::NAN, margin: f64::NAN, verdict: Verdict::TooFew };

/// Compares amounts, such as requests a second.
#[must_use]
pub fn amounts(before: &[f64], after: &[f64], good: Good) -> Difference {
    let Some((one, other)) = Sample::of(before).zip(Sample::of(after)) else { return TOO_FEW };
    if one.mean <= 0.0 {
        return TOO_FEW;
    }
    let (change, margin) = ((other.mean - one.mean) / one.mean, margin(&one, &other) / one.mean);
    Difference { change, margin, verdict: verdict(change, margin, good) }
}

/// Compares times, by their ratio.
#[must_use]
pub fn times(before: &[f64], after: &[f64], good: Good) -> Difference {
    let logs = |all: &[f64]| all.iter().filter(|time| **time > 0.0).map(|time| time.ln()).collect::<Vec<_>>();
    let Some((one, other)) = Sample::of(&logs(before)).zip(Sample::of(&logs(after))) else { return TOO_FEW };
    let (change, margin) = (other.mean - one.mean, margin(&one, &other));
    let verdict = verdict(change, margin, good);
    Difference { change: change.exp_m1(), margin: margin.exp_m1(), verdict }
}

fn verdict(change: f64, margin: f64, good: Good) -> Verdict {
    match good {
        _ if change.abs() <= margin => Verdict::Same,
        Good::More if change > 0.0 => Verdict::Faster,
        Good::Less if change < 0.0 => Verdict::Faster,
        Good::More | Good::Less => Verdict::Slower,
    }
}

/// Half the width of the interval in which the difference of the means lies.
fn margin(one: &Sample, other: &Sample) -> f64 {
    let (a, b) = (one.variance / one.effective, other.variance / other.effective);
    let degrees = (a + b).powi(2) / (a.powi(2) / (one.effective - 1.0) + b.powi(2) / (other.effective - 1.0));
    if degrees.is_finite() { student(degrees) * (a + b).sqrt() } else { 0.0 }
}

struct Sample {
    mean: f64,
    variance: f64,
    effective: f64,
}

impl Sample {
    fn of(all: &[f64]) -> Option<Self> {
        if all.len() < SAMPLES_MIN {
            return None;
        }
        let count = f64::from(u32::try_from(all.len()).ok()?);
        let mean = all.iter().sum::<f64>() / count;
        let squares: f64 = all.iter().map(|value| (value - mean).powi(2)).sum();
        let products: f64 = all.windows(2).map(|two| (two[0] - mean) * (two[1] - mean)).sum();
        let by_chance = 1.0 / count.sqrt();
        let correlation = if squares > 0.0 { products / squares - by_chance } else { 0.0 };
        let correlation = correlation.clamp(0.0, CORRELATION_MAX);
        let effective = (count * (1.0 - correlation) / (1.0 + correlation)).max(EFFECTIVE_MIN);
        Some(Self { mean, variance: squares / (count - 1.0), effective })
    }
}

/// Student's t at 99.5 % on one side, by degrees of freedom; between two rows by 1 / degrees, in which it is nearly
/// straight.
fn student(degrees: f64) -> f64 {
    const ROWS: [(f64, f64); 16] = [
        (1.0, 63.657),
        (2.0, 9.925),
        (3.0, 5.841),
        (4.0, 4.604),
        (5.0, 4.032),
        (6.0, 3.707),
        (7.0, 3.499),
        (8.0, 3.355),
        (10.0, 3.169),
        (12.0, 3.055),
        (15.0, 2.947),
        (20.0, 2.845),
        (30.0, 2.750),
        (60.0, 2.660),
        (120.0, 2.617),
        (f64::INFINITY, 2.576),
    ];
    let degrees = degrees.max(1.0);
    let above = ROWS.iter().position(|(row, _)| *row >= degrees).unwrap_or(ROWS.len() - 1);
    let ((low, at_low), (high, at_high)) = (ROWS[above.saturating_sub(1)], ROWS[above]);
    if low >= high {
        return at_high;
    }
    let share = (1.0 / low - 1.0 / degrees) / (1.0 / low - 1.0 / high);
    at_low + (at_high - at_low) * share
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::distr::Distribution;
    use rand::rngs::StdRng;
    use rand_distr::Normal;

    fn normal(mean: f64, deviation: f64, count: usize, seed: u64) -> Vec<f64> {
        let normal = Normal::new(mean, deviation).expect("a distribution");
        normal.sample_iter(StdRng::seed_from_u64(seed)).take(count).collect()
    }

    #[test]
    fn the_same_twice_is_no_difference() {
        let told = |seed: u64| {
            let (one, other) =
                (normal(5_000.0, 400.0, 30, 2 * seed), normal(5_000.0, 400.0, 30, 2 * seed + 1));
            [amounts(&one, &other, Good::More), times(&one, &other, Good::Less)]
        };
        let wrong = (0..500).flat_map(told).filter(|told| told.verdict != Verdict::Same).count();
        // One in a hundred by design.
        assert!(wrong <= 25, "{wrong} of 1000");
    }

    #[test]
    fn a_tenth_is_told_and_which_way_it_is() {
        for seed in 0..100 {
            let (one, other) =
                (normal(5_000.0, 300.0, 30, 2 * seed), normal(4_500.0, 300.0, 30, 2 * seed + 1));
            let told = amounts(&one, &other, Good::More);
            assert_eq!(told.verdict, Verdict::Slower, "{told:?}");
            assert!((told.change + 0.1).abs() <= 0.06 && told.margin < 0.06, "{told:?}");
            assert_eq!(amounts(&other, &one, Good::More).verdict, Verdict::Faster);
            assert_eq!(times(&other, &one, Good::Less).verdict, Verdict::Slower);
            assert_eq!(times(&one, &other, Good::Less).verdict, Verdict::Faster);
        }
    }

    #[test]
    fn samples_that_drift_tell_less() {
        // A slow wave: each sample is near its neighbours.
        let wave = |phase: f64| {
            (0..60).map(|no| 5_000.0 + 500.0 * (f64::from(no) / 15.0 + phase).sin()).collect::<Vec<_>>()
        };
        let smooth = amounts(&wave(0.0), &wave(1.5), Good::More);
        assert_eq!(smooth.verdict, Verdict::Same, "{smooth:?}");
        let mut one = wave(0.0);
        let mut other = wave(1.5);
        // The same values in another order tell more.
        for all in [&mut one, &mut other] {
            let shuffled: Vec<f64> = (0..60).map(|no| all[no * 23 % 60]).collect();
            *all = shuffled;
        }
        let rough = amounts(&one, &other, Good::More);
        assert!(rough.margin < smooth.margin, "{rough:?} {smooth:?}");
    }

    #[test]
    fn a_handful_of_samples_tells_nothing() {
        assert_eq!(amounts(&[1.0; 4], &[2.0; 30], Good::More).verdict, Verdict::TooFew);
        assert_eq!(times(&[1.0; 30], &[0.0; 30], Good::Less).verdict, Verdict::TooFew);
        assert_eq!(amounts(&[0.0; 30], &[1.0; 30], Good::More).verdict, Verdict::TooFew);
        // Nor is noise made up where there is none.
        let told = amounts(&[10.0; 30], &[11.0; 30], Good::More);
        assert_eq!((told.verdict, told.margin), (Verdict::Faster, 0.0));
    }

    #[test]
    fn quantiles_of_t_are_those_of_the_tables() {
        for (degrees, t) in [(1.0, 63.657), (9.0, 3.250), (25.0, 2.787), (40.0, 2.704), (1e9, 2.576)] {
            assert!((student(degrees) - t).abs() < 0.005, "{degrees}: {}", student(degrees));
        }
    }
}
