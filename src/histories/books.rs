//! The harness's own books, against what the shop says at the end.
//!
//! Each request's answer becomes a line in the history of the user and the items that it touched, or is
//! wrong on its own. The histories are then checked for linearizability, up to and with the last reads,
//! and the simple sums once more without any model.

use super::linear::{self, Entry, Model, Verdict};
use super::models::{Item, ItemModel, ItemOp, OrderNo, User, UserModel, UserOp};
use super::shop::{Record, Shop, Target};
use crate::modules::money::Money;
use crate::modules::request::{Answer, Op, Outcome, Refusal};

/// After a charge, an attempt that another one overtook may hold its units that much longer: it is in
/// doubt for two seconds at most while nothing is broken.
const DOUBT_US: u64 = 3_000_000;

/// What was checked, and what was found wrong.
#[derive(Debug, Default)]
pub struct Report {
    pub operations: u64,
    pub charged: u64,
    pub refused: u64,
    pub repeats: u64,
    pub histories: u64,
    /// Histories too tangled to decide.
    pub undecided: u64,
    pub sums: u64,
    pub wrong: Vec<Wrong>,
}

/// Which book disagrees: what clients were told of stock and of payment (orders are paid, and so count there),
/// or what the stores hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Book {
    StockTold,
    StockHeld,
    PaymentTold,
    PaymentHeld,
}

