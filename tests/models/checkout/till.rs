//! A payment shard: its records, the proposals that may still be applied, and whoever coordinates, the
//! deposed included.
//!
//! The shard is one log. What a leader proposes may be applied at any time, also behind the `Lead` of a
//! successor, or never; what a deposed one still says may be heard at any time. Around the product's
//! machine for checkouts and its transitions of payments there is what a node does between them: a grant by
//! all is a proposal, an applied charge a confirmation.

use super::shelf::{Records, item, on};
use super::{Fate, Message, ORDERS, lines};
use kassa::modules::machine::{Context, Machine};
use kassa::modules::money::Money;
use kassa::modules::payment::{Command, OrderRef, Outcome, Payments};
use kassa::modules::receipt::{Receipt, ReceiptLine};
use kassa_protocols::commit::coordinator::{Action, Coordinator};
use kassa_protocols::ids::{Ballot, Incarnation, Module, OpId, PodId, ShardNo, TxnId};
use kassa_protocols::time::{ShardTime, Time};
use std::collections::{BTreeMap, BTreeSet};

const NOW: Time = Time(0);
pub const SHARD: ShardNo = ShardNo(0);
/// Of the one user, in whole units of money: for every order once.
pub const FUNDS: u32 = 4;

type Machinery = Coordinator<u64, u64, ()>;
type Step = Action<u64, u64, ()>;

/// Somebody who leads or led, and does not know better.
#[derive(Clone, Hash)]
pub struct Office {
    pub ballot: Ballot,
    pub coordinator: Machinery,
    orders: BTreeMap<TxnId, u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proposal {
    Charge { txn: TxnId, order: u8, grants: Vec<(ShardNo, u64)> },
    Finished { ballot: Ballot, txn: TxnId },
}

#[derive(Clone, Hash)]
pub struct Till {
    pub records: Records,
    /// The highest `Lead` applied.
    pub lead: Ballot,
    /// In order of ballot; only the last may have the highest `Lead`.
    pub offices: Vec<Office>,
    pub proposals: BTreeSet<Proposal>,
}

fn order_ref(order: u8) -> OrderRef {
    let id = format!("order-{order}");
    OrderRef { user: "user".into(), order: id.as_str().into(), incarnation: Incarnation(0) }
}

impl Till {
    pub fn new() -> Self {
        let mut till = Self {
            records: Records::new(),
            lead: Ballot::ZERO,
            offices: Vec::new(),
            proposals: BTreeSet::new(),
        };
        till.run(&Command::CreateUser { user: "user".into() });
        till.run(&Command::AddFunds { key: OpId(1), user: "user".into(), amount: Money::whole(FUNDS) });
        till
    }

    fn run(&mut self, command: &Command) -> Outcome {
        let context = Context { time: ShardTime(0), lead: self.lead };
        on(Module::Payment, SHARD, &mut self.records, |payments: &mut Payments, view| {
            payments.execute(context, command, view)
        })
    }

