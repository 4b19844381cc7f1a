//! What a run says in the end, for people and for programs.

use super::ends::Ends;
use super::run::{Run, line};
use super::schedule::Spell;
use super::tally::{BIN_US, Bin};
use crate::cli::page::number::grouped;
use crate::histories::books::Book;
use anyhow::Context;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Findings that are kept in files of their own.
const EVIDENCE_MAX: usize = 10;
/// Findings that are listed.
const SHOWN_MAX: usize = 20;

/// Where something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Book(Book),
    /// An answer that the contract does not have.
    Answers,
    /// A process ended by itself.
    Processes,
    /// What has no end though nothing is broken.
    Progress,
    Disks,
    /// The checks themselves.
    Checks,
}

impl Part {
    const fn word(self) -> &'static str {
        match self {
            Self::Book(Book::StockTold) => "stock told",
            Self::Book(Book::StockHeld) => "stock held",
            Self::Book(Book::PaymentTold) => "payment told",
            Self::Book(Book::PaymentHeld) => "payment held",
            Self::Answers => "answers",
            Self::Processes => "processes",
            Self::Progress => "progress",
            Self::Disks => "disks",
            Self::Checks => "checks",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Finding {
    pub part: Part,
    pub at_ms: u64,
    /// What was broken when it was found.
    pub during: String,
    pub what: String,
    pub evidence: String,
    pub file: Option<String>,
}

/// Everything there is to tell.
#[derive(Clone, Debug)]
pub struct Report {
    pub seed: u64,
    pub again: String,
    pub data: String,
    pub behind_nginx: bool,
    pub pods: u16,
    pub interrupted: bool,
    pub spells: Vec<Spell>,
    pub bins: Vec<Bin>,
    pub ends: Ends,
    pub findings: Vec<Finding>,
    pub requests: u64,
    pub answers: BTreeMap<String, u64>,
    pub unexcused: u64,
    pub slowest_ms: u64,
    pub scenes: u64,
    pub operations: u64,
    pub charged: u64,
    pub refused: u64,
    pub repeats: u64,
    pub histories: u64,
    pub undecided: u64,
    pub sums: u64,
}

impl Report {
    #[must_use]
    pub fn new(run: &Run<'_>, ends: Ends) -> Self {
        let tally = run.load.tally.borrow();
        let begun_ms = ends.healed_us / 1_000;
        let mut findings = run.findings.clone();
        for (number, finding) in findings.iter_mut().enumerate().take(EVIDENCE_MAX) {
            let file = run.cluster.data.join(format!("evidence-{}.txt", number + 1));
            finding.file = Some(file.display().to_string());
        }
        Self {
            seed: run.order.seed,
            again: run.order.again(),
            data: run.cluster.data.display().to_string(),
            behind_nginx: run.cluster.has_nginx(),
            pods: run.order.args.pods,
            interrupted: run.is_interrupted(),
            spells: run.spells.iter().filter(|spell| spell.from_ms < begun_ms).cloned().collect(),
            bins: tally.bins.clone(),
            ends,
            findings,
            requests: tally.requests,
            answers: tally.answers.clone(),
            unexcused: tally.unexcused,
            slowest_ms: tally.slowest_us / 1_000,
            scenes: run.sum.scenes,
            operations: run.sum.operations,
            charged: run.sum.charged,
            refused: run.sum.refused,
            repeats: run.sum.repeats,
            histories: run.sum.histories,
            undecided: run.sum.undecided,
            sums: run.sum.sums,
        }
    }

    #[must_use]
    pub fn is_good(&self) -> bool {
        self.findings.is_empty() && self.ends.complete
    }

    fn count(&self, book: Book) -> usize {
        self.findings.iter().filter(|finding| finding.part == Part::Book(book)).count()
    }

    /// The four lines of `kassa verify`.
    fn books(&self) -> [(&'static str, usize); 4] {
        [
            ("Stock service inconsistencies in the logs", self.count(Book::StockTold)),
            ("Stock service inconsistencies in the database", self.count(Book::StockHeld)),
            ("Payment service inconsistencies in the logs", self.count(Book::PaymentTold)),
            ("Payment service inconsistencies in the database", self.count(Book::PaymentHeld)),
        ]
    }

    /// Writes a file for each of the first findings.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn write_evidence(&self, run: &Run<'_>) -> anyhow::Result<()> {
        for finding in &self.findings {
            let Some(file) = &finding.file else { continue };
            let mut text = format!(
                "{}\n\nFound after {} ms ({}). Again: {}\nWhat the pods said is in {}/pod-N/log.\n\n{}\n\nWhat was broken when, in seconds:\n",
                finding.what, finding.at_ms, finding.during, self.again, self.data, finding.evidence
            );
            for spell in run.spells.iter().take_while(|spell| spell.from_ms <= finding.at_ms) {
                let _ = writeln!(text, "  {}", line(spell));
            }
            std::fs::write(file, text).with_context(|| format!("cannot write {file}"))?;
        }
        Ok(())
    }

    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.checked();
        let answers: Vec<String> =
            self.answers.iter().map(|(word, count)| format!("{word} × {}", grouped(*count))).collect();
        let _ = writeln!(text, "\nanswers, by attempt: {}", answers.join(", "));
        if self.behind_nginx {
            let _ = writeln!(
                text,
                "errors that clients saw while at most one pod was ill and nginx was well: {}",
                self.unexcused
            );
        }
        text.push('\n');
        for (what, count) in self.books() {
            let _ = writeln!(text, "torture - {what}: {count}");
        }
        for finding in self.findings.iter().take(SHOWN_MAX) {
            let _ = writeln!(
                text,
                "\nWRONG ({}) after {} s, {}:\n  {}",
                finding.part.word(),
                finding.at_ms / 1_000,
                finding.during,
                finding.what
            );
            if let Some(file) = &finding.file {
                let _ = writeln!(text, "  evidence: {file}");
            }
        }
        let verdict = if !self.findings.is_empty() {
            format!("torture - {} WRONG", self.findings.len())
        } else if self.interrupted {
            "torture - interrupted, with nothing found".to_owned()
        } else {
            "torture - all good: nothing lost, nothing untrue, all well again".to_owned()
        };
        let _ =
            write!(text, "\n{verdict}\n  timeline: {}/torture.html\n  again:    {}", self.data, self.again);
        text
    }

    /// What was checked, and how much of it.
    fn checked(&self) -> String {
        let ends = &self.ends;
        let after = |ms: Option<u64>| {
            ms.map_or_else(
                || "not".to_owned(),
                |ms| format!("after {}.{:01} s", ms / 1_000, ms % 1_000 / 100),
            )
        };
        let kinds: BTreeMap<&str, usize> = self.spells.iter().fold(BTreeMap::new(), |mut kinds, spell| {
            *kinds.entry(spell.fault.kind().word()).or_default() += 1;
            kinds
        });
        let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{kind} × {count}")).collect();
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["checked", "how much", ""]);
        let mut row = |what: &str, count: u64, more: String| {
            table.add_row([what.to_owned(), grouped(count), more]);
        };
        row("faults", u64::try_from(self.spells.len()).unwrap_or_default(), kinds.join(", "));
        row(
            "requests",
            self.operations,
            format!(
                "{} charged, {} refused; the slowest took {}.{:01} s",
                self.charged,
                self.refused,
                self.slowest_ms / 1_000,
                self.slowest_ms % 1_000 / 100
            ),
        );
        row(
            "histories linearizable",
            self.histories,
            format!("of users and items, in {} scenes; {} undecided", self.scenes, self.undecided),
        );
        row("sums of money and units", self.sums, "to the last place".to_owned());
        row("repeats under old keys", self.repeats + ends.keys_again, "each got its first answer".to_owned());
        if ends.complete {
            row(
                "asked again at the end",
                ends.asked_again,
                "of all pods: as it was, and all say the same".to_owned(),
            );
            row("disks", ends.disks, "`kassa check` found them whole".to_owned());
        }
        let mut text = table_text(&mut table);
        if ends.ready_after_ms.is_some() {
            let _ = write!(
                text,
                "\n\nafter the last fault: all pods ready {}, {} answers a second {} ({} before the faults),\n  the last requests ended {}, nothing in flight {}",
                after(ends.ready_after_ms),
                ends.rate_after,
                after(ends.back_after_ms),
                ends.rate_before,
                after(ends.requests_end_after_ms),
                after(ends.quiet_after_ms)
            );
        }
        text
    }