/// Something that cannot be true.
#[derive(Clone, Debug)]
pub struct Wrong {
    pub book: Book,
    /// The first line says what; more of them show from what.
    pub text: String,
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Report {
    pub fn wrong(&mut self, book: Book, text: String) {
        self.wrong.push(Wrong { book, text });
    }
}

/// In which book a request's answer stands.
#[must_use]
pub const fn told(op: &Op) -> Book {
    match op {
        Op::CreateItem { .. }
        | Op::FindItem { .. }
        | Op::AddStock { .. }
        | Op::SubtractStock { .. }
        | Op::LoadItems { .. } => Book::StockTold,
        Op::CreateOrder { .. }
        | Op::RemoveOrder { .. }
        | Op::AddItem { .. }
        | Op::RemoveItem { .. }
        | Op::FindOrder { .. }
        | Op::Checkout { .. }
        | Op::LoadOrders { .. }
        | Op::CreateUser
        | Op::FindUser { .. }
        | Op::AddFunds { .. }
        | Op::Pay { .. }
        | Op::PayOrder { .. }
        | Op::CancelPayment { .. }
        | Op::PaymentStatus { .. }
        | Op::LoadUsers { .. }
        // Of no book: an operator's.
        | Op::Replace { .. } => Book::PaymentTold,
    }
}

/// Checks a run that has come to rest and was read back. `faults` bounds how often a leader can have been
/// deposed.
pub fn check(shop: &Shop, faults: u64) -> Report {
    let mut report = check_answers(shop, faults);
    super::sums::check(shop, &mut report);
    report
}

/// Checks what was answered so far; what was not yet is told as without an end.
pub fn check_answers(shop: &Shop, faults: u64) -> Report {
    let mut report = Report::default();
    for record in &shop.history {
        report.operations += 1;
        report.repeats += u64::from(record.repeats.is_some());
        match &record.outcome {
            Some(Outcome::Done(Answer::CheckedOut { .. })) => report.charged += 1,
            Some(Outcome::Refused(_)) => report.refused += 1,
            Some(_) => {}
            None => report.wrong(told(&record.op), format!("has no end: {}", show(record))),
        }
        if let Err(why) = plain(shop, record) {
            report.wrong(told(&record.op), format!("{why}: {}", show(record)));
        }
    }
    for user in 0..shop.users.len() {
        let history = shop.history.iter().filter_map(|record| entry(record, user_op(shop, user, record)?));
        let history: Vec<_> = history.collect();
        let what = format!("user {}", shop.users[user].id);
        judge::<UserModel>(&mut report, Book::PaymentTold, &what, &User::default(), &history);
    }
    for item in 0..shop.items.len() {
        let history = shop.history.iter().enumerate().filter_map(|(no, record)| {
            let slack = slack(shop, item, no, faults);
            let mut entry = entry(record, item_op(shop, item, record, slack)?)?;
            if may_be_of_a_pay(shop, record) {
                entry.ret = None;
            }
            Some(entry)
        });
        let history: Vec<_> = history.collect();
        let what = format!("item {}", shop.items[item].id);
        judge::<ItemModel>(&mut report, Book::StockTold, &what, &Item::default(), &history);
    }
    report
}

pub fn show(record: &Record) -> String {
    format!(
        "[{}..{}] c{} {:?} → {:?}{}",
        record.call_us,
        record.ret_us.map_or_else(|| "…".to_owned(), |ret| ret.to_string()),
        record.client,
        record.op,
        record.outcome,
        if record.calm { " (calm)" } else { "" }
    )
}

fn entry<O>(record: &Record, op: O) -> Option<Entry<O>> {
    Some(Entry { call: record.call_us, ret: Some(record.ret_us?), op })
}

fn judge<M: Model>(report: &mut Report, book: Book, what: &str, initial: &M::State, history: &[Entry<M::Op>])
where
    M::Op: Clone,
{
    report.histories += 1;
    match linear::check::<M>(initial.clone(), history) {
        Verdict::Linearizable => {}
        Verdict::Undecided => report.undecided += 1,
        Verdict::Wrong { state, stuck } => {
            let mut text = format!("{what} is not linearizable: at {state} none of these can come next:");
            for &no in &stuck {
                text.push_str(&format!("\n    {}", timed(&history[no])));
            }
            let smallest = linear::smallest::<M>(initial, history);
            text.push_str("\n  what is wrong on its own, by the time of the answer:");
            for entry in smallest {
                text.push_str(&format!("\n    {}", timed(&entry)));
            }
            report.wrong(book, text);
        }
    }
}

fn timed<O: std::fmt::Debug>(entry: &Entry<O>) -> String {
    let ret = entry.ret.map_or_else(|| "…".to_owned(), |ret| ret.to_string());
    format!("[{}..{ret}] {:?}", entry.call, entry.op)
}

/// What an answer must be whatever the others were.
fn plain(shop: &Shop, record: &Record) -> Result<(), &'static str> {
    let Some(outcome) = &record.outcome else { return Ok(()) };
    match outcome {
        Outcome::Unknown => Err("an unknown end is asked about again"),
        Outcome::Overloaded | Outcome::Unavailable if record.last => Err("unavailable when all is mended"),
        Outcome::Overloaded | Outcome::Unavailable => Ok(()),
        Outcome::Done(answer) => match record.repeats {
            Some(first) => repeated(&shop.history[first], answer),
            None => done(shop, record, answer),
        },
        Outcome::Refused(_) if record.repeats.is_some() && !edits(&record.op) => {
            Err("a repeat of what took effect is refused")
        }
        Outcome::Refused(refusal) => refused(shop, record, refusal),
    }
}

const fn edits(op: &Op) -> bool {
    matches!(op, Op::AddItem { .. } | Op::RemoveItem { .. })
}

/// Whether what it asks about never existed.
fn about_nothing(record: &Record) -> bool {
    let makes = matches!(record.op, Op::CreateUser | Op::CreateItem { .. });
    record.target == Target::default() && !makes
}

/// A repeat gets the first answer again; for edits the order as it now stands.
fn repeated(first: &Record, answer: &Answer) -> Result<(), &'static str> {
    let same = match (&first.outcome, answer) {
        (Some(Outcome::Done(Answer::Order(before))), Answer::Order(now)) => before.order == now.order,
        (Some(Outcome::Done(before)), now) => before == now,
        _ => false,
    };
    if same { Ok(()) } else { Err("a repeat got another answer than the first") }
}

