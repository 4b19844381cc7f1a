//! A handful of pods and the messages between them, as a model to be searched.
//!
//! # The network
//! A message once sent stays: it may be delivered at any time, in any order, any number of times, or never. A
//! link of the fabric is FIFO and delivers at most once, and a new one drops what was queued on the old one:
//! whatever that can do to messages, this can. Nor need pods that are down be modelled: they are pods to which
//! nothing is delivered, and to crash is to lose what is not on disk, and to be started again at once.
//!
//! A message is forgotten once it cannot matter any more, whatever else its receiver hears: see
//! [`Pod::is_over`]. Should its receiver crash and forget, it would matter again; but then its link is a new
//! one, and it would have been lost.
//!
//! # Compression
//! A pod's states are few, and the world's are combinations of them (the collapse of Holzmann's SPIN,
//! 1997). So pods, messages and books are kept once each and known by number, a state of the world is a
//! row of numbers, and a step of a pod is taken once per state of that pod and looked up from then on.

use crate::explore::Model;
use std::any::Any;
use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// One pod: a machine of the product, its disk, and what its user keeps. Asserts what must be true of it.
pub trait Pod: Clone + Hash {
    type Message: Clone + Eq + Hash + Debug;
    type Input: Copy + Eq + Hash + Debug;
    /// What it tells the books.
    type Note: fmt::Display;
    fn deliver(&mut self, from: u8, message: &Self::Message, out: &mut Out<Self>);
    fn input(&mut self, input: Self::Input, out: &mut Out<Self>);
    /// What it could tell others at any moment, and is heard at once or not at all: see [`Step::Hear`].
    fn says(&self) -> Vec<(u8, Self::Message)>;
    /// Whether a message cannot matter to this pod any more, whatever else it and its sender hear.
    fn is_over(&self, from: u8, sender: &Self, message: &Self::Message) -> bool;
}

/// What came of a pod's step.
pub struct Out<P: Pod> {
    pub send: Vec<(u8, P::Message)>,
    pub notes: Vec<P::Note>,
}

/// What a model adds to its pods: bounds, books and properties.
pub trait Rules {
    type Pod: Pod;
    /// What is counted or remembered over all pods.
    type Books: Clone + Eq + Hash + Debug;
    fn pods(&self) -> Vec<Self::Pod>;
    fn books(&self) -> Self::Books;
    /// The inputs that may come now, within bounds, besides messages.
    fn inputs(
        &self,
        pods: &[&Self::Pod],
        books: &Self::Books,
        inputs: &mut Vec<(u8, <Self::Pod as Pod>::Input)>,
    );
    /// Counts an input that changed something.
    fn count(&self, books: &mut Self::Books, pod: u8, input: <Self::Pod as Pod>::Input);
    /// Takes down what a pod told.
    ///
    /// # Errors
    /// If that must not be.
    fn note(&self, books: &mut Self::Books, pod: u8, note: &<Self::Pod as Pod>::Note) -> Result<(), String>;
    /// What must be true of every state, whatever is on its way.
    ///
    /// # Errors
    /// If it is not.
    fn check(&self, pods: &[&Self::Pod], books: &Self::Books) -> Result<(), String>;
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Cause<I> {
    Message(u32),
    Input(I),
}

/// What a step of a pod does, once and for all.
enum Known<N> {
    Same,
    To { pod: u32, send: Vec<u32>, notes: Vec<N> },
    Broken(String),
}

/// Things kept once and known by number.
struct Kept<T> {
    things: Vec<T>,
    numbers: HashMap<u128, u32>,
}

impl<T: Hash> Kept<T> {
    fn new() -> Self {
        Self { things: Vec::new(), numbers: HashMap::new() }
    }
    fn number(&mut self, thing: T) -> u32 {
        let next = u32::try_from(self.things.len()).expect("fewer things than that fit in memory");
        let number = *self.numbers.entry(digest(&thing)).or_insert(next);
        if number == next {
            self.things.push(thing);
        }
        number
    }
    fn get(&self, number: u32) -> &T {
        &self.things[number as usize]
    }
}

/// What a panic says: what a machine asserts is a property too.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
    text.unwrap_or_else(|| "a panic without words".to_owned())
}

/// Whether a step of a machine changes nothing and says nothing; a panic is for the search to find.
pub fn is_idle<M: Clone + Hash>(machine: &M, step: impl FnOnce(&mut M) -> bool) -> bool {
    let mut again = machine.clone();
    let silent = catch_unwind(AssertUnwindSafe(|| step(&mut again)));
    silent.is_ok_and(|silent| silent && digest(&again) == digest(machine))
}

