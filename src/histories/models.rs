//! What a user and an item do, one operation after the other: the yardstick of the histories.
//!
//! A user is its credit and what stands paid for each of its orders. An item is what can be sold of it
//! and which orders have taken their units. A reservation that comes to nothing is a take and a give by
//! nobody in particular: it may make the stock that others see smaller for a while, by up to the `slack`
//! that an observation is given, and never larger. So an oversold unit, a lost one and a refusal with
//! plenty in stock are found, and a lawful reservation is no false alarm.

use super::linear::Model;
use crate::modules::money::Money;

/// An order by its number in the harness.
pub type OrderNo = u32;

/// What stands paid for an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Paid through `pay`, and not checked out.
    Bare(Money),
    Charged(Money),
    /// Charged before a batch reset its user: stays paid, cannot be cancelled.
    Kept,
    Removed,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct User {
    pub credit: Money,
    /// Sorted by order; absent if nothing stands paid.
    pub orders: Vec<(OrderNo, Standing)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserOp {
    Funds {
        amount: Money,
        credit: Money,
    },
    Paid {
        amount: Money,
        credit: Money,
    },
    PayTooMuch {
        amount: Money,
    },
    OrderPaid {
        order: OrderNo,
        amount: Money,
        credit: Money,
    },
    OrderPayTooMuch {
        order: OrderNo,
        amount: Money,
    },
    OrderPayMismatch {
        order: OrderNo,
        amount: Money,
    },
    Cancelled {
        order: OrderNo,
        credit: Money,
    },
    NothingToCancel {
        order: OrderNo,
    },
    CheckedOut {
        order: OrderNo,
        total: Money,
    },
    /// `most` is the highest total that the order can have had.
    CheckoutTooMuch {
        order: OrderNo,
        most: Money,
    },
    CheckoutMismatch {
        order: OrderNo,
    },
    CheckoutSoldOut {
        order: OrderNo,
    },
    Removed {
        order: OrderNo,
    },
    RemoveRefused {
        order: OrderNo,
    },
    /// Whatever was asked of it, the order was not there.
    Gone {
        order: OrderNo,
    },
    Status {
        order: OrderNo,
        paid: bool,
    },
    /// `find` of an order when all is quiet: what it shows as paid.
    Shown {
        order: OrderNo,
        paid: bool,
    },
    Read {
        credit: Money,
    },
    Reset {
        credit: Money,
    },
}

impl User {
    fn standing(&self, order: OrderNo) -> Option<Standing> {
        self.orders.binary_search_by_key(&order, |(no, _)| *no).ok().map(|i| self.orders[i].1)
    }

    fn with(&self, credit: Money, order: OrderNo, standing: Option<Standing>) -> Self {
        let mut orders = self.orders.clone();
        match (orders.binary_search_by_key(&order, |(no, _)| *no), standing) {
            (Ok(i), Some(standing)) => orders[i].1 = standing,
            (Ok(i), None) => {
                orders.remove(i);
            }
            (Err(i), Some(standing)) => orders.insert(i, (order, standing)),
            (Err(_), None) => {}
        }
        Self { credit, orders }
    }

    fn with_credit(&self, credit: Money) -> Self {
        Self { credit, orders: self.orders.clone() }
    }

    fn unchanged_if(&self, holds: bool) -> Option<Self> {
        holds.then(|| self.clone())
    }

    fn debit(&self, amount: Money, told: Money) -> Option<Money> {
        self.credit.checked_sub(amount).filter(|left| *left == told)
    }

    fn reset(&self, credit: Money) -> Self {
        let keep = |&(order, standing): &(OrderNo, Standing)| match standing {
            Standing::Bare(_) => None,
            Standing::Charged(_) | Standing::Kept => Some((order, Standing::Kept)),
            Standing::Removed => Some((order, Standing::Removed)),
        };
        Self { credit, orders: self.orders.iter().filter_map(keep).collect() }
    }

    fn pay_order(&self, order: OrderNo, amount: Money, told: Money) -> Option<Self> {
        match self.standing(order) {
            None => Some(self.with(self.debit(amount, told)?, order, Some(Standing::Bare(amount)))),
            Some(Standing::Bare(paid) | Standing::Charged(paid)) => {
                self.unchanged_if(paid == amount && told == self.credit)
            }
            Some(Standing::Kept) => self.unchanged_if(told == self.credit),
            Some(Standing::Removed) => None,
        }
    }

    fn check_out(&self, order: OrderNo, total: Money) -> Option<Self> {
        let charged = Some(Standing::Charged(total));
        match self.standing(order) {
            None => Some(self.with(self.credit.checked_sub(total)?, order, charged)),
            Some(Standing::Bare(paid)) if paid == total => Some(self.with(self.credit, order, charged)),
            Some(Standing::Charged(paid)) => self.unchanged_if(paid == total),
            Some(Standing::Kept) => Some(self.clone()),
            Some(Standing::Bare(_) | Standing::Removed) => None,
        }
    }
}

pub struct UserModel;

impl Model for UserModel {
    type State = User;
    type Op = UserOp;
    fn step(user: &User, op: &UserOp) -> Option<User> {
        match *op {
            UserOp::Funds { amount, credit } => {
                user.credit.checked_add(amount).filter(|sum| *sum == credit).map(|sum| user.with_credit(sum))
            }
            UserOp::Paid { amount, credit } => user.debit(amount, credit).map(|left| user.with_credit(left)),
            UserOp::PayTooMuch { amount } => user.unchanged_if(user.credit < amount),
            UserOp::OrderPaid { order, amount, credit } => user.pay_order(order, amount, credit),
            UserOp::OrderPayTooMuch { order, amount } => {
                user.unchanged_if(user.standing(order).is_none() && user.credit < amount)
            }
            UserOp::OrderPayMismatch { order, amount } => match user.standing(order) {
                Some(Standing::Bare(paid) | Standing::Charged(paid)) => user.unchanged_if(paid != amount),
                Some(Standing::Kept) => Some(user.clone()),
                None | Some(Standing::Removed) => None,
            },
            UserOp::Cancelled { order, credit } => match user.standing(order) {
                Some(Standing::Bare(paid) | Standing::Charged(paid)) => {
                    let sum = user.credit.checked_add(paid).filter(|sum| *sum == credit)?;
                    Some(user.with(sum, order, None))
                }
                None | Some(Standing::Kept | Standing::Removed) => None,
            },
            UserOp::NothingToCancel { order } => match user.standing(order) {
                None | Some(Standing::Kept | Standing::Removed) => Some(user.clone()),
                Some(Standing::Bare(_) | Standing::Charged(_)) => None,
            },
            UserOp::CheckedOut { order, total } => user.check_out(order, total),
            UserOp::CheckoutTooMuch { order, most } => {
                user.unchanged_if(user.standing(order).is_none() && user.credit < most)
            }
            UserOp::CheckoutMismatch { order } => {
                user.unchanged_if(matches!(user.standing(order), Some(Standing::Bare(_))))
            }
            UserOp::CheckoutSoldOut { order } => {
                user.unchanged_if(matches!(user.standing(order), None | Some(Standing::Bare(_))))
            }
            UserOp::Removed { order } => match user.standing(order) {
                None => Some(user.with(user.credit, order, Some(Standing::Removed))),
                Some(Standing::Bare(_) | Standing::Charged(_) | Standing::Kept | Standing::Removed) => None,
            },
            UserOp::RemoveRefused { order } => match user.standing(order) {
                Some(Standing::Bare(_) | Standing::Charged(_) | Standing::Kept) => Some(user.clone()),
                None | Some(Standing::Removed) => None,
            },
            UserOp::Gone { order } => user.unchanged_if(user.standing(order) == Some(Standing::Removed)),
            UserOp::Status { order, paid } => user.unchanged_if(
                matches!(user.standing(order), Some(standing) if standing != Standing::Removed) == paid,
            ),
            UserOp::Shown { order, paid } => user.unchanged_if(
                matches!(user.standing(order), Some(Standing::Charged(_) | Standing::Kept)) == paid,
            ),
            UserOp::Read { credit } => user.unchanged_if(user.credit == credit),
            UserOp::Reset { credit } => Some(user.reset(credit)),
        }
    }

    fn is_look(op: &UserOp) -> bool {
        match op {
            UserOp::Funds { .. }
            | UserOp::Paid { .. }
            | UserOp::OrderPaid { .. }
            | UserOp::Cancelled { .. }
            | UserOp::CheckedOut { .. }
            | UserOp::Removed { .. }
            | UserOp::Reset { .. } => false,
            UserOp::PayTooMuch { .. }
            | UserOp::OrderPayTooMuch { .. }
            | UserOp::OrderPayMismatch { .. }
            | UserOp::NothingToCancel { .. }
            | UserOp::CheckoutTooMuch { .. }
            | UserOp::CheckoutMismatch { .. }
            | UserOp::CheckoutSoldOut { .. }
            | UserOp::RemoveRefused { .. }
            | UserOp::Gone { .. }
            | UserOp::Status { .. }
            | UserOp::Shown { .. }
            | UserOp::Read { .. } => true,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Item {
    /// What could be sold if no reservation came to nothing.
    pub stock: u64,
    /// Sorted: the orders whose charge stands.
    pub sold_to: Vec<OrderNo>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemOp {
    Added {
        units: u64,
        stock: u64,
        slack: u64,
    },
    Subtracted {
        units: u64,
        stock: u64,
        slack: u64,
    },
    Read {
        stock: u64,
        slack: u64,
    },
    Sold {
        order: OrderNo,
        units: u64,
    },
    Cancelled {
        order: OrderNo,
    },
    /// A checkout or a subtraction was refused for want of this item; it asked for `need` at most.
    SoldOut {
        need: u64,
        slack: u64,
    },
    Reset {
        stock: u64,
    },
}

impl Item {
    const fn shows(&self, stock: u64, slack: u64) -> bool {
        stock <= self.stock && stock >= self.stock.saturating_sub(slack)
    }

    fn with_stock(&self, stock: u64) -> Self {
        Self { stock, sold_to: self.sold_to.clone() }
    }
}

pub struct ItemModel;

impl Model for ItemModel {
    type State = Item;
    type Op = ItemOp;
    fn step(item: &Item, op: &ItemOp) -> Option<Item> {
        match *op {
            ItemOp::Added { units, stock, slack } => {
                Some(item.with_stock(item.stock + units)).filter(|after| after.shows(stock, slack))
            }
            ItemOp::Subtracted { units, stock, slack } => {
                Some(item.with_stock(item.stock.checked_sub(units)?))
                    .filter(|after| after.shows(stock, slack))
            }
            ItemOp::Read { stock, slack } => Some(item.clone()).filter(|item| item.shows(stock, slack)),
            ItemOp::Sold { order, units } => match item.sold_to.binary_search(&order) {
                Ok(_) => Some(item.clone()),
                Err(at) => {
                    let mut after = item.with_stock(item.stock.checked_sub(units)?);
                    after.sold_to.insert(at, order);
                    Some(after)
                }
            },
            ItemOp::Cancelled { order } => {
                let mut after = item.clone();
                after.sold_to.retain(|sold| *sold != order);
                Some(after)
            }
            ItemOp::SoldOut { need, slack } => {
                Some(item.clone()).filter(|item| item.stock.saturating_sub(slack) < need)
            }
            ItemOp::Reset { stock } => Some(item.with_stock(stock)),
        }
    }

    fn is_look(op: &ItemOp) -> bool {
        match op {
            ItemOp::Added { .. }
            | ItemOp::Subtracted { .. }
            | ItemOp::Sold { .. }
            | ItemOp::Cancelled { .. }
            | ItemOp::Reset { .. } => false,
            ItemOp::Read { .. } | ItemOp::SoldOut { .. } => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histories::linear::{Entry, Verdict, check};

    const fn eur(amount: u32) -> Money {
        Money::whole(amount)
    }

    fn user(ops: &[(u64, u64, UserOp)]) -> bool {
        let history: Vec<_> = ops
            .iter()
            .map(|(call, ret, op)| Entry { call: *call, ret: Some(*ret), op: op.clone() })
            .collect();
        check::<UserModel>(User::default(), &history) == Verdict::Linearizable
    }

    fn item(ops: &[(u64, u64, ItemOp)]) -> bool {
        let history: Vec<_> = ops
            .iter()
            .map(|(call, ret, op)| Entry { call: *call, ret: Some(*ret), op: op.clone() })
            .collect();
        check::<ItemModel>(Item::default(), &history) == Verdict::Linearizable
    }

    #[test]
    fn racing_checkouts_charge_once() {
        let ops = |left| {
            vec![
                (1, 2, UserOp::Funds { amount: eur(10), credit: eur(10) }),
                (3, 9, UserOp::CheckedOut { order: 1, total: eur(4) }),
                (3, 9, UserOp::CheckedOut { order: 1, total: eur(4) }),
                (10, 11, UserOp::Read { credit: eur(left) }),
            ]
        };
        assert!(user(&ops(6)));
        assert!(!user(&ops(2)), "charged twice");
        assert!(!user(&ops(10)), "never charged");
    }

    #[test]
    fn a_refusal_has_to_be_true() {
        let funds = (1, 2, UserOp::Funds { amount: eur(10), credit: eur(10) });
        let refused = |most| (3, 4, UserOp::CheckoutTooMuch { order: 1, most: eur(most) });
        assert!(user(&[funds.clone(), refused(11)]));
        assert!(!user(&[funds.clone(), refused(10)]));
        let gone = (5, 6, UserOp::Gone { order: 1 });
        assert!(!user(&[funds.clone(), gone.clone()]));
        assert!(user(&[funds.clone(), (3, 4, UserOp::Removed { order: 1 }), gone]));
        let paid = (3, 4, UserOp::CheckedOut { order: 1, total: eur(1) });
        assert!(!user(&[funds, paid, (5, 6, UserOp::CheckoutSoldOut { order: 1 })]));
    }

    #[test]
    fn a_cancel_gives_back_what_was_paid_once() {
        let ops = |second| {
            vec![
                (1, 2, UserOp::Funds { amount: eur(10), credit: eur(10) }),
                (3, 4, UserOp::OrderPaid { order: 1, amount: eur(4), credit: eur(6) }),
                (5, 6, UserOp::CheckedOut { order: 1, total: eur(4) }),
                (7, 8, UserOp::Cancelled { order: 1, credit: eur(10) }),
                second,
            ]
        };
        assert!(user(&ops((9, 10, UserOp::NothingToCancel { order: 1 }))));
        assert!(!user(&ops((9, 10, UserOp::Cancelled { order: 1, credit: eur(14) }))));
        assert!(!user(&ops((9, 10, UserOp::Shown { order: 1, paid: true }))));
    }

    #[test]
    fn a_batch_resets_credit_and_keeps_what_was_bought() {
        let ops = |last| {
            vec![
                (1, 2, UserOp::Reset { credit: eur(9) }),
                (3, 4, UserOp::CheckedOut { order: 1, total: eur(4) }),
                (5, 6, UserOp::Reset { credit: eur(7) }),
                (7, 8, UserOp::NothingToCancel { order: 1 }),
                (9, 10, UserOp::CheckedOut { order: 1, total: eur(4) }),
                (11, 12, UserOp::Read { credit: last }),
            ]
        };
        assert!(user(&ops(eur(7))));
        assert!(!user(&ops(eur(3))));
    }

    #[test]
    fn an_item_is_not_oversold() {
        let ops = |second| {
            vec![
                (1, 2, ItemOp::Added { units: 3, stock: 3, slack: 0 }),
                (3, 9, ItemOp::Sold { order: 1, units: 2 }),
                (3, 9, ItemOp::Sold { order: second, units: 2 }),
            ]
        };
        assert!(item(&ops(1)), "the same order again");
        assert!(!item(&ops(2)));
    }

    #[test]
    fn a_reservation_that_came_to_nothing_only_hides_units() {
        let ops = |stock, slack| {
            vec![
                (1, 2, ItemOp::Added { units: 5, stock: 5, slack: 0 }),
                (3, 4, ItemOp::Read { stock, slack }),
            ]
        };
        assert!(item(&ops(5, 0)) && item(&ops(3, 2)));
        assert!(!item(&ops(6, 2)), "units from nowhere");
        assert!(!item(&ops(2, 2)), "more hidden than reserved");
        let sold_out = |need, slack| {
            vec![
                (1, 2, ItemOp::Added { units: 5, stock: 5, slack: 0 }),
                (3, 4, ItemOp::SoldOut { need, slack }),
            ]
        };
        assert!(item(&sold_out(6, 0)) && item(&sold_out(4, 2)));
        assert!(!item(&sold_out(5, 0)), "refused with enough in stock");
    }

    #[test]
    fn a_cancel_lets_the_order_take_its_units_anew() {
        let ops = |stock| {
            vec![
                (1, 2, ItemOp::Reset { stock: 5 }),
                (3, 4, ItemOp::Sold { order: 1, units: 2 }),
                (5, 6, ItemOp::Cancelled { order: 1 }),
                (7, 8, ItemOp::Sold { order: 1, units: 2 }),
                (9, 10, ItemOp::Read { stock, slack: 0 }),
            ]
        };
        assert!(item(&ops(1)));
        assert!(!item(&ops(3)));
    }
}
