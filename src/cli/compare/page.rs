//! The figures as a page.

use super::conclude::{Told, conclude, verdict};
use super::configuration::Configuration;
use super::crash::{HOT_SLICE, SLICE};
use super::figures::{Crash, Figures, Load, Measured, Spread};
use super::plan::Demand;
use super::text::{cell, hot, silence, stuck, verified};
use crate::cli::page::axis::Axis;
use crate::cli::page::bars::{Bar, Bars, Group};
use crate::cli::page::number::{float, grouped, short};
use crate::cli::page::plot::{Band, Line, Plot, Point};
use crate::cli::page::table::{Align, Table};
use crate::cli::page::{Colour, Page, Tone, escape};

/// Slices that are drawn as one point, so that the line can be followed.
const SLICES_PER_POINT: usize = 5;

/// What only this page has: conclusions with a colour before each, and a verdict of more than two words.
const STYLE: &str = "
.verdict { display: inline-block; white-space: normal; }
.told { list-style: none; padding: 0; margin: .4rem 0; } .told li { padding: .3rem 0 .3rem .7rem; margin: .35rem 0; border-left: 4px solid var(--c); overflow-wrap: anywhere; }
.told b { font-weight: 600; }
";

#[must_use]
pub fn page(figures: &Figures) -> String {
    let verdict = verdict(figures);
    let tone = if figures.is_good() { Tone::Good } else { Tone::Bad };
    let mut page = Page::new(&format!("kassa compare: {verdict}"), "kassa compare", tone, &verdict);
    page.style(STYLE);
    page.text(
        "Each configuration ran on fresh clusters of three pods on one machine, in alternating rounds, and differs from the default in one thing.",
    );
    page.push(configurations(figures));
    page.section("What to conclude");
    page.push(conclusions(figures));
    page.section("Checkouts a second, without faults");
    page.push(rates(figures));
    page.note("Committed checkouts: answered 200, and found in stock and credit afterwards. Bars: the middle of the rounds; whiskers: from the lowest to the highest.");
    page.section("How long a checkout takes");
    page.push(latencies(figures));
    page.note("In ms, the middle of the rounds and from where to where they reach. A closed loop: what sells more slowly keeps its clients waiting.");
    if figures.configurations.iter().any(|measured| !measured.crashes.is_empty()) {
        deaths(figures, &mut page);
    }
    page.section("What a checkout costs");
    page.push(costs(figures));
    page.note("Over all pods, counted by them while demand was spread evenly, background work included. A message is one step of a protocol for one shard; a frame carries a round's messages to one pod. Fsyncs are shared by what is written in one round.");
    page.section("What was verified");
    page.push(verification(figures));
    for measured in &figures.configurations {
        for wrong in measured.disagreements.iter().chain(&measured.failures) {
            page.text(&format!("{}: {wrong}", measured.configuration.name()));
        }
    }
    page.section("How it was measured");
    page.push(settings(figures));
    page.command("Again:", &figures.command);
    for measured in &figures.configurations {
        let toml = measured.configuration.toml();
        let toml = if toml.is_empty() { "# nothing: all of it is the default" } else { toml };
        page.folded(&format!("Configuration of {}", measured.configuration.name()), toml);
    }
    page.html()
}

/// Each configuration keeps its colour over the page.
const fn colour(configuration: Configuration) -> Colour {
    match configuration {
        Configuration::Default => Colour::Green,
        Configuration::Blocking => Colour::Red,
        Configuration::PaymentQuorum => Colour::Blue,
        Configuration::StockWriteAll => Colour::Amber,
        Configuration::StockPaxos => Colour::Purple,
    }
}

fn configurations(figures: &Figures) -> Table {
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    for measured in &figures.configurations {
        table.row([measured.configuration.name(), measured.configuration.what()]);
    }
    table
}

fn conclusions(figures: &Figures) -> String {
    let item = |told: Told, text: &str| {
        let (colour, sign) = match told {
            Told::Clear => (Colour::Green, ""),
            Told::Unclear => (Colour::Amber, "Not clear. "),
            Told::Missing => (Colour::Grey, "Not measured. "),
            Told::Wrong => (Colour::Red, "Wrong. "),
        };
        format!("<li class=\"{}\"><b>{sign}</b>{}</li>\n", colour.class(), escape(text))
    };
    let items: String = conclude(figures).iter().map(|one| item(one.told, &one.text)).collect();
    format!("<ul class=\"told\">\n{items}</ul>")
}

