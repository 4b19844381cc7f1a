//! The timeline of a run as one self-contained page: throughput, what was broken meanwhile, what was found.
//!
//! The drawings stretch to the width of the page, on a phone too; all text stands outside of them, so that it
//! keeps its size.

use super::report::{Report, grouped};
use super::run::line;
use super::schedule::{Kind, Spell};
use super::tally::BIN_US;
use std::collections::BTreeSet;
use std::fmt::Write;

const BIN_MS: u64 = BIN_US / 1_000;
/// Heights of the drawings, in their own units.
const PLOT: u64 = 100;
const LANE: u64 = 10;
/// A fault is drawn this share of the whole width wide at least, so that it can be seen.
const NARROWEST: u64 = 250;
/// Marks below the plot, at most.
const TICKS_MAX: u64 = 5;

/// The page.
#[must_use]
pub fn page(report: &Report) -> String {
    let width_ms = BIN_MS * u64::try_from(report.bins.len().max(1)).unwrap_or(1);
    let verdict = match report.findings.len() {
        0 if report.ends.complete => "all good".to_owned(),
        0 => "interrupted, with nothing found".to_owned(),
        count => format!("{count} wrong"),
    };
    let class = if report.findings.is_empty() { "good" } else { "bad" };
    let front = if report.behind_nginx { "behind nginx" } else { "without an nginx" };
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n<title>kassa torture, seed {seed}</title>\n<style>{STYLE}</style>\n<h1>kassa torture <span class=\"{class}\">{verdict}</span></h1>\n<p>Seed {seed}, {pods} pods {front}. {requests} requests, {faults} faults, {histories} histories of users and items checked.</p>\n",
        seed = report.seed,
        pods = report.pods,
        requests = grouped(report.requests),
        faults = report.spells.len(),
        histories = grouped(report.histories),
    );
    page.push_str(&plot(report, width_ms));
    page.push_str(&lanes(report, width_ms));
    page.push_str(&ticks(width_ms));
    page.push_str(&legend(report));
    page.push_str(&findings(report));
    page.push_str("<details><summary>Every fault, in seconds</summary><pre>");
    for spell in &report.spells {
        let _ = writeln!(page, "{}", line(spell));
    }
    let _ = write!(page, "</pre></details>\n<p>Again: <code>{}</code></p>\n</html>\n", escape(&report.again));
    page
}

/// Answers a second, and errors on the same scale, with the storms behind them.
fn plot(report: &Report, width_ms: u64) -> String {
    let per_second = |count: u64| count * 1_000 / BIN_MS;
    let most = report.bins.iter().map(|bin| per_second(bin.told.max(bin.failed))).max().unwrap_or(0);
    let top = round_up(most.max(1));
    let height = |count: u64| PLOT * 10 - (per_second(count) * PLOT * 10 / top).min(PLOT * 10);
    // One decimal by hand: the drawing is a hundred high.
    let tenths = |value: u64| format!("{}.{}", value / 10, value % 10);
    let mut svg = String::new();
    for spell in &report.spells {
        let (x, wide) = (spell.from_ms, spell.to_ms - spell.from_ms);
        let class = if spell.majority { "majority" } else { "storm" };
        let _ = write!(svg, "<rect class=\"{class}\" x=\"{x}\" y=\"0\" width=\"{wide}\" height=\"{PLOT}\"/>");
    }
    let points = |pick: fn(&super::tally::Bin) -> u64| -> String {
        let middle = (0..).map(|no: u64| no * BIN_MS + BIN_MS / 2);
        let points = middle.zip(&report.bins).map(|(x, bin)| format!("{x},{}", tenths(height(pick(bin)))));
        points.collect::<Vec<_>>().join(" ")
    };
    let told = points(|bin| bin.told);
    let last = width_ms - BIN_MS / 2;
    let _ = write!(
        svg,
        "<polygon class=\"area\" points=\"{first},{PLOT} {told} {last},{PLOT}\"/><polyline class=\"told\" points=\"{told}\"/><polyline class=\"failed\" points=\"{}\"/>",
        points(|bin| bin.failed),
        first = BIN_MS / 2
    );
    for finding in &report.findings {
        let at = finding.at_ms.min(width_ms);
        let _ = write!(svg, "<line class=\"found\" x1=\"{at}\" x2=\"{at}\" y1=\"0\" y2=\"{PLOT}\"/>");
    }
    format!(
        "<p class=\"legend\"><span><i class=\"line told\"></i>answers a second</span> <span><i class=\"line failed\"></i>errors a second</span> <span><i class=\"box storm\"></i>something broken</span> <span><i class=\"box majority\"></i>perhaps a majority</span></p>\n<div class=\"row\"><span class=\"label scale\"><b>{}</b><b>{}</b><b>0</b></span><svg class=\"plot\" viewBox=\"0 0 {width_ms} {PLOT}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"Answers a second over time\">{svg}</svg></div>\n",
        grouped(top),
        grouped(top / 2)
    )
}

