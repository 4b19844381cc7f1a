//! Orders: what may and what must be in a checkout, and how an order shows.

use super::shop::{Record, Shop};
use crate::modules::request::{Answer, Op, Outcome, Refusal};

/// Checks the lines that a checkout charged, or that a paid order shows.
///
/// An edit that was acknowledged while nothing was broken is in every checkout asked for after it, and in
/// any at all of an order that nobody ever cancelled: it was taken, so the order was not charged yet. One
/// that was under way may be; no unit is there that nobody added.
pub fn check(shop: &Shop, record: &Record, answer: &Answer) -> Result<(), &'static str> {
    let Some(order) = record.target.order else { return Ok(()) };
    let lines = match answer {
        Answer::CheckedOut { total_cost, .. } => {
            shop.lines(order, *total_cost).ok_or("charged a total that no lines add up to")?
        }
        Answer::Order(view) => {
            let mut lines = Vec::new();
            for (id, units) in &view.items {
                lines.push((shop.item_named(id).ok_or("shows an item that nobody added")?, *units));
            }
            let mut by_total =
                shop.lines(order, view.total_cost).ok_or("shows a total that is not its lines'")?;
            let mut shown = lines.clone();
            by_total.sort_unstable();
            shown.sort_unstable();
            if by_total != shown {
                return Err("the total of an order is not that of its lines");
            }
            lines
        }
        Answer::OrderCreated { .. }
        | Answer::OrderRemoved { .. }
        | Answer::ItemCreated { .. }
        | Answer::Item { .. }
        | Answer::Stock { .. }
        | Answer::UserCreated { .. }
        | Answer::User { .. }
        | Answer::Funds { .. }
        | Answer::Credit { .. }
        | Answer::Replaced(_)
        | Answer::PaymentStatus { .. }
        | Answer::Loaded { .. } => return Ok(()),
    };
    let charged = matches!(answer, Answer::CheckedOut { .. });
    for item in 0..shop.items.len() {
        let units = lines.iter().find(|(of, _)| *of == item).map_or(0, |(_, units)| *units);
        if units > shop.most_units(order, item) {
            return Err("has units that nobody added");
        }
        if charged && !shop.orders[order].batch {
            let (least, most) = bounds(shop, order, item, record);
            if units < least {
                return Err("a checkout is without units that were acknowledged before it");
            }
            if units > most {
                return Err("a checkout has units that were removed, or were not added, before it");
            }
        }
    }
    Ok(())
}

/// The units of `item` that a checkout may have charged.
fn bounds(shop: &Shop, order: usize, item: usize, checkout: &Record) -> (u64, u64) {
    let (mut sure, mut gone, mut maybe, mut surely_gone) = (0_u64, 0_u64, 0_u64, 0_u64);
    let asked_us = checkout.call_us;
    let told_us = checkout.ret_us.unwrap_or(u64::MAX);
    let cancels =
        |other: &Record| other.target.order == Some(order) && matches!(other.op, Op::CancelPayment { .. });
    let charged_once = !shop.history.iter().any(cancels);
    for edit in shop.history.iter().filter(|edit| edit.target.order == Some(order) && edit.repeats.is_none())
    {
        if edit.target.item != Some(item) || edit.call_us > told_us && !charged_once {
            continue;
        }
        match &edit.outcome {
            Some(Outcome::Done(_)) => {}
            // It was asked again behind a removal, of which it is told; the first attempt may have counted
            // before: a removed order is not found, whoever asks.
            Some(Outcome::Refused(Refusal::OrderNotFound(_))) if !edit.calm => {}
            _ => continue,
        }
        let before = charged_once || edit.ret_us.is_some_and(|ret| ret < asked_us);
        let before = before && edit.calm && shop.orders[order].sure;
        if let Op::AddItem { units, .. } = edit.op {
            maybe += units;
            sure += if before { units } else { 0 };
        }
        if let Op::RemoveItem { units, .. } = edit.op {
            gone += units;
            surely_gone += if before { units } else { 0 };
        }
    }
    (sure.saturating_sub(gone), maybe.saturating_sub(surely_gone))
}
