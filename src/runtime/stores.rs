//! The pod's three databases, and how a shard finds its place in them.

use crate::exit::fail_stop;
use bytes::Bytes;
use kassa_protocols::ids::{Module, PodId, Shard};
use kassa_protocols::tables::Disk;
pub use kassa_storage::lacks_room;
use kassa_storage::{Inspected, OpenError, Options, ReadError, Store};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The cluster group's shard number in the payment store: no payment shard has it, and the one above
/// is the store's own.
const CLUSTER_SHARD_NO: u16 = u16::MAX - 1;
/// The most shards of a module, so that none has the number of the cluster group.
pub const SHARDS_MAX: u16 = 1024;

/// One store a module; the cluster group lives in payment's.
#[derive(Clone)]
pub struct Stores {
    order: Arc<Store>,
    stock: Arc<Store>,
    payment: Arc<Store>,
}

/// The modules that have a store, in the order in which their logs are recovered.
pub const MODULES: [Module; 3] = [Module::Order, Module::Stock, Module::Payment];

/// Where the stores of a pod lie under its directory, in the order of [`MODULES`].
#[must_use]
pub fn directories(pod_directory: &Path) -> Vec<PathBuf> {
    MODULES.iter().map(|module| pod_directory.join(module.to_string())).collect()
}

impl Stores {
    /// Opens the three stores side by side. Those of a pod that has formed must be there.
    ///
    /// # Errors
    /// If one is not whole, or in use.
    pub fn open(
        pod_directory: &Path,
        pod: PodId,
        formed: bool,
        stall_max: Duration,
    ) -> Result<Self, OpenError> {
        let inspect = |module: Module| {
            let options = Options {
                pod: pod.0,
                must_exist: formed,
                stall_max,
                on_fault: Box::new(|fault| fail_stop(&fault.to_string())),
                ..Options::default()
            };
            Store::inspect(&pod_directory.join(module.to_string()), options)
        };
        let open = |inspected: Inspected| inspected.open().map(Arc::new);
        // All are whole before any is opened: a start that is refused changes none of them.
        let [order, stock, payment] = at_once(MODULES, inspect);
        let [order, stock, payment] = at_once([order?, stock?, payment?], open);
        Ok(Self { order: order?, stock: stock?, payment: payment? })
    }

    /// The store that holds the shards of `module`.
    #[must_use]
    pub const fn of(&self, module: Module) -> &Arc<Store> {
        match module {
            Module::Order => &self.order,
            Module::Stock => &self.stock,
            Module::Payment | Module::Cluster => &self.payment,
        }
    }

    /// Whether no store has a log record, as in a directory whose cluster has not formed.
    ///
    /// # Errors
    /// If a store cannot be read.
    pub fn are_empty(&self) -> Result<bool, ReadError> {
        for module in MODULES {
            if self.of(module).log().next().transpose()?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The number under which a shard's records lie in its store.
#[must_use]
pub fn number(shard: Shard) -> u16 {
    match shard.module {
        Module::Order | Module::Stock | Module::Payment => shard.no.0,
        Module::Cluster => CLUSTER_SHARD_NO,
    }
}

impl Disk for Stores {
    /// A read that fails stops the pod: it must not go on from guessed state.
    fn get(&self, shard: Shard, key: &[u8]) -> Option<Bytes> {
        match self.of(shard.module).get(number(shard), key) {
            Ok(value) => value,
            Err(error) => fail_stop(&format!("{shard}: {error}")),
        }
    }

    fn scan(&self, shard: Shard, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<(Bytes, Bytes)> {
        match self.of(shard.module).scan(number(shard), prefix, after, limit) {
            Ok(records) => records,
            Err(error) => fail_stop(&format!("{shard}: {error}")),
        }
    }
}

/// Does the same to each on a thread of its own.
fn at_once<T: Send, R: Send, const N: usize>(each: [T; N], work: impl Fn(T) -> R + Copy + Send) -> [R; N] {
    std::thread::scope(|scope| {
        let threads = each.map(|one| scope.spawn(move || work(one)));
        threads.map(|thread| thread.join().expect("a panic has ended the process"))
    })
}
