//! The books of `verify`: what was loaded, what clients were told, what the stores hold, and whether the
//! three agree. Pure, so that a test can cook them.

use crate::modules::money::Money;

#[derive(Clone, Debug)]
pub struct Item {
    pub id: String,
    pub price: Money,
    pub stock: u64,
}

#[derive(Clone, Debug)]
pub struct User {
    pub id: String,
    pub credit: Money,
}

/// Lines name items by their position in the books.
#[derive(Clone, Debug)]
pub struct Order {
    pub id: String,
    pub user: usize,
    pub lines: Vec<(usize, u64)>,
}

/// What one checkout was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Paid {
        total_cost: String,
    },
    /// Names the item, if the answer did.
    OutOfStock(Option<String>),
    NoCredit,
    /// An answer that no checkout of these orders may get, or none at all.
    Strange(String),
}

/// What the stores hold in the end.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub stock: Vec<u64>,
    pub credit: Vec<Money>,
    pub paid: Vec<bool>,
}

#[derive(Clone, Debug, Default)]
pub struct Books {
    pub items: Vec<Item>,
    pub users: Vec<User>,
    pub orders: Vec<Order>,
    /// Per order, one for each of its checkouts.
    pub told: Vec<Vec<Verdict>>,
}

/// How many things disagree, and what they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub stock_told: Vec<String>,
    pub stock_held: Vec<String>,
    pub payment_told: Vec<String>,
    pub payment_held: Vec<String>,
}

impl Report {
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.all().next().is_none()
    }
    pub fn all(&self) -> impl Iterator<Item = &String> {
        [&self.stock_told, &self.stock_held, &self.payment_told, &self.payment_held].into_iter().flatten()
    }
}

impl Books {
    #[must_use]
    pub fn total(&self, order: &Order) -> Money {
        let line = |&(item, units): &(usize, u64)| self.items[item].price.checked_mul(units);
        order
            .lines
            .iter()
            .map(line)
            .try_fold(Money::ZERO, |sum, cost| sum.checked_add(cost?))
            .expect("orders are made of a few small prices")
    }

    #[must_use]
    pub fn is_told_paid(&self, order: usize) -> bool {
        self.told[order].iter().any(|verdict| matches!(verdict, Verdict::Paid { .. }))
    }

    /// Units of each item that clients were told are theirs.
    fn sold(&self) -> Vec<u64> {
        let mut sold = vec![0; self.items.len()];
        for (number, order) in self.orders.iter().enumerate() {
            if self.is_told_paid(number) {
                order.lines.iter().for_each(|&(item, units)| sold[item] += units);
            }
        }
        sold
    }

    /// What each user was told that they paid.
    fn spent(&self) -> Vec<Money> {
        let mut spent = vec![Money::ZERO; self.users.len()];
        for (number, order) in self.orders.iter().enumerate() {
            if self.is_told_paid(number) {
                spent[order.user] =
                    spent[order.user].checked_add(self.total(order)).expect("a few small totals");
            }
        }
        spent
    }

    /// Compares what was loaded, told and held.
    #[must_use]
    pub fn judge(&self, seen: &Seen) -> Report {
        let (sold, spent) = (self.sold(), self.spent());
        let mut report = Report::default();
        for (number, item) in self.items.iter().enumerate() {
            let (id, stock, sold, held) = (&item.id, item.stock, sold[number], seen.stock[number]);
            if sold > stock {
                report.stock_told.push(format!("item {id}: {sold} units were sold, {stock} were there"));
            }
            if stock.checked_sub(sold) != Some(held) {
                report
                    .stock_held
                    .push(format!("item {id}: {stock} units less {sold} sold, but it holds {held}"));
            }
        }
        for (number, user) in self.users.iter().enumerate() {
            let (id, credit, spent, held) = (&user.id, user.credit, spent[number], seen.credit[number]);
            if spent > credit {
                report.payment_told.push(format!("user {id}: paid {spent} out of {credit}"));
            }
            if credit.checked_sub(spent) != Some(held) {
                report.payment_held.push(format!("user {id}: {credit} less {spent} paid, but holds {held}"));
            }
        }
        for (number, order) in self.orders.iter().enumerate() {
            let told_paid = self.is_told_paid(number);
            if told_paid != seen.paid[number] {
                let held = seen.paid[number];
                report.payment_held.push(format!("order {}: told paid {told_paid}, holds {held}", order.id));
            }
            for verdict in &self.told[number] {
                self.judge_verdict(order, verdict, told_paid, (&sold, &spent), &mut report);
            }
        }
        report
    }

    /// Whether nothing disagrees but that there are fewer units of some items than there should be.
    #[must_use]
    pub fn may_be_set_aside(&self, seen: &Seen) -> bool {
        let report = self.judge(seen);
        let due = self.items.iter().zip(self.sold()).map(|(item, sold)| item.stock.checked_sub(sold));
        let fewer = due.zip(&seen.stock).all(|(due, held)| due.is_some_and(|due| *held <= due));
        fewer && !report.stock_held.is_empty() && report.all().count() == report.stock_held.len()
    }