/// A fingerprint of anything that can be hashed.
pub fn digest(thing: &impl Hash) -> u128 {
    struct Wide(Xxh3);
    impl Hasher for Wide {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            self.0.digest()
        }
    }
    let mut hasher = Wide(Xxh3::new());
    thing.hash(&mut hasher);
    hasher.0.digest128()
}

/// The pods' numbers, the books' number, and the numbers of the messages that may be delivered, in order.
pub type State = Box<[u32]>;

#[derive(Clone, Copy, Debug)]
pub enum Step<I> {
    Deliver(u32),
    /// A pod hears what another one says. For what says no more when it is late than it said before, and
    /// does not depend on what else is on its way.
    Hear(u32),
    Input(u8, I),
}

type InputOf<R> = <<R as Rules>::Pod as Pod>::Input;
type MessageOf<R> = <<R as Rules>::Pod as Pod>::Message;
type StepOf<R> = (u8, u32, Cause<InputOf<R>>);
type KnownOf<R> = Rc<Known<NoteOf<R>>>;
type NoteOf<R> = <<R as Rules>::Pod as Pod>::Note;

pub struct World<R: Rules> {
    rules: R,
    size: usize,
    pods: Kept<R::Pod>,
    /// Sender, receiver, and what is said.
    messages: Kept<(u8, u8, MessageOf<R>)>,
    books: Kept<R::Books>,
    /// By pod, its state, and what happens to it.
    known: HashMap<StepOf<R>, KnownOf<R>>,
    /// By receiver, sender and message, whether the message is over.
    over: HashMap<(u32, u32, u32), bool>,
    /// By pod, what it says.
    says: HashMap<(u8, u32), Vec<u32>>,
    checked: HashMap<Box<[u32]>, Result<(), String>>,
}

impl<R: Rules> World<R> {
    pub fn new(rules: R) -> Self {
        let size = rules.pods().len();
        Self {
            rules,
            size,
            pods: Kept::new(),
            messages: Kept::new(),
            books: Kept::new(),
            known: HashMap::new(),
            over: HashMap::new(),
            says: HashMap::new(),
            checked: HashMap::new(),
        }
    }

    /// How many states of single pods were met.
    pub fn pods_met(&self) -> usize {
        self.pods.things.len()
    }

    /// How many different messages were sent.
    pub fn messages_met(&self) -> usize {
        self.messages.things.len()
    }

    fn learn(&mut self, at: u8, pod: u32, cause: Cause<InputOf<R>>) {
        let mut next = self.pods.get(pod).clone();
        let before = digest(&next);
        let mut out = Out { send: Vec::new(), notes: Vec::new() };
        let taken = catch_unwind(AssertUnwindSafe(|| match cause {
            Cause::Message(number) => {
                let (from, _, message) = self.messages.get(number);
                next.deliver(*from, message, &mut out);
            }
            Cause::Input(input) => next.input(input, &mut out),
        }));
        let known = match taken {
            Err(panic) => Known::Broken(words(&*panic)),
            Ok(()) if out.send.is_empty() && out.notes.is_empty() && digest(&next) == before => Known::Same,
            Ok(()) => {
                let sent = out.send.into_iter().map(|(to, message)| self.messages.number((at, to, message)));
                let send: Vec<u32> = sent.collect();
                Known::To { pod: self.pods.number(next), send, notes: out.notes }
            }
        };
        self.known.insert((at, pod, cause), Rc::new(known));
    }

    /// Puts what was sent on its way.
    fn send(&self, state: &mut Vec<u32>, number: u32) {
        if let Err(place) = state[self.size + 1..].binary_search(&number) {
            state.insert(self.size + 1 + place, number);
        }
    }

    /// Drops what is over: for the pod that took a step, and of what was sent.
    fn forget(&mut self, state: &mut Vec<u32>, stepped: u8, sent: &[u32]) {
        let Self { messages, pods, over, size, .. } = self;
        let first = *size + 1;
        let mut kept = first;
        for i in first..state.len() {
            let number = state[i];
            let (from, to, message) = messages.get(number);
            let (pod, sender) = (state[usize::from(*to)], state[usize::from(*from)]);
            let looks = *to == stepped || *from == stepped || sent.contains(&number);
            let judge = || pods.get(pod).is_over(*from, pods.get(sender), message);
            let gone = looks && *over.entry((pod, sender, number)).or_insert_with(judge);
            if !gone {
                state[kept] = number;
                kept += 1;
            }
        }
        state.truncate(kept);
    }

