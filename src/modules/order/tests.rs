//! Tables of the order's meaning, and the laws of merging. Each of these was broken on purpose and noticed:
//!
//! | broken on purpose | noticed by |
//! |---|---|
//! | a void edit comes back after the refund | table; laws |
//! | a void edit's key is not known | table |
//! | a covered edit merged again | laws |
//! | covered ids of a superseded receipt dropped | laws |
//! | of two with one id the first to arrive stays | laws |
//! | an older receipt replaces a newer one | table; laws |
//! | the refund of an older charge opens the order | table |
//! | the next generation starts empty | table |
//! | oldest units leave first; order of id instead of adding | table |
//! | receipt lines merged over prices | table |
//! | ids forgotten at once | table |
//! | a paid order takes edits; totals overflow | table |
//! | operations of an older life merged | table |

use super::*;
use crate::modules::batch::{BatchRecord, Load};
use crate::modules::request::{OrderId, OrderView, Refusal, UNITS_MAX};
use bytes::Bytes;
use kassa_protocols::eventual::{Item, Sets};
use kassa_protocols::ids::{Ballot, Incarnation, Module, PodId, Shard, ShardNo};
use kassa_protocols::tables::{Disk, State, View};
use kassa_protocols::time::ShardTime;
use proptest::prelude::*;

const NOW: ShardTime = ShardTime(1_000);

fn op(n: u128) -> OpId {
    OpId(n)
}
fn item(name: &str) -> ItemId {
    name.into()
}
fn order() -> OrderId {
    "07-order".into()
}
fn txn(n: u64) -> TxnId {
    TxnId { shard: ShardNo(7), ballot: Ballot::new(1, 3, PodId(1)), n }
}
fn created() -> OrderSet {
    let mut set = OrderSet::new(Incarnation(0));
    set.merge(op(1_000), create(None, &"u".into()).expect("new"), NOW);
    set
}

/// Runs a command as a node does, and checks that what it showed is what its operation makes.
fn run(
    set: &mut OrderSet,
    key: OpId,
    edited: Result<(Option<Operation>, OrderView), Refusal>,
) -> Result<OrderView, Refusal> {
    let (operation, shown) = edited?;
    if let Some(operation) = operation {
        set.merge(key, operation, NOW);
    }
    assert_eq!(view(set, &order()), Ok(shown.clone()), "an edit shows the order with it");
    Ok(shown)
}
fn add(set: &mut OrderSet, key: u128, name: &str, units: u64, price: u32) -> Result<OrderView, Refusal> {
    let edited = add_item(set, &order(), op(key), &item(name), units, Money::whole(price));
    run(set, op(key), edited)
}
fn take(set: &mut OrderSet, key: u128, name: &str, units: u64) -> Result<OrderView, Refusal> {
    let edited = remove_item(set, &order(), op(key), &item(name), units);
    run(set, op(key), edited)
}
fn lines(view: &OrderView) -> String {
    let items: Vec<String> = view.items.iter().map(|(item, units)| format!("{units}{item}")).collect();
    format!("{} for {}{}", items.join(" "), view.total_cost, if view.paid { ", paid" } else { "" })
}
fn shows(set: &OrderSet) -> String {
    view(set, &order()).map_or_else(|refusal| format!("{refusal:?}"), |view| lines(&view))
}
/// What payment commits when the order is charged as it stands.
fn receipt(set: &OrderSet, n: u64) -> Receipt {
    let charge = checkout_lines(set, &order()).expect("an order");
    let line = |line: fold::Line| ReceiptLine {
        item: line.item,
        incarnation: Incarnation(0),
        units: line.units,
        price: line.price,
        stock_shard: ShardNo(3),
    };
    Receipt {
        txn: txn(n),
        generation: charge.generation,
        lines: charge.lines.into_iter().map(line).collect(),
        total: charge.total.expect("within the money type"),
        covered: charge.covered,
    }
}
fn charge(set: &mut OrderSet, n: u64) {
    let receipt = receipt(set, n);
    set.merge(receipt_id(txn(n)), Operation::Receipt(receipt), NOW);
}
fn refund(set: &mut OrderSet, n: u64) {
    set.merge(refund_id(txn(n)), Operation::Refunded { txn: txn(n) }, NOW);
}

