//! Runs searches and says what they covered.

use crate::explore::{Model, explore};
use crate::world::{Rules, World};
use std::sync::Once;

/// Past so many the bounds are too wide for the memory of a small machine.
const STATES_MAX: usize = 150_000_000;

/// The parts that states are made of.
pub struct Size {
    pods: usize,
    messages: usize,
}

impl Size {
    pub fn of<R: Rules>(world: &World<R>) -> Self {
        Self { pods: world.pods_met(), messages: world.messages_met() }
    }
}

/// The bounds to search: the small ones; with `MODEL_BOUNDS=full` these and the others; or only the one that
/// it names.
pub fn of_size<'a, B>(small: &'a [B], full: &'a [B], name: impl Fn(&B) -> &str) -> Vec<&'a B> {
    let asked = std::env::var("MODEL_BOUNDS").unwrap_or_default();
    let found: Vec<&B> = match asked.as_str() {
        "" => small.iter().collect(),
        "full" => small.iter().chain(full).collect(),
        one => small.iter().chain(full).filter(|bounds| name(bounds) == one).collect(),
    };
    assert!(!found.is_empty(), "no bounds are called {asked}");
    found
}

/// Searches a model, prints its line of the table, and fails with the way to a violation if there is one.
pub fn search<M: Model>(model: &str, bounds: &str, world: &mut M, size: impl Fn(&M) -> Size) {
    static HEAD: Once = Once::new();
    HEAD.call_once(|| {
        println!(
            "{:<9} {:<16} {:>11} {:>12} {:>6} {:>10} {:>9} {:>8}",
            "model", "bounds", "states", "transitions", "depth", "pod states", "messages", "seconds"
        );
    });
    let outcome = explore(world, STATES_MAX);
    let Size { pods, messages } = size(world);
    println!(
        "{model:<9} {bounds:<16} {:>11} {:>12} {:>6} {pods:>10} {messages:>9} {:>8.1}",
        outcome.states, outcome.transitions, outcome.depth, outcome.seconds
    );
    if let Some(violation) = outcome.violation {
        panic!("{}\n{model}, {bounds}, after {} states:\n{}", violation.what, outcome.states, violation.way);
    }
}
