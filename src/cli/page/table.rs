//! Tables. One that is wider than the page scrolls by itself.

use super::escape;
use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Left,
    /// For figures.
    Right,
}

/// Columns with their headings, and rows of as many cells.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// No heading is shown if all are empty.
    #[must_use]
    pub fn new(columns: &[(&str, Align)]) -> Self {
        let columns = columns.iter().map(|(name, align)| ((*name).to_owned(), *align)).collect();
        Self { columns, rows: Vec::new() }
    }

    /// One more row, of plain text.
    pub fn row<const N: usize>(&mut self, cells: [&str; N]) {
        self.rows.push(cells.map(str::to_owned).to_vec());
    }

    /// As [`Self::row`], of as many cells as there happen to be columns.
    pub fn cells(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = |align: Align| match align {
            Align::Left => "",
            Align::Right => " class=\"figure\"",
        };
        f.write_str("<div class=\"wide\"><table>\n")?;
        if self.columns.iter().any(|(name, _)| !name.is_empty()) {
            f.write_str("<tr>")?;
            for (name, align) in &self.columns {
                write!(f, "<th{}>{}</th>", class(*align), escape(name))?;
            }
            f.write_str("</tr>\n")?;
        }
        for row in &self.rows {
            f.write_str("<tr>")?;
            for (cell, (_, align)) in row.iter().zip(&self.columns) {
                write!(f, "<td{}>{}</td>", class(*align), escape(cell))?;
            }
            f.write_str("</tr>\n")?;
        }
        f.write_str("</table></div>\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_text_and_figures_stand_to_the_right() {
        let mut table = Table::new(&[("what", Align::Left), ("n", Align::Right)]);
        table.row(["<a>", "1"]);
        let text = table.to_string();
        assert!(text.contains("<td>&lt;a&gt;</td><td class=\"figure\">1</td>"), "{text}");
        assert!(!Table::new(&[("", Align::Left)]).to_string().contains("<th"));
    }
}