fn bar(measured: &Measured, spread: Option<Spread>, unit: &str) -> Bar {
    let shown = spread.map_or_else(|| "–".to_owned(), |spread| format!("{}{unit}", short(spread.middle)));
    Bar {
        name: measured.configuration.name().to_owned(),
        colour: colour(measured.configuration),
        value: spread.map(|spread| spread.middle),
        range: spread.filter(|spread| spread.high > spread.low).map(|spread| (spread.low, spread.high)),
        shown,
    }
}

fn rates(figures: &Figures) -> Bars {
    let group = |demand: Demand| Group {
        name: demand.name().to_owned(),
        bars: (figures.configurations.iter())
            .map(|measured| bar(measured, measured.spread(demand, |load| load.committed_per_second), "/s"))
            .collect(),
    };
    Bars::new(Demand::ALL.map(group).into())
}

fn latencies(figures: &Figures) -> Table {
    let mut table = Table::new(&[
        ("", Align::Left),
        ("even p50", Align::Right),
        ("p99", Align::Right),
        ("skewed p50", Align::Right),
        ("p99", Align::Right),
        ("one item p50", Align::Right),
        ("p99", Align::Right),
    ]);
    for measured in &figures.configurations {
        let mut row = vec![measured.configuration.name().to_owned()];
        for demand in Demand::ALL {
            row.push(cell(measured.spread(demand, |load: &Load| load.p50_ms)));
            row.push(cell(measured.spread(demand, |load: &Load| load.p99_ms)));
        }
        table.cells(row);
    }
    table
}

fn deaths(figures: &Figures, page: &mut Page) {
    page.section("When a pod dies under load");
    page.note("It is killed with checkouts on their way, a third of which it coordinates, is kept away, and is started again. Checkouts a second over time; each configuration's first death.");
    page.push(timeline(figures));
    let mut table = Table::new(&[
        ("", Align::Left),
        ("sold a second before", Align::Right),
        ("while it is dead", Align::Right),
        ("after", Align::Right),
        ("no sales for", Align::Right),
        ("items stuck", Align::Right),
        ("users stuck", Align::Right),
        ("in doubt", Align::Right),
    ]);
    for measured in figures.configurations.iter().filter(|measured| !measured.crashes.is_empty()) {
        let in_doubt = |crash: &Crash| crash.last_away().map_or(f64::NAN, |wave| float(wave.in_doubt));
        table.cells(vec![
            measured.configuration.name().to_owned(),
            cell(measured.crash(|crash| crash.before_per_second)),
            cell(measured.crash(|crash| crash.away_per_second)),
            cell(measured.crash(|crash| crash.after_per_second)),
            format!("{} s", silence(measured.crash(|crash| crash.silence_ms / 1_000.0), SLICE)),
            stuck(measured, |crash| crash.last_away().map(|wave| (wave.items_stuck, wave.items_tried))),
            stuck(measured, |crash| crash.last_away().map(|wave| (wave.users_stuck, wave.users_tried))),
            cell(measured.crash(in_doubt)),
        ]);
    }
    page.push(table);
    page.note("Stuck: what nobody could buy, and who could not buy, within a second, at the end of the pod's absence; every item and every user was tried, users with orders that hold nothing. In doubt: transactions whose outcome the dead pod alone knows.");
    page.section("Who could not buy, over time");
    page.push(stuck_over_time(figures));
    page.note("Items and users together, at each time that all were tried: before the death, while the pod was away, and a second after it was started again. Each configuration's first death.");
    if figures.configurations.iter().any(|measured| !measured.hot_silences_ms.is_empty()) {
        page.section("When a coordinator dies while all want one item");
        let bars = figures.configurations.iter().filter(|measured| !measured.hot_silences_ms.is_empty());
        let bars = bars.map(|measured| {
            let shown = format!("{} s", silence(hot(measured), HOT_SLICE));
            Bar { shown, ..bar(measured, hot(measured), "") }
        });
        let bars = bars.collect();
        page.push(Bars::new(vec![Group { name: String::new(), bars }]));
        page.note(&format!(
            "For how long nobody bought it, by the middle of the deaths. Each time the pod was away for {} s; it coordinated most of the buyers, and did not lead the item's own shard. Buyers come at {} a second.",
            figures.plan.hot_away_seconds,
            grouped(figures.plan.hot_rate)
        ));
    }
}

