//! What a round makes durable: its packed log records, the checkpoints that are due, and what may be cut.
//!
//! Log first, tables later: a record that changes a thousand times between two checkpoints of its shard is
//! written to the tables once. One shard of a store is checkpointed in a round at the most, the one that
//! needs the oldest log record, once the log is long enough; so the work is spread, and nothing on the path
//! of an answer ever waits for a whole store.

use super::Commit;
use super::log::pack;
use super::message::Message;
use super::outbox::store_of;
use super::pod::Node;
use kassa_protocols::breaks;
use kassa_protocols::ids::{Module, Shard, ShardNo};
use kassa_protocols::tables::{Change, Disk};

impl Node {
    /// The commits of this round, in the order in which they may begin.
    pub(super) fn commits(&mut self, disk: &dyn Disk) -> Vec<Commit> {
        self.note_whole();
        let mut due = std::mem::take(&mut self.due);
        let mut commits: Vec<Commit> = Vec::new();
        for store in [Module::Stock, Module::Payment, Module::Order] {
            due.extend(self.worth_a_checkpoint(store));
        }
        // Receipts are derived from payment's log: what a payment checkpoint covers, the order shard has.
        let paid = due.iter().filter(|shard| shard.module == Module::Payment);
        let orders: Vec<Shard> = paid.map(|shard| Shard { module: Module::Order, no: shard.no }).collect();
        if !breaks::is("table-ahead-of-orders") {
            due.extend(orders);
        }
        due.sort_unstable();
        due.dedup();
        let pays = due.iter().any(|shard| shard.module == Module::Payment);
        for store in [Module::Stock, Module::Order, Module::Payment] {
            let position = self.logs[&store].next;
            let mut tables: Vec<(Shard, Change)> = Vec::new();
            for &shard in due.iter().filter(|shard| store_of(shard.module) == store) {
                let changes = self.checkpoint(shard, position, disk);
                tables.extend(changes.into_iter().map(|change| (shard, change)));
            }
            let (records, urgent) = self.out.take_logs(store);
            let log = self.logs.get_mut(&store).expect("every store has a log");
            // What a checkpoint or a copy brings is acknowledged as durable from now on.
            let sync = urgent || !tables.is_empty();
            if records.is_empty() && tables.is_empty() {
                continue;
            }
            // A checkpoint always has a record at its position, so that a log cut to nothing goes on behind it.
            let packed = pack(&records);
            log.keep(position, packed.len());
            for (shard, _) in &records {
                self.needs(*shard, position);
            }
            let cut_below = if tables.is_empty() { None } else { self.cut(store, position) };
            let log = Some((position, packed));
            let after_others = store == Module::Payment && pays;
            commits.push(Commit { store, log, tables, cut_below, sync, after_others });
        }
        commits
    }

    /// The shard of a store whose checkpoint is due, if one is.
    fn worth_a_checkpoint(&self, store: Module) -> Vec<Shard> {
        let limits = &self.config.limits;
        let mut crowded = Vec::new();
        let mut oldest: Option<(u64, Shard)> = None;
        for (shard, needed, dirty) in self.needed(store) {
            if dirty > limits.dirty_max {
                crowded.push(shard);
            }
            if let Some(needed) = needed
                && oldest.is_none_or(|(least, _)| needed < least)
            {
                oldest = Some((needed, shard));
            }
        }
        if self.logs[&store].bytes() > limits.log_bytes_max
            && let Some((_, shard)) = oldest
        {
            crowded.push(shard);
        }
        crowded
    }

    /// The shards of a store with the oldest log position that each needs, and its records in memory.
    fn needed(&self, store: Module) -> Vec<(Shard, Option<u64>, usize)> {
        match store {
            Module::Stock => self
                .stock
                .values()
                .map(|stock| (stock.group.shard(), stock.group.oldest_needed, stock.group.state.held()))
                .collect(),
            Module::Order => self
                .payment
                .iter()
                .map(|(&no, payment)| {
                    let shard = Shard { module: Module::Order, no };
                    (shard, payment.orders.oldest_needed, payment.orders.held())
                })
                .collect(),
            Module::Payment | Module::Cluster => {
                let cluster = &self.cluster.group;
                let own = (Shard::CLUSTER, cluster.oldest_needed, cluster.state.held());
                self.payment
                    .values()
                    .map(|payment| {
                        (payment.group.shard(), payment.group.oldest_needed, payment.group.state.held())
                    })
                    .chain([own])
                    .collect()
            }
        }
    }

