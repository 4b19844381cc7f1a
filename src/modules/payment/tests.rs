//! Which charges count: what a coordinator proposed is judged again when it is applied.

use super::*;
use crate::modules::receipt::ReceiptLine;
use bytes::Bytes;
use kassa_protocols::ids::{Ballot, Module, PodId, Shard};
use kassa_protocols::tables::{Disk, State};
use kassa_protocols::time::ShardTime;

struct Nothing;

impl Disk for Nothing {
    fn get(&self, _: Shard, _: &[u8]) -> Option<Bytes> {
        None
    }
    fn scan(&self, _: Shard, _: &[u8], _: Option<&[u8]>, _: usize) -> Vec<(Bytes, Bytes)> {
        Vec::new()
    }
}

/// A shard with one user, who has 10.
struct Shop {
    payments: Payments,
    state: State,
}

impl Shop {
    fn new() -> Self {
        let state = State::new(Shard { module: Module::Payment, no: ShardNo(0) }, false, None);
        let mut shop = Self { payments: Payments::default(), state };
        shop.run(1, &Command::CreateUser { user: user() });
        shop.run(1, &Command::AddFunds { key: OpId(1), user: user(), amount: Money::whole(10) });
        shop
    }

    /// Applies a command behind the `Lead` of that round.
    fn run(&mut self, lead: u64, command: &Command) -> Outcome {
        let context = Context { time: ShardTime(1_000), lead: ballot(lead) };
        self.payments.execute(context, command, &mut View { state: &mut self.state, disk: &Nothing })
    }

    fn credit(&mut self) -> Money {
        let view = &mut View { state: &mut self.state, disk: &Nothing };
        self.payments.user(view, &user()).expect("created").credit
    }
}

fn user() -> UserId {
    "u".into()
}
fn ballot(round: u64) -> Ballot {
    Ballot::new(1, round, PodId(0))
}
fn txn(round: u64, n: u64) -> TxnId {
    TxnId { shard: ShardNo(0), ballot: ballot(round), n }
}
fn order() -> OrderRef {
    OrderRef { user: user(), order: "o".into(), incarnation: Incarnation(0) }
}

fn already_paid() -> Outcome {
    Outcome::AlreadyPaid { total: Money::whole(4) }
}

/// Charges 4 for one unit, under that key and transaction.
fn charge(key: u128, txn: TxnId, generation: Option<TxnId>) -> Command {
    let line = ReceiptLine {
        item: "i".into(),
        incarnation: Incarnation(0),
        units: 1,
        price: Money::whole(4),
        stock_shard: ShardNo(2),
    };
    let total = Money::whole(4);
    let receipt = Receipt { txn, generation, lines: vec![line], covered: Vec::new(), total };
    Command::Charge { key: OpId(key), order: order(), receipt: Box::new(receipt), total: Some(total) }
}

#[test]
fn a_charge_behind_a_newer_lead_is_aborted() {
    let mut shop = Shop::new();
    assert_eq!(shop.run(2, &charge(2, txn(1, 1), None)), Outcome::Aborted);
    assert_eq!(shop.credit(), Money::whole(10));
    assert!(shop.payments.unfinished().is_empty());
    assert_eq!(shop.run(2, &charge(3, txn(2, 1), None)), Outcome::Charged { total: Money::whole(4) });
    assert_eq!(shop.credit(), Money::whole(6));
    assert_eq!(shop.payments.unfinished().keys().copied().collect::<Vec<_>>(), [txn(2, 1)]);
}

#[test]
fn a_charge_of_lines_that_were_refunded_meanwhile_is_aborted() {
    let mut shop = Shop::new();
    shop.run(1, &charge(2, txn(1, 1), None));
    shop.run(1, &Command::Cancel { key: OpId(3), order: order() });
    assert_eq!(shop.credit(), Money::whole(10));
    assert_eq!(shop.run(1, &charge(4, txn(1, 2), None)), Outcome::Aborted);
    let charged = shop.run(1, &charge(4, txn(1, 3), Some(txn(1, 1))));
    assert_eq!(charged, Outcome::Charged { total: Money::whole(4) });
}

#[test]
fn a_key_finds_its_charge_even_after_the_cancel() {
    let mut shop = Shop::new();
    shop.run(1, &charge(2, txn(1, 1), None));
    shop.run(1, &Command::Cancel { key: OpId(3), order: order() });
    for again in [charge(2, txn(1, 2), Some(txn(1, 1))), Command::Repeat { key: OpId(2), order: order() }] {
        assert_eq!(shop.run(1, &again), Outcome::AlreadyPaid { total: Money::whole(4) });
    }
    assert_eq!(shop.credit(), Money::whole(10));
}