fn timeline(figures: &Figures) -> Plot {
    let mut lines = Vec::new();
    let (mut end, mut most) = (1.0_f64, 0.0_f64);
    for measured in &figures.configurations {
        let Some(crash) = measured.crashes.first() else { continue };
        let seconds = crash.slice_ms / 1_000.0 * float(SLICES_PER_POINT as u64);
        let whole = crash.committed_by_slice.chunks_exact(SLICES_PER_POINT);
        let points: Vec<Point> = whole
            .zip(0_u32..)
            .map(|(slices, at)| {
                let rate = float(slices.iter().sum()) / seconds;
                most = most.max(rate);
                Point::at((f64::from(at) + 0.5) * seconds, rate)
            })
            .collect();
        end = points.last().map_or(end, |last| end.max(last.x));
        lines.push(Line::new(measured.configuration.name(), colour(measured.configuration), points));
    }
    let mut plot = Plot::new(
        "Checkouts a second while a pod dies and returns",
        Axis::seconds(end),
        Axis::from_zero(most),
    );
    plot.lines = lines;
    if let Some(crash) = figures.configurations.iter().find_map(|measured| measured.crashes.first()) {
        let (from, to) = (crash.died_at_ms / 1_000.0, crash.started_at_ms / 1_000.0);
        plot.bands.push(Band { name: "a pod is dead".to_owned(), colour: Colour::Grey, from, to });
    }
    plot
}

fn stuck_over_time(figures: &Figures) -> Plot {
    let died = |crash: &Crash| crash.died_at_ms / 1_000.0;
    let mut lines = Vec::new();
    let (mut end, mut most) = (1.0_f64, 1.0_f64);
    for measured in &figures.configurations {
        let Some(crash) = measured.crashes.first() else { continue };
        let points = crash.waves.iter().map(|wave| {
            let stuck = float(wave.items_stuck + wave.users_stuck);
            most = most.max(stuck);
            Point::at(died(crash) + wave.after_death_ms / 1_000.0, stuck)
        });
        let points: Vec<Point> = points.collect();
        end = points.last().map_or(end, |last| end.max(last.x));
        lines.push(Line::new(measured.configuration.name(), colour(measured.configuration), points));
    }
    let mut plot =
        Plot::new("Items and users that could not buy", Axis::seconds(end + 0.5), Axis::from_zero(most));
    plot.lines = lines;
    if let Some(crash) = figures.configurations.iter().find_map(|measured| measured.crashes.first()) {
        let (from, to) = (died(crash), crash.started_at_ms / 1_000.0);
        plot.bands.push(Band { name: "a pod is dead".to_owned(), colour: Colour::Grey, from, to });
    }
    plot
}

fn costs(figures: &Figures) -> Table {
    let mut table = Table::new(&[
        ("each checkout", Align::Left),
        ("messages", Align::Right),
        ("frames", Align::Right),
        ("bytes sent", Align::Right),
        ("fsyncs", Align::Right),
        ("bytes written", Align::Right),
    ]);
    for measured in &figures.configurations {
        table.cells(vec![
            measured.configuration.name().to_owned(),
            cell(measured.cost(|cost| cost.messages)),
            cell(measured.cost(|cost| cost.frames)),
            cell(measured.cost(|cost| cost.sent_bytes)),
            cell(measured.cost(|cost| cost.fsyncs)),
            cell(measured.cost(|cost| cost.written_bytes)),
        ]);
    }
    table
}

fn verification(figures: &Figures) -> Table {
    let mut columns = vec![("inconsistencies", Align::Left)];
    columns
        .extend(figures.configurations.iter().map(|measured| (measured.configuration.name(), Align::Right)));
    let mut table = Table::new(&columns);
    for (at, (what, _)) in verified(figures).iter().enumerate() {
        let mut row = vec![what.replace(" inconsistencies", "")];
        row.extend(figures.configurations.iter().map(|measured| {
            measured.verified.map_or_else(|| "not verified".to_owned(), |counts| counts[at].to_string())
        }));
        table.cells(row);
    }
    table
}

fn settings(figures: &Figures) -> Table {
    let (plan, mut table) = (&figures.plan, Table::new(&[("", Align::Left), ("", Align::Left)]));
    let front =
        if figures.behind_nginx { "three pods, nginx in front" } else { "three pods, without an nginx" };
    table.row(["cluster", front]);
    table.row(["clients", &format!("{} at once, on the same machine", plan.clients)]);
    let rounds = format!("{}, pods die in the first {}", plan.rounds, plan.rounds_with_crashes);
    table.row(["rounds", &rounds]);
    table.row([
        "load",
        &format!(
            "{} s after {} s of warm-up; skewed demand: {} orders",
            plan.load_seconds,
            plan.warm_up_seconds,
            grouped(plan.skewed_orders)
        ),
    ]);
    let away = format!(
        "{} s of load, {} s with a pod dead, {} s after",
        plan.before_seconds, plan.away_seconds, plan.after_seconds
    );
    table.row(["deaths", &away]);
    table.row(["it took", &format!("{} s", short(figures.took_seconds))]);
    table.row(["machine", &figures.machine.line()]);
    table
}
