//! Checkouts over two stock shards: the product's coordinator, and its transitions of stock and payments.

mod shelf;
mod till;

use crate::report::{self, Size};
use crate::world::{Out, Pod, Rules, World, digest, is_idle};
use kassa::modules::money::Money;
use kassa_protocols::commit::coordinator::Vote;
use kassa_protocols::ids::{ShardNo, TxnId};
use shelf::Shelf;
use std::collections::BTreeMap;
use std::fmt;
use till::{FUNDS, Till};

/// The number of the payment shard's pod; those of stock shards follow it.
const TILL: u8 = 0;
const SHELVES: [ShardNo; 2] = [ShardNo(0), ShardNo(1)];
const ORDERS: u8 = 2;

/// What an order wants: the first of both items, the second one that the first wants too.
fn lines(order: u8) -> BTreeMap<ShardNo, u64> {
    let shards = if order == 0 { &SHELVES[..] } else { &SHELVES[..1] };
    shards.iter().map(|shard| (*shard, 1)).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fate {
    Charged,
    Aborted,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Message {
    Reserve { txn: TxnId, units: u64, watermark: TxnId },
    Vote { shard: ShardNo, txn: TxnId, vote: Vote<u64, ()> },
    Confirm { txn: TxnId, watermark: TxnId },
    Release { txn: TxnId, watermark: TxnId },
    Watermark(TxnId),
    Resolved { shard: ShardNo, txn: TxnId },
    Doubt { shard: ShardNo, txn: TxnId },
    Fate { txn: TxnId, fate: Fate },
}

/// How far a search goes.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    name: &'static str,
    /// How often each order is checked out.
    checkouts: [u8; ORDERS as usize],
    /// How often another coordinates, the first time included.
    leads: u8,
    /// Of each item.
    units: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Input {
    /// Another takes over; the last one does not know yet.
    Lead,
    /// The oldest office hears that there is a newer one.
    Leave,
    Checkout {
        office: u8,
        order: u8,
    },
    /// One of the proposals is applied, by its place among them.
    Apply(u8),
    /// A stock shard asks what became of what it holds.
    Doubt,
}

#[derive(Clone, Hash)]
enum Part {
    Till(Till),
    Shelf(Shelf),
}

struct Said(String);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Pod for Part {
    type Message = Message;
    type Input = Input;
    type Note = Said;

    fn deliver(&mut self, _from: u8, message: &Message, out: &mut Out<Self>) {
        match self {
            Self::Till(till) => out.send.extend(till.deliver(message)),
            Self::Shelf(shelf) => out.send.extend(shelf.deliver(message).into_iter().map(|m| (TILL, m))),
        }
    }

    fn input(&mut self, input: Input, out: &mut Out<Self>) {
        let till = match self {
            Self::Till(till) => till,
            Self::Shelf(shelf) => return out.send.extend(shelf.doubts()),
        };
        let sent = match input {
            Input::Doubt => return,
            Input::Lead => till.take_over(),
            Input::Leave => {
                till.leave(0);
                Vec::new()
            }
            Input::Checkout { office, order } => till.checkout(usize::from(office), order),
            Input::Apply(place) => {
                let proposal = till.proposals.iter().nth(usize::from(place)).cloned();
                out.notes.extend(proposal.as_ref().map(|proposal| Said(format!("applies {proposal:?}"))));
                proposal.map(|proposal| till.apply(&proposal)).unwrap_or_default()
            }
        };
        out.send.extend(sent);
    }

    fn says(&self) -> Vec<(u8, Message)> {
        match self {
            Self::Till(till) => till.says(&SHELVES),
            Self::Shelf(_) => Vec::new(),
        }
    }

    fn is_over(&self, _from: u8, _sender: &Self, message: &Message) -> bool {
        match (self, message) {
            // Once it changes nothing it never will: an attempt does not begin anew.
            (Self::Till(till), Message::Vote { .. } | Message::Resolved { .. }) => {
                is_idle(till, |till| till.deliver(message).is_empty())
            }
            _ => false,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Books {
    checkouts: [u8; ORDERS as usize],
    leads: u8,
}

impl Rules for Bounds {
    type Pod = Part;
    type Books = Books;

    fn pods(&self) -> Vec<Part> {
        let shelves = SHELVES.iter().map(|shard| Part::Shelf(Shelf::new(*shard, self.units)));
        std::iter::once(Part::Till(Till::new())).chain(shelves).collect()
    }

    fn books(&self) -> Books {
        Books::default()
    }

    fn inputs(&self, pods: &[&Part], books: &Books, inputs: &mut Vec<(u8, Input)>) {
        let Part::Till(till) = pods[0] else { return };
        if books.leads < self.leads && till.offices.len() < 2 {
            inputs.push((TILL, Input::Lead));
        }
        if till.offices.len() > 1 {
            inputs.push((TILL, Input::Leave));
        }
        for order in 0..ORDERS {
            if books.checkouts[usize::from(order)] < self.checkouts[usize::from(order)] {
                let offices = 0..u8::try_from(till.offices.len()).expect("at most two");
                inputs.extend(offices.map(|office| (TILL, Input::Checkout { office, order })));
            }
        }
        let proposals = u8::try_from(till.proposals.len()).expect("few");
        inputs.extend((0..proposals).map(|place| (TILL, Input::Apply(place))));
        inputs.extend([(1, Input::Doubt), (2, Input::Doubt)]);
    }

    fn count(&self, books: &mut Books, _pod: u8, input: Input) {
        match input {
            Input::Lead => books.leads += 1,
            Input::Checkout { order, .. } => books.checkouts[usize::from(order)] += 1,
            Input::Leave | Input::Apply(_) | Input::Doubt => {}
        }
    }

    fn note(&self, _books: &mut Books, _pod: u8, _note: &Said) -> Result<(), String> {
        Ok(())
    }

    fn check(&self, pods: &[&Part], books: &Books) -> Result<(), String> {
        let (till, shelves) = parts(pods);
        balances(till, &shelves, self.units)?;
        if books.leads > 0 {
            comes_to_rest(till.clone(), shelves.into_iter().cloned().collect(), self.units)
        } else {
            Ok(())
        }
    }
}

fn parts<'a>(pods: &[&'a Part]) -> (&'a Till, Vec<&'a Shelf>) {
    let shelf = |part: &&'a Part| if let Part::Shelf(shelf) = *part { Some(shelf) } else { None };
    let Part::Till(till) = pods[0] else { unreachable!("the till comes first") };
    (till, pods.iter().filter_map(shelf).collect())
}

/// An order is charged once, credit fell by what was charged, and what was charged is not on sale.
fn balances(till: &Till, shelves: &[&Shelf], units: u64) -> Result<(), String> {
    let (credit, receipts) = till.books();
    if let Some(order) = receipts.iter().position(|receipts| receipts.len() > 1) {
        return Err(format!("order {order} is charged twice"));
    }
    let charged: Vec<_> = receipts.into_iter().flatten().collect();
    let total = charged.iter().try_fold(Money::ZERO, |sum, receipt| sum.checked_add(receipt.total));
    if total.and_then(|total| total.checked_add(credit)) != Some(Money::whole(FUNDS)) {
        return Err(format!("{credit:?} are left, and {total:?} was charged"));
    }
    for shelf in shelves {
        let lines = charged.iter().flat_map(|receipt| &receipt.lines);
        let sold: u64 = lines.filter(|line| line.stock_shard == shelf.no).map(|line| line.units).sum();
        let (available, reserved) = shelf.units();
        if available + reserved > units || available + sold > units {
            return Err(format!(
                "of {units} in {:?} {available} are on sale and {reserved} set aside, though {sold} were charged",
                shelf.no
            ));
        }
    }
    Ok(())
}

/// From here on nothing goes wrong any more, and what was on its way is lost: then all is resolved.
fn comes_to_rest(mut till: Till, mut shelves: Vec<Shelf>, units: u64) -> Result<(), String> {
    if till.offices.is_empty() {
        till.take_over();
    }
    while till.offices.len() > 1 {
        till.leave(0);
    }
    loop {
        let before = digest(&(&till, &shelves));
        let mut sent = till.resend();
        while let Some(proposal) = till.proposals.first().cloned() {
            sent.extend(till.apply(&proposal));
        }
        sent.extend(till.says(&SHELVES));
        sent.extend(shelves.iter().flat_map(Shelf::doubts));
        while let Some((to, message)) = sent.pop() {
            if to == TILL {
                sent.extend(till.deliver(&message));
            } else {
                let answers = shelves[usize::from(to) - 1].deliver(&message);
                sent.extend(answers.into_iter().map(|answer| (TILL, answer)));
            }
        }
        if digest(&(&till, &shelves)) == before {
            break;
        }
    }
    balances(&till, &shelves.iter().collect::<Vec<_>>(), units)?;
    let charged: Vec<_> = till.books().1.into_iter().flatten().collect();
    for shelf in &shelves {
        let (available, reserved) = shelf.units();
        let lines = charged.iter().flat_map(|receipt| &receipt.lines);
        let sold: u64 = lines.filter(|line| line.stock_shard == shelf.no).map(|line| line.units).sum();
        let (held, remembered) = shelf.held();
        if available + sold != units || reserved != 0 || !held.is_empty() {
            return Err(format!(
                "at rest {available} of {:?} are on sale and {reserved} set aside, and {sold} were charged",
                shelf.no
            ));
        }
        if remembered > 0 {
            return Err(format!("at rest {remembered} transactions are remembered in {:?}", shelf.no));
        }
    }
    let open = till.offices.iter().map(|office| office.coordinator.len()).sum::<usize>();
    if open > 0 || !till.proposals.is_empty() {
        return Err(format!("at rest {open} transactions are open"));
    }
    Ok(())
}

const SMALL: &[Bounds] = &[
    Bounds { name: "one order", checkouts: [1, 0], leads: 2, units: 1 },
    Bounds { name: "last unit", checkouts: [1, 1], leads: 1, units: 1 },
    Bounds { name: "two orders", checkouts: [1, 1], leads: 2, units: 1 },
    Bounds { name: "two units", checkouts: [0, 1], leads: 2, units: 2 },
];

/// Beyond the small bounds.
const FULL: &[Bounds] = &[
    Bounds { name: "again", checkouts: [2, 0], leads: 2, units: 1 },
    Bounds { name: "three leads", checkouts: [1, 0], leads: 3, units: 2 },
];

#[test]
fn checkout() {
    for bounds in report::of_size(SMALL, FULL, |bounds| bounds.name) {
        let mut world = World::new(*bounds);
        report::search("checkout", bounds.name, &mut world, Size::of);
    }
}