/// The next number that is easy to halve and to read.
fn round_up(most: u64) -> u64 {
    let mut step = 1;
    loop {
        for times in [2, 4, 6, 10] {
            if most <= times * step {
                return times * step;
            }
        }
        step *= 10;
    }
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

fn ticks(width_ms: u64) -> String {
    let steps_s = [5, 10, 15, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200];
    let width_s = width_ms / 1_000;
    let step = steps_s.into_iter().find(|step| width_s / step <= TICKS_MAX).unwrap_or(14_400);
    let mut text = String::from("<div class=\"row\"><span class=\"label\"></span><div class=\"ticks\">");
    for at in (0..=width_s).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
        let share = at * 1_000 * 1_000 / width_ms;
        // What would stand over the edge is left out.
        if share <= 900 {
            let _ = write!(text, "<span style=\"left:{}.{}%\">{at} s</span>", share / 10, share % 10);
        }
    }
    text.push_str("</div></div>\n");
    text
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

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const STYLE: &str = "
:root { color-scheme: light dark; --page: #fff; --text: #1b1f24; --faint: #5b6570; --grid: #d9dee3; --told: #0b6e4f; --area: #0b6e4f22;
  --failed: #c1121f; --storm: #f1b60033; --majority: #c1121f26; }
@media (prefers-color-scheme: dark) { :root { --page: #14171a; --text: #e6e9ec; --faint: #9aa5b1; --grid: #343b43; --told: #4cc38a;
  --area: #4cc38a22; --failed: #ff6b6b; --storm: #f1b60026; --majority: #ff6b6b2e; } }
body { background: var(--page); color: var(--text); font: 16px/1.45 system-ui, sans-serif; margin: 1rem auto; padding: 0 1rem; max-width: 62rem; }
h1 { font-size: 1.3rem; margin: 0 0 .3rem; } h1 span { font-size: .85rem; padding: .15rem .55rem; border-radius: 1rem; color: #fff; vertical-align: middle; }
.good { background: #0b6e4f; } .bad { background: #c1121f; }
p { margin: .3rem 0 .7rem; } .legend { font-size: .85rem; color: var(--faint); }
.legend span { display: inline-block; margin-right: .7rem; white-space: nowrap; }
.row { display: flex; gap: .5rem; margin-bottom: 3px; } .label { flex: 0 0 3.2rem; font-size: .8rem; color: var(--faint); text-align: right; line-height: 1.1rem; }
.scale { display: flex; flex-direction: column; justify-content: space-between; } .scale b { font-weight: normal; line-height: 1; }
svg { flex: 1 1 auto; min-width: 0; display: block; background: linear-gradient(var(--grid), var(--grid)) 0 100% / 100% 1px no-repeat; }
.plot { height: 12rem; background: linear-gradient(var(--grid), var(--grid)) 0 0 / 100% 1px no-repeat, linear-gradient(var(--grid), var(--grid)) 0 50% / 100% 1px no-repeat, linear-gradient(var(--grid), var(--grid)) 0 100% / 100% 1px no-repeat; }
.lane { height: 1.1rem; } .ticks { position: relative; flex: 1 1 auto; height: 1.2rem; font-size: .8rem; color: var(--faint); } .ticks span { position: absolute; white-space: nowrap; }
polyline { fill: none; stroke-width: 1.5; vector-effect: non-scaling-stroke; } polyline.told { stroke: var(--told); } polyline.failed { stroke: var(--failed); }
.area { fill: var(--area); } rect.storm { fill: var(--storm); } rect.majority { fill: var(--majority); } .found { stroke: var(--failed); stroke-width: 2; stroke-dasharray: 4 3; vector-effect: non-scaling-stroke; }
i { display: inline-block; margin: 0 .3rem 0 .5rem; } i.box { width: .8rem; height: .8rem; border-radius: 2px; vertical-align: -1px; } i.line { width: 1.1rem; height: 0; border-top: 2px solid; vertical-align: 4px; }
.legend i { margin-left: 0; } i.told { border-color: var(--told); } i.failed { border-color: var(--failed); } i.storm { background: var(--storm); } i.majority { background: var(--majority); }
.kill { fill: #d1242f; background: #d1242f; } .stop { fill: #f08c00; background: #f08c00; } .partition { fill: #8250df; background: #8250df; } .oneway { fill: #b794f4; background: #b794f4; }
.slow-link { fill: #0fa3b1; background: #0fa3b1; } .slow-disk { fill: #2f6feb; background: #2f6feb; } .full-disk { fill: #9a5b34; background: #9a5b34; } .lost-disk { fill: #d6409f; background: #d6409f; }
.clock { fill: #8a9a00; background: #8a9a00; } .nginx { fill: #7d8590; background: #7d8590; }
.finding { border-left: 3px solid var(--failed); padding: .2rem .7rem; margin: .5rem 0; overflow-wrap: anywhere; }
pre { overflow-x: auto; font-size: .8rem; } code { overflow-wrap: anywhere; } summary { cursor: pointer; }
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_at_numbers_that_are_easy_to_read() {
        for (most, top) in [(1, 2), (3, 4), (7, 10), (11, 20), (359, 400), (601, 1_000), (3_361, 4_000)] {
            assert_eq!(round_up(most), top, "{most}");
        }
    }

    #[test]
    fn what_others_say_is_text_in_the_page() {
        assert_eq!(escape("<b>\"a\" & b"), "&lt;b&gt;&quot;a&quot; &amp; b");
    }
}
