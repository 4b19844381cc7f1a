//! Is a history of one object linearizable?
//!
//! The search of Wing and Gong (Testing and verifying concurrent objects, 1993) with Lowe's memory of
//! configurations already tried (Testing for linearizability, 2017), over one key at a time, which is
//! sound because linearizability is local (Herlihy and Wing, 1990). An operation without a return may
//! take effect at any time after its call, or never. A search that takes too long is undecided, which
//! its caller counts: it is not a pass.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

/// Configurations tried before the search gives up: a second or so, a thousand times what is usual.
pub const CONFIGURATIONS_MAX: usize = 200_000;

/// What the object does if its operations come one by one.
pub trait Model {
    type State: Clone + Eq + Hash + Debug;
    /// An operation with the answer that it got.
    type Op: Debug;
    /// The state after `op`, or nothing if it could not have answered so.
    fn step(state: &Self::State, op: &Self::Op) -> Option<Self::State>;
    /// Whether `op`, wherever it is possible, leaves the state as it is: a read or a refusal.
    fn is_look(op: &Self::Op) -> bool;
}

#[derive(Clone, Debug)]
pub struct Entry<O> {
    pub call: u64,
    /// `None` if the caller never heard.
    pub ret: Option<u64>,
    pub op: O,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    /// No order explains it: what was in order as far as the search got, and what could not come next.
    Wrong {
        state: String,
        stuck: Vec<usize>,
    },
    Undecided,
}

#[derive(Clone, Copy)]
struct Node {
    entry: usize,
    is_call: bool,
    prev: usize,
    next: usize,
}

/// Calls and returns in the order of time, as a list from which an operation can be lifted.
struct Events {
    nodes: Vec<Node>,
    /// The node of each entry's return, if it has one.
    returns: Vec<Option<usize>>,
}

const HEAD: usize = 0;

impl Events {
    fn new<O>(history: &[Entry<O>]) -> Self {
        // At the same instant calls come first: the operations overlap then.
        let mut order: Vec<(u64, bool, usize)> = Vec::with_capacity(history.len() * 2);
        for (i, entry) in history.iter().enumerate() {
            order.push((entry.call, false, i));
            if let Some(ret) = entry.ret {
                assert!(ret >= entry.call, "an operation that ends before it begins");
                order.push((ret, true, i));
            }
        }
        order.sort_unstable();
        let mut nodes = vec![Node { entry: usize::MAX, is_call: false, prev: HEAD, next: HEAD }];
        let mut returns = vec![None; history.len()];
        for (_, is_return, entry) in order {
            let at = nodes.len();
            nodes[at - 1].next = at;
            nodes.push(Node { entry, is_call: !is_return, prev: at - 1, next: HEAD });
            if is_return {
                returns[entry] = Some(at);
            }
        }
        Self { nodes, returns }
    }

    fn unlink(&mut self, at: usize) {
        let Node { prev, next, .. } = self.nodes[at];
        self.nodes[prev].next = next;
        if next != HEAD {
            self.nodes[next].prev = prev;
        }
    }

    fn relink(&mut self, at: usize) {
        let Node { prev, next, .. } = self.nodes[at];
        self.nodes[prev].next = at;
        if next != HEAD {
            self.nodes[next].prev = at;
        }
    }

    fn lift(&mut self, call: usize) {
        self.unlink(call);
        if let Some(ret) = self.returns[self.nodes[call].entry] {
            self.unlink(ret);
        }
    }

    fn unlift(&mut self, call: usize) {
        if let Some(ret) = self.returns[self.nodes[call].entry] {
            self.relink(ret);
        }
        self.relink(call);
    }
}