    /// # Errors
    /// None in practice: all of it has a JSON form.
    pub fn json(&self) -> anyhow::Result<String> {
        #[derive(Serialize)]
        struct Shown<'a> {
            part: &'a str,
            at_ms: u64,
            during: &'a str,
            what: &'a str,
            evidence: Option<&'a str>,
        }
        let findings: Vec<Shown<'_>> = (self.findings.iter())
            .map(|finding| Shown {
                part: finding.part.word(),
                at_ms: finding.at_ms,
                during: &finding.during,
                what: &finding.what,
                evidence: finding.file.as_deref(),
            })
            .collect();
        let faults: Vec<serde_json::Value> = (self.spells.iter())
            .map(|spell| {
                serde_json::json!({
                    "from_ms": spell.from_ms,
                    "to_ms": spell.to_ms,
                    "kind": spell.fault.kind(),
                    "what": spell.fault.to_string(),
                    "majority": spell.majority,
                })
            })
            .collect();
        let per_bin: Vec<[u64; 2]> = self.bins.iter().map(|bin| [bin.told, bin.failed]).collect();
        let books: BTreeMap<&str, usize> = self.books().into_iter().collect();
        let ends = &self.ends;
        let value = serde_json::json!({
            "good": self.is_good(),
            "complete": ends.complete,
            "seed": self.seed,
            "again": self.again,
            "data": self.data,
            "behind_nginx": self.behind_nginx,
            "pods": self.pods,
            "faults": faults,
            "checked": {
                "scenes": self.scenes,
                "operations": self.operations,
                "charged": self.charged,
                "refused": self.refused,
                "repeats": self.repeats + ends.keys_again,
                "histories": self.histories,
                "undecided": self.undecided,
                "sums": self.sums,
                "asked_again": ends.asked_again,
                "disks": ends.disks,
            },
            "requests": self.requests,
            "slowest_ms": self.slowest_ms,
            "answers": self.answers,
            "errors_while_at_most_one_pod_was_ill": self.unexcused,
            "after_the_faults": {
                "ready_after_ms": ends.ready_after_ms,
                "answers_per_second_before": ends.rate_before,
                "answers_per_second_after": ends.rate_after,
                "throughput_back_after_ms": ends.back_after_ms,
                "requests_end_after_ms": ends.requests_end_after_ms,
                "nothing_in_flight_after_ms": ends.quiet_after_ms,
            },
            "inconsistencies": books,
            "findings": findings,
            "bin_ms": BIN_US / 1_000,
            "told_and_failed_per_bin": per_bin,
        });
        serde_json::to_string_pretty(&value).context("cannot write the report as JSON")
    }
}

fn table_text(table: &mut Table) -> String {
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}
