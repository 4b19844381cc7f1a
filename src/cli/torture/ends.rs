//! What must hold when the last fault is over: all is well again soon, whatever was known is still so, every
//! pod says the same, and every disk is whole.

use super::report::Part;
use super::run::Run;
use super::scene::Known;
use super::wire;
use crate::cli::crowd::{self, Ask, Told};
use crate::cli::http::{Connection, Target};
use crate::histories::books::{Book, told};
use crate::modules::request::{Op, Outcome};
use crate::node::Status;
use std::time::{Duration, Instant};

/// After the last fault every pod is ready within that, every request ends, throughput is back, and then,
/// once the load has stopped, nothing is in flight any more.
pub const PROGRESS_WITHIN: Duration = Duration::from_secs(10);
/// Throughput counts as back at this share of what it was before the first fault: what has not recovered answers
/// next to nothing, and the machine may have become busy with other things meanwhile.
const BACK: (u64, u64) = (1, 10);
/// What was finished only has to be read back: some of it within any so long, however slow the machine.
const READ_STALLS_AFTER: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);
/// Asked again at the end: this many of what is known, and of those this many of every pod.
const KNOWN_MAX: usize = 12_000;
const KNOWN_OF_ALL_MAX: usize = 2_000;
/// Clients at once that ask again.
const ASKERS: usize = 16;
/// Keys are kept for ten minutes; those that are about to expire are left alone.
const KEY_AGE_US_MAX: u64 = 8 * 60 * 1_000_000;
/// Of the histories, at most one in so many may be too tangled to be decided.
const UNDECIDED: u64 = 50;

/// How it ended.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    /// Whether the run went to its end.
    pub complete: bool,
    pub healed_us: u64,
    pub ready_after_ms: Option<u64>,
    pub rate_before: u64,
    pub rate_after: u64,
    pub back_after_ms: Option<u64>,
    pub requests_end_after_ms: Option<u64>,
    pub quiet_after_ms: Option<u64>,
    pub asked_again: u64,
    pub keys_again: u64,
    pub disks: u64,
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Waits for the end of everything and checks it.
///
/// # Errors
/// Where the disks cannot be looked at.
pub async fn check(run: &mut Run<'_>) -> anyhow::Result<Ends> {
    let mut ends = Ends { healed_us: run.load.now_us(), ..Ends::default() };
    run.weather.ends();
    if !run.has_enough() {
        settle(run, &mut ends).await;
    }
    if !run.has_enough() {
        again(run, &mut ends).await;
    }
    run.load.stops.set(true);
    run.load.gives_up.set(true);
    let stopped = run.cluster.stop().await;
    if !run.has_enough() {
        if let Err(what) = stopped {
            run.found(Part::Processes, what.clone(), what);
        }
        for what in run.cluster.check_disks().await? {
            run.found(Part::Disks, what.lines().next().unwrap_or_default().to_owned(), what);
        }
        ends.disks = u64::from(run.order.args.pods);
        let (undecided, histories) = (run.sum.undecided, run.sum.histories);
        if undecided * UNDECIDED > histories {
            let what = format!("{undecided} of {histories} histories are too tangled to be decided");
            run.found(Part::Checks, what.clone(), what);
        }
        let (unexcused, shown) = {
            let tally = run.load.tally.borrow();
            (tally.unexcused, tally.unexcused_shown.join("\n  "))
        };
        if unexcused > 0 {
            let what =
                format!("clients saw {unexcused} errors while at most one pod was ill and nginx was well");
            run.found(Part::Answers, what.clone(), format!("{what}:\n  {shown}"));
        }
        ends.complete = true;
    }
    Ok(ends)
}

