//! Questions between pods: where they come in, and how those of this pod's own clients find a leader.

use super::ingress::{Action, Ingress, Map};
use super::message::{AskId, Message, Question, Stamp};
use super::payment::PaymentShard;
use super::pod::Node;
use super::stock::StockShard;
use kassa_protocols::ids::{Module, PodId, Shard, ShardNo};
use kassa_protocols::tables::Disk;
use kassa_protocols::time::{Span, Time};

/// How long what was heard of a shard stamps questions. Keys are kept for longer by far, so that no stamp is
/// ever from before the oldest of them but that of a question that was long on its way.
const HEARD_FOR: Span = Span::from_millis(60_000);
/// How many times longer an order's operation waits for a leader that can be reached.
const PATIENCE_WITH_THE_SLOW: u64 = 3;

impl Node {
    pub(super) fn doubt(
        &mut self,
        from: PodId,
        payment: ShardNo,
        stock: ShardNo,
        txns: Vec<kassa_protocols::ids::TxnId>,
        asked_by: PodId,
        disk: &dyn Disk,
    ) {
        let Some(shard) = self.payment.get_mut(&payment) else { return };
        if shard.is_serving() {
            shard.doubt(asked_by, stock, txns, disk, &mut self.out);
        } else if from == asked_by
            && let Some(leader) =
                shard.group.leader().filter(|&leader| leader != self.config.me && leader != from)
        {
            // Passed on, one hop: the asker may not reach the leader.
            self.out.send_early(leader, Message::Doubt { payment, stock, txns, asked_by });
        }
    }

    pub(super) fn asked(&mut self, now: Time, from: PodId, question: Question, disk: &dyn Disk) {
        let out = &mut self.out;
        let no = question.shard.no;
        match question.shard.module {
            Module::Cluster => self.cluster.asked(from, question, disk, out),
            Module::Stock => match self.stock.get_mut(&no) {
                Some(stock) => stock.asked(from, question, disk, out),
                None => self.not_here(from, &question),
            },
            Module::Payment | Module::Order => match self.payment.get_mut(&no) {
                Some(payment) => payment.asked(now, from, question, disk, out),
                None => self.not_here(from, &question),
            },
        }
    }

    pub(super) fn not_here(&mut self, from: PodId, question: &Question) {
        let leader = self.routes.leader(question.shard);
        let tell = super::message::Tell::NotLeader { leader };
        self.out.post(from, Message::Tell { id: question.id, stamp: Stamp::default(), tell });
    }

    pub(super) fn with_map<R>(&mut self, f: impl FnOnce(&mut Ingress, &Map<'_>) -> R) -> R {
        let cluster = &self.cluster;
        let order_batch = |index: u64| cluster.order_batch(index);
        let map = Map { shards: self.config.shards, order_batch: &order_batch };
        f(&mut self.ingress, &map)
    }

    pub(super) fn act(&mut self, now: Time, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(id) => self.send_questions(now, vec![id]),
                Action::Reply(client, outcome) => self.out.reply(client, outcome),
            }
        }
    }

    /// Sends questions to whoever leads, as far as is known; again and by other ways if need be.
    pub(super) fn send_questions(&mut self, now: Time, ids: Vec<AskId>) {
        for id in ids {
            let Some(shard) = self.ingress.shard_of(id) else { continue };
            if self.reads_by_quorum(now, id, shard) {
                continue;
            }
            let (attempts, waited) = self.ingress.attempts(now, id);
            let mut to = self.routes.leader(shard);
            // A leader that seems to be there is slow rather than out of reach.
            let slow = to.is_some_and(|leader| self.out.is_up(leader));
            let patience =
                self.config.timing.anywhere_after.0 * if slow { PATIENCE_WITH_THE_SLOW } else { 1 };
            if waited.0 >= patience && self.ingress.relax(id) {
                let here = self.payment.contains_key(&shard.no);
                to = if here { Some(self.config.me) } else { self.routes.guess(shard, attempts) };
            }
            let to = match to {
                Some(to) => to,
                None if self.holds(shard) && waited < self.config.timing.ask_again => continue,
                None => match self.routes.guess(shard, attempts) {
                    Some(to) => to,
                    None => continue,
                },
            };
            if !self.out.can_reach(to) {
                continue;
            }
            // Borrowed apart: the stamp is read from the groups, the question from the ingress.
            let stamp = self.stamp(now, shard);
            let Some(question) = self.ingress.question(now, id, |_| stamp) else { continue };
            self.ingress.sent(now, id, to);
            let message = Message::Ask(Box::new(question));
            if attempts > 1 {
                self.out.post_again(to, message);
            } else {
                self.out.post(to, message);
            }
        }
    }

    /// What this pod has last heard of the shard; nothing if that is too long ago to mean anything: then the
    /// question comes back with what there is to be heard now.
    pub(super) fn stamp(&self, now: Time, shard: Shard) -> Stamp {
        let own = match shard.module {
            Module::Cluster => None,
            Module::Stock => {
                self.stock.get(&shard.no).filter(|s| s.group.is_leading()).map(StockShard::stamp)
            }
            Module::Order | Module::Payment => {
                self.payment.get(&shard.no).filter(|p| p.group.is_leading()).map(PaymentShard::stamp)
            }
        };
        let heard = || self.heard.get(&shard).filter(|(_, at)| now.since(*at) < HEARD_FOR);
        own.or_else(|| heard().map(|(stamp, _)| *stamp)).unwrap_or_default()
    }
}
