//! A pod's logs, read back at its start.

use super::log::{LogError, unpack};
use super::message::Record;
use super::pod::Node;
use kassa_protocols::ids::Module;
use kassa_protocols::tables::Disk;
use kassa_protocols::time::Time;

impl Node {
    /// Takes back a record of a store's log, in order of position.
    ///
    /// # Errors
    /// If it is of another version or does not decode: the pod must not take part.
    pub fn recover(
        &mut self,
        store: Module,
        position: u64,
        packed: &[u8],
        disk: &dyn Disk,
    ) -> Result<(), LogError> {
        if let Some(log) = self.logs.get_mut(&store) {
            log.keep(position, packed.len());
        }
        for (shard, record) in unpack(store, position, packed)? {
            match (shard.module, record) {
                (Module::Order, Record::Order(record)) => {
                    if let Some(payment) = self.payment.get_mut(&shard.no) {
                        payment.orders.recover(position, record, disk);
                    }
                }
                (Module::Payment, Record::Decided(txn)) => {
                    if let Some(payment) = self.payment.get_mut(&shard.no) {
                        payment.recover_decision(position, txn);
                    }
                }
                (Module::Stock, record @ (Record::Paxos(_) | Record::Quorum(_))) => {
                    if let Some(stock) = self.stock.get_mut(&shard.no) {
                        stock.group.recover(position, record);
                    }
                }
                (Module::Payment, record @ (Record::Paxos(_) | Record::Quorum(_))) => {
                    if let Some(payment) = self.payment.get_mut(&shard.no) {
                        payment.group.recover(position, record);
                    }
                }
                (Module::Cluster, record @ (Record::Paxos(_) | Record::Quorum(_))) => {
                    self.cluster.group.recover(position, record);
                }
                (Module::Order, Record::Paxos(_) | Record::Quorum(_))
                | (Module::Order | Module::Stock | Module::Cluster, Record::Decided(_))
                | (Module::Stock | Module::Payment | Module::Cluster, Record::Order(_)) => {
                    return Err(LogError::Undecodable { store, position });
                }
            }
        }
        Ok(())
    }

    /// The logs are read: the pod takes part from here on.
    pub fn recovered(&mut self, now: Time, disk: &dyn Disk) {
        self.recovering = false;
        self.cluster.group.recovered(now, disk, &mut self.out);
        for stock in self.stock.values_mut() {
            stock.group.recovered(now, disk, &mut self.out);
        }
        for payment in self.payment.values_mut() {
            payment.orders.recovered(&mut self.out);
            payment.group.recovered(now, disk, &mut self.out);
        }
        self.touch_all();
        self.settle(now, disk);
    }
}