fn done(shop: &Shop, record: &Record, answer: &Answer) -> Result<(), &'static str> {
    if about_nothing(record) {
        return Err("an answer about what does not exist");
    }
    let fits = match (&record.op, answer) {
        (Op::CreateOrder { .. }, Answer::OrderCreated { order }) => {
            shop.orders.iter().filter(|other| other.id == *order).count() == 1
        }
        (Op::RemoveOrder { order: asked }, Answer::OrderRemoved { order }) => asked == order,
        (Op::Checkout { order: asked }, Answer::CheckedOut { order, .. }) => asked == order,
        (Op::CreateItem { .. }, Answer::ItemCreated { item }) => {
            shop.items.iter().filter(|other| other.id == *item).count() == 1
        }
        (Op::CreateUser, Answer::UserCreated { user }) => {
            shop.users.iter().filter(|other| other.id == *user).count() == 1
        }
        (Op::FindItem { item: asked }, Answer::Item { item, price, .. }) => {
            asked == item && record.target.item.is_none_or(|no| shop.items[no].price == *price)
        }
        (
            Op::AddStock { item: asked, .. } | Op::SubtractStock { item: asked, .. },
            Answer::Stock { item, .. },
        ) => asked == item,
        (Op::FindUser { user: asked }, Answer::User { user, .. })
        | (Op::AddFunds { user: asked, .. }, Answer::Funds { user, .. })
        | (
            Op::Pay { user: asked, .. }
            | Op::PayOrder { user: asked, .. }
            | Op::CancelPayment { user: asked, .. },
            Answer::Credit { user, .. },
        ) => asked == user,
        (Op::PaymentStatus { .. }, Answer::PaymentStatus { .. }) => true,
        (
            Op::LoadUsers { n: asked, .. } | Op::LoadItems { n: asked, .. } | Op::LoadOrders { n: asked, .. },
            Answer::Loaded { n },
        ) => asked == n,
        (
            Op::FindOrder { order } | Op::AddItem { order, .. } | Op::RemoveItem { order, .. },
            Answer::Order(view),
        ) => *order == view.order,
        _ => false,
    };
    if !fits {
        return Err("the answer does not fit the question");
    }
    super::lines::check(shop, record, answer)
}

/// Refusals that need no history to be seen false.
fn refused(shop: &Shop, record: &Record, refusal: &Refusal) -> Result<(), &'static str> {
    let order = record.target.order;
    if about_nothing(record) {
        return match refusal {
            Refusal::OrderNotFound(_) | Refusal::UserNotFound(_) | Refusal::ItemNotFound(_) => Ok(()),
            _ => Err("another refusal than that it does not exist"),
        };
    }
    match refusal {
        // The others are judged in the histories.
        Refusal::OutOfStock(_)
        | Refusal::InsufficientCredit
        | Refusal::PaymentMismatch
        | Refusal::PaymentNotFound => Ok(()),
        Refusal::OrderNotFound(_) if order.is_none() => Err("an order of a batch is not found"),
        Refusal::OrderNotFound(_) => Ok(()),
        Refusal::OrderPaid(_) => {
            let before = |other: &Record| {
                other.target.order == order && other.call_us <= record.ret_us.unwrap_or(u64::MAX)
            };
            let pays = |op: &Op| matches!(op, Op::Checkout { .. } | Op::PayOrder { .. });
            let tried = shop.history.iter().any(|other| before(other) && pays(&other.op));
            if tried { Ok(()) } else { Err("refused as paid, and nobody ever paid") }
        }
        Refusal::ItemNotFound(item) => {
            // More units, or an item, that are not in the order.
            let known = shop.items.iter().any(|other| other.id == *item);
            let removes = matches!(record.op, Op::RemoveItem { .. });
            if known && !removes { Err("an item that exists is not found") } else { Ok(()) }
        }
        Refusal::UserNotFound(_) => Err("a user that exists is not found"),
        Refusal::NotReplaced(_) => Err("a client is no operator"),
        Refusal::BadAmount(_) => {
            if matches!(record.op, Op::RemoveItem { .. }) {
                Ok(())
            } else {
                Err("a lawful amount is refused")
            }
        }
    }
}