#[test]
fn an_edit_from_before_a_cancel_is_no_part_of_what_it_opened() {
    let mut shop = Shop::new();
    shop.run(1, &charge(2, txn(1, 1), None));
    shop.run(1, &Command::Cancel { key: OpId(3), order: order() });
    let view = &mut View { state: &mut shop.state, disk: &Nothing };
    let payments = shop.payments.order(view, &order()).expect("paid");
    let (cancelled, opened) = (ShardTime(1_000), Some(txn(1, 1)));
    let may_edit = |generation, stamp: u64| payments.may_edit(generation, ShardTime(stamp), cancelled);
    assert!(!may_edit(opened, 999), "it may have been refused as the order was paid");
    assert!(!may_edit(opened, 1_000));
    assert!(may_edit(opened, 1_001));
    assert!(may_edit(None, 0), "of a generation that a receipt has closed it is void by itself");
    assert!(!may_edit(Some(txn(1, 2)), 1_001), "payment has not heard of that one here");
    let much_later = ShardTime(3_600_000_000);
    assert!(!payments.may_edit(opened, ShardTime(1_001), much_later), "its keys may be forgotten");
}

#[test]
fn a_cancel_leaves_the_charge_to_be_finished() {
    let mut shop = Shop::new();
    shop.run(1, &charge(2, txn(1, 1), None));
    shop.run(1, &Command::Cancel { key: OpId(3), order: order() });
    assert!(shop.payments.unfinished().contains_key(&txn(1, 1)), "its units are sold all the same");
    shop.run(1, &Command::Finished(vec![txn(1, 1)]));
    assert!(shop.payments.unfinished().is_empty());
}

#[test]
fn a_key_that_acted_on_two_lives_of_a_user_repeats_its_newest_answer() {
    let mut shop = Shop::new();
    let order = OrderRef { user: "3".into(), order: "o".into(), incarnation: Incarnation(0) };
    let pay = Command::PayOrder { key: OpId(7), order: order.clone(), amount: Money::whole(5) };
    for incarnation in [1, 2] {
        let load = Load::Users { n: 10, credit: Money::whole(20) };
        let key = OpId(90 + u128::from(incarnation));
        shop.run(
            1,
            &Command::Load(BatchRecord { incarnation: Incarnation(incarnation), key, seed: 0, load }),
        );
        let paid = shop.run(1, &pay);
        assert_eq!(shop.run(1, &pay), paid, "a repeat");
    }
    let first = shop.run(1, &pay);
    shop.run(1, &Command::Cancel { key: OpId(8), order: order.clone() });
    assert_eq!(shop.run(1, &pay), first, "a repeat after the cancel pays nothing");
    let view = &mut View { state: &mut shop.state, disk: &Nothing };
    assert_eq!(shop.payments.user(view, &"3".into()).expect("in the batch").credit, Money::whole(20));
}

#[test]
fn a_user_pays_what_was_promised_though_a_batch_overwrote_the_order_since() {
    let batch = Load::Orders { n: 10, n_items: 1, n_users: 1, item_price: Money::whole(1) };
    let batch = BatchRecord { incarnation: Incarnation(1), key: OpId(90), seed: 0, load: batch };
    for paid_before in [false, true] {
        let mut shop = Shop::new();
        let order = OrderRef { order: "5".into(), ..order() };
        if paid_before {
            shop.run(1, &Command::PayOrder { key: OpId(3), order: order.clone(), amount: Money::whole(4) });
        }
        let Command::Charge { key, receipt, total, .. } = charge(2, txn(1, 1), None) else { unreachable!() };
        let prepare = Command::Prepare { key, order: order.clone(), receipt, total };
        assert_eq!(shop.run(1, &prepare), Outcome::Prepared);
        shop.run(1, &Command::Load(batch.clone()));
        assert_eq!(shop.run(1, &Command::Commit(txn(1, 1))), Outcome::Charged { total: Money::whole(4) });
        assert_eq!(shop.credit(), Money::whole(6), "paid once; {paid_before}");
        assert!(shop.payments.unfinished().contains_key(&txn(1, 1)));
    }
}

#[test]
fn a_paid_order_does_not_grow_with_those_who_ask_to_check_it_out() {
    let mut shop = Shop::new();
    shop.run(1, &charge(2, txn(1, 1), None));
    let size = |shop: &mut Shop| shop.state.get(&Nothing, &order_key(&order())).expect("paid").len();
    assert_eq!(shop.run(1, &Command::Repeat { key: OpId(100), order: order() }), already_paid());
    let before = size(&mut shop);
    for key in 101..200 {
        assert_eq!(shop.run(1, &Command::Repeat { key: OpId(key), order: order() }), already_paid());
    }
    assert_eq!(size(&mut shop), before);
    // And each of those keys is found even after the cancel, by a repeat and by a charge.
    shop.run(1, &Command::Cancel { key: OpId(8), order: order() });
    assert_eq!(shop.run(1, &Command::Repeat { key: OpId(150), order: order() }), already_paid());
    assert_eq!(shop.run(1, &charge(150, txn(1, 2), Some(txn(1, 1)))), already_paid());
    assert_eq!(shop.run(1, &Command::Repeat { key: OpId(999), order: order() }), Outcome::NotPaid);
}

