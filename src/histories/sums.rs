//! The plain sums, without any model: what came in less what went out is what is there.

use super::books::{Book, Report, show, told, units_of};
use super::shop::{Record, Shop};
use crate::modules::money::Money;
use crate::modules::request::{Answer, Op, Outcome};

pub fn check(shop: &Shop, report: &mut Report) {
    reads_agree(shop, report);
    for user in (0..shop.users.len()).filter(|&user| !shop.users[user].batch) {
        credit(shop, user, report);
    }
    for item in (0..shop.items.len()).filter(|&item| !shop.items[item].batch) {
        stock(shop, item, report);
    }
}

fn answer(record: &Record) -> Option<&Answer> {
    match &record.outcome {
        Some(Outcome::Done(answer)) if record.repeats.is_none() => Some(answer),
        _ => None,
    }
}

/// The last read that `pick` finds.
fn last<T>(shop: &Shop, pick: impl Fn(&Record, &Answer) -> Option<T>) -> Option<T> {
    shop.history.iter().rev().filter(|record| record.last).find_map(|record| pick(record, answer(record)?))
}

/// Whichever pod is asked, it says the same when all is quiet.
fn reads_agree(shop: &Shop, report: &mut Report) {
    let reads: Vec<&Record> = shop.history.iter().filter(|record| record.last).collect();
    for (no, read) in reads.iter().enumerate() {
        let other = reads[..no].iter().find(|other| other.op == read.op);
        if let Some(other) = other.filter(|other| other.outcome != read.outcome) {
            let book = if told(&read.op) == Book::StockTold { Book::StockHeld } else { Book::PaymentHeld };
            report.wrong(book, format!("two last reads differ:\n    {}\n    {}", show(other), show(read)));
        }
    }
}

/// What stands paid for an order in the end: by the shop's own answers.
fn outstanding(shop: &Shop, order: usize) -> Money {
    let target = Some(order);
    let paid = last(shop, |record, answer| match answer {
        Answer::PaymentStatus { paid } if record.target.order == target => Some(*paid),
        _ => None,
    });
    let checked_out = last(shop, |record, answer| match answer {
        Answer::Order(view) if record.target.order == target && view.paid => Some(view.total_cost),
        _ => None,
    });
    match (paid, checked_out) {
        (Some(true), Some(total)) => total,
        (Some(true), None) => shop.orders[order].offer.unwrap_or(Money::ZERO),
        (Some(false) | None, _) => Money::ZERO,
    }
}

fn credit(shop: &Shop, user: usize, report: &mut Report) {
    let told = last(shop, |record, answer| match answer {
        Answer::User { credit, .. } if record.target.user == Some(user) => Some(*credit),
        _ => None,
    });
    let mut came = Money::ZERO;
    let mut went = told.unwrap_or(Money::ZERO);
    for record in shop.history.iter().filter(|record| record.target.user == Some(user)) {
        let sum = match (&record.op, answer(record)) {
            (Op::AddFunds { amount, .. }, Some(_)) => came.checked_add(*amount).map(|sum| (sum, went)),
            (Op::Pay { amount, .. }, Some(_)) => went.checked_add(*amount).map(|sum| (came, sum)),
            _ => continue,
        };
        (came, went) = sum.expect("a few small amounts");
    }
    for order in (0..shop.orders.len()).filter(|&order| shop.orders[order].user == user) {
        went = went.checked_add(outstanding(shop, order)).expect("a few small amounts");
    }
    report.sums += 1;
    if told.is_none() || came != went {
        let id = &shop.users[user].id;
        let text = format!("user {id}: {came} came in; what is there and what went out is {went}");
        report.wrong(Book::PaymentHeld, text);
    }
}

/// How often an order was charged, and for what each time, where the answers alone tell.
fn charges(shop: &Shop, order: usize) -> Option<(u64, Option<Money>)> {
    let mut cancels = 0;
    let mut totals: Vec<Money> = Vec::new();
    for record in shop.history.iter().filter(|record| record.target.order == Some(order)) {
        match (&record.op, answer(record)) {
            // Whether a cancel refunds a payment or a charge is not told.
            (Op::PayOrder { .. }, Some(_)) => return None,
            (Op::CancelPayment { .. }, Some(_)) => cancels += 1,
            (Op::Checkout { .. }, Some(Answer::CheckedOut { total_cost, .. })) => totals.push(*total_cost),
            _ => {}
        }
    }
    totals.sort_unstable();
    totals.dedup();
    let paid = last(shop, |record, answer| match answer {
        Answer::Order(view) if record.target.order == Some(order) => Some(view.paid),
        _ => None,
    });
    let count = cancels + u64::from(paid.unwrap_or(false));
    match totals[..] {
        [] => Some((count, None)),
        [total] => Some((count, Some(total))),
        _ => None,
    }
}

fn stock(shop: &Shop, item: usize, report: &mut Report) {
    let told = last(shop, |record, answer| match answer {
        Answer::Item { stock, .. } if record.target.item == Some(item) => Some(*stock),
        _ => None,
    });
    let (mut came, mut went) = (0, told.unwrap_or(0));
    for record in shop.history.iter().filter(|record| record.target.item == Some(item)) {
        match (&record.op, answer(record)) {
            (Op::AddStock { units, .. }, Some(_)) => came += units,
            (Op::SubtractStock { units, .. }, Some(_)) => went += units,
            _ => {}
        }
    }
    for order in (0..shop.orders.len()).filter(|&order| shop.most_units(order, item) > 0) {
        match charges(shop, order) {
            Some((count, Some(total))) => went += count * units_of(shop, order, item, total),
            Some((0, None)) => {}
            Some((_, None)) => {
                let id = &shop.orders[order].id;
                let text = format!("order {id} is paid, and no checkout of it was answered so");
                report.wrong(Book::PaymentHeld, text);
            }
            None => return,
        }
    }
    report.sums += 1;
    if told.is_none() || came != went {
        let id = &shop.items[item].id;
        let text = format!("item {id}: {came} units came in; what is there and what went out is {went}");
        report.wrong(Book::StockHeld, text);
    }
}
