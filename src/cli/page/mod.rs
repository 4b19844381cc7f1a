//! Reports as one self-contained HTML page: no script, nothing loaded from anywhere, light or dark as the reader
//! has it, on a phone or a wide screen.
//!
//! # Layout
//! A [`Page`] is a title, a verdict and sections; what stands in them is text, a [`plot`] (lines over time or any
//! other axis), [`bars`] in groups or a [`table`]. Drawings are inline SVG that stretches to the width of the
//! page; all text stands outside of it, so that it keeps its size. [`number`] writes figures as people read them.

pub mod axis;
pub mod bars;
pub mod number;
pub mod plot;
pub mod table;

use std::fmt::{self, Write};

const STYLE: &str = include_str!("style.css");

/// The colours of drawings, each legible on light and dark pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Colour {
    Green,
    Red,
    Blue,
    Amber,
    Purple,
    Teal,
    Grey,
}

impl Colour {
    /// For things of one kind that need only be told apart; red is kept for errors.
    pub const EACH: [Self; 6] = [Self::Blue, Self::Amber, Self::Green, Self::Purple, Self::Teal, Self::Grey];

    /// The colour of the `number`th of them.
    #[must_use]
    pub const fn of(number: usize) -> Self {
        Self::EACH[number % Self::EACH.len()]
    }

    /// The class that sets it.
    #[must_use]
    pub const fn class(self) -> &'static str {
        match self {
            Self::Green => "green",
            Self::Red => "red",
            Self::Blue => "blue",
            Self::Amber => "amber",
            Self::Purple => "purple",
            Self::Teal => "teal",
            Self::Grey => "grey",
        }
    }
}

/// How a verdict is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Good,
    Bad,
    Neutral,
}

impl Tone {
    const fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Neutral => "neutral",
        }
    }
}

/// A page that is being written, from top to bottom.
#[derive(Clone, Debug)]
pub struct Page {
    title: String,
    style: String,
    body: String,
}

impl Page {
    /// A page with its heading, and beside it the verdict in a word or two.
    #[must_use]
    pub fn new(title: &str, heading: &str, tone: Tone, verdict: &str) -> Self {
        let body = format!(
            "<h1>{} <span class=\"verdict {}\">{}</span></h1>\n",
            escape(heading),
            tone.class(),
            escape(verdict)
        );
        Self { title: title.to_owned(), style: STYLE.to_owned(), body }
    }

    /// Style for what only this page draws.
    pub fn style(&mut self, css: &str) {
        self.style.push_str(css);
    }

    /// A new section.
    pub fn section(&mut self, heading: &str) {
        let _ = writeln!(self.body, "<h2>{}</h2>", escape(heading));
    }

    /// A paragraph of plain text.
    pub fn text(&mut self, text: &str) {
        let _ = writeln!(self.body, "<p>{}</p>", escape(text));
    }

    /// A smaller paragraph, on how to read what stands beside it.
    pub fn note(&mut self, text: &str) {
        let _ = writeln!(self.body, "<p class=\"note\">{}</p>", escape(text));
    }

    /// What is typed or printed, word for word, behind a heading that opens it.
    pub fn folded(&mut self, heading: &str, text: &str) {
        let (heading, text) = (escape(heading), escape(text));
        let _ = writeln!(self.body, "<details><summary>{heading}</summary><pre>{text}</pre></details>");
    }

    /// A command to type.
    pub fn command(&mut self, before: &str, command: &str) {
        let _ = writeln!(self.body, "<p>{} <code>{}</code></p>", escape(before), escape(command));
    }

    /// A drawing or a table, or HTML of the caller's own, whose text is escaped already.
    pub fn push(&mut self, drawn: impl fmt::Display) {
        let _ = writeln!(self.body, "{drawn}");
    }

    #[must_use]
    pub fn html(&self) -> String {
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n<title>{}</title>\n<style>\n{}</style>\n{}</html>\n",
            escape(&self.title),
            self.style,
            self.body
        )
    }
}

/// Text as it stands in HTML, in attributes too.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_is_text_in_the_page() {
        assert_eq!(escape("<b>\"a\" & b"), "&lt;b&gt;&quot;a&quot; &amp; b");
        let mut page = Page::new("<t>", "<h>", Tone::Bad, "<v>");
        page.section("<s>");
        page.text("<p>");
        page.folded("<f>", "<pre>");
        page.command("<c>", "<code>");
        let html = page.html();
        for raw in ["<t>", "<h>", "<v>", "<s>", "<f>", "<pre><pre>", "<c>", "<code><code>"] {
            assert!(!html.contains(raw), "{raw}: {html}");
        }
    }

    #[test]
    fn a_page_needs_nothing_from_elsewhere() {
        let html = Page::new("t", "h", Tone::Good, "v").html();
        for word in ["http:", "https:", "url(", "@import", "<script", "<link"] {
            assert!(!html.contains(word), "{word}");
        }
    }
}
