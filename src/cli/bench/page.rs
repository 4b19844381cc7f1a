//! The report as a page.

use super::report::{LatencyReport, Report};
use super::tally::Tally;
use crate::cli::page::axis::Axis;
use crate::cli::page::bars::{Bar, Bars, Group};
use crate::cli::page::number::{float, grouped, short};
use crate::cli::page::plot::{Line, Plot, Point};
use crate::cli::page::table::{Align, Table};
use crate::cli::page::{Colour, Page, Tone};
use hdrhistogram::Histogram;

/// Points of the percentile curve for each halving of the distance to 100 %.
const TICKS_PER_HALF: u32 = 8;

#[must_use]
pub fn page(report: &Report, tally: &Tally) -> String {
    let (rate, what) = if report.has_checkouts() {
        (report.committed_per_second, "checkouts a second")
    } else {
        (report.others_per_second, "requests a second")
    };
    let verdict = format!("{} {what}", short(rate));
    let (tone, verdict) = if report.is_good() {
        (Tone::Good, verdict)
    } else if report.books.agree {
        (Tone::Bad, "nothing measured".to_owned())
    } else {
        (Tone::Bad, format!("{verdict}, and the books disagree"))
    };
    let mut page = Page::new(&format!("kassa bench: {verdict}"), "kassa bench", tone, &verdict);
    page.text(&sentence(&report.load()));
    let mut results = Table::new(&[("", Align::Left), ("", Align::Left)]);
    for (name, value) in report.rows() {
        if !name.contains("latency") && !name.starts_with("of ") {
            results.row([name, &value]);
        }
    }
    page.push(results);
    page.push(latencies(report));
    compared(report, &mut page);
    page.section("Throughput over time");
    page.push(throughput(report));
    page.section("Latency over time");
    page.push(latency(report));
    let kind = if report.has_checkouts() { CHECKOUTS } else { OTHERS };
    page.note(&format!("In ms, of {kind}, by when they were answered; the scale is logarithmic."));
    page.section("Latency by percentile");
    page.push(percentiles(report, tally));
    page.note("In ms. Each mark on the lower axis leaves a tenth as many above it as the one before.");
    if !report.errors.is_empty() {
        page.section("Errors by code");
        page.push(errors(report));
    }
    page.section("What was run");
    page.push(settings(report));
    page.section("Where");
    page.push(machine(report));
    page.html()
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect::<String>() + ".")
}

const CHECKOUTS: &str = "committed checkouts";
const OTHERS: &str = "edits and reads";

fn latencies(report: &Report) -> Table {
    let figure = |name| (name, Align::Right);
    let mut table = Table::new(&[
        ("latency in ms", Align::Left),
        figure("p50"),
        figure("p90"),
        figure("p99"),
        figure("p99.9"),
        figure("max"),
    ]);
    let mut row = |name: &str, latency: &LatencyReport| {
        let LatencyReport { p50, p90, p99, p99_9, max } = latency;
        let figures = [p50, p90, p99, p99_9, max].map(|&ms| short(ms));
        table.cells([name.to_owned()].into_iter().chain(figures).collect());
    };
    if report.has_checkouts() {
        row(CHECKOUTS, &report.latency_ms);
    }
    if report.others_per_second > 0.0 {
        row(OTHERS, &report.others_latency_ms);
    }
    table
}

fn compared(report: &Report, page: &mut Page) {
    let Some(comparison) = &report.comparison else { return };
    page.section(&format!("Compared with {}: {}", comparison.with, comparison.verdict()));
    let mut table =
        Table::new(&[("", Align::Left), ("before", Align::Right), ("now", Align::Right), ("", Align::Left)]);
    for measure in &comparison.measures {
        table.row([measure.name, &short(measure.before), &short(measure.after), &measure.told()]);
    }
    page.push(table);
    for difference in &comparison.differing {
        page.note(&format!("Differs: {difference}"));
    }
    page.note("Differences larger than what stands behind ± are told, at 99 %. It is the noise within the two runs: what else changed between them, such as a neighbour on the machine or a store that has grown, is not in it.");
}

/// The middles of slices, in seconds.
fn middles(slice_ms: u64) -> impl Iterator<Item = f64> {
    (0..).map(move |no: u32| (f64::from(no) + 0.5) * float(slice_ms) / 1_000.0)
}

fn throughput(report: &Report) -> Plot {
    let samples = &report.samples;
    let slices = float(u64::try_from(samples.committed.len()).unwrap_or_default());
    let seconds = (slices * float(samples.slice_ms) / 1_000.0).max(1.0);
    let line = |name: &str, colour, values: &[f64], slice_ms: u64| {
        let points = middles(slice_ms).zip(values).map(|(x, &y)| Point::at(x, y)).collect();
        Line::new(name, colour, points)
    };
    let mut lines = Vec::new();
    let mut most: f64 = 0.0;
    let mut add = |line: Line| {
        most = line.points.iter().filter_map(|point| point.y).fold(most, f64::max);
        lines.push(line);
    };
    if report.has_checkouts() {
        let values = samples.per_second(&samples.committed);
        add(line("committed checkouts a second", Colour::Green, &values, samples.slice_ms).filled());
    }
    if samples.others.iter().any(|&count| count > 0) {
        let others = line(
            "edits and reads a second",
            Colour::Blue,
            &samples.per_second(&samples.others),
            samples.slice_ms,
        );
        add(if report.has_checkouts() { others } else { others.filled() });
    }
    add(line("errors a second", Colour::Red, &samples.per_second(&samples.errors), samples.slice_ms));
    if let Some(comparison) = &report.comparison {
        let before = &comparison.before;
        add(line("before", Colour::Grey, &before.per_second, before.slice_ms).dashed());
    }
    let mut plot = Plot::new("Throughput over time", Axis::seconds(seconds), Axis::from_zero(most));
    plot.lines = lines;
    plot
}

