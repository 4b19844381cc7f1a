//! By how much two configurations differ, and whether that is more than noise.
//!
//! They are measured one after the other in each round, so that a machine that is slower for a while is so for both:
//! the ratio of each round is one sample, and the interval is that of Student's t (W. S. Gosset, 1908) at 95 % for the
//! mean of their logarithms. Two rounds suffice for what differs several times; a tenth takes more, or a quiet machine.

/// A ratio, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ratio {
    /// One of the two was not measured, or stood still.
    Missing,
    /// One round has both: there is no telling how noisy it is.
    Once(f64),
    /// The mean, and the interval around it.
    Between { mean: f64, low: f64, high: f64 },
}

/// What may be said of a ratio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    Nothing,
    /// It was so, once.
    Once,
    More,
    Less,
    /// 1 is within the interval.
    Unclear,
}

impl Ratio {
    /// Of what has a value in the same round.
    #[must_use]
    pub fn of(over: &[(usize, f64)], under: &[(usize, f64)]) -> Self {
        let pairs = over.iter().filter_map(|(round, over)| {
            let (_, under) = under.iter().find(|(other, _)| other == round)?;
            let ratio = over / under;
            (ratio.is_finite() && ratio > 0.0).then(|| ratio.ln())
        });
        let logs: Vec<f64> = pairs.collect();
        let count = f64::from(u32::try_from(logs.len()).unwrap_or(u32::MAX));
        match logs.as_slice() {
            [] => Self::Missing,
            [one] => Self::Once(one.exp()),
            logs => {
                let mean = logs.iter().sum::<f64>() / count;
                let squares: f64 = logs.iter().map(|log| (log - mean).powi(2)).sum();
                let margin = student(logs.len() - 1) * (squares / (count - 1.0) / count).sqrt();
                Self::Between { mean: mean.exp(), low: (mean - margin).exp(), high: (mean + margin).exp() }
            }
        }
    }

    #[must_use]
    pub fn says(self) -> Says {
        match self {
            Self::Missing => Says::Nothing,
            Self::Once(_) => Says::Once,
            Self::Between { low, .. } if low > 1.0 => Says::More,
            Self::Between { high, .. } if high < 1.0 => Says::Less,
            Self::Between { .. } => Says::Unclear,
        }
    }

    #[must_use]
    pub const fn mean(self) -> Option<f64> {
        match self {
            Self::Missing => None,
            Self::Once(mean) | Self::Between { mean, .. } => Some(mean),
        }
    }
}

/// Student's t at 97.5 % on one side, by degrees of freedom.
fn student(degrees: usize) -> f64 {
    const ROWS: [f64; 12] =
        [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179];
    let last = ROWS[ROWS.len() - 1];
    degrees.checked_sub(1).map_or(f64::INFINITY, |at| ROWS.get(at).copied().unwrap_or(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(values: &[f64]) -> Vec<(usize, f64)> {
        values.iter().copied().enumerate().collect()
    }

    #[test]
    fn a_machine_that_slows_down_for_both_is_no_noise() {
        let ratio = Ratio::of(&rounds(&[1_000.0, 400.0, 700.0]), &rounds(&[500.0, 205.0, 345.0]));
        assert_eq!(ratio.says(), Says::More);
        assert!(ratio.mean().is_some_and(|mean| (mean - 2.0).abs() < 0.05), "{ratio:?}");
        let swapped = Ratio::of(&rounds(&[500.0, 205.0, 345.0]), &rounds(&[1_000.0, 400.0, 700.0]));
        assert_eq!(swapped.says(), Says::Less);
    }

    #[test]
    fn noise_forbids_to_conclude() {
        let ratio = Ratio::of(&rounds(&[1_000.0, 500.0, 900.0]), &rounds(&[700.0, 800.0, 600.0]));
        assert_eq!(ratio.says(), Says::Unclear, "{ratio:?}");
        // Two rounds tell a factor of ten though they differ by a fifth.
        let ratio = Ratio::of(&rounds(&[1_000.0, 1_200.0]), &rounds(&[100.0, 100.0]));
        assert_eq!(ratio.says(), Says::More, "{ratio:?}");
        // And not one of a tenth.
        let ratio = Ratio::of(&rounds(&[110.0, 115.0]), &rounds(&[100.0, 100.0]));
        assert_eq!(ratio.says(), Says::Unclear, "{ratio:?}");
    }

    #[test]
    fn what_is_missing_is_left_out() {
        assert_eq!(Ratio::of(&rounds(&[1.0]), &[]), Ratio::Missing);
        assert_eq!(Ratio::of(&rounds(&[1.0, 2.0]), &[(1, 1.0)]), Ratio::Once(2.0));
        assert_eq!(Ratio::of(&rounds(&[0.0, 5.0]), &rounds(&[1.0, 0.0])), Ratio::Missing, "it stood still");
        assert_eq!(Ratio::Missing.says(), Says::Nothing);
    }
}
