//! Breadth-first search over all states that a model can be in, with the shortest way to a violation.
//!
//! A state is known by a fingerprint of 128 bits: that two of some hundred million would share one has
//! a chance of less than 10⁻²⁰. States that are expanded are forgotten; the step that led to each is kept,
//! so that a way is walked again from the start to be shown.

use std::collections::{HashSet, VecDeque};
use std::fmt::Write as _;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Instant;

/// What can be searched.
pub trait Model {
    type State: Clone;
    type Step: Copy;
    fn first(&mut self) -> Self::State;
    fn fingerprint(&self, state: &Self::State) -> u128;
    /// The steps that may be taken in a state.
    fn steps(&mut self, state: &Self::State, steps: &mut Vec<Self::Step>);
    /// Takes a step; `None` if it changes nothing.
    ///
    /// # Errors
    /// If a property is violated: says which.
    fn take(&mut self, state: &Self::State, step: Self::Step) -> Result<Option<Self::State>, String>;
    /// A property of a state alone, with the way on that violates it if it is one of what comes of it.
    ///
    /// # Errors
    /// If it is violated: says which.
    fn check(&mut self, state: &Self::State) -> Result<(), String>;
    /// The step in words, with what comes of it.
    fn show(&mut self, state: &Self::State, step: Self::Step) -> String;
}

/// How a search ended.
#[derive(Debug)]
pub struct Outcome {
    pub states: usize,
    pub transitions: usize,
    pub depth: u32,
    pub seconds: f64,
    pub violation: Option<Violation>,
}

#[derive(Debug)]
pub struct Violation {
    pub what: String,
    /// The shortest way there, a step a line.
    pub way: String,
}

/// Passes a fingerprint on as it is: it is a hash already.
#[derive(Default)]
pub struct Fingerprint(u64);

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        let mut word = [0; 8];
        let taken = bytes.len().min(word.len());
        word[..taken].copy_from_slice(&bytes[..taken]);
        self.0 ^= u64::from_le_bytes(word);
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

pub type Fingerprints = HashSet<u128, BuildHasherDefault<Fingerprint>>;

/// How each state was first reached: from which, by which step.
type Ways<M> = Vec<(u32, <M as Model>::Step)>;

/// Visits every state that can be reached, up to the first violation.
///
/// # Panics
/// If there are more than `states_max`: then the bounds are too wide, and nothing is proved.
pub fn explore<M: Model>(model: &mut M, states_max: usize) -> Outcome {
    let begun = Instant::now();
    let first = model.first();
    let mut seen = Fingerprints::default();
    seen.insert(model.fingerprint(&first));
    let mut ways: Ways<M> = Vec::new();
    let mut queue = VecDeque::from([(0, first.clone())]);
    // Index 0 is the first state, so that of `ways[i]` is i + 1.
    let (mut transitions, mut depth, mut level_ends) = (0, 0, 1);
    let (mut expanded, mut steps) = (0, Vec::new());
    let mut violation = None;
    'search: while let Some((at, state)) = queue.pop_front() {
        if expanded == level_ends {
            depth += 1;
            level_ends = ways.len() + 1;
        }
        expanded += 1;
        steps.clear();
        model.steps(&state, &mut steps);
        for &step in &steps {
            let next = match model.take(&state, step) {
                Ok(None) => continue,
                Ok(Some(next)) => next,
                Err(what) => {
                    violation = Some(Violation { what, way: walk(model, &first, &ways, at, Some(step)) });
                    break 'search;
                }
            };
            transitions += 1;
            if !seen.insert(model.fingerprint(&next)) {
                continue;
            }
            ways.push((at, step));
            let index = u32::try_from(ways.len()).expect("fewer states than that fit in memory");
            if let Err(what) = model.check(&next) {
                violation = Some(Violation { what, way: walk(model, &first, &ways, index, None) });
                break 'search;
            }
            assert!(ways.len() < states_max, "more than {states_max} states: nothing is proved");
            queue.push_back((index, next));
        }
    }
    Outcome { states: ways.len() + 1, transitions, depth, seconds: begun.elapsed().as_secs_f64(), violation }
}

/// The way to the state of that index, and one step beyond, in words.
fn walk<M: Model>(
    model: &mut M,
    first: &M::State,
    ways: &Ways<M>,
    mut at: u32,
    last: Option<M::Step>,
) -> String {
    let mut steps: Vec<M::Step> = last.into_iter().collect();
    while at > 0 {
        let (before, step) = ways[at as usize - 1];
        steps.push(step);
        at = before;
    }
    let mut way = String::new();
    let mut state = first.clone();
    for (i, step) in steps.into_iter().rev().enumerate() {
        let _ = writeln!(way, "{:>3}  {}", i + 1, model.show(&state, step));
        match model.take(&state, step) {
            Ok(Some(next)) => state = next,
            Ok(None) | Err(_) => break,
        }
    }
    way
}
