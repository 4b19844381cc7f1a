//! What an order says: the fold of its operations, which every read, edit and checkout of it does.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kassa::modules::money::Money;
use kassa::modules::order::{OrderSet, add_item, create, fold, remove_item};
use kassa::modules::request::{ItemId, OrderId};
use kassa_protocols::ids::{Incarnation, OpId};
use kassa_protocols::time::ShardTime;
use std::hint::black_box;
use std::time::Duration;

/// A cart as people have them, and one as a client that means ill may make it.
const OPERATIONS: [u64; 2] = [10, 1_000];
/// Every so many operations a removal.
const REMOVAL_EVERY: u64 = 5;
const ITEMS: u64 = 100;
const NOW: ShardTime = ShardTime(1);

/// An order of so many operations, its creation not counted, made as a node makes it.
fn order_of(operations: u64) -> OrderSet {
    let order = OrderId::from("07-order");
    let item = |n: u64| ItemId::from(format!("{:032x}", n % ITEMS));
    // Hashes: the order of ids is not that of adding.
    let id = |n: u64| OpId(u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
    let mut set = OrderSet::new(Incarnation(0));
    let creation = create(None, &"user".into()).expect("the order is new");
    set.merge(OpId(u128::MAX - 1), creation, NOW);
    for n in 1..=operations {
        let edit = if n % REMOVAL_EVERY == 0 {
            remove_item(&set, &order, id(n), &item(n - 1), 1)
        } else {
            add_item(&set, &order, id(n), &item(n), 2, Money::whole(7))
        };
        let (operation, _) = edit.expect("there is room, and what is removed was added just before");
        set.merge(id(n), operation.expect("no operation is a repeat"), NOW);
    }
    set
}

fn folds(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("order/fold");
    for operations in OPERATIONS {
        let set = order_of(operations);
        group.throughput(Throughput::Elements(operations));
        group.bench_with_input(BenchmarkId::from_parameter(operations), &set, |bencher, set| {
            bencher.iter(|| fold(black_box(set)));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = folds
}
criterion_main!(benches);
