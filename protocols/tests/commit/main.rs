//! The coordinator's side of the reserving commit, in random order, against books of its own: who is asked,
//! what is decided, and what the watermark of each stock shard says of what may still be charged.

mod decisions;

use kassa_protocols::commit::coordinator::{Action, Coordinator, Vote};
use kassa_protocols::ids::{Ballot, PodId, ShardNo, TxnId};
use kassa_protocols::time::Time;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

type Machine = Coordinator<u64, u64, &'static str>;
type Step = Action<u64, u64, &'static str>;

const PAYMENT: ShardNo = ShardNo(9);
const SHARDS: u16 = 3;

fn ballot(round: u64) -> Ballot {
    Ballot::new(1, round, PodId(0))
}

/// What is known of one transaction.
#[derive(Debug, Default)]
struct Known {
    shards: BTreeSet<ShardNo>,
    /// Asked to reserve, and no answer to it yet.
    asked: BTreeSet<ShardNo>,
    granted: BTreeSet<ShardNo>,
    /// Asked to give back or to confirm, and not acknowledged yet.
    owed: BTreeSet<ShardNo>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Reserving,
    Deciding,
    GivingBack,
    Confirming,
    Confirmed,
    Over,
}

struct World {
    machine: Machine,
    txns: BTreeMap<TxnId, Known>,
}

impl World {
    /// With one charge that the last leader left unfinished.
    fn new() -> Self {
        let old = TxnId { shard: PAYMENT, ballot: ballot(1), n: 5 };
        let shards = vec![ShardNo(0), ShardNo(1)];
        let unfinished = BTreeMap::from([(old, shards.clone())]);
        let (machine, steps) = Machine::new(PAYMENT, ballot(2), &unfinished, Time(0));
        let known =
            Known { shards: shards.into_iter().collect(), stage: Stage::Confirming, ..Known::default() };
        let mut world = Self { machine, txns: BTreeMap::from([(old, known)]) };
        world.take(steps);
        world
    }

    fn begin(&mut self, shards: BTreeSet<ShardNo>, in_turn: bool) {
        let lines = shards.iter().map(|&shard| (shard, 1)).collect();
        let (txn, steps) = self.machine.begin(Time(0), lines, in_turn);
        assert!(self.txns.keys().all(|known| *known < txn), "{txn:?} was used before");
        self.txns.insert(txn, Known { shards, ..Known::default() });
        self.take(steps);
    }

    fn take(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Action::Reserve { shard, txn, .. } => {
                    let known = self.known(txn);
                    assert_eq!(known.stage, Stage::Reserving, "reserved for what is decided");
                    known.asked.insert(shard);
                }
                Action::Release { shard, txn } => {
                    let known = self.known(txn);
                    assert!(
                        matches!(known.stage, Stage::Reserving | Stage::Deciding | Stage::GivingBack),
                        "gives back what is charged"
                    );
                    known.stage = Stage::GivingBack;
                    known.owed.insert(shard);
                }
                Action::Confirm { shard, txn } => {
                    let known = self.known(txn);
                    assert_eq!(known.stage, Stage::Confirming, "confirms what is not charged");
                    known.owed.insert(shard);
                }
                Action::Granted { txn, .. } => {
                    let known = self.known(txn);
                    assert_eq!(known.granted, known.shards, "decides before all have granted");
                    known.stage = Stage::Deciding;
                }
                Action::Contended { txn } => self.known(txn).stage = Stage::GivingBack,
                Action::Refused { txn, .. } | Action::Released { txn } => {
                    let known = self.known(txn);
                    assert!(known.owed.is_empty(), "told while something is still held");
                    known.stage = Stage::Over;
                }
                Action::Finished { txn } => {
                    let known = self.known(txn);
                    assert!(known.owed.is_empty(), "finished before all have confirmed");
                    known.stage = Stage::Confirmed;
                }
                Action::Deposed => {}
            }
        }
        self.check();
    }

    fn known(&mut self, txn: TxnId) -> &mut Known {
        self.txns.get_mut(&txn).expect("it was begun")
    }

    /// Nothing that may still be charged, or whose units a stock shard may still hold, is below a watermark.
    fn check(&self) {
        for (&txn, known) in &self.txns {
            let open = |shard: &&ShardNo| match known.stage {
                Stage::Reserving | Stage::Deciding | Stage::Confirming | Stage::Confirmed => true,
                Stage::GivingBack => known.owed.contains(shard),
                Stage::Over => false,
            };
            for &shard in known.shards.iter().filter(open) {
                let watermark = self.machine.watermark(shard);
                assert!(watermark <= txn, "{shard:?} is told {watermark:?} while {txn:?} is {known:?}");
            }
            let in_flight = matches!(known.stage, Stage::Reserving | Stage::Deciding);
            if in_flight {
                assert!(self.machine.in_flight(txn), "{txn:?} is called aborted while it is {known:?}");
            }
        }
    }

    /// Does something to the `nth` transaction that it can be done to.
    fn poke(&mut self, nth: usize, shard: ShardNo, vote: u8) {
        let Some((&txn, known)) = self.txns.iter().nth(nth % self.txns.len()) else { return };
        let steps = match known.stage {
            Stage::Reserving if known.asked.contains(&shard) => {
                let vote = match vote {
                    0..7 => Vote::Granted(1),
                    7 => Vote::Busy,
                    8 => Vote::Refused("no"),
                    _ => Vote::Fenced,
                };
                if matches!(vote, Vote::Granted(_)) {
                    let known = self.known(txn);
                    known.asked.remove(&shard);
                    known.granted.insert(shard);
                }
                self.machine.voted(Time(0), shard, txn, vote)
            }
            Stage::Deciding if vote < 7 => {
                self.known(txn).stage = Stage::Confirming;
                let steps = self.machine.charged(Time(0), txn);
                if steps.is_empty() {
                    self.known(txn).stage = Stage::Over;
                }
                steps
            }
            Stage::Deciding => {
                self.known(txn).stage = Stage::GivingBack;
                self.machine.abort(Time(0), txn)
            }
            Stage::GivingBack | Stage::Confirming if known.owed.contains(&shard) => {
                self.known(txn).owed.remove(&shard);
                self.machine.acknowledged(shard, txn)
            }
            Stage::Confirmed => {
                self.known(txn).stage = Stage::Over;
                self.machine.finished(txn);
                Vec::new()
            }
            Stage::Reserving | Stage::GivingBack | Stage::Confirming | Stage::Over => Vec::new(),
        };
        self.take(steps);
    }
}

proptest! {
    #[test]
    fn the_watermark_never_passes_what_is_open(
        steps in prop::collection::vec((0_u8..5, any::<usize>(), 0..SHARDS, 0_u8..10, any::<bool>()), 1..120)
    ) {
        let mut world = World::new();
        for (what, nth, shard, vote, in_turn) in steps {
            if what == 0 {
                let shards = (0..SHARDS).filter(|no| nth >> no & 1 == 1).map(ShardNo).collect();
                world.begin(shards, in_turn);
            } else {
                world.poke(nth, ShardNo(shard), vote);
            }
        }
    }
}
