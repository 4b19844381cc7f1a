//! The timeline of a run as one page: throughput, what was broken meanwhile, what was found.

use super::report::Report;
use super::run::line;
use super::schedule::{Kind, Spell};
use super::tally::{BIN_US, Bin};
use crate::cli::page::axis::Axis;
use crate::cli::page::number::{float, grouped};
use crate::cli::page::plot::{Band, Line, Plot, Point};
use crate::cli::page::{Colour, Page, Tone, escape};
use std::collections::BTreeSet;
use std::fmt::Write;

const BIN_MS: u64 = BIN_US / 1_000;
/// The height of a pod's lane, in its own units.
const LANE: u64 = 10;
/// A fault is drawn this share of the whole width wide at least, so that it can be seen.
const NARROWEST: u64 = 250;

/// The page.
#[must_use]
pub fn page(report: &Report) -> String {
    let width_ms = BIN_MS * u64::try_from(report.bins.len().max(1)).unwrap_or(1);
    let (tone, verdict) = match report.findings.len() {
        0 if report.ends.complete => (Tone::Good, "all good".to_owned()),
        0 => (Tone::Neutral, "interrupted, with nothing found".to_owned()),
        count => (Tone::Bad, format!("{count} wrong")),
    };
    let front = if report.behind_nginx { "behind nginx" } else { "without an nginx" };
    let title = format!("kassa torture, seed {}", report.seed);
    let mut page = Page::new(&title, "kassa torture", tone, &verdict);
    page.style(STYLE);
    page.text(&format!(
        "Seed {seed}, {pods} pods {front}. {requests} requests, {faults} faults, {histories} histories of users and items checked.",
        seed = report.seed,
        pods = report.pods,
        requests = grouped(report.requests),
        faults = report.spells.len(),
        histories = grouped(report.histories),
    ));
    let plot = plot(report, width_ms);
    page.push(plot.legend() + &plot.drawing() + &lanes(report, width_ms) + &plot.x.below());
    page.push(legend(report));
    page.push(findings(report));
    let mut faults = String::new();
    for spell in &report.spells {
        let _ = writeln!(faults, "{}", line(spell));
    }
    page.folded("Every fault, in seconds", &faults);
    page.command("Again:", &report.again);
    page.html()
}

/// Answers a second, and errors on the same scale, with the storms behind them.
fn plot(report: &Report, width_ms: u64) -> Plot {
    let per_second = |count: u64| float(count * 1_000 / BIN_MS);
    let most = report.bins.iter().map(|bin| per_second(bin.told.max(bin.failed))).fold(0.0, f64::max);
    let seconds = |ms: u64| float(ms) / 1_000.0;
    let mut plot =
        Plot::new("Answers a second over time", Axis::seconds(seconds(width_ms)), Axis::from_zero(most));
    for spell in &report.spells {
        let (name, colour) = if spell.majority {
            ("perhaps a majority", Colour::Red)
        } else {
            ("something broken", Colour::Amber)
        };
        let (from, to) = (seconds(spell.from_ms), seconds(spell.to_ms));
        plot.bands.push(Band { name: name.to_owned(), colour, from, to });
    }
    let points = |pick: fn(&Bin) -> u64| {
        let middle = (0..).map(|no: u64| seconds(no * BIN_MS + BIN_MS / 2));
        middle.zip(&report.bins).map(|(x, bin)| Point::at(x, per_second(pick(bin)))).collect()
    };
    plot.lines.push(Line::new("answers a second", Colour::Green, points(|bin| bin.told)).filled());
    plot.lines.push(Line::new("errors a second", Colour::Red, points(|bin| bin.failed)));
    plot.marks = report.findings.iter().map(|finding| seconds(finding.at_ms.min(width_ms))).collect();
    plot
}

/// For each pod, and nginx, when it was ill with what.
fn lanes(report: &Report, width_ms: u64) -> String {
    let mut text = String::new();
    let is_nginx = |spell: &&Spell| spell.fault.kind() == Kind::Nginx;
    for pod in 0..report.pods {
        let ill = report.spells.iter().filter(|spell| spell.fault.pods().contains(&pod));
        text.push_str(&lane(&format!("pod {pod}"), ill, width_ms));
    }
    if report.spells.iter().any(|spell| is_nginx(&spell)) {
        text.push_str(&lane("nginx", report.spells.iter().filter(is_nginx), width_ms));
    }
    text
}

fn lane<'a>(name: &str, ill: impl Iterator<Item = &'a Spell>, width_ms: u64) -> String {
    let mut svg = String::new();
    for spell in ill {
        let wide = (spell.to_ms - spell.from_ms).max(width_ms / NARROWEST);
        let _ = write!(
            svg,
            "<rect class=\"{}\" x=\"{}\" y=\"0\" width=\"{wide}\" height=\"{LANE}\"><title>{}</title></rect>",
            spell.fault.kind().word(),
            spell.from_ms,
            escape(line(spell).trim())
        );
    }
    format!(
        "<div class=\"row\"><span class=\"label\">{name}</span><svg class=\"lane\" viewBox=\"0 0 {width_ms} {LANE}\" preserveAspectRatio=\"none\">{svg}</svg></div>\n"
    )
}

fn legend(report: &Report) -> String {
    let kinds: BTreeSet<Kind> = report.spells.iter().map(|spell| spell.fault.kind()).collect();
    let mut text = String::from("<p class=\"legend\">");
    for kind in kinds {
        let count = report.spells.iter().filter(|spell| spell.fault.kind() == kind).count();
        let word = kind.word();
        let _ = write!(text, "<span><i class=\"box {word}\"></i>{word} × {count}</span> ");
    }
    text.push_str("</p>\n");
    text
}

fn findings(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let _ = write!(
            text,
            "<div class=\"finding\"><b>After {} s</b> ({}): {}",
            finding.at_ms / 1_000,
            escape(&finding.during),
            escape(&finding.what)
        );
        if let Some(file) = &finding.file {
            let _ = write!(text, "<br>Evidence: <code>{}</code>", escape(file));
        }
        text.push_str("</div>\n");
    }
    text
}

/// The kinds of faults, in the lanes and in their legend.
const STYLE: &str = "
.lane { height: 1.1rem; background: linear-gradient(var(--grid), var(--grid)) 0 100% / 100% 1px no-repeat; } .lane rect { fill: var(--c); }
.kill { --c: #d1242f; } .stop { --c: #f08c00; } .partition { --c: #8250df; } .oneway { --c: #b794f4; }
.slow-link { --c: #0fa3b1; } .slow-disk { --c: #2f6feb; } .full-disk { --c: #9a5b34; } .lost-disk { --c: #d6409f; }
.clock { --c: #8a9a00; } .nginx { --c: #7d8590; }
.finding { border-left: 3px solid var(--red); padding: .2rem .7rem; margin: .5rem 0; overflow-wrap: anywhere; }
";