#[test]
fn items_show_in_order_of_first_adding_and_leave_newest_first() {
    let set = &mut created();
    assert_eq!(shows(set), " for 0");
    for (key, name, units, price, shown) in
        [(1, "b", 1, 5, "1b for 5"), (2, "a", 2, 1, "1b 2a for 7"), (3, "b", 3, 7, "4b 2a for 28")]
    {
        assert_eq!(lines(&add(set, key, name, units, price).unwrap()), shown);
    }
    for (key, name, units, shown) in
        [(4, "b", 2, "2b 2a for 14"), (5, "b", 1, "1b 2a for 7"), (6, "b", 1, "2a for 2")]
    {
        assert_eq!(lines(&take(set, key, name, units).unwrap()), shown, "dearest, newest units first");
    }
    assert_eq!(lines(&add(set, 7, "b", 1, 5).unwrap()), "2a 1b for 7", "added anew");
    assert_eq!(take(set, 8, "c", 1), Err(Refusal::ItemNotFound(item("c"))));
    assert!(matches!(take(set, 9, "a", 3), Err(Refusal::BadAmount(_))));
    assert!(matches!(take(set, 10, "a", 0), Err(Refusal::BadAmount(_))));
    assert!(matches!(add(set, 11, "a", 0, 1), Err(Refusal::BadAmount(_))));
    assert_eq!(shows(set), "2a 1b for 7", "a refusal changes nothing");
}

#[test]
fn a_repeated_edit_counts_once_and_shows_the_order_as_it_now_stands() {
    let set = &mut created();
    add(set, 1, "a", 1, 5).unwrap();
    add(set, 2, "b", 1, 1).unwrap();
    assert_eq!(lines(&add(set, 1, "a", 1, 9).unwrap()), "1a 1b for 6");
    take(set, 3, "a", 1).unwrap();
    assert_eq!(lines(&take(set, 3, "a", 1).unwrap()), "1b for 1", "though there is no a any more");
    charge(set, 1);
    assert_eq!(lines(&add(set, 1, "a", 1, 5).unwrap()), "1b for 1, paid");
    assert_eq!(add(set, 4, "a", 1, 5), Err(Refusal::OrderPaid(order())));
    assert_eq!(take(set, 5, "b", 1), Err(Refusal::OrderPaid(order())));
    refund(set, 1);
    assert_eq!(lines(&take(set, 3, "a", 1).unwrap()), "1b for 1", "still known after the refund");
}

#[test]
fn overflows_are_refused() {
    let set = &mut created();
    add(set, 1, "a", UNITS_MAX, 1).unwrap();
    assert!(matches!(add(set, 2, "a", 1, 0), Err(Refusal::BadAmount(_))));
    assert!(matches!(add(set, 3, "b", UNITS_MAX, u32::MAX), Err(Refusal::BadAmount(_))), "one line");
    for n in 0..u128::MAX {
        let edited = add(set, 10 + n, &format!("c{n}"), UNITS_MAX, 1_000);
        if n > 30 {
            assert!(matches!(edited, Err(Refusal::BadAmount(_))), "the sum");
            break;
        }
    }
}

#[test]
fn a_full_order_can_still_be_emptied() {
    let set = &mut created();
    for key in 0..ADDITIONS_MAX as u128 {
        add(set, key, "a", 1, 1).unwrap();
    }
    assert!(matches!(add(set, 9_999, "a", 1, 1), Err(Refusal::BadAmount(_))));
    assert_eq!(lines(&take(set, 10_000, "a", ADDITIONS_MAX as u64).unwrap()), " for 0");
}