/// Searches for an order of `history` that `M`, starting from `initial`, explains.
pub fn check<M: Model>(initial: M::State, history: &[Entry<M::Op>]) -> Verdict {
    let mut events = Events::new(history);
    let mut returns_left = history.iter().filter(|entry| entry.ret.is_some()).count();
    let mut state = initial;
    let mut taken = vec![0_u64; history.len().div_ceil(64)];
    let mut tried: HashSet<(Box<[u64]>, M::State)> = HashSet::new();
    let mut path: Vec<(usize, M::State)> = Vec::new();
    let mut furthest: (usize, Option<Verdict>) = (0, None);
    let mut at = events.nodes[HEAD].next;
    while returns_left > 0 {
        let node = events.nodes[at];
        assert!(at != HEAD, "a return is left, and it comes after its call");
        if node.is_call {
            if let Some(after) = M::step(&state, &history[node.entry].op) {
                let (word, bit) = (node.entry / 64, 1_u64 << (node.entry % 64));
                taken[word] |= bit;
                if tried.insert((taken.clone().into_boxed_slice(), after.clone())) {
                    if tried.len() > CONFIGURATIONS_MAX {
                        return Verdict::Undecided;
                    }
                    path.push((at, std::mem::replace(&mut state, after)));
                    events.lift(at);
                    returns_left -= usize::from(history[node.entry].ret.is_some());
                    at = events.nodes[HEAD].next;
                    continue;
                }
                taken[word] &= !bit;
            }
            at = node.next;
            continue;
        }
        // This one had to come before here, and nothing that could come next makes it possible.
        if furthest.1.is_none() || path.len() > furthest.0 {
            furthest = (path.len(), Some(stuck::<M>(&events, &state)));
        }
        let Some((call, before)) = path.pop() else {
            return furthest.1.expect("set just above");
        };
        state = before;
        events.unlift(call);
        let entry = events.nodes[call].entry;
        taken[entry / 64] &= !(1 << (entry % 64));
        returns_left += usize::from(history[entry].ret.is_some());
        at = events.nodes[call].next;
    }
    Verdict::Linearizable
}

/// The part of a history that is wrong on its own: it ends with the first return that nothing explains, and
/// of what changes nothing only that is left without which it would be right.
///
/// Each step down stays wrong for a reason: whoever is without a return may never have happened, and a look
/// that is taken out of a history never spoils an order that explains it.
pub fn smallest<M: Model>(initial: &M::State, history: &[Entry<M::Op>]) -> Vec<Entry<M::Op>>
where
    M::Op: Clone,
{
    let is_wrong = |part: &[Entry<M::Op>]| matches!(check::<M>(initial.clone(), part), Verdict::Wrong { .. });
    let mut returns: Vec<u64> = history.iter().filter_map(|entry| entry.ret).collect();
    returns.sort_unstable();
    let up_to = |end: u64| -> Vec<Entry<M::Op>> {
        history.iter().filter(|entry| entry.ret.is_some_and(|ret| ret <= end)).cloned().collect()
    };
    // What is called before the end and returns after it may explain more, so it is kept while the end is sought.
    let until = |end: u64| -> Vec<Entry<M::Op>> {
        let called = history.iter().filter(|entry| entry.call <= end).cloned();
        called.map(|entry| Entry { ret: entry.ret.filter(|&ret| ret <= end), ..entry }).collect()
    };
    let first_wrong = returns.partition_point(|&end| !is_wrong(&until(end)));
    let Some(&end) = returns.get(first_wrong) else { return history.to_vec() };
    let mut part = up_to(end);
    for no in (0..part.len()).rev() {
        if M::is_look(&part[no].op) {
            let entry = part.remove(no);
            if !is_wrong(&part) {
                part.insert(no, entry);
            }
        }
    }
    part.sort_by_key(|entry| (entry.ret, entry.call));
    part
}