    /// Reads the records.
    fn look<T>(&self, look: impl FnOnce(&mut Payments, &mut kassa_protocols::tables::View<'_>) -> T) -> T {
        on(Module::Payment, SHARD, &mut self.records.clone(), look)
    }

    fn unfinished(&self) -> BTreeMap<TxnId, Vec<ShardNo>> {
        self.look(|payments: &mut Payments, _| payments.unfinished().clone())
    }

    /// The credit, and of each order what was charged for it.
    pub fn books(&self) -> (Money, Vec<Vec<Receipt>>) {
        self.look(|payments, view| {
            let credit = payments.user(view, &"user".into()).expect("created").credit;
            let receipts = (0..ORDERS).map(|order| {
                let paid = payments.order(view, &order_ref(order)).expect("never overwritten").payments;
                paid.into_iter().filter_map(|payment| payment.receipt).collect()
            });
            (credit, receipts.collect())
        })
    }

    /// A `Lead` is applied: another coordinates. The last one does not know yet.
    pub fn take_over(&mut self) -> Vec<(u8, Message)> {
        self.lead = self.lead.max(Ballot::new(1, 0, PodId(0))).next(PodId(0));
        let (coordinator, steps) = Machinery::new(SHARD, self.lead, &self.unfinished(), NOW);
        self.offices.push(Office { ballot: self.lead, coordinator, orders: BTreeMap::new() });
        self.carry_out(self.offices.len() - 1, steps)
    }

    /// One of these offices is asked to check an order out.
    pub fn checkout(&mut self, office: usize, order: u8) -> Vec<(u8, Message)> {
        let office_of = &mut self.offices[office];
        // One checkout of an order at a time.
        if office_of.orders.values().any(|known| *known == order) {
            return Vec::new();
        }
        let (txn, steps) = office_of.coordinator.begin(NOW, lines(order), false);
        office_of.orders.insert(txn, order);
        self.carry_out(office, steps)
    }

    fn carry_out(&mut self, at: usize, steps: Vec<Step>) -> Vec<(u8, Message)> {
        let mut sent = Vec::new();
        for step in steps {
            let office = &mut self.offices[at];
            let watermark = |shard| office.coordinator.watermark(shard);
            let to = |shard: ShardNo| u8::try_from(shard.0 + 1).expect("few shards");
            match step {
                Action::Reserve { shard, txn, lines: units, wait: _ } => {
                    sent.push((to(shard), Message::Reserve { txn, units, watermark: watermark(shard) }));
                }
                Action::Release { shard, txn } => {
                    sent.push((to(shard), Message::Release { txn, watermark: watermark(shard) }));
                }
                Action::Confirm { shard, txn } => {
                    sent.push((to(shard), Message::Confirm { txn, watermark: watermark(shard) }));
                }
                Action::Granted { txn, grants } => {
                    let order = office.orders[&txn];
                    self.proposals.insert(Proposal::Charge { txn, order, grants });
                }
                Action::Finished { txn } => {
                    self.proposals.insert(Proposal::Finished { ballot: office.ballot, txn });
                }
                // Its client is told to come again.
                Action::Contended { txn } | Action::Refused { txn, .. } | Action::Released { txn } => {
                    office.orders.remove(&txn);
                }
                Action::Deposed => {}
            }
        }
        sent
    }

    /// A proposal is applied: of a charge that is the decision, which its office hears if it leads.
    pub fn apply(&mut self, proposal: &Proposal) -> Vec<(u8, Message)> {
        if !self.proposals.remove(proposal) {
            return Vec::new();
        }
        match proposal {
            Proposal::Charge { txn, order, grants } => {
                let receipt_line = |&(shard, units): &(ShardNo, u64)| ReceiptLine {
                    item: item(shard),
                    incarnation: Incarnation(0),
                    units,
                    price: Money::whole(1),
                    stock_shard: shard,
                };
                let lines: Vec<ReceiptLine> = grants.iter().map(receipt_line).collect();
                let total = Money::whole(u32::try_from(lines.len()).expect("few lines"));
                let receipt = Receipt { txn: *txn, generation: None, lines, total, covered: Vec::new() };
                let (key, order) = (OpId(100 + u128::from(*order)), order_ref(*order));
                let charge = Command::Charge { key, order, receipt: Box::new(receipt), total: Some(total) };
                let outcome = self.run(&charge);
                let Some(at) = self.office_of(txn.ballot) else { return Vec::new() };
                let office = &mut self.offices[at];
                office.orders.remove(txn);
                let steps = match outcome {
                    Outcome::Charged { .. } => office.coordinator.charged(NOW, *txn),
                    _ => office.coordinator.abort(NOW, *txn),
                };
                self.carry_out(at, steps)
            }
            Proposal::Finished { ballot, txn } => {
                self.run(&Command::Finished(vec![*txn]));
                if let Some(at) = self.office_of(*ballot) {
                    self.offices[at].coordinator.finished(*txn);
                }
                Vec::new()
            }
        }
    }

    /// The office of that ballot, if no newer `Lead` is applied.
    fn office_of(&self, ballot: Ballot) -> Option<usize> {
        (ballot == self.lead).then(|| self.offices.iter().position(|office| office.ballot == ballot))?
    }

    /// An office gives up, which is when it hears of the next.
    pub fn leave(&mut self, office: usize) {
        self.offices.remove(office);
    }

    /// What is heard by the office that the message is for; a vote is for the one that began.
    pub fn deliver(&mut self, message: &Message) -> Vec<(u8, Message)> {
        let mut sent = Vec::new();
        for at in 0..self.offices.len() {
            let coordinator = &mut self.offices[at].coordinator;
            let steps = match message {
                Message::Vote { shard, txn, vote } => coordinator.voted(NOW, *shard, *txn, vote.clone()),
                Message::Resolved { shard, txn } => coordinator.acknowledged(*shard, *txn),
                _ => Vec::new(),
            };
            sent.extend(self.carry_out(at, steps));
        }
        if let Message::Doubt { shard, txn } = message {
            // Behind a round of its own ballot, which only the newest gets.
            let office = self.offices.last().filter(|office| office.ballot == self.lead);
            if let Some(fate) = office.and_then(|office| self.fate(office, *txn)) {
                let to = u8::try_from(shard.0 + 1).expect("few shards");
                sent.push((to, Message::Fate { txn: *txn, fate }));
            }
        }
        sent
    }

    fn fate(&self, office: &Office, txn: TxnId) -> Option<Fate> {
        if txn.ballot > office.ballot || office.coordinator.in_flight(txn) {
            None
        } else if self.unfinished().contains_key(&txn) {
            Some(Fate::Charged)
        } else {
            Some(Fate::Aborted)
        }
    }

    /// The watermarks that its offices send, with everything they say and by themselves.
    pub fn says(&self, shards: &[ShardNo]) -> Vec<(u8, Message)> {
        let of = |office: &Office| {
            let coordinator = office.coordinator.clone();
            let said = move |shard: &ShardNo| {
                let to = u8::try_from(shard.0 + 1).expect("few shards");
                (to, Message::Watermark(coordinator.watermark(*shard)))
            };
            shards.iter().map(said).collect::<Vec<_>>()
        };
        self.offices.iter().flat_map(of).collect()
    }

    /// All that the newest office still waits for, sent again.
    pub fn resend(&mut self) -> Vec<(u8, Message)> {
        let Some(at) = self.offices.len().checked_sub(1) else { return Vec::new() };
        let steps = self.offices[at].coordinator.resend(NOW, None, true);
        self.carry_out(at, steps)
    }
}