fn latency(report: &Report) -> Plot {
    let samples = &report.samples;
    let all = [
        ("p50", Colour::Blue, &samples.p50_ms),
        ("p99", Colour::Amber, &samples.p99_ms),
        ("max", Colour::Purple, &samples.max_ms),
    ];
    let known = || all.iter().flat_map(|(_, _, values)| values.iter().flatten().copied());
    let (least, most) = (known().fold(f64::INFINITY, f64::min), known().fold(0.0, f64::max));
    let slices = float(u64::try_from(samples.p50_ms.len()).unwrap_or_default());
    let seconds = (slices * float(samples.slice_ms) / 1_000.0).max(1.0);
    let y = if least.is_finite() { Axis::decades(least.max(0.01), most) } else { Axis::decades(1.0, 10.0) };
    let mut plot = Plot::new("Latency over time", Axis::seconds(seconds), y);
    for (name, colour, values) in all {
        let points = middles(samples.slice_ms).zip(values).map(|(x, &y)| Point { x, y, range: None });
        plot.lines.push(Line::new(name, colour, points.collect()));
    }
    plot
}

fn percentiles(report: &Report, tally: &Tally) -> Plot {
    let mut lines = Vec::new();
    let mut samples: f64 = 100.0;
    if report.has_checkouts() {
        lines.push(curve(CHECKOUTS, Colour::Green, &tally.latency_us));
        samples = samples.max(float(tally.latency_us.len()));
    }
    if !tally.others_latency_us.is_empty() {
        lines.push(curve(OTHERS, Colour::Blue, &tally.others_latency_us));
        samples = samples.max(float(tally.others_latency_us.len()));
    }
    let known = || lines.iter().flat_map(|line| line.points.iter().filter_map(|point| point.y));
    let (least, most) = (known().fold(f64::INFINITY, f64::min), known().fold(0.0, f64::max));
    let y = if least.is_finite() { Axis::decades(least.max(0.01), most) } else { Axis::decades(1.0, 10.0) };
    let mut plot = Plot::new("Latency by percentile", Axis::percentiles(samples), y);
    plot.lines = lines;
    plot
}

fn curve(name: &str, colour: Colour, latency_us: &Histogram<u64>) -> Line {
    let steps = latency_us.iter_quantiles(TICKS_PER_HALF);
    let points = steps.map(|step| {
        let rest = (1.0 - step.quantile_iterated_to()).max(f64::MIN_POSITIVE);
        Point::at(1.0 / rest, float(step.value_iterated_to()) / 1_000.0)
    });
    Line::new(name, colour, points.collect())
}

fn errors(report: &Report) -> Bars {
    let bars = report.errors.iter().map(|(code, &count)| Bar {
        name: code.clone(),
        colour: Colour::Red,
        value: Some(float(count)),
        range: None,
        shown: grouped(count),
    });
    Bars::new(vec![Group { name: String::new(), bars: bars.collect() }])
}

fn settings(report: &Report) -> Table {
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    let how = match &report.open_loop {
        Some(open) => format!("open, {} requests a second, arriving at random", short(open.rate_per_second)),
        None => "closed: each client sends when it has its answer".to_owned(),
    };
    let clients = if report.open_loop.is_some() { "on their way at most" } else { "clients" };
    let items = match report.skew.as_str() {
        "uniform" => format!("{}, all wanted alike", grouped(report.items)),
        "one" => "1, wanted by all".to_owned(),
        skew => format!("{}, wanted as {skew}", grouped(report.items)),
    };
    let rows = [
        ("loop", how),
        (clients, report.clients.to_string()),
        ("warm-up", format!("{} s", short(report.warm_up_seconds))),
        ("counted", format!("{} s", short(report.seconds))),
        ("mix", report.mix.clone()),
        ("items", items),
        ("users", grouped(report.users)),
        ("orders", report.orders.clone()),
        ("at", report.urls.join(" ")),
    ];
    for (name, value) in rows {
        table.row([name, &value]);
    }
    table
}

fn machine(report: &Report) -> Table {
    let machine = &report.machine;
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    table.row(["processor", &format!("{}, {} cores", machine.processor, machine.cores)]);
    table.row(["memory", &format!("{} MiB", grouped(machine.memory_mib))]);
    table.row(["system", &machine.system]);
    let build =
        if machine.is_release_build { "release build" } else { "debug build: slower than a release build" };
    table.row(["kassa", &format!("{}, {build}", machine.kassa)]);
    table
}
