//! The Paxos machine itself, three replicas of it: elections, crashes, and a network that does anything.

mod voter;

use crate::report::{self, Size};
use crate::world::{Rules, World};
use kassa_protocols::ids::{Ballot, PodId};
use kassa_protocols::paxos::{Entry, Record};
use std::collections::BTreeMap;
use voter::{Input, Note, REPLICAS, Voter};

const MAJORITY: usize = 2;

/// How far a search goes.
#[derive(Clone, Copy, Debug, Hash)]
struct Bounds {
    name: &'static str,
    /// Pods that may stand: the first so many. The first one stands once at the start by itself.
    standing: u8,
    /// How often any of them may stand after that.
    stands: u8,
    commands: u8,
    crashes: u8,
    reads: u8,
    /// Steps that may wait for one fsync. 0: each fsync follows at once, which without crashes only decides
    /// when a leader counts its own vote. 1: it follows at once where nothing was sent early, for a crash
    /// before it would be as if the step had not been. More: it may follow later after any step.
    unsynced: u8,
    /// Whether followers learn what is chosen; if not, only candidates do.
    learning: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Books {
    stands: u8,
    commands: u8,
    crashes: u8,
    reads: u8,
    /// What a client may have seen: a read that begins now must see it.
    shown: u8,
}

impl Rules for Bounds {
    type Pod = Voter;
    type Books = Books;

    fn pods(&self) -> Vec<Voter> {
        (0..REPLICAS).map(|i| Voter::new(PodId(i), *self)).collect()
    }

    fn books(&self) -> Books {
        Books::default()
    }

    fn inputs(&self, pods: &[&Voter], books: &Books, inputs: &mut Vec<(u8, Input)>) {
        for (at, pod) in (0..).zip(pods) {
            if !pod.started {
                inputs.push((at, Input::Start));
                continue;
            }
            if pod.is_unsynced() {
                inputs.push((at, Input::Sync));
            }
            if books.crashes < self.crashes {
                inputs.push((at, Input::Crash));
            }
            if books.stands < self.stands && at < self.standing {
                inputs.push((at, Input::Stand));
            }
            if pod.replica.ballot().pod() == pod.me {
                let higher =
                    pods.iter().map(|other| other.replica.ballot()).filter(|b| *b > pod.replica.ballot());
                inputs.extend(higher.max().map(|ballot| (at, Input::Rejected(ballot))));
            }
            if pod.leading.is_some() {
                if books.commands < self.commands {
                    inputs.push((at, Input::Propose(books.commands)));
                }
                if books.reads < self.reads {
                    inputs.push((at, Input::Read(books.shown)));
                }
            }
        }
    }

    fn count(&self, books: &mut Books, _pod: u8, input: Input) {
        match input {
            Input::Stand => books.stands += 1,
            Input::Propose(_) => books.commands += 1,
            Input::Read(_) => books.reads += 1,
            Input::Crash => books.crashes += 1,
            Input::Start | Input::Rejected(_) | Input::Sync => {}
        }
    }

    fn note(&self, books: &mut Books, _pod: u8, note: &Note) -> Result<(), String> {
        match note {
            Note::Shown(index) => books.shown = books.shown.max(*index),
            Note::Said(_) => {}
        }
        Ok(())
    }

    fn check(&self, pods: &[&Voter], _books: &Books) -> Result<(), String> {
        let chosen = chosen(pods)?;
        for pod in pods {
            for (index, entry) in (1..).zip(&pod.applied) {
                let same = |(_, value): &(Ballot, &Entry)| same(value, entry);
                if !chosen.get(&index).is_some_and(same) {
                    return Err(format!("{} applied what is not chosen: {index} {entry:?}", pod.me));
                }
            }
            let Some(ballot) = pod.leading else { continue };
            if let Some((index, (by, _))) = chosen.iter().find(|(index, (by, _))| {
                *by < ballot && pod.applied.len() < usize::try_from(**index).expect("a short log")
            }) {
                return Err(format!("{} leads {ballot} without {index}, chosen in {by}", pod.me));
            }
        }
        Ok(())
    }
}

fn same(one: &Entry, other: &Entry) -> bool {
    (one.origin, &one.body) == (other.origin, &other.body)
}

/// What a majority's disks have accepted in one ballot: in which first, and what.
fn chosen<'a>(pods: &[&'a Voter]) -> Result<BTreeMap<u64, (Ballot, &'a Entry)>, String> {
    let mut votes: BTreeMap<(u64, Ballot), (&Entry, usize)> = BTreeMap::new();
    for pod in pods {
        let mut own: BTreeMap<(u64, Ballot), &Entry> = BTreeMap::new();
        for record in &pod.disk {
            if let Record::Accepted { ballot, index, entry, .. } = record {
                own.insert((*index, *ballot), entry);
            }
        }
        for (vote, entry) in own {
            let (value, count) = votes.entry(vote).or_insert((entry, 0));
            if !same(value, entry) {
                return Err(format!("two values at index {} in ballot {}", vote.0, vote.1));
            }
            *count += 1;
        }
    }
    let mut chosen: BTreeMap<u64, (Ballot, &Entry)> = BTreeMap::new();
    for ((index, ballot), (entry, count)) in votes {
        if count >= MAJORITY {
            let (_, value) = chosen.entry(index).or_insert((ballot, entry));
            if !same(value, entry) {
                return Err(format!("two values chosen at index {index}: {value:?}, {entry:?}"));
            }
        }
    }
    Ok(chosen)
}

/// The first pod leads, and nobody deposes it.
const ALONE: Bounds = Bounds {
    name: "one leader",
    standing: 1,
    stands: 0,
    commands: 1,
    crashes: 0,
    reads: 0,
    unsynced: 0,
    learning: true,
};
/// Two would-be leaders, of which one takes over from the other.
const TAKEOVER: Bounds =
    Bounds { name: "takeover", standing: 2, stands: 1, commands: 1, learning: false, ..ALONE };

const SMALL: &[Bounds] = &[
    ALONE,
    TAKEOVER,
    Bounds { name: "own vote", commands: 0, crashes: 1, unsynced: 2, ..ALONE },
    Bounds { name: "crash", commands: 0, crashes: 1, unsynced: 1, ..TAKEOVER },
    Bounds { name: "reads", commands: 0, reads: 1, ..TAKEOVER },
    Bounds { name: "learning", commands: 0, learning: true, ..TAKEOVER },
];

/// Beyond the small bounds.
const FULL: &[Bounds] = &[
    Bounds { name: "two commands", commands: 2, ..ALONE },
    Bounds { name: "takeover, two", commands: 2, ..TAKEOVER },
    Bounds { name: "three ballots", commands: 0, stands: 2, ..TAKEOVER },
    Bounds { name: "crash, command", crashes: 1, unsynced: 1, ..TAKEOVER },
    Bounds { name: "crash, unsynced", commands: 0, crashes: 1, unsynced: 2, ..TAKEOVER },
    Bounds { name: "two crashes", commands: 0, crashes: 2, unsynced: 1, ..TAKEOVER },
    Bounds { name: "reads, command", reads: 1, ..TAKEOVER },
    Bounds { name: "reads, crash", commands: 0, reads: 1, crashes: 1, unsynced: 1, ..TAKEOVER },
    Bounds { name: "reads, ballots", commands: 0, reads: 1, stands: 2, ..TAKEOVER },
];

#[test]
fn paxos() {
    for bounds in report::of_size(SMALL, FULL, |bounds| bounds.name) {
        let mut world = World::new(*bounds);
        report::search("paxos", bounds.name, &mut world, Size::of);
    }
}
