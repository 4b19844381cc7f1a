//! Barriers: what is told of a set waits until what it shows is as durable as an edit's own answer.
//!
//! A set is read as it is in memory, with edits that may be on no disk yet. If it were told at once, a crash
//! could take back what a client has seen. So a reader waits until every edit taken here by then, in this
//! life or an earlier one, is as durable as `Durable` would have it: on a majority's disks, none of them under
//! a newer ballot than that of the owner that reads; or, where no majority can be reached, on this pod's. What
//! was merged of others' edits has to be on this pod's disk: who took it answers for the rest.

use super::types::{Event, Message};
use super::{Effects, Replica};
use crate::ids::Ballot;

/// Readers who saw the same share one.
#[derive(Debug)]
pub(super) struct Barrier {
    ticket: u64,
    /// The newest edit taken, and how many merges of others' there were.
    seq: u64,
    merged: u64,
    /// Of the owner that reads; `None` if no owner does.
    ballot: Option<Ballot>,
}

impl Replica {
    /// A ticket for what is read of the sets now: `Passed` once that is durable, at once if it is; `Void`
    /// if the owner that reads has been replaced before, so that the new one is to be asked.
    pub fn barrier(&mut self, promised: Ballot, fx: &mut Effects) -> u64 {
        let (seq, merged, ballot) = (self.seq, self.merged, self.owning());
        if merged > self.merged_asked {
            self.merged_asked = merged;
            fx.send.push((self.config.me, Message::Stored { seq, merged }));
        }
        let last = self.barriers.back();
        let ticket = match last.filter(|last| (last.seq, last.merged, last.ballot) == (seq, merged, ballot)) {
            Some(last) => last.ticket,
            None => {
                self.tickets += 1;
                self.barriers.push_back(Barrier { ticket: self.tickets, seq, merged, ballot });
                self.tickets
            }
        };
        self.settle_barriers(promised, fx);
        ticket
    }

    /// Lets pass what may.
    pub(super) fn settle_barriers(&mut self, promised: Ballot, fx: &mut Effects) {
        let alone = !self.reaches_majority();
        let newest = self.peers.values().map(|peer| peer.under).max().unwrap_or_default().max(promised);
        while let Some(&Barrier { ticket, seq, merged, ballot }) = self.barriers.front() {
            let held = 1 + self.peers.values().filter(|peer| peer.acked >= seq).count();
            if ballot.is_some_and(|ballot| ballot < newest) {
                fx.events.push(Event::Void { ticket });
            } else if seq <= self.stored
                && merged <= self.merged_stored
                && (alone || held >= self.config.majority())
            {
                fx.events.push(Event::Passed { ticket });
            } else {
                return;
            }
            self.barriers.pop_front();
        }
    }

    /// The owner is another: what this one was about to tell is for that one to say.
    pub(super) fn void_barriers(&mut self, fx: &mut Effects) {
        self.barriers.retain(|barrier| {
            if barrier.ballot.is_some() {
                fx.events.push(Event::Void { ticket: barrier.ticket });
            }
            barrier.ballot.is_none()
        });
    }
}
