//! Bars in groups, lying, so that their names have room on a phone too.

use super::axis::Axis;
use super::{Colour, escape};
use std::fmt::{self, Write};

/// The drawing's own units, as in a plot.
const WIDTH: f64 = 1_000.0;

#[derive(Clone, Debug)]
pub struct Bar {
    pub name: String,
    pub colour: Colour,
    /// None where nothing could be measured: the text alone then says why.
    pub value: Option<f64>,
    /// How uncertain it is: drawn as a whisker.
    pub range: Option<(f64, f64)>,
    /// The value as text.
    pub shown: String,
}

/// Bars that belong together.
#[derive(Clone, Debug)]
pub struct Group {
    /// Empty where there is one group alone.
    pub name: String,
    pub bars: Vec<Bar>,
}

/// Groups of bars on one scale.
#[derive(Clone, Debug)]
pub struct Bars {
    pub axis: Axis,
    pub groups: Vec<Group>,
}

impl Bars {
    /// On a scale from 0 to the longest of them.
    #[must_use]
    pub fn new(groups: Vec<Group>) -> Self {
        let ends = groups.iter().flat_map(|group| &group.bars);
        let ends = ends.flat_map(|bar| [bar.value, bar.range.map(|(_, high)| high)]).flatten();
        let most = ends.fold(0.0, f64::max);
        let to = if most > 0.0 { most } else { 1.0 };
        let axis = Axis::named(0.0, to, super::axis::Scale::Linear, Vec::new());
        Self { axis, groups }
    }
}

impl fmt::Display for Bars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<div class=\"bars\">\n")?;
        for group in &self.groups {
            if !group.name.is_empty() {
                writeln!(f, "<h3>{}</h3>", escape(&group.name))?;
            }
            for bar in &group.bars {
                let mut svg = String::new();
                let across = |value: f64| self.axis.place(value) * WIDTH;
                if let Some(value) = bar.value {
                    let (class, width) = (bar.colour.class(), across(value));
                    write!(svg, "<rect class=\"bar {class}\" y=\"1\" width=\"{width:.1}\" height=\"8\"/>")?;
                }
                if let Some((low, high)) = bar.range {
                    let (low, high) = (across(low), across(high));
                    write!(
                        svg,
                        "<path class=\"whisker\" d=\"M{low:.1} 5H{high:.1}M{low:.1} 3V7M{high:.1} 3V7\"/>"
                    )?;
                }
                writeln!(
                    f,
                    "<div class=\"one\"><span class=\"name\">{}</span><svg viewBox=\"0 0 {WIDTH} 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\">{svg}</svg><b>{}</b></div>",
                    escape(&bar.name),
                    escape(&bar.shown)
                )?;
            }
        }
        f.write_str("</div>\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_or_whisker_fills_the_width() {
        let bar = |value, range| Bar {
            name: "<a>".into(),
            colour: Colour::Blue,
            value: Some(value),
            range,
            shown: "x".into(),
        };
        let bars = vec![bar(5.0, None), bar(8.0, Some((6.0, 10.0)))];
        let text = Bars::new(vec![Group { name: "g".into(), bars }]).to_string();
        assert!(text.contains("width=\"500.0\"") && text.contains("width=\"800.0\""), "{text}");
        assert!(text.contains("M600.0 5H1000.0"), "{text}");
        assert!(text.contains("&lt;a&gt;"), "{text}");
    }

    #[test]
    fn bars_of_nothing_have_no_length() {
        let none = Bar {
            name: "a".into(),
            colour: Colour::Red,
            value: None,
            range: None,
            shown: "stood still".into(),
        };
        let zero = Bar { value: Some(0.0), ..none.clone() };
        let text = Bars::new(vec![Group { name: String::new(), bars: vec![none, zero] }]).to_string();
        assert_eq!(text.matches("<rect").count(), 1, "{text}");
        assert!(text.contains("width=\"0.0\""), "{text}");
    }
}
