//! The figures on a terminal.

use super::conclude::{Told, conclude};
use super::crash::{HOT_SLICE, SLICE};
use super::figures::{Crash, Figures, Load, Measured, Spread};
use super::plan::Demand;
use crate::cli::page::number::{float, short};
use comfy_table::{CellAlignment, Table, presets};
use std::fmt::Write;
use std::time::Duration;

#[must_use]
pub fn text(figures: &Figures) -> String {
    let mut text = format!("{}\n", loads(figures));
    if figures.configurations.iter().any(|measured| !measured.crashes.is_empty()) {
        let _ = writeln!(text, "\n{}", deaths(figures));
    }
    text.push('\n');
    for conclusion in conclude(figures) {
        let sign = match conclusion.told {
            Told::Clear => "-",
            Told::Unclear => "?",
            Told::Missing => "…",
            Told::Wrong => "WRONG",
        };
        let _ = writeln!(text, "{sign} {}", conclusion.text);
    }
    for measured in &figures.configurations {
        for wrong in measured.disagreements.iter().chain(&measured.failures) {
            let _ = writeln!(text, "\nWRONG, {}: {wrong}", measured.configuration.name());
        }
    }
    text.push('\n');
    for (what, count) in verified(figures) {
        let _ = writeln!(text, "compare - {what}: {count}");
    }
    text.trim_end().to_owned()
}

/// The four lines of `verify`, over all configurations.
#[must_use]
pub fn verified(figures: &Figures) -> [(&'static str, usize); 4] {
    let sum =
        |at: usize| figures.configurations.iter().filter_map(|measured| Some(measured.verified?[at])).sum();
    [
        ("Stock service inconsistencies in the logs", sum(0)),
        ("Stock service inconsistencies in the database", sum(1)),
        ("Payment service inconsistencies in the logs", sum(2)),
        ("Payment service inconsistencies in the database", sum(3)),
    ]
}

/// The middle, and how far it reaches.
#[must_use]
pub fn cell(spread: Option<Spread>) -> String {
    let Some(Spread { middle, low, high }) = spread else { return "–".to_owned() };
    let apart = (high - low).abs() > 0.005 * middle.abs();
    if apart { format!("{} ({}–{})", short(middle), short(low), short(high)) } else { short(middle) }
}

fn loads(figures: &Figures) -> String {
    let mut header = vec!["checkouts/s".to_owned()];
    header.extend(Demand::ALL.map(|demand| demand.short().to_owned()));
    header.extend(["p50 ms", "p99 ms", "messages", "fsyncs"].map(str::to_owned));
    let rows = figures.configurations.iter().map(|measured| {
        let mut row = vec![measured.configuration.name().to_owned()];
        row.extend(Demand::ALL.map(|demand| cell(measured.spread(demand, |load| load.committed_per_second))));
        row.push(cell(measured.spread(Demand::Even, |load: &Load| load.p50_ms)));
        row.push(cell(measured.spread(Demand::Even, |load: &Load| load.p99_ms)));
        row.push(cell(measured.cost(|cost| cost.messages)));
        row.push(cell(measured.cost(|cost| cost.fsyncs)));
        row
    });
    table(header, rows)
}

fn deaths(figures: &Figures) -> String {
    let header = [
        "a pod dead",
        "sold, of before",
        "no sales, s",
        "items stuck",
        "users stuck",
        "one item: no sales, s",
    ];
    let rows = figures.configurations.iter().map(|measured| {
        vec![
            measured.configuration.name().to_owned(),
            cell(measured.crash(Crash::share)),
            silence(measured.crash(|crash| crash.silence_ms / 1_000.0), SLICE),
            stuck(measured, |crash| crash.last_away().map(|wave| (wave.items_stuck, wave.items_tried))),
            stuck(measured, |crash| crash.last_away().map(|wave| (wave.users_stuck, wave.users_tried))),
            silence(hot(measured), HOT_SLICE),
        ]
    });
    table(header.map(str::to_owned).to_vec(), rows)
}

/// In seconds.
#[must_use]
pub fn hot(measured: &Measured) -> Option<Spread> {
    Spread::of(&measured.hot_silences_ms.iter().map(|ms| ms / 1_000.0).collect::<Vec<_>>())
}

/// Silences in seconds, of which none is told from one that is shorter than `slice`.
#[must_use]
pub fn silence(spread: Option<Spread>, slice: Duration) -> String {
    let slice = slice.as_secs_f64();
    match spread {
        Some(Spread { high, .. }) if high < slice => format!("< {}", short(slice)),
        Some(_) | None => cell(spread),
    }
}

/// How many, of how many.
#[must_use]
pub fn stuck(measured: &Measured, pick: fn(&Crash) -> Option<(u64, u64)>) -> String {
    let all: Vec<(u64, u64)> = measured.crashes.iter().filter_map(pick).collect();
    let Some((_, tried)) = all.first() else { return "–".to_owned() };
    let counts: Vec<f64> = all.iter().map(|(stuck, _)| float(*stuck)).collect();
    format!("{} of {tried}", cell(Spread::of(&counts)))
}

fn table(header: Vec<String>, rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let columns = header.len();
    table.set_header(header);
    table.add_rows(rows);
    for column in 1..columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_tell_their_spread_where_there_is_one() {
        let spread = |low, middle, high| cell(Some(Spread { middle, low, high }));
        assert_eq!(cell(None), "–");
        assert_eq!(spread(2.0, 2.0, 2.0), "2");
        assert_eq!(spread(900.0, 1_000.0, 1_250.0), "1,000 (900–1,250)");
    }
}
