//! What clients do, in which proportion: `checkout=8,edit=1,read=1`.

use super::random::Random;
use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Checkout,
    /// Adds an item to an order of the client's own, which is never checked out.
    Edit,
    /// Finds an order, an item or a user.
    Read,
}

/// Weights; at least one is not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    checkout: u32,
    edit: u32,
    read: u32,
}

/// Weights are small numbers; their sum must fit too.
const WEIGHT_MAX: u32 = 1_000_000;

impl Mix {
    pub const CHECKOUTS: Self = Self { checkout: 1, edit: 0, read: 0 };

    #[must_use]
    pub const fn has_checkouts(self) -> bool {
        self.checkout > 0
    }

    /// Which comes next.
    pub fn pick(&self, random: &mut Random) -> Kind {
        if self.edit == 0 && self.read == 0 {
            return Kind::Checkout;
        }
        let at = random.below(u64::from(self.checkout + self.edit + self.read));
        if at < u64::from(self.checkout) {
            Kind::Checkout
        } else if at < u64::from(self.checkout + self.edit) {
            Kind::Edit
        } else {
            Kind::Read
        }
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut mix = Self { checkout: 0, edit: 0, read: 0 };
        for part in text.split(',') {
            let (kind, weight) = part.split_once('=').unwrap_or((part, "1"));
            let (kind, weight) = (kind.trim(), weight.trim());
            let weight = weight.parse().ok().filter(|&weight: &u32| weight <= WEIGHT_MAX);
            let weight =
                weight.ok_or_else(|| format!("the weight in `{part}` is no number up to {WEIGHT_MAX}"))?;
            match kind {
                "checkout" => mix.checkout = weight,
                "edit" => mix.edit = weight,
                "read" => mix.read = weight,
                other => return Err(format!("`{other}` is none of checkout, edit, read")),
            }
        }
        if mix.checkout + mix.edit + mix.read == 0 {
            return Err("all weights are 0".to_owned());
        }
        Ok(mix)
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [("checkout", self.checkout), ("edit", self.edit), ("read", self.read)];
        let shown: Vec<String> = all
            .iter()
            .filter(|(_, weight)| *weight > 0)
            .map(|(kind, weight)| format!("{kind}={weight}"))
            .collect();
        f.write_str(&shown.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_kept() {
        assert_eq!("checkout=8,edit=1,read=1".parse(), Ok(Mix { checkout: 8, edit: 1, read: 1 }));
        assert_eq!("checkout".parse(), Ok(Mix::CHECKOUTS));
        assert_eq!(Mix { checkout: 8, edit: 0, read: 1 }.to_string(), "checkout=8,read=1");
        for bad in ["", "buy=1", "checkout=-1", "checkout=0", "read=99999999"] {
            assert!(bad.parse::<Mix>().is_err(), "{bad}");
        }
        let (mix, mut random) = (Mix { checkout: 1, edit: 1, read: 2 }, Random::seeded());
        let picks: Vec<Kind> = (0..4000).map(|_| mix.pick(&mut random)).collect();
        let reads = picks.iter().filter(|&&kind| kind == Kind::Read).count();
        assert!((1700..2300).contains(&reads), "{reads}");
    }
}