/// The line of `record` in the history of `user`, if it touches that one.
fn user_op(shop: &Shop, user: usize, record: &Record) -> Option<UserOp> {
    if record.repeats.is_some() {
        return None;
    }
    let outcome = record.outcome.as_ref()?;
    if let (Op::LoadUsers { credit, .. }, Outcome::Done(_)) = (&record.op, outcome) {
        return shop.users[user].batch.then_some(UserOp::Reset { credit: *credit });
    }
    if record.target.user != Some(user) {
        return None;
    }
    let order = record.target.order.map(|order| OrderNo::try_from(order).expect("a few orders"));
    match outcome {
        Outcome::Done(answer) => user_done(record, order, answer),
        Outcome::Refused(refusal) => user_refused(shop, record, order, refusal),
        Outcome::Overloaded | Outcome::Unavailable | Outcome::Unknown => None,
    }
}

fn user_done(record: &Record, order: Option<OrderNo>, answer: &Answer) -> Option<UserOp> {
    Some(match (&record.op, answer) {
        (Op::AddFunds { amount, .. }, Answer::Funds { credit, .. }) => {
            UserOp::Funds { amount: *amount, credit: *credit }
        }
        (Op::Pay { amount, .. }, Answer::Credit { credit, .. }) => {
            UserOp::Paid { amount: *amount, credit: *credit }
        }
        (Op::PayOrder { amount, .. }, Answer::Credit { credit, .. }) => {
            UserOp::OrderPaid { order: order?, amount: *amount, credit: *credit }
        }
        (Op::CancelPayment { .. }, Answer::Credit { credit, .. }) => {
            UserOp::Cancelled { order: order?, credit: *credit }
        }
        (Op::Checkout { .. }, Answer::CheckedOut { total_cost, .. }) => {
            UserOp::CheckedOut { order: order?, total: *total_cost }
        }
        (Op::RemoveOrder { .. }, Answer::OrderRemoved { .. }) => UserOp::Removed { order: order? },
        (Op::PaymentStatus { .. }, Answer::PaymentStatus { paid }) => {
            UserOp::Status { order: order?, paid: *paid }
        }
        (Op::FindOrder { .. }, Answer::Order(view)) if record.last => {
            UserOp::Shown { order: order?, paid: view.paid }
        }
        (Op::FindUser { .. }, Answer::User { credit, .. }) => UserOp::Read { credit: *credit },
        _ => return None,
    })
}

fn user_refused(shop: &Shop, record: &Record, order: Option<OrderNo>, refusal: &Refusal) -> Option<UserOp> {
    let no = record.target.order;
    Some(match (&record.op, refusal) {
        // What was acknowledged amid a partition may not have spread yet.
        (_, Refusal::OrderNotFound(_))
            if (!record.last || shop.disk_lost) && !no.is_some_and(|no| shop.orders[no].sure) =>
        {
            return None;
        }
        (_, Refusal::OrderNotFound(_)) => UserOp::Gone { order: order? },
        (Op::Pay { amount, .. }, Refusal::InsufficientCredit) => UserOp::PayTooMuch { amount: *amount },
        (Op::PayOrder { amount, .. }, Refusal::InsufficientCredit) => {
            UserOp::OrderPayTooMuch { order: order?, amount: *amount }
        }
        (Op::PayOrder { amount, .. }, Refusal::PaymentMismatch) => {
            UserOp::OrderPayMismatch { order: order?, amount: *amount }
        }
        (Op::CancelPayment { .. }, Refusal::PaymentNotFound) => UserOp::NothingToCancel { order: order? },
        (Op::Checkout { .. }, Refusal::InsufficientCredit) => {
            UserOp::CheckoutTooMuch { order: order?, most: shop.most_total(no?) }
        }
        (Op::Checkout { .. }, Refusal::PaymentMismatch) => UserOp::CheckoutMismatch { order: order? },
        (Op::Checkout { .. }, Refusal::OutOfStock(_)) => UserOp::CheckoutSoldOut { order: order? },
        (Op::RemoveOrder { .. }, Refusal::OrderPaid(_)) => UserOp::RemoveRefused { order: order? },
        _ => return None,
    })
}

