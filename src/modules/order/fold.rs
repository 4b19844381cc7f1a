//! What a set of operations says: a pure fold, the same for every order of arrival.

use super::ids::{batch_line_id, line_id};
use super::{EditKind, Generation, OrderSet, ReceiptLine};
use crate::modules::money::Money;
use crate::modules::request::{ItemId, OrderId, OrderView, Refusal, UserId};
use kassa_protocols::ids::{Incarnation, OpId};
use std::collections::BTreeMap;

/// Units of one item that were added together, as far as they are still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// The addition, or the line built on.
    pub id: OpId,
    pub position: u32,
    pub item: &'a ItemId,
    pub units: u64,
    /// Of one unit.
    pub price: Money,
}

/// Units of one item at one price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub item: ItemId,
    pub units: u64,
    pub price: Money,
}

/// An order as its operations have made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderState<'a> {
    pub user: &'a UserId,
    pub incarnation: Incarnation,
    /// The open one, or the one that the standing receipt has closed.
    pub generation: Generation,
    /// In order of adding.
    pub chunks: Vec<Chunk<'a>>,
    pub paid: bool,
    /// `None` if it is more than the money type holds (possible only by merging: edits are refused).
    pub total: Option<Money>,
    /// The position of the next addition.
    pub next_position: u32,
}

/// What a checkout needs of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckoutLines {
    pub user: UserId,
    pub incarnation: Incarnation,
    pub generation: Generation,
    /// The edits that these lines come from, sorted: what its receipt is to list.
    pub covered: Vec<OpId>,
    /// In order of adding, at one price each; an item added at two prices has two. The receipt keeps
    /// them so, since units leave a refunded order newest first too.
    pub lines: Vec<Line>,
    /// `None` if it is more than the money type holds.
    pub total: Option<Money>,
    /// A receipt stands, as far as this copy knows: the lines are its.
    pub paid: bool,
}

impl CheckoutLines {
    /// The units to reserve: one pair per item, in order of item; capped at what a `u64` holds.
    #[must_use]
    pub fn units(&self) -> Vec<(ItemId, u64)> {
        let mut units: BTreeMap<&ItemId, u64> = BTreeMap::new();
        for line in &self.lines {
            let sum = units.entry(&line.item).or_default();
            *sum = sum.saturating_add(line.units);
        }
        units.into_iter().map(|(item, units)| (item.clone(), units)).collect()
    }
}

/// Folds a set; `None` if there is no such order: not created (here, yet), or removed.
#[must_use]
pub fn fold(set: &OrderSet) -> Option<OrderState<'_>> {
    let user = set.user().filter(|_| !set.is_closed())?;
    let paid = set.standing().is_some();
    let mut chunks = base(set);
    let mut next_position = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
    let mut taken: Vec<&[(OpId, u64)]> = Vec::new();
    for (id, edit) in set.edits() {
        match &edit.change {
            EditKind::Added { position, item, units, price } => {
                next_position = next_position.max(position.saturating_add(1));
                chunks.push(Chunk { id: *id, position: *position, item, units: *units, price: *price });
            }
            EditKind::Removed { item: _, taken: units } => taken.push(units),
        }
    }
    chunks.sort_by_key(|chunk| (chunk.position, chunk.id));
    // Two replicas may have taken the same units in a partition: there are no fewer than none.
    if !taken.is_empty() {
        let mut by_id: Vec<(OpId, usize)> =
            chunks.iter().zip(0..).map(|(chunk, at)| (chunk.id, at)).collect();
        by_id.sort_unstable();
        for (id, units) in taken.into_iter().flatten() {
            if let Ok(at) = by_id.binary_search_by_key(id, |(known, _)| *known) {
                let chunk = &mut chunks[by_id[at].1];
                chunk.units = chunk.units.saturating_sub(*units);
            }
        }
        chunks.retain(|chunk| chunk.units > 0);
    }
    let total = match set.standing() {
        Some(receipt) => Some(receipt.total),
        None => total(&chunks),
    };
    let (incarnation, generation) = (set.incarnation, set.generation());
    Some(OrderState { user, incarnation, generation, chunks, paid, total, next_position })
}

/// The lines that the open generation starts from, or those that were charged.
fn base<'a>(set: &'a OrderSet) -> Vec<Chunk<'a>> {
    if let Some(receipt) = set.receipt() {
        let chunk = |(line, k): (&'a ReceiptLine, u32)| Chunk {
            id: line_id(receipt.txn, k),
            position: k,
            item: &line.item,
            units: line.units,
            price: line.price,
        };
        return receipt.lines.iter().zip(0..).map(chunk).collect();
    }
    let lines = set.initial.iter().flat_map(|initial| &initial.lines);
    lines
        .zip(0_u32..)
        .map(|(line, k)| Chunk {
            id: batch_line_id(u128::from(k)),
            position: k,
            item: &line.item,
            units: line.units,
            price: line.price,
        })
        .collect()
}

/// The sum over all units, if the money type holds it.
#[must_use]
pub(super) fn total(chunks: &[Chunk<'_>]) -> Option<Money> {
    chunks.iter().try_fold(Money::ZERO, |sum, chunk| {
        chunk.price.checked_mul(chunk.units).and_then(|cost| sum.checked_add(cost))
    })
}

impl OrderState<'_> {
    /// As `find` shows it. A total too large for the money type, which only concurrent edits in a
    /// partition can make, shows as the largest amount.
    #[must_use]
    pub fn view(&self, order: &OrderId) -> OrderView {
        let mut items: Vec<(ItemId, u64)> = Vec::with_capacity(self.chunks.len());
        let mut place: BTreeMap<&ItemId, usize> = BTreeMap::new();
        for chunk in &self.chunks {
            if let Some(&at) = place.get(chunk.item) {
                items[at].1 = items[at].1.saturating_add(chunk.units);
            } else {
                place.insert(chunk.item, items.len());
                items.push((chunk.item.clone(), chunk.units));
            }
        }
        OrderView {
            order: order.clone(),
            user: self.user.clone(),
            paid: self.paid,
            items,
            total_cost: self.total.unwrap_or(Money::MAX),
        }
    }
}

/// What a checkout is to charge.
///
/// # Errors
/// `OrderNotFound` if there is no such order.
pub fn checkout_lines(set: &OrderSet, order: &OrderId) -> Result<CheckoutLines, Refusal> {
    let state = fold(set).ok_or_else(|| Refusal::OrderNotFound(order.clone()))?;
    let mut lines: Vec<Line> = Vec::with_capacity(state.chunks.len());
    let mut newest: BTreeMap<&ItemId, usize> = BTreeMap::new();
    for chunk in &state.chunks {
        // Only into the item's newest line, so that newest first stays what it was.
        let line = newest.get(chunk.item).and_then(|&at| lines.get_mut(at));
        match line.filter(|line| line.price == chunk.price) {
            Some(line) => line.units = line.units.saturating_add(chunk.units),
            None => {
                newest.insert(chunk.item, lines.len());
                lines.push(Line { item: chunk.item.clone(), units: chunk.units, price: chunk.price });
            }
        }
    }
    Ok(CheckoutLines {
        user: state.user.clone(),
        incarnation: state.incarnation,
        generation: state.generation,
        covered: set.edits().map(|(id, _)| *id).collect(),
        lines,
        total: state.total,
        paid: state.paid,
    })
}