fn stuck<M: Model>(events: &Events, state: &M::State) -> Verdict {
    let mut stuck = Vec::new();
    let mut at = events.nodes[HEAD].next;
    while at != HEAD && events.nodes[at].is_call {
        stuck.push(events.nodes[at].entry);
        at = events.nodes[at].next;
    }
    Verdict::Wrong { state: format!("{state:?}"), stuck }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};

    struct Register;

    #[derive(Clone, Copy, Debug)]
    enum Op {
        Write(u8),
        Read(u8),
    }
    use Op::{Read, Write};

    impl Model for Register {
        type State = u8;
        type Op = Op;
        fn step(state: &u8, op: &Op) -> Option<u8> {
            match *op {
                Write(value) => Some(value),
                Read(value) => (value == *state).then_some(value),
            }
        }
        fn is_look(op: &Op) -> bool {
            matches!(op, Read(_))
        }
    }

    fn verdict(history: &[(u64, u64, Op)]) -> bool {
        let history: Vec<_> = history
            .iter()
            .map(|&(call, ret, op)| Entry { call, ret: (ret > 0).then_some(ret), op })
            .collect();
        match check::<Register>(0, &history) {
            Verdict::Linearizable => true,
            Verdict::Wrong { .. } => false,
            Verdict::Undecided => panic!("a few operations"),
        }
    }

    #[test]
    fn accepts_what_some_order_explains() {
        assert!(verdict(&[]));
        assert!(verdict(&[(1, 2, Write(1)), (3, 4, Read(1))]));
        assert!(verdict(&[(1, 9, Write(1)), (2, 3, Read(0)), (4, 5, Read(1))]));
        assert!(verdict(&[(1, 9, Write(1)), (2, 9, Write(2)), (3, 4, Read(2)), (5, 6, Read(1))]));
    }

    #[test]
    fn rejects_a_stale_read() {
        assert!(!verdict(&[(1, 2, Write(1)), (3, 4, Read(0))]));
    }

    #[test]
    fn rejects_a_read_that_goes_back() {
        assert!(!verdict(&[(1, 9, Write(1)), (2, 3, Read(1)), (4, 5, Read(0))]));
    }

    #[test]
    fn rejects_a_value_out_of_nowhere() {
        assert!(!verdict(&[(1, 2, Write(1)), (3, 4, Read(7))]));
    }

    #[test]
    fn an_operation_without_a_return_happens_late_or_never() {
        assert!(verdict(&[(1, 0, Write(1)), (3, 4, Read(0))]));
        assert!(verdict(&[(1, 0, Write(1)), (3, 4, Read(0)), (5, 6, Read(1))]));
        assert!(!verdict(&[(1, 0, Write(1)), (3, 4, Read(1)), (5, 6, Read(0))]));
        assert!(!verdict(&[(5, 0, Write(1)), (3, 4, Read(1))]));
    }

    #[test]
    fn says_where_it_got_stuck() {
        let history = [
            Entry { call: 1, ret: Some(2), op: Write(1) },
            Entry { call: 3, ret: Some(4), op: Write(5) },
            Entry { call: 5, ret: Some(6), op: Read(1) },
        ];
        let verdict = check::<Register>(0, &history);
        assert_eq!(verdict, Verdict::Wrong { state: "5".into(), stuck: vec![2] });
    }

    #[test]
    fn keeps_of_a_wrong_history_what_makes_it_wrong() {
        let entry = |(call, ret, op)| Entry { call, ret: Some(ret), op };
        let history = [
            (1, 2, Write(1)),
            (3, 4, Read(1)),
            (5, 6, Write(2)),
            (5, 20, Write(7)),
            (7, 8, Read(2)),
            (9, 10, Read(1)),
            (11, 12, Read(2)),
        ];
        let smallest = smallest::<Register>(&0, &history.map(entry));
        let kept: Vec<_> = smallest.iter().map(|entry| (entry.call, entry.op)).collect();
        assert!(matches!(kept[..], [(1, Write(1)), (5, Write(2)), (9, Read(1))]), "{kept:?}");
    }

    /// Histories that a real register made, then the same with one answer changed to what no write wrote.
    #[test]
    fn tells_made_histories_from_spoilt_ones() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
        for _ in 0..200 {
            let mut value = 0;
            let mut history: Vec<(u64, u64, Op)> = (1..40)
                .map(|i| {
                    let point = i * 10;
                    let op = if rng.random_bool(0.5) {
                        value = rng.random_range(1..9);
                        Write(value)
                    } else {
                        Read(value)
                    };
                    (point - rng.random_range(0..10), point + rng.random_range(1..50), op)
                })
                .collect();
            history.sort_by_key(|(call, ..)| *call);
            assert!(verdict(&history));
            let read = history.iter().position(|(.., op)| matches!(op, Read(_))).expect("some read");
            history[read].2 = Read(200);
            assert!(!verdict(&history));
        }
    }
}
