//! Lines over an axis: time, percentiles, load. With bands behind them for what was going on meanwhile.

use super::axis::Axis;
use super::{Colour, escape};
use std::fmt::{self, Write};

/// The drawing's own units; it is stretched to the width of the page and the height that the style says.
const WIDTH: f64 = 1_000.0;
const HEIGHT: f64 = 100.0;

/// A value at a place; none where nothing was measured, which parts the line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub x: f64,
    pub y: Option<f64>,
    /// How uncertain it is: drawn as a whisker.
    pub range: Option<(f64, f64)>,
}

impl Point {
    #[must_use]
    pub const fn at(x: f64, y: f64) -> Self {
        Self { x, y: Some(y), range: None }
    }
}

#[derive(Clone, Debug)]
pub struct Line {
    pub name: String,
    pub colour: Colour,
    pub points: Vec<Point>,
    /// With the area below it tinted.
    pub is_filled: bool,
    pub is_dashed: bool,
}

impl Line {
    #[must_use]
    pub fn new(name: &str, colour: Colour, points: Vec<Point>) -> Self {
        Self { name: name.to_owned(), colour, points, is_filled: false, is_dashed: false }
    }

    #[must_use]
    pub const fn filled(mut self) -> Self {
        self.is_filled = true;
        self
    }

    #[must_use]
    pub const fn dashed(mut self) -> Self {
        self.is_dashed = true;
        self
    }
}

/// A stretch of the x axis in which something was the case.
#[derive(Clone, Debug)]
pub struct Band {
    pub name: String,
    pub colour: Colour,
    pub from: f64,
    pub to: f64,
}

#[derive(Clone, Debug)]
pub struct Plot {
    /// For those who cannot see it.
    pub label: String,
    pub x: Axis,
    pub y: Axis,
    pub bands: Vec<Band>,
    pub lines: Vec<Line>,
    /// Places on the x axis at which something happened.
    pub marks: Vec<f64>,
}

impl Plot {
    #[must_use]
    pub fn new(label: &str, x: Axis, y: Axis) -> Self {
        Self { label: label.to_owned(), x, y, bands: Vec::new(), lines: Vec::new(), marks: Vec::new() }
    }

    /// What the colours mean: each name once.
    #[must_use]
    pub fn legend(&self) -> String {
        let mut text = String::from("<p class=\"legend\">");
        for line in &self.lines {
            let dashed = if line.is_dashed { " dashed" } else { "" };
            let (class, name) = (line.colour.class(), escape(&line.name));
            let _ = write!(text, "<span><i class=\"line {class}{dashed}\"></i>{name}</span> ");
        }
        let mut told: Vec<(&str, Colour)> = Vec::new();
        for band in &self.bands {
            if !told.contains(&(&band.name, band.colour)) {
                told.push((&band.name, band.colour));
                let (class, name) = (band.colour.class(), escape(&band.name));
                let _ = write!(text, "<span><i class=\"box tint {class}\"></i>{name}</span> ");
            }
        }
        text.push_str("</p>\n");
        text
    }

    /// The drawing with the marks beside it.
    #[must_use]
    pub fn drawing(&self) -> String {
        let mut svg = String::new();
        for band in &self.bands {
            let (from, to) = (self.across(band.from), self.across(band.to));
            let (class, width) = (band.colour.class(), to - from);
            let _ = write!(
                svg,
                "<rect class=\"band {class}\" x=\"{from:.1}\" y=\"0\" width=\"{width:.1}\" height=\"{HEIGHT}\"/>"
            );
        }
        for (at, _) in &self.y.ticks {
            let y = self.down(*at);
            let _ = write!(svg, "<path class=\"grid\" d=\"M0 {y:.1}H{WIDTH}\"/>");
        }
        for line in &self.lines {
            self.line(line, &mut svg);
        }
        for mark in &self.marks {
            let x = self.across(*mark);
            let _ = write!(svg, "<path class=\"mark\" d=\"M{x:.1} 0V{HEIGHT}\"/>");
        }
        format!(
            "<div class=\"row\">{}<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">{svg}</svg></div>\n",
            self.y.beside(),
            escape(&self.label)
        )
    }

    fn line(&self, line: &Line, svg: &mut String) {
        let class = line.colour.class();
        for stretch in line.points.split(|point| point.y.is_none()) {
            let at = |point: &Point| {
                format!("{:.1} {:.2}", self.across(point.x), self.down(point.y.unwrap_or_default()))
            };
            let (Some(first), Some(last)) = (stretch.first(), stretch.last()) else { continue };
            let path = stretch.iter().map(at).collect::<Vec<_>>().join("L");
            if line.is_filled {
                let (from, to) = (self.across(first.x), self.across(last.x));
                let _ = write!(
                    svg,
                    "<path class=\"area {class}\" d=\"M{from:.1} {HEIGHT}L{path}L{to:.1} {HEIGHT}Z\"/>"
                );
            }
            // A point by itself is seen as a line of no length with round ends.
            let alone = if stretch.len() == 1 { "h0" } else { "" };
            let dashed = if line.is_dashed { " dashed" } else { "" };
            let _ = write!(svg, "<path class=\"line {class}{dashed}\" d=\"M{path}{alone}\"/>");
        }
        for point in &line.points {
            let Some((low, high)) = point.range else { continue };
            let (x, low, high) = (self.across(point.x), self.down(low), self.down(high));
            let _ = write!(svg, "<path class=\"line {class}\" d=\"M{x:.1} {low:.2}V{high:.2}\"/>");
        }
    }

    fn across(&self, x: f64) -> f64 {
        self.x.place(x) * WIDTH
    }

    fn down(&self, y: f64) -> f64 {
        (1.0 - self.y.place(y)) * HEIGHT
    }
}

/// With its legend above and its marks below.
impl fmt::Display for Plot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.legend(), self.drawing(), self.x.below())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_parted_where_nothing_was_measured() {
        let mut plot = Plot::new("l", Axis::seconds(4.0), Axis::from_zero(10.0));
        let gap = Point { x: 2.0, y: None, range: None };
        let points = vec![Point::at(0.0, 0.0), Point::at(1.0, 5.0), gap, Point::at(4.0, 10.0)];
        plot.lines.push(Line::new("a", Colour::Blue, points));
        let drawing = plot.drawing();
        assert!(drawing.contains("d=\"M0.0 100.00L250.0 50.00\""), "{drawing}");
        assert!(drawing.contains("d=\"M1000.0 0.00h0\""), "{drawing}");
    }

    #[test]
    fn a_legend_tells_each_name_once() {
        let mut plot = Plot::new("l", Axis::seconds(4.0), Axis::from_zero(10.0));
        for from in [0.0, 2.0] {
            let (name, colour) = ("storm".to_owned(), Colour::Amber);
            plot.bands.push(Band { name, colour, from, to: from + 1.0 });
        }
        assert_eq!(plot.legend().matches("storm").count(), 1);
        assert_eq!(plot.drawing().matches("<rect").count(), 2);
    }
}
