//! What changed about the pod, told in the log: one line an event.

use crate::node::Status;
use kassa_protocols::ids::PodId;
use std::collections::{BTreeMap, BTreeSet};
use tracing::info;

/// Remembers what was told last.
#[derive(Debug)]
pub struct News {
    me: PodId,
    leads: BTreeMap<String, BTreeSet<u16>>,
    not_ready: Option<Vec<String>>,
}

impl News {
    #[must_use]
    pub const fn new(me: PodId) -> Self {
        Self { me, leads: BTreeMap::new(), not_ready: None }
    }

    /// Logs the shards that this pod leads since the last time, or leads no longer: one line a module.
    pub fn tell(&mut self, status: &Status) {
        for line in self.lines(status) {
            info!("{line}");
        }
    }

    fn lines(&mut self, status: &Status) -> Vec<String> {
        let mut leads: BTreeMap<String, BTreeSet<u16>> = BTreeMap::new();
        for shard in status.shards.iter().filter(|shard| shard.leader == Some(self.me.0)) {
            leads.entry(shard.module.clone()).or_default().insert(shard.shard);
        }
        let none = BTreeSet::new();
        let modules: BTreeSet<&String> = leads.keys().chain(self.leads.keys()).collect();
        let mut lines = Vec::new();
        for module in modules {
            let now = leads.get(module).unwrap_or(&none);
            let before = self.leads.get(module).unwrap_or(&none);
            let gained: Vec<&u16> = now.difference(before).collect();
            let lost: Vec<&u16> = before.difference(now).collect();
            if !gained.is_empty() {
                lines.push(format!("leader gained: {module} {gained:?}"));
            }
            if !lost.is_empty() {
                lines.push(format!("leader lost: {module} {lost:?}"));
            }
        }
        self.leads = leads;
        lines
    }

    /// Whether readiness differs from the last time; logs when the pod becomes ready or ceases to be.
    pub fn readiness_changed(&mut self, status: &Status) -> bool {
        if self.not_ready.as_ref() == Some(&status.not_ready) {
            return false;
        }
        let was_ready = self.not_ready.as_ref().is_some_and(Vec::is_empty);
        if status.not_ready.is_empty() {
            info!("ready");
        } else if was_ready {
            let count = status.not_ready.len();
            info!("not ready: {} ({count} reasons in all)", status.not_ready[0]);
        }
        self.not_ready = Some(status.not_ready.clone());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::ShardStatus;

    fn status(leaders: &[(&str, u16, u8)]) -> Status {
        let shard = |&(module, shard, leader): &(&str, u16, u8)| ShardStatus {
            module: module.to_owned(),
            shard,
            replicas: vec![0, 1, 2],
            leader: Some(leader),
            ballot: String::new(),
            applied: 0,
            committed: 0,
            open: 0,
        };
        Status { shards: leaders.iter().map(shard).collect(), ..Status::default() }
    }

    #[test]
    fn leadership_is_told_once_a_change() {
        let mut news = News::new(PodId(1));
        let first = status(&[("stock", 1, 1), ("stock", 2, 0), ("stock", 3, 1), ("payment", 1, 1)]);
        assert_eq!(news.lines(&first), ["leader gained: payment [1]", "leader gained: stock [1, 3]"]);
        assert!(news.lines(&first).is_empty());
        let second = status(&[("stock", 1, 0), ("stock", 2, 1), ("stock", 3, 1)]);
        assert_eq!(
            news.lines(&second),
            ["leader lost: payment [1]", "leader gained: stock [2]", "leader lost: stock [1]"]
        );
    }

    #[test]
    fn readiness_is_published_when_it_changes() {
        let mut news = News::new(PodId(1));
        let waiting = Status { not_ready: vec!["no leader".to_owned()], ..Status::default() };
        assert!(news.readiness_changed(&waiting));
        assert!(!news.readiness_changed(&waiting));
        assert!(news.readiness_changed(&Status::default()));
        assert!(news.readiness_changed(&waiting));
    }
}
