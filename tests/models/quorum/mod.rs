//! The machine of read and write quorums itself, three replicas of it.

mod note;
mod replica;
mod tables;

use crate::report::{self, Size};
use crate::world::{Rules, World};
use kassa_protocols::ids::{Ballot, PodId};
use kassa_protocols::quorum::{ReadState, ReadVerdict, Version, Write, judge};
use note::Note;
use replica::{Holder, Input, QUORUM, REPLICAS};
use std::sync::Arc;
use tables::{Tables, Value, commit, from_bytes, record};

/// How far a search goes.
#[derive(Clone, Copy, Debug, Hash)]
struct Bounds {
    name: &'static str,
    /// Pods that may stand: the first so many. The first one stands once at the start by itself.
    standing: u8,
    /// How often any of them may stand after that.
    stands: u8,
    /// Writes of the one record: the second one deletes it.
    writes: u8,
    /// Commands that only read, or refuse.
    gets: u8,
    /// Reads that ask all replicas.
    reads: u8,
    crashes: u8,
    /// Steps that may wait for one fsync, as in the model of Paxos.
    unsynced: u8,
    /// Whether committed writes leave memory at once, so that whoever lags needs a copy of tables; and
    /// whether deletions may be dropped, so that it needs a full one.
    forgets: bool,
    /// Whether heartbeats are heard: by them replicas learn what is committed, and they carry empty rounds.
    learning: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Books {
    stands: u8,
    writes: u8,
    gets: u8,
    reads: u8,
    crashes: u8,
    /// What was called committed, in order of the chain.
    chain: Vec<Arc<Write>>,
    /// So many writes a client has been shown.
    shown: u64,
    /// What was shown by a read of all before anybody called it committed.
    expected: Vec<Version>,
    /// A read under way: which write it must see, and the answers so far.
    read: Option<(u64, Vec<Answer>)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Answer {
    pod: u8,
    state: ReadState,
    written: Version,
    value: Value,
}

impl Books {
    fn len(&self) -> u64 {
        self.chain.len() as u64
    }

    /// The record as of so many writes of the chain.
    fn at(&self, seq: u64) -> Value {
        let upto = usize::try_from(seq).expect("a short chain").min(self.chain.len());
        let last = self.chain[..upto].iter().rev().find_map(|write| write.records.first());
        last.and_then(|(_, bytes)| bytes.as_ref().map(|bytes| bytes[0]))
    }

    fn holds(&self, version: Version) -> bool {
        version == Version::ZERO || self.chain.iter().any(|write| write.version == version)
    }

    fn committed(&mut self, write: &Arc<Write>) -> Result<(), String> {
        let at = usize::try_from(write.version.seq - 1).expect("a short chain");
        if let Some(known) = self.chain.get(at) {
            let same = known == write;
            let both = || format!("{} and {} are both called committed", known.version, write.version);
            return same.then_some(()).ok_or_else(both);
        }
        let tip = self.chain.last().map_or(Version::ZERO, |last| last.version);
        if write.prev != tip {
            return Err(format!("{} is called committed on top of {}, not {tip}", write.version, write.prev));
        }
        if let Some(shown) = self.expected.iter().find(|v| v.seq == write.version.seq && **v != write.version)
        {
            return Err(format!("{shown} was shown and {} is committed in its place", write.version));
        }
        self.chain.push(Arc::clone(write));
        Ok(())
    }

    /// A client is told this: it must have been so at some point since it asked.
    fn read(&mut self, since: u64, value: Value) -> Result<(), String> {
        let seen = (since..=self.len()).find(|&seq| self.at(seq) == value);
        let never = || format!("a client is told {value:?}, which was so at no point since write {since}");
        self.shown = self.shown.max(seen.ok_or_else(never)?);
        Ok(())
    }

    fn answered(&mut self, answer: Answer) -> Result<(), String> {
        let (since, mut answers) = self.read.take().unwrap_or((self.shown, Vec::new()));
        answers.push(answer);
        answers.sort_by_key(|answer| answer.pod);
        let states: Vec<(ReadState, Version)> = answers.iter().map(|a| (a.state, a.written)).collect();
        match judge(&states, QUORUM, QUORUM) {
            ReadVerdict::Wait => self.read = Some((since, answers)),
            ReadVerdict::AskCoordinator => {}
            ReadVerdict::Return(i) if answers[i].written.seq > self.len() => {
                let written = answers[i].written;
                self.expected.push(written);
                self.shown = self.shown.max(written.seq);
            }
            ReadVerdict::Return(i) => {
                let written = answers[i].written;
                if !self.holds(written) {
                    return Err(format!("{written} is shown and is not committed"));
                }
                return self.read(since, answers[i].value);
            }
        }
        Ok(())
    }
}

impl Rules for Bounds {
    type Pod = Holder;
    type Books = Books;

    fn pods(&self) -> Vec<Holder> {
        (0..REPLICAS).map(|i| Holder::new(PodId(i), *self)).collect()
    }

    fn books(&self) -> Books {
        Books::default()
    }

    fn inputs(&self, pods: &[&Holder], books: &Books, inputs: &mut Vec<(u8, Input)>) {
        for (at, pod) in (0..).zip(pods) {
            if !pod.started {
                inputs.push((at, Input::Start));
                continue;
            }
            if pod.is_unsynced() {
                inputs.push((at, Input::Sync));
            } else if books.read.as_ref().map_or(books.reads < self.reads, |(_, answers)| {
                answers.iter().all(|answer| answer.pod != at)
            }) {
                // An answer leaves when all that it shows is durable.
                inputs.push((at, Input::Answer));
            }
            if books.crashes < self.crashes {
                inputs.push((at, Input::Crash));
            }
            if books.stands < self.stands && at < self.standing {
                inputs.push((at, Input::Stand));
            }
            let ballot = pod.replica.ballot();
            if ballot.pod() == pod.me {
                let higher = pods.iter().map(|other| other.replica.ballot()).filter(|other| *other > ballot);
                inputs.extend(higher.max().map(|ballot| (at, Input::Refused(ballot))));
            }
            if pod.leading && books.writes < self.writes {
                let value = if books.writes == 1 { None } else { Some(books.writes) };
                inputs.push((at, Input::Set(value)));
            }
            if pod.leading && books.gets < self.gets {
                inputs.push((at, Input::Get(books.shown)));
            }
            if self.forgets {
                inputs.push((at, Input::Forget));
            }
        }
    }

    fn count(&self, books: &mut Books, _pod: u8, input: Input) {
        match input {
            Input::Stand => books.stands += 1,
            Input::Set(_) => books.writes += 1,
            Input::Get(_) => books.gets += 1,
            Input::Crash => books.crashes += 1,
            Input::Answer => books.reads += u8::from(books.read.is_none()),
            Input::Start | Input::Refused(_) | Input::Forget | Input::Sync => {}
        }
    }

    fn note(&self, books: &mut Books, pod: u8, note: &Note) -> Result<(), String> {
        match note {
            Note::Committed(write) => books.committed(write),
            Note::Written { version, value, before } => {
                if !books.holds(*version) {
                    return Err(format!("{version} is acknowledged and is not committed"));
                }
                if books.at(version.seq) != *value || books.at(version.seq - 1) != *before {
                    return Err(format!("{version} is acknowledged with what it did not do"));
                }
                books.shown = books.shown.max(version.seq);
                Ok(())
            }
            Note::Read { since, base, value: _ } if base < since => {
                Err(format!("a client that asked behind {since} writes is told what was so behind {base}"))
            }
            Note::Read { since, value, .. } => books.read(*since, *value),
            Note::Leading(seq) => {
                books.shown = books.shown.max(*seq);
                Ok(())
            }
            Note::Answered { state, written, value } => books.answered(Answer {
                pod,
                state: ReadState { promised: Ballot::ZERO, ..*state },
                written: *written,
                value: *value,
            }),
            Note::Said(_) => Ok(()),
        }
    }

    fn check(&self, pods: &[&Holder], books: &Books) -> Result<(), String> {
        if let Some(tip) = books.chain.last().map(|write| write.version) {
            let holds = |pod: &&&Holder| pod.on_disk.committed >= tip || pod.on_disk.tail.contains(&tip);
            let disks = pods.iter().filter(holds).count();
            if disks < QUORUM {
                return Err(format!("{tip} is called committed and is on {disks} disks"));
            }
        }
        for pod in pods {
            let committed = pod.replica.committed();
            if !books.holds(committed) {
                return Err(format!("the tables of {} are at {committed}, which is not committed", pod.me));
            }
            let mut tables = Tables::new();
            for write in books.chain.iter().take_while(|write| write.version.seq <= committed.seq) {
                commit(&mut tables, write);
            }
            let (version, value) = record(&pod.tables);
            let (wanted, wanted_value) = record(&tables);
            // A deletion may have been dropped.
            if value != wanted_value || value.is_some() && version != wanted {
                return Err(format!(
                    "the tables of {} at {committed} hold {value:?} of {}, not {wanted_value:?} of {}",
                    pod.me,
                    from_bytes(version),
                    from_bytes(wanted)
                ));
            }
        }
        Ok(())
    }
}

/// The first pod coordinates, and nobody deposes it.
const ALONE: Bounds = Bounds {
    name: "one coordinator",
    standing: 1,
    stands: 0,
    writes: 1,
    gets: 0,
    reads: 0,
    crashes: 0,
    unsynced: 0,
    forgets: false,
    learning: true,
};
/// Two would-be coordinators, of which one takes over from the other.
const TAKEOVER: Bounds = Bounds { name: "takeover", standing: 2, stands: 1, learning: false, ..ALONE };

const SMALL: &[Bounds] = &[
    ALONE,
    TAKEOVER,
    Bounds { name: "own vote", writes: 0, crashes: 1, unsynced: 2, ..ALONE },
    Bounds { name: "crash", writes: 0, crashes: 1, unsynced: 1, ..TAKEOVER },
    Bounds { name: "refusal", writes: 0, gets: 1, learning: true, ..TAKEOVER },
    Bounds { name: "learning", writes: 0, learning: true, ..TAKEOVER },
    Bounds { name: "reads", reads: 1, learning: false, ..ALONE },
    Bounds { name: "three ballots", writes: 0, stands: 2, ..TAKEOVER },
];

/// Beyond the small bounds.
const FULL: &[Bounds] = &[
    Bounds { name: "two writes", writes: 2, ..TAKEOVER },
    Bounds { name: "reads, takeover", reads: 1, ..TAKEOVER },
    Bounds { name: "refusal, early", gets: 1, ..TAKEOVER },
    Bounds { name: "three, write", stands: 2, ..TAKEOVER },
    Bounds { name: "crash, write", crashes: 1, unsynced: 1, ..TAKEOVER },
    Bounds { name: "crash, unsynced", writes: 0, crashes: 1, unsynced: 2, ..TAKEOVER },
    Bounds { name: "two crashes", writes: 0, crashes: 2, unsynced: 1, ..TAKEOVER },
    Bounds { name: "deletion", writes: 2, forgets: true, ..ALONE },
];

#[test]
fn quorum() {
    for bounds in report::of_size(SMALL, FULL, |bounds| bounds.name) {
        let mut world = World::new(*bounds);
        report::search("quorum", bounds.name, &mut world, Size::of);
    }
}