    fn needs(&mut self, shard: Shard, position: u64) {
        let needed = match shard.module {
            Module::Cluster => Some(&mut self.cluster.group.oldest_needed),
            Module::Stock => self.stock.get_mut(&shard.no).map(|stock| &mut stock.group.oldest_needed),
            Module::Payment => {
                self.payment.get_mut(&shard.no).map(|payment| &mut payment.group.oldest_needed)
            }
            Module::Order => self.payment.get_mut(&shard.no).map(|payment| &mut payment.orders.oldest_needed),
        };
        if let Some(needed) = needed {
            needed.get_or_insert(position);
        }
    }

    /// What every shard has covered, but for the record of this very commit.
    fn cut(&mut self, store: Module, position: u64) -> Option<u64> {
        let needed = self.needed(store).into_iter().filter_map(|(_, needed, _)| needed).min();
        let needed = needed.map_or(position, |needed| needed.min(position));
        self.logs.get_mut(&store).and_then(|log| log.cut(needed))
    }

    fn checkpoint(&mut self, shard: Shard, position: u64, disk: &dyn Disk) -> Vec<Change> {
        let out = &mut self.out;
        out.forget_logs(shard);
        match shard.module {
            Module::Cluster => self.cluster.group.checkpoint(position, disk, out),
            Module::Stock => self
                .stock
                .get_mut(&shard.no)
                .map(|s| s.group.checkpoint(position, disk, out))
                .unwrap_or_default(),
            Module::Payment => self
                .payment
                .get_mut(&shard.no)
                .map(|p| {
                    p.retain_decisions(out);
                    p.group.checkpoint(position, disk, out)
                })
                .unwrap_or_default(),
            Module::Order => {
                self.payment.get_mut(&shard.no).map(|p| p.orders.checkpoint(position)).unwrap_or_default()
            }
        }
    }

    /// Questions and messages that are of no shard of this pod go nowhere; nothing else may.
    #[must_use]
    pub(super) fn holds(&self, shard: Shard) -> bool {
        match shard.module {
            Module::Cluster => true,
            Module::Stock => self.stock.contains_key(&shard.no),
            Module::Order | Module::Payment => self.payment.contains_key(&shard.no),
        }
    }

    /// The shards that this pod holds, but for those of orders, which go with payment.
    #[must_use]
    pub(super) fn shards(&self) -> Vec<Shard> {
        let stock = self.stock.keys().map(|&no: &ShardNo| Shard { module: Module::Stock, no });
        let payment = self.payment.keys().map(|&no| Shard { module: Module::Payment, no });
        stock.chain(payment).chain([Shard::CLUSTER]).collect()
    }

    /// The shard that a message is about on this pod.
    pub(super) const fn touched_by(message: &Message) -> Option<Shard> {
        match message {
            Message::Paxos { shard, .. }
            | Message::Quorum { shard, .. }
            | Message::Copy { shard, .. }
            | Message::Copied { shard, .. } => Some(*shard),
            Message::Order { shard, .. } => Some(Shard { module: Module::Payment, no: *shard }),
            Message::Ask(question) => Some(question.shard),
            Message::Reserve { shard, .. }
            | Message::Resolve { shard, .. }
            | Message::Fate { stock: shard, .. } => Some(Shard { module: Module::Stock, no: *shard }),
            Message::Vote { txn, .. } | Message::Decided { txn } => {
                Some(Shard { module: Module::Payment, no: txn.shard })
            }
            Message::Resolved { watermark, .. } => {
                Some(Shard { module: Module::Payment, no: watermark.shard })
            }
            Message::Doubt { payment, .. }
            | Message::Inquire { payment, .. }
            | Message::Outcomes { payment, .. } => Some(Shard { module: Module::Payment, no: *payment }),
            Message::Tell { .. }
            | Message::NotCoordinator { .. }
            | Message::Relay { .. }
            | Message::Read { .. }
            | Message::ReadAnswer { .. }
            | Message::Ping { .. }
            | Message::Pong { .. }
            | Message::Refilling(_) => None,
        }
    }
}