    /// A refusal must have been true. Stock and credit only fall here, so what could still be had at the
    /// end could be had at any moment before.
    fn judge_verdict(
        &self,
        order: &Order,
        verdict: &Verdict,
        told_paid: bool,
        (sold, spent): (&[u64], &[Money]),
        report: &mut Report,
    ) {
        let (id, total) = (&order.id, self.total(order));
        match verdict {
            Verdict::Paid { total_cost } => {
                if Money::parse(total_cost) != Ok(total) {
                    report.payment_told.push(format!("order {id}: costs {total}, but {total_cost} was told"));
                }
            }
            Verdict::OutOfStock(named) => {
                let left = |item: usize| self.items[item].stock.saturating_sub(sold[item]);
                let short = order.lines.iter().any(|&(item, units)| {
                    named.as_ref().is_none_or(|named| *named == self.items[item].id) && left(item) < units
                });
                if told_paid || !short {
                    report.stock_told.push(format!("order {id}: refused for want of stock that was there"));
                }
            }
            Verdict::NoCredit => {
                let credit = self.users[order.user].credit;
                let left = credit.checked_sub(spent[order.user]).unwrap_or_default();
                if told_paid || left >= total {
                    report
                        .payment_told
                        .push(format!("order {id}: refused for want of credit that was there"));
                }
            }
            Verdict::Strange(answer) => report.payment_told.push(format!("order {id}: told {answer}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two units of one item at 3, one user with 4: the first order is paid, the second lacks credit,
    /// the third wants more units than are left.
    fn sound() -> (Books, Seen) {
        let order = |id: &str, units| Order { id: id.into(), user: 0, lines: vec![(0, units)] };
        let books = Books {
            items: vec![Item { id: "i".into(), price: Money::whole(3), stock: 2 }],
            users: vec![User { id: "u".into(), credit: Money::whole(4) }],
            orders: vec![order("a", 1), order("b", 1), order("c", 2)],
            told: vec![
                vec![Verdict::Paid { total_cost: "3".into() }],
                vec![Verdict::NoCredit],
                vec![Verdict::OutOfStock(Some("i".into()))],
            ],
        };
        let seen = Seen { stock: vec![1], credit: vec![Money::whole(1)], paid: vec![true, false, false] };
        (books, seen)
    }

    fn counts(report: &Report) -> [usize; 4] {
        [
            report.stock_told.len(),
            report.stock_held.len(),
            report.payment_told.len(),
            report.payment_held.len(),
        ]
    }

    #[test]
    fn sound_books_agree() {
        let (books, seen) = sound();
        let report = books.judge(&seen);
        assert!(report.is_good(), "{report:?}");
    }

    #[test]
    fn every_kind_of_fault_is_seen() {
        type Fault = fn(&mut Books, &mut Seen);
        let faults: [(Fault, [usize; 4]); 9] = [
            (|_, seen| seen.stock[0] = 2, [0, 1, 0, 0]),
            (|_, seen| seen.credit[0] = Money::ZERO, [0, 0, 0, 1]),
            (|_, seen| seen.paid[0] = false, [0, 0, 0, 1]),
            (|_, seen| seen.paid[1] = true, [0, 0, 0, 1]),
            (|books, _| books.told[0][0] = Verdict::Paid { total_cost: "3.01".into() }, [0, 0, 1, 0]),
            (|books, _| books.told[1][0] = Verdict::OutOfStock(None), [1, 0, 0, 0]),
            (|books, _| books.told[0].push(Verdict::NoCredit), [0, 0, 1, 0]),
            (|books, _| books.told[2][0] = Verdict::Strange("500".into()), [0, 0, 1, 0]),
            // Sold twice over: more units and more money than there were.
            (|books, _| books.told[2][0] = Verdict::Paid { total_cost: "6".into() }, [1, 1, 1, 2]),
        ];
        for (number, (fault, expected)) in faults.into_iter().enumerate() {
            let (mut books, mut seen) = sound();
            fault(&mut books, &mut seen);
            let report = books.judge(&seen);
            assert_eq!(counts(&report), expected, "fault {number}: {report:?}");
        }
    }

    #[test]
    fn only_units_that_are_missing_may_be_set_aside() {
        let (books, mut seen) = sound();
        assert!(!books.may_be_set_aside(&seen));
        seen.stock[0] = 0;
        assert!(books.may_be_set_aside(&seen));
        seen.stock[0] = 2;
        assert!(!books.may_be_set_aside(&seen), "too many");
        seen.stock[0] = 0;
        seen.paid[1] = true;
        assert!(!books.may_be_set_aside(&seen), "and something else");
    }

    #[test]
    fn a_refusal_that_was_not_true_is_seen() {
        let (mut books, mut seen) = sound();
        books.users[0].credit = Money::whole(9);
        seen.credit[0] = Money::whole(6);
        assert_eq!(counts(&books.judge(&seen)), [0, 0, 1, 0]);
    }
}
