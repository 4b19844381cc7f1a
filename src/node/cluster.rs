//! The cluster group on this pod: batches are logged here first, and every shard's leader follows.

use super::group::{Group, Output};
use super::message::{Ask, AskId, Message, Question, Stamp, Tell};
use super::outbox::Outbox;
use super::pod::Node;
use crate::modules::batch::{BatchRecord, Load};
use crate::modules::cluster::{self, Cluster, Command};
use crate::modules::disks::NotReplaced;
use crate::modules::request::{Answer, Op, Outcome, Refusal, Request};
use kassa_protocols::ids::PodId;
use kassa_protocols::quorum;
use kassa_protocols::tables::Disk;

/// Who waits for the outcome of a command.
#[derive(Clone, Debug)]
pub enum Waiter {
    Ask { from: PodId, id: AskId },
    OrderBatch { from: PodId, id: AskId, index: u64 },
}

pub struct ClusterShard {
    pub group: Group<Cluster, Waiter>,
}

impl ClusterShard {
    pub fn asked(&mut self, from: PodId, question: Question, disk: &dyn Disk, out: &mut Outbox) {
        let id = question.id;
        let rejected = match question.ask {
            Ask::Load { key, load } => {
                self.group.submit(Command::Load { key, load }, Waiter::Ask { from, id }, disk)
            }
            Ask::Loaded { incarnation } => {
                self.group.submit(Command::Loaded { incarnation }, Waiter::Ask { from, id }, disk)
            }
            Ask::OrderBatch { index } => {
                self.group.read(Command::Nothing, Waiter::OrderBatch { from, id, index }, disk)
            }
            Ask::Op { request: Request { op: Op::Replace { pod, old, new }, .. }, .. } => {
                let done = self.group.machine.disks.replaced().get(&pod);
                if out.is_up(pod) && done.is_none_or(|done| done.replacement.disk != new) {
                    let refusal = Refusal::NotReplaced(NotReplaced::IsUp(pod));
                    return Self::tell(from, id, Tell::Outcome(Outcome::Refused(refusal)), out);
                }
                self.group.submit(Command::Replace { pod, old, new }, Waiter::Ask { from, id }, disk)
            }
            Ask::Whole { pod, disk: whole } => {
                self.group.submit(Command::Whole { pod, disk: whole }, Waiter::Ask { from, id }, disk)
            }
            Ask::Op { .. } | Ask::Add { .. } | Ask::OfOrder { .. } | Ask::Owner { .. } => return,
            Ask::Anywhere { .. } | Ask::Log { .. } => return,
        };
        if let Err(waiter) = rejected {
            self.elsewhere(waiter, out);
        }
    }

    fn elsewhere(&self, waiter: Waiter, out: &mut Outbox) {
        let (Waiter::Ask { from, id } | Waiter::OrderBatch { from, id, .. }) = waiter;
        let leader = self.group.leader().filter(|_| !self.group.is_leading());
        Self::tell(from, id, Tell::NotLeader { leader }, out);
    }

    fn tell(to: PodId, id: AskId, tell: Tell, out: &mut Outbox) {
        out.post(to, Message::Tell { id, stamp: Stamp::default(), tell });
    }

    /// Passes on what the group has to say. Gives the copies that peers need.
    pub fn poll(&mut self, out: &mut Outbox) -> Vec<(PodId, Option<quorum::Version>)> {
        let mut copies = Vec::new();
        while let Some(output) = self.group.poll() {
            match output {
                Output::Outcome(Waiter::Ask { from, id }, outcome) => {
                    let tell = match outcome {
                        cluster::Outcome::Logged(batch) => Tell::Batch(batch),
                        cluster::Outcome::Done(answer) => Tell::Outcome(Outcome::Done(answer)),
                        cluster::Outcome::Acknowledged => Tell::Done,
                        cluster::Outcome::Replaced(Ok(replacement)) => {
                            Tell::Outcome(Outcome::Done(Answer::Replaced(replacement)))
                        }
                        cluster::Outcome::Replaced(Err(why)) => {
                            Tell::Outcome(Outcome::Refused(Refusal::NotReplaced(why)))
                        }
                    };
                    Self::tell(from, id, tell, out);
                }
                Output::Outcome(Waiter::OrderBatch { from, id, index }, _) => {
                    let batch = self.group.machine.order_batch(index).cloned();
                    Self::tell(from, id, batch.map_or(Tell::NoBatch, Tell::Batch), out);
                }
                Output::Leading(_) => {}
                Output::Deposed(waiters) => {
                    for waiter in waiters {
                        self.elsewhere(waiter, out);
                    }
                }
                Output::Copy { peer, newer_than } => copies.push((peer, newer_than)),
            }
        }
        copies
    }

    #[must_use]
    pub fn order_batch(&self, index: u64) -> Option<BatchRecord> {
        self.group.machine.order_batch(index).cloned()
    }
}

impl Node {
    /// Every shard's leader logs what the cluster group holds, unasked.
    pub(super) fn follow_batches(&mut self, disk: &dyn Disk) {
        let loading: Vec<_> = self.cluster.group.machine.loading().cloned().collect();
        for batch in loading {
            if matches!(batch.load, Load::Items { .. }) {
                for stock in self.stock.values_mut() {
                    stock.follow(&batch, disk);
                }
            } else {
                for payment in self.payment.values_mut() {
                    payment.follow(&batch, disk, &mut self.out);
                }
            }
        }
    }
}
