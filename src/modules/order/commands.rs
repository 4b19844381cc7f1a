//! Commands: what a client asks of an order, as an operation to merge and the order as it then stands.

use super::fold::{Chunk, OrderState, fold, total};
use super::{Edit, EditKind, Operation, OrderSet};
use crate::modules::money::Money;
use crate::modules::request::{ItemId, OrderId, OrderView, Refusal, UNITS_MAX, UserId};
use kassa_protocols::ids::OpId;

/// Additions to one generation of an order. An order is read and written whole, so that its size bounds
/// what one client can make a pod do; no cart has as many.
pub const ADDITIONS_MAX: usize = 2_048;
/// Additions and removals: a full order can still be emptied.
pub const EDITS_MAX: usize = 2 * ADDITIONS_MAX;

/// Creates an order; nothing to do if it is there. Its id is derived, so that this is a repeat.
#[must_use]
pub fn create(set: Option<&OrderSet>, user: &UserId) -> Option<Operation> {
    let there = set.is_some_and(|set| set.user().is_some());
    (!there).then(|| Operation::Created { user: user.clone() })
}

/// The order as it stands.
///
/// # Errors
/// `OrderNotFound`.
pub fn view(set: &OrderSet, order: &OrderId) -> Result<OrderView, Refusal> {
    state(set, order).map(|state| state.view(order))
}

fn state<'a>(set: &'a OrderSet, order: &OrderId) -> Result<OrderState<'a>, Refusal> {
    fold(set).ok_or_else(|| Refusal::OrderNotFound(order.clone()))
}

/// The order with the edit in it, and the operation that does it; none if this is a repeat of one that is
/// known, in force or not: then the order shows as it now stands.
///
/// # Errors
/// `OrderNotFound`; `OrderPaid`; `BadAmount` if the quantity or the total would overflow, or the order
/// has too many edits.
pub fn add_item(
    set: &OrderSet,
    order: &OrderId,
    key: OpId,
    item: &ItemId,
    units: u64,
    price: Money,
) -> Result<(Option<Operation>, OrderView), Refusal> {
    let mut state = state(set, order)?;
    if let Some(answer) = repeat_or_paid(set, &state, order, key)? {
        return Ok(answer);
    }
    let (additions, edits) = count(set);
    if additions >= ADDITIONS_MAX || edits >= EDITS_MAX {
        return Err(Refusal::BadAmount(format!("an order takes at most {ADDITIONS_MAX} additions")));
    }
    let there = units_of(&state, item);
    if units == 0 || there.checked_add(units).is_none_or(|sum| sum > UNITS_MAX) {
        let text = format!("a quantity is 1 to {UNITS_MAX}, also as a sum; the order has {there} of {item}");
        return Err(Refusal::BadAmount(text));
    }
    let position = state.next_position;
    state.chunks.push(Chunk { id: key, position, item, units, price });
    state.total = total(&state.chunks);
    if state.total.is_none() || position == u32::MAX {
        return Err(Refusal::BadAmount("the order's total would overflow".to_owned()));
    }
    let view = state.view(order);
    let change = EditKind::Added { position, item: item.clone(), units, price };
    Ok((Some(Operation::Edit(Edit { generation: state.generation, change })), view))
}

/// As [`add_item`], taking away the newest units first.
///
/// # Errors
/// `OrderNotFound`; `OrderPaid`; `ItemNotFound` if none is in the order; `BadAmount` if there are fewer.
pub fn remove_item(
    set: &OrderSet,
    order: &OrderId,
    key: OpId,
    item: &ItemId,
    units: u64,
) -> Result<(Option<Operation>, OrderView), Refusal> {
    let mut state = state(set, order)?;
    if let Some(answer) = repeat_or_paid(set, &state, order, key)? {
        return Ok(answer);
    }
    let there = units_of(&state, item);
    if there == 0 {
        return Err(Refusal::ItemNotFound(item.clone()));
    }
    if units == 0 || units > there {
        let text = format!("a quantity is 1 or more; the order has {there} of {item}, not {units}");
        return Err(Refusal::BadAmount(text));
    }
    if count(set).1 >= EDITS_MAX {
        return Err(Refusal::BadAmount(format!("an order takes at most {EDITS_MAX} edits")));
    }
    let mut left = units;
    let mut taken = Vec::new();
    for chunk in state.chunks.iter_mut().rev().filter(|chunk| chunk.item == item) {
        let here = chunk.units.min(left);
        if here == 0 {
            break;
        }
        taken.push((chunk.id, here));
        chunk.units -= here;
        left -= here;
    }
    state.chunks.retain(|chunk| chunk.units > 0);
    state.total = total(&state.chunks);
    let view = state.view(order);
    let change = EditKind::Removed { item: item.clone(), taken };
    Ok((Some(Operation::Edit(Edit { generation: state.generation, change })), view))
}

/// The answer to an edit that is known, before anything else is judged; a paid order takes no other.
fn repeat_or_paid(
    set: &OrderSet,
    state: &OrderState<'_>,
    order: &OrderId,
    key: OpId,
) -> Result<Option<(Option<Operation>, OrderView)>, Refusal> {
    if set.knows(key) {
        return Ok(Some((None, state.view(order))));
    }
    if state.paid { Err(Refusal::OrderPaid(order.clone())) } else { Ok(None) }
}

fn units_of(state: &OrderState<'_>, item: &ItemId) -> u64 {
    let chunks = state.chunks.iter().filter(|chunk| chunk.item == item);
    chunks.fold(0, |sum, chunk| sum.saturating_add(chunk.units))
}

/// Additions, and all edits, of the open generation.
fn count(set: &OrderSet) -> (usize, usize) {
    set.edits().fold((0, 0), |(additions, edits), (_, edit)| match edit.change {
        EditKind::Added { .. } => (additions + 1, edits + 1),
        EditKind::Removed { .. } => (additions, edits + 1),
    })
}