/// The vote on what [`charge`] charges.
fn prepare(key: u128, txn: TxnId) -> Command {
    let Command::Charge { key, order, receipt, total } = charge(key, txn, None) else { unreachable!() };
    Command::Prepare { key, order, receipt, total }
}

#[test]
fn a_vote_changes_nothing_and_its_commit_is_the_charge() {
    let (mut voted, mut charged) = (Shop::new(), Shop::new());
    assert_eq!(voted.run(1, &prepare(2, txn(1, 1))), Outcome::Prepared);
    assert_eq!(voted.credit(), Money::whole(10), "nothing is debited before it is decided");
    assert_eq!(voted.payments.prepared()[&txn(1, 1)].shards, [ShardNo(2)]);
    // Whoever leads when it is decided.
    let outcome = voted.run(7, &Command::Commit(txn(1, 1)));
    assert_eq!(outcome, charged.run(1, &charge(2, txn(1, 1), None)));
    assert_eq!(voted.credit(), charged.credit());
    assert_eq!(voted.payments.unfinished(), charged.payments.unfinished());
    let record = |shop: &mut Shop| shop.state.get(&Nothing, &order_key(&order()));
    assert_eq!(record(&mut voted), record(&mut charged));
    assert!(voted.payments.prepared().is_empty());
    assert_eq!(voted.run(7, &Command::Commit(txn(1, 1))), Outcome::Acknowledged, "once");
    assert_eq!(voted.credit(), Money::whole(6));
}

#[test]
fn an_abort_leaves_nothing_of_a_vote() {
    let mut shop = Shop::new();
    shop.run(1, &prepare(2, txn(1, 1)));
    assert_eq!(shop.run(2, &Command::Abort(txn(1, 1))), Outcome::Acknowledged);
    assert!(shop.payments.prepared().is_empty() && shop.payments.unfinished().is_empty());
    assert_eq!(shop.run(2, &prepare(2, txn(2, 1))), Outcome::Prepared);
}

#[test]
fn a_vote_of_an_older_leader_is_no() {
    let mut shop = Shop::new();
    assert_eq!(shop.run(2, &prepare(2, txn(1, 1))), Outcome::Aborted);
    assert!(shop.payments.prepared().is_empty());
}

#[test]
fn what_a_former_leader_proposed_is_void_behind_a_vote() {
    let mut shop = Shop::new();
    shop.run(2, &prepare(2, txn(2, 1)));
    let pay = Command::Pay { key: OpId(3), user: user(), amount: Money::whole(7) };
    let close = Command::Close { key: OpId(4), order: order() };
    for late in [pay, close, prepare(5, txn(1, 1))] {
        assert_eq!(shop.run(2, &late), Outcome::Aborted);
    }
    assert_eq!(shop.run(2, &Command::Commit(txn(2, 1))), Outcome::Charged { total: Money::whole(4) });
    assert_eq!(shop.credit(), Money::whole(6));
}

#[test]
fn a_vote_and_its_lock_outlive_the_leader() {
    let mut shop = Shop::new();
    shop.run(1, &prepare(2, txn(1, 1)));
    shop.payments = Payments::default();
    shop.payments.rebuild(&View { state: &mut shop.state, disk: &Nothing });
    assert_eq!(shop.payments.prepared()[&txn(1, 1)].user, user());
    assert_eq!(shop.run(9, &Command::Commit(txn(1, 1))), Outcome::Charged { total: Money::whole(4) });
}

#[test]
fn what_was_promised_before_a_batch_is_charged_as_if_before_it() {
    let mut shop = Shop::new();
    let order = OrderRef { user: "3".into(), order: "5".into(), incarnation: Incarnation(2) };
    let load = |incarnation, load| {
        let key = OpId(u128::from(incarnation) + 90);
        Command::Load(BatchRecord { incarnation: Incarnation(incarnation), key, seed: 0, load })
    };
    shop.run(1, &load(1, Load::Users { n: 10, credit: Money::whole(20) }));
    let Command::Prepare { key, receipt, total, .. } = prepare(2, txn(1, 1)) else { unreachable!() };
    let vote = Command::Prepare { key, order: order.clone(), receipt, total };
    // The user is reset: the order stays charged, and the new credit is whole.
    assert_eq!(shop.run(1, &vote), Outcome::Prepared);
    shop.run(1, &load(3, Load::Users { n: 10, credit: Money::whole(30) }));
    assert_eq!(shop.run(1, &Command::Commit(txn(1, 1))), Outcome::Charged { total: Money::whole(4) });
    let view = &mut View { state: &mut shop.state, disk: &Nothing };
    assert_eq!(shop.payments.user(view, &"3".into()).expect("in the batch").credit, Money::whole(30));
    let paid = shop.payments.order(view, &order).expect("not overwritten");
    assert_eq!(paid.charge().expect("charged").txn, txn(1, 1));
    assert_eq!(paid.payments[0].user_incarnation, Incarnation(1));
}
