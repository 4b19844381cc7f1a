//! Which of many is next: evenly, or as popularity has it.

use rand::distr::Distribution;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::Zipf;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::str::FromStr;

/// Beyond this, one item gets all but a few in a million.
const EXPONENT_MAX: f64 = 20.0;

/// xorshift64*: which item is next needs no better randomness, and costs nothing.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    #[must_use]
    pub fn seeded() -> Self {
        Self(RandomState::new().build_hasher().finish() | 1)
    }

    /// A number below `bound`, which is not 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) % bound
    }

    /// One of them; there is at least one.
    pub fn of<'a>(&mut self, all: &'a [String]) -> &'a str {
        let at = self.below(u64::try_from(all.len()).unwrap_or(u64::MAX));
        &all[usize::try_from(at).unwrap_or_default()]
    }
}

/// How the wishes of buyers are spread over the items.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Skew {
    Uniform,
    /// The k-th most wanted item is wanted 1 / k^exponent times as often as the first.
    Zipf {
        exponent: f64,
    },
    /// Everybody wants the same.
    One,
}

impl FromStr for Skew {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, exponent) = text.split_once(':').map_or((text, None), |(name, rest)| (name, Some(rest)));
        match (name, exponent) {
            ("uniform", None) => Ok(Self::Uniform),
            ("one", None) => Ok(Self::One),
            ("zipf", Some(exponent)) => {
                let number = exponent.parse().ok();
                let exponent = number.filter(|&number: &f64| number > 0.0 && number <= EXPONENT_MAX);
                let exponent = exponent.ok_or_else(|| {
                    format!("the exponent in `{text}` is no number above 0, up to {EXPONENT_MAX}")
                })?;
                Ok(Self::Zipf { exponent })
            }
            ("zipf", None) => Err("`zipf` needs its exponent, as in zipf:0.99".to_owned()),
            ("uniform" | "one", Some(_)) => Err(format!("`{name}` takes no number")),
            _ => Err(format!("`{text}` is none of uniform, zipf:EXPONENT, one")),
        }
    }
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform => f.write_str("uniform"),
            Self::Zipf { exponent } => write!(f, "zipf:{exponent}"),
            Self::One => f.write_str("one"),
        }
    }
}

/// Draws items as the skew has it.
#[derive(Debug)]
pub struct Wishes {
    random: StdRng,
    zipf: Option<Zipf<f64>>,
}

impl Wishes {
    /// # Errors
    /// None for a skew that was parsed.
    pub fn new(skew: Skew, items: usize) -> anyhow::Result<Self> {
        Self::seeded(skew, items, RandomState::new().build_hasher().finish())
    }

    fn seeded(skew: Skew, items: usize, seed: u64) -> anyhow::Result<Self> {
        let count = u32::try_from(items.max(1)).map_or(f64::MAX, f64::from);
        let zipf = match skew {
            Skew::Uniform | Skew::One => None,
            Skew::Zipf { exponent } => Some(Zipf::new(count, exponent)?),
        };
        Ok(Self { random: StdRng::seed_from_u64(seed), zipf })
    }

    /// One of them; there is at least one. The first is the most wanted.
    pub fn of<'a>(&mut self, items: &'a [String]) -> &'a str {
        &items[self.index(items.len())]
    }

    fn index(&mut self, count: usize) -> usize {
        match &self.zipf {
            None => self.random.random_range(0..count),
            Some(zipf) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a rank from 1 on"
                )]
                let rank = zipf.sample(&mut self.random) as usize;
                rank.clamp(1, count) - 1
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: usize = 200_000;

    fn frequencies(skew: Skew, items: usize) -> Vec<f64> {
        let mut wishes = Wishes::seeded(skew, items, 7).expect("a skew");
        let mut counts = vec![0_u32; items];
        for _ in 0..DRAWS {
            counts[wishes.index(items)] += 1;
        }
        counts.into_iter().map(|count| f64::from(count) / 200_000.0).collect()
    }

    /// Each share within four standard deviations of what it should be.
    fn assert_close(found: &[f64], expected: &[f64]) {
        for (rank, (found, expected)) in found.iter().zip(expected).enumerate() {
            let deviation = (expected * (1.0 - expected) / 200_000.0).sqrt();
            assert!((found - expected).abs() <= 4.0 * deviation, "{rank}: {found}, not {expected}");
        }
    }

    #[test]
    fn popularity_falls_as_zipf_has_it() {
        for exponent in [0.5, 0.99, 1.0, 2.0] {
            let weights: Vec<f64> = (1..=1000).map(|rank| f64::from(rank).powf(-exponent)).collect();
            let sum: f64 = weights.iter().sum();
            let expected: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
            let found = frequencies(Skew::Zipf { exponent }, 1000);
            assert_close(&found[..20], &expected[..20]);
            let (tail, expected): (f64, f64) = (found[20..].iter().sum(), expected[20..].iter().sum());
            assert_close(&[tail], &[expected]);
        }
    }

    #[test]
    fn without_skew_all_are_wanted_alike() {
        assert_close(&frequencies(Skew::Uniform, 10), &[0.1; 10]);
        assert_close(&frequencies(Skew::One, 1), &[1.0]);
    }

    #[test]
    fn skews_are_parsed_and_shown_alike() {
        for text in ["uniform", "one", "zipf:0.99", "zipf:1"] {
            assert_eq!(text.parse::<Skew>().expect(text).to_string(), text);
        }
        for (bad, told) in [
            ("", "none of uniform"),
            ("zip:1", "none of uniform"),
            ("zipf", "zipf:0.99"),
            ("zipf:", "no number above 0"),
            ("zipf:0", "no number above 0"),
            ("zipf:-1", "no number above 0"),
            ("zipf:NaN", "no number above 0"),
            ("zipf:21", "up to 20"),
            ("uniform:1", "takes no number"),
            ("one:2", "takes no number"),
        ] {
            let error = bad.parse::<Skew>().expect_err(bad);
            assert!(error.contains(told), "{bad}: {error}");
        }
    }
}
