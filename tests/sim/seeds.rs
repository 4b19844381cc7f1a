//! The driver: many seeds over the machine's cores, and what they found.

use crate::run::{Ran, run};
use crate::setting::{MATRIX, Setting, settings, talks};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

/// Seeds of a plain `cargo test`: about a minute on two cores.
const SEEDS_DEFAULT: u64 = 60;
/// And of each configuration, besides.
const SEEDS_EACH: u64 = 3;
/// They are others than those above.
const FIRST_EACH: u64 = 10_000;
/// Failures after which a run stops, unless `FAILURES` says another number: the rest would say the same.
const FAILURES_MAX: u64 = 5;
/// Seeds in which a deliberate break has to be found.
#[cfg(feature = "breaks")]
const BREAK_SEEDS_DEFAULT: u64 = 2_000;

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Notes where a pod panicked instead of printing it: that is a finding of its seed.
fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().name() == Some("seed") {
                PANIC.with(|note| *note.borrow_mut() = Some(info.to_string()));
            } else {
                usual(info);
            }
        }));
    });
}

fn run_caught(seed: u64, setting: &Setting, talks: bool) -> Result<Ran, String> {
    catch_unwind(AssertUnwindSafe(|| run(seed, setting, talks))).unwrap_or_else(|_| {
        let note = PANIC.with(|note| note.borrow_mut().take());
        Err(note.unwrap_or_else(|| "panicked".to_owned()))
    })
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// A seed takes a few seconds at most on a machine with better things to do: after that many it spins
/// inside one step of a node, where nothing can stop it but the end of the process.
const SPINS_AFTER_S: u64 = 120;

/// The seeds under way and when they began.
#[derive(Default)]
struct Running(Mutex<std::collections::BTreeMap<u64, Instant>>);

impl Running {
    fn begin(&self, seed: u64) -> Instant {
        let now = Instant::now();
        self.0.lock().expect("no panic under it").insert(seed, now);
        now
    }

    fn end(&self, seed: u64) {
        self.0.lock().expect("no panic under it").remove(&seed);
    }

    /// Ends the process if a seed spins, until `done`.
    fn watch(&self, setting: &Setting, done: &Receiver<()>) {
        while done.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
            let running = self.0.lock().expect("no panic under it");
            let spins = running.iter().find(|(_, began)| began.elapsed().as_secs() > SPINS_AFTER_S);
            if let Some((seed, _)) = spins {
                eprintln!("\nseed {seed}: spins\n  again: {}", again(*seed, setting));
                std::process::exit(101);
            }
        }
    }
}

/// Sums over all seeds.
#[derive(Default)]
struct Totals {
    seeds: u64,
    operations: u64,
    charged: u64,
    refused: u64,
    repeats: u64,
    faults: u64,
    frames: u64,
    copies: u64,
    reads_settled: u64,
    replaced_disks: u64,
    events: u64,
    histories: u64,
    undecided: u64,
    sums: u64,
    virtual_us: u64,
    slowest: (u128, u64),
}

impl Totals {
    fn add(&mut self, seed: u64, ran: &Ran, took_ms: u128) {
        self.seeds += 1;
        self.operations += ran.report.operations;
        self.charged += ran.report.charged;
        self.refused += ran.report.refused;
        self.repeats += ran.report.repeats;
        self.histories += ran.report.histories;
        self.undecided += ran.report.undecided;
        self.sums += ran.report.sums;
        self.faults += ran.counts.faults;
        self.frames += ran.counts.frames;
        self.copies += ran.counts.copies;
        self.reads_settled += ran.counts.reads_settled;
        self.replaced_disks += u64::from(ran.counts.replaced_disks);
        self.events += ran.counts.events;
        self.virtual_us += ran.virtual_us;
        self.slowest = self.slowest.max((took_ms, seed));
    }

    fn print(&self) {
        println!(
            "{} seeds, {} s of virtual time: {} operations, {} checkouts answered, {} refusals, {} repeats, \
             {} faults, {} frames, {} copies of shards, {} reads settled by a quorum, \
             {} disks replaced, {} events; {} histories checked \
             ({} undecided), {} sums; slowest seed {} took {} ms",
            self.seeds,
            self.virtual_us / 1_000_000,
            self.operations,
            self.charged,
            self.refused,
            self.repeats,
            self.faults,
            self.frames,
            self.copies,
            self.reads_settled,
            self.replaced_disks,
            self.events,
            self.histories,
            self.undecided,
            self.sums,
            self.slowest.1,
            self.slowest.0
        );
    }

