//! One seed from start to end: faults and load, then mending, rest, and the books.

use crate::pod::State;
use crate::scenario::Scenario;
use crate::setting::Setting;
use crate::world::{Counts, World};
use kassa::histories::books::{self, Report};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// After the faults have ended every request ends within that long, on any pod's clock.
const ENDS_WITHIN_US: u64 = 40_000_000;
/// And then all that is open is resolved within that long.
const RESTS_WITHIN_US: u64 = 40_000_000;
/// How often the harness looks whether all is at rest.
const LOOK_US: u64 = 100_000;
/// Events of one seed: many times what any needs, so that a loop without end is a failure.
const EVENTS_MAX: u64 = 3_000_000;

/// What a seed did, if it did no wrong.
#[derive(Debug, Default)]
pub struct Ran {
    pub counts: Counts,
    pub report: Report,
    pub virtual_us: u64,
}

/// Runs one seed, of which `setting` fixes a part.
///
/// # Errors
/// What was found wrong, for people.
pub fn run(seed: u64, setting: &Setting, talks: bool) -> Result<Ran, String> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut scenario = Scenario::of(&mut rng);
    setting.apply(&mut scenario);
    if talks {
        eprintln!("{scenario:#?}");
    }
    lead(&mut World::new(scenario, rng, talks))
}

/// Leads a world through its faults to the rest after them, and checks its books.
///
/// # Errors
/// What was found wrong, for people.
pub fn lead(world: &mut World) -> Result<Ran, String> {
    let faults_end_us = world.scenario.faults_end_us;
    until(world, faults_end_us, |_| false)?;
    world.mend();
    until(world, faults_end_us + ENDS_WITHIN_US, |world| world.clients.all_idle())?;
    if !world.clients.all_idle() {
        return Err(format!("requests without an end:\n  {}", world.clients.stuck().join("\n  ")));
    }
    let rests_by_us = world.now_us + RESTS_WITHIN_US;
    while let Some(open) = world.open() {
        if world.now_us >= rests_by_us {
            return Err(format!("never comes to rest:\n  {}", open.join("\n  ")));
        }
        let next = world.now_us + LOOK_US;
        until(world, next, |_| false)?;
    }
    // Twice, of whichever pods: all say the same.
    for _ in 0..2 {
        world.read_everything();
        let by_us = world.now_us + ENDS_WITHIN_US;
        until(world, by_us, |world| world.clients.all_idle())?;
        if !world.clients.all_idle() {
            return Err(format!("last reads without an end:\n  {}", world.clients.stuck().join("\n  ")));
        }
    }
    let report = books::check(&world.clients.shop, world.counts.faults);
    if !report.wrong.is_empty() {
        let wrong: Vec<String> = report.wrong.iter().map(ToString::to_string).collect();
        return Err(wrong.join("\n  "));
    }
    let settled = world.pods.iter().filter_map(|pod| pod.status()).map(|status| status.reads_settled);
    world.counts.reads_settled = settled.sum();
    Ok(Ran { counts: world.counts, report, virtual_us: world.now_us })
}

/// Steps the world up to a time, or until something holds.
pub fn until(world: &mut World, until_us: u64, holds: impl Fn(&World) -> bool) -> Result<(), String> {
    while !holds(world) && world.step(until_us) {
        if world.counts.events > EVENTS_MAX {
            return Err(format!("more than {EVENTS_MAX} events: something spins"));
        }
    }
    Ok(())
}

impl World {
    /// What is still open on some pod; nothing if all is resolved and finished.
    fn open(&self) -> Option<Vec<String>> {
        let mut open = Vec::new();
        for pod in &self.pods {
            let id = pod.id;
            match pod.state {
                State::Waiting => open.push(format!("{id} waits to be replaced")),
                // Not started again yet: it has yet to say what is open.
                State::Down => open.push(format!("{id} is down")),
                State::Up | State::Dead => {}
            }
            let Some(status) = pod.status() else { continue };
            for disk in status.disks.iter().filter(|disk| !disk.whole) {
                open.push(format!("p{} is not whole, says {id}", disk.pod));
            }
            open.extend(status.not_ready.iter().map(|why| format!("{id} is not ready: {why}")));
            for shard in status.shards.iter().filter(|shard| shard.open > 0) {
                open.push(format!("{id} {}/{} has {} open", shard.module, shard.shard, shard.open));
            }
            for (what, count) in [
                ("requests", status.requests),
                ("checkouts", status.checkouts),
                ("unfinished", status.unfinished),
            ] {
                if count > 0 {
                    open.push(format!("{id} has {count} {what}"));
                }
            }
        }
        (!open.is_empty()).then_some(open)
    }
}