#[test]
fn a_refunded_order_is_open_again_with_the_lines_it_had() {
    let set = &mut created();
    add(set, 1, "a", 1, 5).unwrap();
    add(set, 2, "b", 2, 1).unwrap();
    add(set, 3, "a", 1, 7).unwrap();
    let due = checkout_lines(set, &order()).unwrap();
    assert_eq!(due.units(), [(item("a"), 2), (item("b"), 2)]);
    assert_eq!((due.covered, due.generation), (vec![op(1), op(2), op(3)], None));
    charge(set, 1);
    assert_eq!(shows(set), "2a 2b for 14, paid");
    refund(set, 1);
    assert_eq!(shows(set), "2a 2b for 14");
    assert_eq!(lines(&take(set, 4, "a", 1).unwrap()), "1a 2b for 7", "newest units first, at their price");
    add(set, 5, "c", 1, 1).unwrap();
    assert_eq!(checkout_lines(set, &order()).unwrap().generation, Some(txn(1)));
    charge(set, 2);
    assert_eq!(shows(set), "1a 2b 1c for 8, paid");
    refund(set, 2);
    assert_eq!(shows(set), "1a 2b 1c for 8");
    set.merge(CLOSE_ID, Operation::Closed, NOW);
    assert_eq!(view(set, &order()), Err(Refusal::OrderNotFound(order())));
    assert_eq!(add(set, 1, "a", 1, 5), Err(Refusal::OrderNotFound(order())), "a repeat too");
    assert_eq!(checkout_lines(set, &order()), Err(Refusal::OrderNotFound(order())));
}

#[test]
fn what_a_receipt_does_not_list_is_void_for_ever() {
    let set = &mut created();
    add(set, 1, "a", 1, 5).unwrap();
    // Taken at another replica, cut off, before the charge.
    let late = add_item(set, &order(), op(2), &item("b"), 1, Money::whole(9)).unwrap().0.expect("new");
    charge(set, 1);
    set.merge(op(2), late.clone(), NOW);
    assert_eq!(shows(set), "1a for 5, paid");
    refund(set, 1);
    set.merge(op(2), late, NOW);
    assert_eq!(shows(set), "1a for 5");
    assert!(set.knows(op(2)), "its key is known");
    assert_eq!(lines(&add(set, 2, "b", 1, 9).unwrap()), "1a for 5", "and not added anew");
}

#[test]
fn ids_are_forgotten_when_no_request_can_repeat_them() {
    let set = &mut created();
    add(set, 1, "a", 1, 5).unwrap();
    let late = add_item(set, &order(), op(2), &item("b"), 1, Money::whole(9)).unwrap().0.expect("new");
    charge(set, 1);
    set.merge(op(2), late.clone(), NOW);
    let digest = set.digest(b"o");
    assert!(!set.forget(ShardTime(NOW.0 + FORGET_AFTER.0 - 1)));
    assert!(set.knows(op(1)) && set.knows(op(2)));
    let before = set.clone();
    assert!(set.forget(ShardTime(NOW.0 + FORGET_AFTER.0)));
    assert!(!set.knows(op(1)) && !set.knows(op(2)));
    assert_eq!(set.digest(b"o"), digest, "replicas forget at different moments");
    for (id, operation) in before.operations() {
        set.merge(id, operation, NOW);
    }
    assert_eq!(shows(set), "1a for 5, paid");
    set.merge(op(1), late, NOW);
    refund(set, 1);
    assert_eq!(shows(set), "1a for 5", "what is forgotten is void, not new");
}

#[test]
fn a_usual_order_is_small() {
    let mut set = OrderSet::new(Incarnation(0));
    let id = |n: u128| OpId(0x1234_5678_9abc_def0_1234_5678_9abc_def0 ^ n);
    set.merge(id(0), Operation::Created { user: mint_id(id(9)).into() }, NOW);
    for n in 1..3 {
        let item = mint_id(id(n)).into();
        let added = add_item(&set, &order(), id(n), &item, 1, Money::whole(5)).unwrap().0.expect("new");
        set.merge(id(n), added, NOW);
    }
    assert!(set.to_record(0).len() < 300, "{} bytes open", set.to_record(0).len());
    charge(&mut set, 70_000);
    assert!(set.to_record(0).len() < 300, "{} bytes paid", set.to_record(0).len());
    let record = set.to_record(77);
    assert_eq!((OrderSet::record_digest(&record), OrderSet::from_record(&record)), (77, set));
}