    /// A run that does nothing finds nothing: enough has to have happened.
    fn assert_enough(&self, setting: &Setting) {
        assert!(self.operations > self.seeds * 100, "hardly an operation");
        assert!(self.charged > self.seeds * 10, "hardly a checkout");
        assert!(self.refused > self.seeds, "hardly a refusal");
        assert!(self.repeats > self.seeds, "hardly a repeat");
        assert!(self.faults > self.seeds, "hardly a fault");
        if setting.has_copies() {
            assert!(self.copies * 4 > self.seeds, "hardly a copy of a shard");
        }
        if setting.reads_by_quorum() {
            assert!(self.reads_settled > self.seeds * 10, "hardly a read of a quorum");
        }
        assert!(self.sums > self.seeds, "hardly a sum");
        if setting.replaces_disks() {
            assert!(self.replaced_disks * 40 > self.seeds, "hardly a lost disk");
        }
        assert!(self.undecided * 20 <= self.histories, "too many histories undecided");
    }
}

struct Found {
    seed: u64,
    what: String,
}

fn run_seeds(setting: &Setting, first: u64, count: u64, failures_max: u64) -> (Totals, Vec<Found>) {
    note_panics();
    let next = AtomicU64::new(first);
    let shared = Mutex::new((Totals::default(), Vec::new()));
    let running = Running::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let (working, done) = channel();
        scope.spawn(|| running.watch(setting, &{ done }));
        for _ in 0..threads {
            let working = working.clone();
            let work = || {
                let _working = working;
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count
                        || shared.lock().expect("no panic under it").1.len() as u64 >= failures_max
                    {
                        return;
                    }
                    let began = running.begin(seed);
                    let ran = run_caught(seed, setting, false);
                    running.end(seed);
                    let mut shared = shared.lock().expect("no panic under it");
                    match ran {
                        Ok(ran) => shared.0.add(seed, &ran, began.elapsed().as_millis()),
                        Err(what) => {
                            eprintln!("seed {seed} fails");
                            shared.1.push(Found { seed, what });
                        }
                    }
                }
            };
            std::thread::Builder::new().name("seed".into()).spawn_scoped(scope, work).expect("a thread");
        }
    });
    let (totals, mut found) = shared.into_inner().expect("no panic under it");
    found.sort_by_key(|found| found.seed);
    (totals, found)
}

fn again(seed: u64, setting: &Setting) -> String {
    format!("{setting}SEED={seed} TALK=1 cargo test --test sim seeds_hold")
}

fn complain(found: &[Found], setting: &Setting) -> ! {
    for Found { seed, what } in found {
        println!("\nseed {seed}: {what}\n  again: {}", again(*seed, setting));
    }
    panic!("{} of the seeds failed, the first is {}", found.len(), found[0].seed);
}

/// Runs seeds until one notices that the process is broken at the site called `name`.
#[cfg(feature = "breaks")]
fn find_break(name: &str, setting: &Setting, first: u64) {
    let (totals, found) = run_seeds(setting, first, number("SEEDS").unwrap_or(BREAK_SEEDS_DEFAULT), 1);
    assert!(kassa_protocols::breaks::met(), "there is no break called {name}, or no seed ever comes to it");
    let Some(Found { seed, what }) = found.first() else {
        panic!("{name} was not noticed in {} seeds", totals.seeds);
    };
    println!("{name}: noticed after {} seeds, by seed {seed}: {what}", totals.seeds + 1);
}

fn hold(setting: &Setting, first: u64, count: u64) {
    let failures = number("FAILURES").unwrap_or(FAILURES_MAX);
    let (totals, found) = run_seeds(setting, first, count, failures);
    print!("{setting}");
    totals.print();
    if !found.is_empty() {
        complain(&found, setting);
    }
    if totals.seeds >= SEEDS_DEFAULT {
        totals.assert_enough(setting);
    }
}

#[test]
fn seeds_hold() {
    let settings = settings();
    if let Some(seed) = number("SEED") {
        note_panics();
        for setting in settings {
            let thread = std::thread::Builder::new().name("seed".into());
            let caught = {
                let setting = setting.clone();
                move || run_caught(seed, &setting, talks())
            };
            match thread.spawn(caught).expect("a thread").join().expect("caught") {
                Ok(ran) => println!("{setting}seed {seed} holds: {ran:?}"),
                Err(what) => complain(&[Found { seed, what }], &setting),
            }
        }
        return;
    }
    let first = number("FIRST").unwrap_or(0);
    #[cfg(feature = "breaks")]
    if let Ok(name) = std::env::var("BREAK") {
        find_break(&name, &settings[0], first);
        return;
    }
    for setting in &settings {
        hold(setting, first, number("SEEDS").unwrap_or(SEEDS_DEFAULT));
    }
}

#[test]
fn seeds_hold_in_every_configuration() {
    for (text, first) in MATRIX.iter().zip((FIRST_EACH..).step_by(100)) {
        hold(&Setting::parse(text), first, SEEDS_EACH);
    }
}

#[test]
fn a_seed_replays_to_the_last_event() {
    for seed in [3, 14] {
        let again = || run(seed, &Setting::default(), false).expect("a seed that holds").counts;
        assert_eq!(again(), again());
    }
}
