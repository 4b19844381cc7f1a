//! Axes: which value stands where, and what is written beside it.

use super::escape;
use super::number::{round_up, short};
use std::fmt::Write;

/// Marks below a plot, at most: more do not fit on a phone.
const TICKS_MAX: f64 = 5.0;
/// What would stand over the right edge is left out.
const LAST_TICK: f64 = 0.9;
/// A plot with so many decades or fewer has marks between them too.
const FEW_DECADES: f64 = 1.5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    Linear,
    /// Each decade as wide as the next; values of 0 and less stand at the beginning.
    Log,
}

/// From where to where, and what is marked.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    pub from: f64,
    pub to: f64,
    pub scale: Scale,
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// Time from 0 on, in seconds.
    #[must_use]
    pub fn seconds(to: f64) -> Self {
        let steps = [1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0];
        let step = steps.into_iter().find(|step| to / step <= TICKS_MAX).unwrap_or(14_400.0);
        let ticks = multiples(step, to).into_iter().map(|at| (at, format!("{} s", short(at)))).collect();
        Self { from: 0.0, to, scale: Scale::Linear, ticks }
    }

    /// From 0 to a round number above `most`, with the middle marked.
    #[must_use]
    pub fn from_zero(most: f64) -> Self {
        let to = round_up(most);
        let ticks = [0.0, to / 2.0, to].map(|at| (at, short(at))).to_vec();
        Self { from: 0.0, to, scale: Scale::Linear, ticks }
    }

    /// Decades around all values from `least` to `most`, both above 0.
    #[must_use]
    pub fn decades(least: f64, most: f64) -> Self {
        let least = if least > 0.0 { least } else { 1.0 };
        let most = most.max(least * 2.0);
        let steps = [1.0, 2.0, 5.0];
        let decade = |value: f64| 10_f64.powf(value.log10().floor());
        let from = steps.into_iter().map(|step| step * decade(least)).rfind(|at| *at <= least * 1.000_001);
        let from = from.unwrap_or_else(|| decade(least));
        let mut to = steps.map(|step| step * decade(most)).into_iter().find(|at| *at >= most * 0.999_999);
        let to = *to.get_or_insert(10.0 * decade(most));
        let few = (to / from).log10() <= FEW_DECADES;
        let mut ticks = Vec::new();
        let mut at = decade(from);
        while at <= to * 1.000_001 {
            for step in steps.into_iter().filter(|step| few || *step < 2.0) {
                let tick = at * step;
                if tick >= from * 0.999_999 && tick <= to * 1.000_001 {
                    ticks.push((tick, short(tick)));
                }
            }
            at *= 10.0;
        }
        Self { from, to, scale: Scale::Log, ticks }
    }

    /// Percentiles, as `1 / (1 − quantile)`: from the lowest to the 99.9…9th of so many `samples`.
    #[must_use]
    pub fn percentiles(samples: f64) -> Self {
        let to = samples.clamp(100.0, 1e7);
        let names = ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %", "99.9999 %", "99.99999 %"];
        let ticks = names.into_iter().zip(0..).map(|(name, power)| (10_f64.powi(power), name.to_owned()));
        Self { from: 1.0, to, scale: Scale::Log, ticks: ticks.filter(|(at, _)| *at <= to).collect() }
    }

    /// Given values, with their names.
    #[must_use]
    pub fn named(from: f64, to: f64, scale: Scale, ticks: Vec<(f64, String)>) -> Self {
        Self { from, to, scale, ticks }
    }

    /// Where a value stands: 0 at the beginning, 1 at the end, and never outside.
    #[must_use]
    pub fn place(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.from) / (self.to - self.from),
            Scale::Log if value <= 0.0 => 0.0,
            Scale::Log => (value / self.from).ln() / (self.to / self.from).ln(),
        };
        if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
    }

    /// The marks as a row below a drawing.
    #[must_use]
    pub fn below(&self) -> String {
        let mut text = String::from("<div class=\"row\"><span class=\"label\"></span><div class=\"ticks\">");
        for (at, name) in &self.ticks {
            let share = self.place(*at);
            if share <= LAST_TICK {
                let _ = write!(text, "<span style=\"left:{:.1}%\">{}</span>", share * 100.0, escape(name));
            }
        }
        text.push_str("</div></div>\n");
        text
    }

    /// The marks beside a drawing.
    pub(super) fn beside(&self) -> String {
        let mut text = String::from("<span class=\"label scale\">");
        for (at, name) in &self.ticks {
            let top = (1.0 - self.place(*at)) * 100.0;
            let _ = write!(text, "<b style=\"top:{top:.1}%\">{}</b>", escape(name));
        }
        text.push_str("</span>");
        text
    }
}

fn multiples(step: f64, to: f64) -> Vec<f64> {
    let mut all = Vec::new();
    let mut at = 0.0;
    while at <= to {
        all.push(at);
        at += step;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, name)| name.as_str()).collect()
    }

    #[test]
    fn marks_are_round_and_few() {
        assert_eq!(names(&Axis::seconds(10.0)), ["0 s", "2 s", "4 s", "6 s", "8 s", "10 s"]);
        assert_eq!(names(&Axis::seconds(180.0)), ["0 s", "60 s", "120 s", "180 s"]);
        assert_eq!(names(&Axis::from_zero(8_620.0)), ["0", "5,000", "10,000"]);
        assert_eq!(names(&Axis::decades(3.0, 800.0)), ["10", "100", "1,000"]);
        assert_eq!(names(&Axis::decades(3.0, 17.0)), ["2", "5", "10", "20"]);
        assert_eq!(names(&Axis::percentiles(50_000.0)), ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
    }

    #[test]
    fn values_stand_where_they_belong() {
        let near = |one: f64, other: f64| (one - other).abs() < 1e-9;
        let axis = Axis::from_zero(10.0);
        assert!(near(axis.place(5.0), 0.5) && near(axis.place(-1.0), 0.0) && near(axis.place(20.0), 1.0));
        let axis = Axis::decades(1.0, 100.0);
        assert!(near(axis.place(10.0), 0.5) && near(axis.place(0.0), 0.0) && near(axis.place(1e9), 1.0));
        // An axis without any length has a beginning all the same.
        assert!(near(Axis::named(1.0, 1.0, Scale::Linear, Vec::new()).place(1.0), 0.0));
    }
}