struct NoDisk;
impl Disk for NoDisk {
    fn get(&self, _: Shard, _: &[u8]) -> Option<Bytes> {
        None
    }
    fn scan(&self, _: Shard, _: &[u8], _: Option<&[u8]>, _: usize) -> Vec<(Bytes, Bytes)> {
        Vec::new()
    }
}
fn batch(incarnation: u64, n: u64) -> BatchRecord {
    let load = Load::Orders { n, n_items: 10, n_users: 7, item_price: Money::whole(5) };
    BatchRecord { incarnation: Incarnation(incarnation), key: op(0), seed: 1, load }
}

#[test]
fn a_batch_order_is_what_its_batch_says_until_it_is_changed() {
    let mut state = State::new(Shard::new(Module::Order, 0), false, None);
    let batches = [batch(4, 10), batch(9, 2)];
    let mut store =
        OrderStore { view: View { state: &mut state, disk: &NoDisk }, batches: &batches, now: NOW };
    let (one, five): (OrderId, OrderId) = ("1".into(), "5".into());
    assert_eq!(store.load(&"10".into()), None);
    assert_eq!(store.load(&order()), None);
    let set = store.load(&five).expect("in the batch");
    let shown = view(&set, &five).unwrap();
    assert_eq!(shown.items.iter().map(|(_, units)| units).sum::<u64>(), 2);
    assert_eq!((shown.total_cost, set.incarnation), (Money::whole(10), Incarnation(4)));
    assert_eq!(checkout_lines(&set, &five).unwrap().covered, []);

    let first = shown.items[0].0.clone();
    let (operation, after) = remove_item(&set, &five, op(1), &first, 1).unwrap();
    let body = item_of(set.incarnation, op(1), &operation.expect("new"));
    let merged = store.merge(b"5", std::slice::from_ref(&body));
    assert!(merged.changed && merged.before == 0 && merged.after == store.digest(b"5"));
    assert_eq!(view(&store.load(&five).unwrap(), &five), Ok(after), "on top of the batch");
    assert!(!store.merge(b"5", std::slice::from_ref(&body)).changed);
    assert_eq!(store.items(b"5"), std::slice::from_ref(&body), "what the batch says is not sent");
    assert_eq!(store.list(kassa_protocols::eventual::bucket_of(b"5")), [(Bytes::from("5"), merged.after)]);

    // A newer batch covers order 1: what stood under it is gone, and comes back by no late operation.
    let older = Item { id: op(2), body: item_of(Incarnation(4), op(2), &Operation::Closed).body };
    store.merge(b"1", std::slice::from_ref(&older));
    assert_eq!(store.load(&one).map(|set| (set.incarnation, set.is_closed())), Some((Incarnation(9), false)));
    let newer = item_of(Incarnation(9), op(3), &Operation::Refunded { txn: txn(1) });
    assert!(store.merge(b"1", &[newer]).changed);
    assert!(!store.merge(b"1", &[older]).changed, "an older life changes nothing");
    assert_eq!(store.items(b"1").len(), 1);
}

/// When ids were seen is a replica's own; the laws hold for the rest.
const EVER: ShardTime = ShardTime(0);

