//! The blocking commit's decisions, and who is asked for them.

use kassa_protocols::commit::decisions::{ASK_AGAIN, Decision, Decisions, Doubts};
use kassa_protocols::ids::{Ballot, PodId, ShardNo, TxnId};
use kassa_protocols::time::Time;
use std::collections::BTreeMap;

fn txn(pod: u8, n: u64) -> TxnId {
    TxnId { shard: ShardNo(0), ballot: Ballot::new(1, 1, PodId(pod)), n }
}

#[test]
fn a_decision_is_told_once_it_is_on_disk_and_an_abort_is_presumed() {
    let mut decisions = Decisions::default();
    assert_eq!(decisions.answer(txn(0, 1)), Some(Decision::Abort));
    decisions.make(txn(0, 1));
    assert_eq!(decisions.answer(txn(0, 1)), None, "it may be lost yet");
    decisions.durable(txn(0, 1));
    assert_eq!(decisions.answer(txn(0, 1)), Some(Decision::Commit));
    let mut restarted = Decisions::default();
    decisions.iter().for_each(|txn| restarted.recover(txn));
    assert_eq!(restarted.answer(txn(0, 1)), Some(Decision::Commit));
    decisions.forget(txn(0, 1));
    assert!(decisions.is_empty());
}

#[test]
fn only_the_pod_that_coordinated_is_asked_and_believed() {
    let mut doubts = Doubts::new([txn(0, 1), txn(2, 1)].into_iter());
    let all = BTreeMap::from([(PodId(0), vec![txn(0, 1)]), (PodId(2), vec![txn(2, 1)])]);
    assert_eq!(doubts.ask(Time(0), None), all);
    assert!(doubts.ask(Time(0), None).is_empty(), "they were just asked");
    assert_eq!(doubts.ask(Time(0), Some(PodId(2))).keys().collect::<Vec<_>>(), [&PodId(2)], "it is back");
    assert_eq!(doubts.ask(Time(0) + ASK_AGAIN, None), all);
    assert!(!doubts.told(PodId(1), txn(0, 1)));
    assert!(doubts.told(PodId(0), txn(0, 1)));
    assert!(!doubts.told(PodId(0), txn(0, 1)), "it is no news");
    assert_eq!(doubts.waited_for().collect::<Vec<_>>(), [PodId(2)]);
}