/// Everybody ready, throughput back, every request ended, every scene read back, nothing in flight.
async fn settle(run: &mut Run<'_>, ends: &mut Ends) {
    run.bar.set_message("the faults are over; all must be well soon");
    let began = Instant::now();
    match run.cluster.ready(PROGRESS_WITHIN).await {
        Ok(()) => ends.ready_after_ms = Some(millis(began)),
        Err(why) => progress(run, format!("{} s after the last fault {why}", PROGRESS_WITHIN.as_secs())),
    }
    let healed_us = ends.healed_us;
    let within_ms = u64::try_from(PROGRESS_WITHIN.as_millis()).unwrap_or(u64::MAX);
    if !run.until(healed_us / 1_000 + within_ms).await {
        return;
    }
    rates(run, ends);

    run.load.stops.set(true);
    let stops = Instant::now();
    while run.load.busy_clients.get() > 0 && stops.elapsed() < PROGRESS_WITHIN {
        tokio::time::sleep(POLL).await;
    }
    if run.load.busy_clients.get() == 0 {
        ends.requests_end_after_ms = Some(millis(stops));
    } else {
        let stuck = run.load.busy_clients.get();
        progress(
            run,
            format!("{stuck} requests have no end {} s after they were the last", PROGRESS_WITHIN.as_secs()),
        );
        return;
    }
    run.bar.set_message("reading everything back");
    let (mut open, mut last_read) = (run.load.open_scenes.get(), Instant::now());
    while open > 0 && !run.has_enough() {
        run.notice();
        tokio::time::sleep(POLL).await;
        if open != run.load.open_scenes.get() {
            (open, last_read) = (run.load.open_scenes.get(), Instant::now());
        } else if last_read.elapsed() > READ_STALLS_AFTER {
            let seconds = READ_STALLS_AFTER.as_secs();
            return progress(run, format!("none of {open} scenes could be read back for {seconds} s"));
        }
    }
    let quiet = Instant::now();
    loop {
        let open = in_flight(&run.cluster.pods).await;
        if open.is_empty() {
            ends.quiet_after_ms = Some(millis(quiet));
            return;
        }
        if quiet.elapsed() > PROGRESS_WITHIN {
            return progress(run, format!("never comes to rest: {}", open.join(", ")));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn progress(run: &mut Run<'_>, what: String) {
    run.found(Part::Progress, what.clone(), what);
}

fn rates(run: &mut Run<'_>, ends: &mut Ends) {
    let first_us = run.spells.first().map_or(u64::MAX, |spell| spell.from_ms * 1_000);
    let healed_us = ends.healed_us;
    {
        let tally = run.load.tally.borrow();
        // The first second is taken up with the first users and items.
        ends.rate_before = tally.rate(1_000_000, first_us.min(healed_us));
        ends.rate_after = tally.rate(healed_us, run.load.now_us());
        let wanted = ends.rate_before * BACK.0 / BACK.1;
        ends.back_after_ms = tally.back_after_us(healed_us, wanted).map(|us| us / 1_000);
    }
    if ends.back_after_ms.is_none() {
        progress(
            run,
            format!(
                "{} answers a second after the faults, {} before them",
                ends.rate_after, ends.rate_before
            ),
        );
    }
}

/// What is still open on some pod.
async fn in_flight(pods: &[Target]) -> Vec<String> {
    let mut open = Vec::new();
    for target in pods {
        let url = target.url();
        let request = target.request("GET", "/status", None);
        let status = match Connection::new(target).ask(&request).await {
            Ok(answer) => serde_json::from_str::<Status>(&answer.body).ok(),
            Err(_) => None,
        };
        let Some(status) = status else {
            open.push(format!("{url} does not tell its status"));
            continue;
        };
        let shards: u64 = status.shards.iter().map(|shard| shard.open).sum();
        let counts = [
            ("requests", status.requests),
            ("checkouts", status.checkouts),
            ("unfinished charges", status.unfinished),
            ("open in shards", shards),
        ];
        let some = counts.into_iter().filter(|(_, count)| *count > 0);
        open.extend(some.map(|(what, count)| format!("{url} has {count} {what}")));
        open.extend(status.not_ready);
    }
    open
}

/// Asks everything again that is known.
async fn again(run: &mut Run<'_>, ends: &mut Ends) {
    // The judge has all scenes by now, and is not told of any more.
    while let Some(waits) = run.load.handed_over.get().checked_sub(run.sum.scenes).filter(|&waits| waits > 0)
    {
        run.bar.set_message(format!("{waits} scenes are still to be judged"));
        run.notice();
        tokio::time::sleep(POLL).await;
    }
    run.notice();
    let now_us = run.load.now_us();
    let lives = |known: &Known| known.key.is_none() || now_us < known.told_us + KEY_AGE_US_MAX;
    let all: Vec<Known> = run.load.known.borrow().iter().filter(|known| lives(known)).cloned().collect();
    // Users and items first: they are what sums are made of.
    let (mut picked, orders): (Vec<Known>, Vec<Known>) = all.into_iter().partition(|known| {
        known.key.is_some() || matches!(known.op, Op::FindUser { .. } | Op::FindItem { .. })
    });
    picked.extend(thin(orders, KNOWN_MAX.saturating_sub(picked.len())));
    let picked = thin(picked, KNOWN_MAX);
    ends.keys_again =
        u64::try_from(picked.iter().filter(|known| known.key.is_some()).count()).unwrap_or_default();
    run.bar.set_message(format!("asking {} things again", picked.len()));
    let pods = run.cluster.pods.clone();
    let share = picked.len().div_ceil(pods.len().max(1)).max(1);
    for (part, pod) in picked.chunks(share).zip(&pods) {
        ask_again(run, ends, part, pod).await;
    }
    let some = thin(picked, KNOWN_OF_ALL_MAX);
    for pod in &pods {
        ask_again(run, ends, &some, pod).await;
    }
}

/// At most so many, spread over all.
fn thin(all: Vec<Known>, most: usize) -> Vec<Known> {
    let step = all.len().div_ceil(most.max(1)).max(1);
    if most == 0 { Vec::new() } else { all.into_iter().step_by(step).collect() }
}

async fn ask_again(run: &mut Run<'_>, ends: &mut Ends, known: &[Known], pod: &Target) {
    let ask = |known: &Known| {
        let (method, path) = wire::request(&known.op);
        Ask { method, path, key: known.key.clone() }
    };
    let asks = known.iter().map(ask).collect();
    let answers = crowd::ask_all(std::slice::from_ref(pod), ASKERS, asks, |_| {}).await;
    for (known, heard) in known.iter().zip(answers) {
        ends.asked_again += 1;
        let now = match heard {
            Told::Answer(answer) => wire::outcome(&known.op, answer.status, &answer.body),
            Told::Unknown(heard) => Err(heard),
        };
        if now != Ok(Outcome::Done(known.answer.clone())) {
            let url = pod.url();
            let what = format!("{url} says otherwise than before of {:?}", known.op);
            let seen = match &now {
                Ok(outcome) => format!("{outcome:?}"),
                Err(heard) => heard.clone(),
            };
            let key = known.key.as_deref().map_or_else(String::new, |key| format!(", under the key {key}"));
            let evidence =
                format!("{what}{key}\n  at {} µs: {:?}\n  now: {seen}", known.told_us, known.answer);
            let book = if told(&known.op) == Book::StockTold { Book::StockHeld } else { Book::PaymentHeld };
            run.found(Part::Book(book), what, evidence);
        }
    }
}