    fn pods_of(&self, state: &State) -> Vec<&R::Pod> {
        state[..self.size].iter().map(|&pod| self.pods.get(pod)).collect()
    }
}

impl<R: Rules> Model for World<R> {
    type State = State;
    type Step = Step<InputOf<R>>;

    fn first(&mut self) -> State {
        let mut state: Vec<u32> = self.rules.pods().into_iter().map(|pod| self.pods.number(pod)).collect();
        state.push(self.books.number(self.rules.books()));
        state.into()
    }

    fn fingerprint(&self, state: &State) -> u128 {
        let bytes: Vec<u8> = state.iter().flat_map(|number| number.to_le_bytes()).collect();
        xxh3_128(&bytes)
    }

    fn steps(&mut self, state: &State, steps: &mut Vec<Self::Step>) {
        steps.extend(state[self.size + 1..].iter().map(|&number| Step::Deliver(number)));
        for (at, pod) in (0..).zip(&state[..self.size]) {
            let Self { pods, messages, says, .. } = self;
            let said = says.entry((at, *pod)).or_insert_with(|| {
                let said = pods.get(*pod).says().into_iter();
                said.map(|(to, message)| messages.number((at, to, message))).collect()
            });
            steps.extend(said.iter().map(|&number| Step::Hear(number)));
        }
        let mut inputs = Vec::new();
        self.rules.inputs(&self.pods_of(state), self.books.get(state[self.size]), &mut inputs);
        steps.extend(inputs.into_iter().map(|(at, input)| Step::Input(at, input)));
    }

    fn take(&mut self, state: &State, step: Self::Step) -> Result<Option<State>, String> {
        let (at, cause) = match step {
            Step::Deliver(number) | Step::Hear(number) => {
                (self.messages.get(number).1, Cause::Message(number))
            }
            Step::Input(at, input) => (at, Cause::Input(input)),
        };
        let mut next = state.to_vec();
        let pod = state[at as usize];
        if !self.known.contains_key(&(at, pod, cause)) {
            self.learn(at, pod, cause);
        }
        let known = Rc::clone(&self.known[&(at, pod, cause)]);
        match &*known {
            Known::Same => return Ok(None),
            Known::Broken(what) => return Err(what.clone()),
            Known::To { pod, send, notes } => {
                next[at as usize] = *pod;
                let mut books = self.books.get(state[self.size]).clone();
                if let Step::Input(_, input) = step {
                    self.rules.count(&mut books, at, input);
                }
                for note in notes {
                    self.rules.note(&mut books, at, note)?;
                }
                for number in send {
                    self.send(&mut next, *number);
                }
                next[self.size] = self.books.number(books);
                self.forget(&mut next, at, send);
            }
        }
        Ok(Some(next.into()))
    }

    fn check(&mut self, state: &State) -> Result<(), String> {
        let key = &state[..=self.size];
        if let Some(known) = self.checked.get(key) {
            return known.clone();
        }
        let pods = self.pods_of(state);
        let check = || self.rules.check(&pods, self.books.get(state[self.size]));
        let checked = catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|panic| Err(words(&*panic)));
        self.checked.insert(key.into(), checked.clone());
        checked
    }

    fn show(&mut self, state: &State, step: Self::Step) -> String {
        let (mut line, at, cause) = match step {
            Step::Deliver(number) | Step::Hear(number) => {
                let (from, to, message) = self.messages.get(number);
                (format!("p{to} hears p{from}: {message:?}"), *to, Cause::Message(number))
            }
            Step::Input(at, input) => (format!("p{at} {input:?}"), at, Cause::Input(input)),
        };
        match self.known.get(&(at, state[at as usize], cause)).map(|known| &**known) {
            Some(Known::To { send, notes, .. }) => {
                for note in notes {
                    line.push_str(&format!("\n       * {note}"));
                }
                for number in send {
                    let (_, to, message) = self.messages.get(*number);
                    line.push_str(&format!("\n       → p{to}: {message:?}"));
                }
            }
            Some(Known::Broken(what)) => line.push_str(&format!("\n       ! {what}")),
            Some(Known::Same) | None => {}
        }
        line
    }
}
