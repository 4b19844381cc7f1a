//! The judge: a thread of its own that checks scenes as they are finished, while the run goes on.

use crate::histories::books::{self, Book, Report, show};
use crate::histories::shop::Shop;
use crate::histories::workload::Plan;
use std::sync::mpsc::Receiver;
use tokio::sync::mpsc::UnboundedSender;

/// A shard may change its leader so many times in one storm, and each time a reservation of the one before
/// may be held until it is resolved: it bounds what reservations can hide from a reader in a storm.
const LEADERS_A_STORM: u64 = 50;

/// A scene that its clients have left, or that has been read back since.
pub struct Finished {
    pub no: u64,
    pub plan: Plan,
    pub shop: Shop,
    /// It is still to be read back: only what was answered so far is judged.
    pub early: bool,
    /// Storms so far.
    pub storms: u64,
}

/// What is wrong with one scene.
#[derive(Clone, Debug)]
pub struct Finding {
    pub book: Book,
    /// One line.
    pub what: String,
    /// All there is to see, of many lines.
    pub evidence: String,
}

/// What became of a scene.
#[derive(Debug, Default)]
pub struct Judged {
    pub scenes: u64,
    pub operations: u64,
    pub charged: u64,
    pub refused: u64,
    pub repeats: u64,
    pub histories: u64,
    pub undecided: u64,
    pub sums: u64,
    pub findings: Vec<Finding>,
}

impl Judged {
    /// Counts another one in; its findings are left where they are.
    pub fn add(&mut self, other: &Self) {
        self.scenes += other.scenes;
        self.operations += other.operations;
        self.charged += other.charged;
        self.refused += other.refused;
        self.repeats += other.repeats;
        self.histories += other.histories;
        self.undecided += other.undecided;
        self.sums += other.sums;
    }
}

/// Judges every scene that comes, until no more can come.
pub fn run(scenes: &Receiver<Finished>, told: &UnboundedSender<Judged>) {
    for scene in scenes {
        if told.send(judge(&scene)).is_err() {
            return;
        }
    }
}

fn judge(scene: &Finished) -> Judged {
    let judge = if scene.early { books::check_answers } else { books::check };
    let report = judge(&scene.shop, scene.storms * LEADERS_A_STORM);
    let Report { operations, charged, refused, repeats, histories, undecided, sums, wrong } = report;
    let finding = |wrong: books::Wrong| {
        let what = wrong.text.lines().next().unwrap_or_default().to_owned();
        Finding { book: wrong.book, what, evidence: evidence(scene, &wrong.text) }
    };
    let findings = wrong.into_iter().map(finding).collect();
    if scene.early {
        // It is counted when all of it is there.
        return Judged { findings, ..Judged::default() };
    }
    Judged { scenes: 1, operations, charged, refused, repeats, histories, undecided, sums, findings }
}

/// What is wrong, who is meant by the numbers in it, and every request of the scene.
fn evidence(scene: &Finished, text: &str) -> String {
    let shop = &scene.shop;
    let mut lines = vec![text.to_owned(), String::new(), format!("Scene {}: {:?}", scene.no, scene.plan)];
    for (no, user) in shop.users.iter().enumerate() {
        lines.push(format!("  user {no} is {}", user.id));
    }
    for (no, item) in shop.items.iter().enumerate() {
        lines.push(format!("  item {no} is {}, {} a unit", item.id, item.price));
    }
    for (no, order) in shop.orders.iter().enumerate() {
        lines.push(format!("  order {no} is {}, of user {}", order.id, order.user));
    }
    lines.push(
        "\nEvery request of it: [asked..told], in microseconds of the run, client, what, answer".to_owned(),
    );
    lines.extend(shop.history.iter().map(|record| {
        let key = shop.keys[record.key].id;
        format!("  {} key {:032x}{}", show(record), key.0, if record.last { " (last read)" } else { "" })
    }));
    lines.join("\n")
}