/// Operations as several replicas, some of them cut off, may have made them.
fn any_operation() -> impl Strategy<Value = (OpId, Operation)> {
    let generation = prop_oneof![Just(None), (1_u64..4).prop_map(|n| Some(txn(n)))];
    let name = (0_u8..3).prop_map(|n| item(&n.to_string()));
    let added = (generation.clone(), 0_u32..4, name.clone(), 1_u64..4, 1_u32..4).prop_map(
        |(generation, position, item, units, price)| {
            let change = EditKind::Added { position, item, units, price: Money::whole(price) };
            Operation::Edit(Edit { generation, change })
        },
    );
    let removed = (generation, name, prop::collection::vec((1_u128..12, 1_u64..3), 1..3)).prop_map(
        |(generation, item, taken)| {
            let taken = taken.into_iter().map(|(id, units)| (op(id), units)).collect();
            Operation::Edit(Edit { generation, change: EditKind::Removed { item, taken } })
        },
    );
    prop_oneof![
        4 => (1_u128..12, added).prop_map(|(id, operation)| (op(id), operation)),
        2 => (1_u128..12, removed).prop_map(|(id, operation)| (op(id), operation)),
        2 => (1_u64..4).prop_map(|n| (receipt_id(txn(n)), Operation::Receipt(fixed_receipt(n)))),
        1 => (1_u64..4).prop_map(|n| (refund_id(txn(n)), Operation::Refunded { txn: txn(n) })),
        1 => Just((op(1_000), Operation::Created { user: "u".into() })),
        1 => (1_u128..12).prop_map(|id| (op(id), Operation::Void)),
    ]
}

/// The one receipt of that number: payment commits no other.
fn fixed_receipt(n: u64) -> Receipt {
    Receipt {
        txn: txn(n),
        generation: (n > 1).then(|| txn(n - 1)),
        lines: vec![ReceiptLine {
            item: item("0"),
            incarnation: Incarnation(0),
            units: n,
            price: Money::whole(1),
            stock_shard: ShardNo(0),
        }],
        total: Money::whole(1),
        covered: vec![op(u128::from(n)), op(u128::from(n) + 3)],
    }
}

fn merged(operations: &[(OpId, Operation)]) -> OrderSet {
    let mut set = OrderSet::new(Incarnation(0));
    for (id, operation) in operations {
        set.merge(*id, operation.clone(), EVER);
    }
    set
}
fn join(mut one: OrderSet, other: &OrderSet) -> OrderSet {
    for (id, operation) in other.operations() {
        one.merge(id, operation, EVER);
    }
    one
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_arrival_does_not_matter(
        (operations, shuffled) in prop::collection::vec(any_operation(), 0..16)
            .prop_flat_map(|operations| (Just(operations.clone()), Just(operations).prop_shuffle())),
    ) {
        let (one, other) = (merged(&operations), merged(&shuffled));
        prop_assert_eq!(&one, &other);
        prop_assert_eq!(one.digest(b"o"), other.digest(b"o"));
        prop_assert_eq!(fold(&one), fold(&other));
    }

    #[test]
    fn joining_is_commutative_associative_and_idempotent(
        a in prop::collection::vec(any_operation(), 0..8),
        b in prop::collection::vec(any_operation(), 0..8),
        c in prop::collection::vec(any_operation(), 0..8),
    ) {
        let (x, y, z) = (merged(&a), merged(&b), merged(&c));
        prop_assert_eq!(join(x.clone(), &y), join(y.clone(), &x));
        prop_assert_eq!(join(join(x.clone(), &y), &z), join(x.clone(), &join(y.clone(), &z)));
        prop_assert_eq!(join(x.clone(), &x), x.clone());
        let all: Vec<_> = [a, b].concat();
        prop_assert_eq!(join(x, &y), merged(&all), "joining sets is merging their operations");
    }

    #[test]
    fn merging_tells_whether_it_changed_anything(operations in prop::collection::vec(any_operation(), 0..16)) {
        let mut set = OrderSet::new(Incarnation(0));
        for (id, operation) in operations {
            let before = set.clone();
            let changed = set.merge(id, operation, EVER);
            prop_assert_eq!(changed, set != before);
        }
        let record = set.to_record(5);
        prop_assert_eq!(OrderSet::from_record(&record), set);
    }
}