/// Whether `record` may have cancelled what was paid without a checkout: then it says nothing of what was sold. A
/// checkout that has taken its units and is not charged yet goes on behind it.
fn may_be_of_a_pay(shop: &Shop, record: &Record) -> bool {
    let of_the_same = |other: &&Record| {
        other.target.order == record.target.order && other.call_us <= record.ret_us.unwrap_or(u64::MAX)
    };
    let mut before = shop.history.iter().filter(of_the_same);
    matches!(record.op, Op::CancelPayment { .. })
        && before.any(|other| matches!(other.op, Op::PayOrder { .. }))
}

/// The line of `record` in the history of `item`, if it touches that one.
fn item_op(shop: &Shop, item: usize, record: &Record, slack: u64) -> Option<ItemOp> {
    if record.repeats.is_some() {
        return None;
    }
    let order = record.target.order;
    let order_no = || OrderNo::try_from(order?).ok();
    let own = record.target.item == Some(item);
    Some(match (&record.op, record.outcome.as_ref()?) {
        (Op::LoadItems { stock, .. }, Outcome::Done(_)) if shop.items[item].batch => {
            ItemOp::Reset { stock: *stock }
        }
        (Op::AddStock { units, .. }, Outcome::Done(Answer::Stock { stock, .. })) if own => {
            ItemOp::Added { units: *units, stock: *stock, slack }
        }
        (Op::SubtractStock { units, .. }, Outcome::Done(Answer::Stock { stock, .. })) if own => {
            ItemOp::Subtracted { units: *units, stock: *stock, slack }
        }
        (Op::SubtractStock { units, .. }, Outcome::Refused(Refusal::OutOfStock(_))) if own => {
            ItemOp::SoldOut { need: *units, slack }
        }
        (Op::FindItem { .. }, Outcome::Done(Answer::Item { stock, .. })) if own => {
            ItemOp::Read { stock: *stock, slack: if record.last { 0 } else { slack } }
        }
        (Op::Checkout { .. }, Outcome::Done(Answer::CheckedOut { total_cost, .. })) => {
            let units = units_of(shop, order?, item, *total_cost);
            if units == 0 {
                return None;
            }
            ItemOp::Sold { order: order_no()?, units }
        }
        (Op::Checkout { .. }, Outcome::Refused(Refusal::OutOfStock(id))) if *id == shop.items[item].id => {
            // What others hold may come back, and is waited for: a reservation hides nothing here.
            ItemOp::SoldOut { need: shop.most_units(order?, item), slack: 0 }
        }
        (Op::CancelPayment { .. }, Outcome::Done(_)) if shop.most_units(order?, item) > 0 => {
            ItemOp::Cancelled { order: order_no()? }
        }
        _ => return None,
    })
}

pub fn units_of(shop: &Shop, order: usize, item: usize, total: Money) -> u64 {
    let lines = shop.lines(order, total).unwrap_or_default();
    lines.iter().find(|(of, _)| *of == item).map_or(0, |(_, units)| *units)
}

/// How many units reservations that came to nothing may have held while record `no` was under way.
fn slack(shop: &Shop, item: usize, no: usize, faults: u64) -> u64 {
    let (from, to) = (shop.history[no].call_us, shop.history[no].ret_us.unwrap_or(u64::MAX));
    let held = |(other, record): (usize, &Record)| {
        let units = record.target.order.map_or(0, |order| shop.most_units(order, item));
        if units == 0 || !matches!(record.op, Op::Checkout { .. }) || (other == no && record.calm) {
            return 0;
        }
        let ret = record.ret_us.unwrap_or(u64::MAX);
        // A refusal follows the release of what it held; a deposed leader's attempts are others' to end.
        let end = match (record.calm, &record.outcome) {
            (true, Some(Outcome::Refused(_))) => ret,
            (true, _) => ret.saturating_add(DOUBT_US),
            (false, _) => u64::MAX,
        };
        let times = if record.calm { 1 } else { 1 + u64::from(record.attempts) + faults };
        if record.call_us <= to && end >= from { units * times } else { 0 }
    };
    shop.history.iter().enumerate().map(held).sum()
}
