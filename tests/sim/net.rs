//! The links between pods: one for each ordered pair, FIFO and at most once within a link's life.
//!
//! A cut holds frames back, as TCP does; a reset loses those that have not arrived. The sender learns
//! of a reset by `Link { up: false }`, and of the new link by `Link { up: true }`. Whoever calls schedules
//! the events: a [`Ticket`] names the state of the link that an event was made for, and is void once
//! that has changed.

use crate::adapter::Message;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::collections::VecDeque;

/// Frames in flight on one link; the fabric drops a link whose queue is full, and so does this.
const QUEUE_FRAMES_MAX: usize = 4_096;

/// One direction between two pods, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    pub from: usize,
    pub to: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// The delay of a frame in microseconds: `base` and up to `jitter` more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    pub base_us: u64,
    pub jitter_us: u64,
}

struct Link {
    up: bool,
    cut: bool,
    queue: VecDeque<(usize, Vec<Message>)>,
    /// What is queued, if it is counted.
    bytes: usize,
    /// When the last frame in the queue arrives; a later one never arrives before it.
    last_due_us: u64,
    ticket: u64,
    delay: Delay,
}

pub struct Net {
    pods: usize,
    links: Vec<Link>,
    backlog_bytes_max: Option<usize>,
}

/// What became of a frame handed to a link.
#[derive(Debug, PartialEq, Eq)]
pub enum Sent {
    /// Arrives at that time, if the ticket still holds.
    Due(u64, Ticket),
    /// Waits for the cut to end.
    Held,
    /// The link is down: lost.
    Lost,
    /// The queue is full: the link has to be reset.
    Full,
}

impl Net {
    pub fn new(pods: usize, delay: Delay, backlog_bytes_max: Option<usize>) -> Self {
        let link = || Link {
            up: false,
            cut: false,
            queue: VecDeque::new(),
            bytes: 0,
            last_due_us: 0,
            ticket: 0,
            delay,
        };
        Self { pods, links: (0..pods * pods).map(|_| link()).collect(), backlog_bytes_max }
    }

    pub fn pairs(&self) -> impl Iterator<Item = Pair> + use<> {
        let pods = self.pods;
        (0..pods).flat_map(move |from| (0..pods).map(move |to| Pair { from, to })).filter(|p| p.from != p.to)
    }

    fn link(&mut self, pair: Pair) -> &mut Link {
        &mut self.links[pair.from * self.pods + pair.to]
    }

    pub fn send(&mut self, now_us: u64, rng: &mut ChaCha8Rng, pair: Pair, frame: Vec<Message>) -> Sent {
        let bytes = self.backlog_bytes_max.map_or(0, |_| encoded_bytes(&frame));
        let bytes_max = self.backlog_bytes_max.unwrap_or(usize::MAX);
        let link = self.link(pair);
        if !link.up {
            return Sent::Lost;
        }
        if link.queue.len() >= QUEUE_FRAMES_MAX || link.bytes + bytes > bytes_max {
            return Sent::Full;
        }
        link.bytes += bytes;
        link.queue.push_back((bytes, frame));
        if link.cut {
            return Sent::Held;
        }
        Sent::Due(link.next_due(now_us, rng), Ticket(link.ticket))
    }

    /// The frame that arrives now, unless the link has changed since.
    pub fn arrive(&mut self, pair: Pair, ticket: Ticket) -> Option<Vec<Message>> {
        let link = self.link(pair);
        if ticket.0 != link.ticket {
            return None;
        }
        let (bytes, frame) = link.queue.pop_front()?;
        link.bytes -= bytes;
        Some(frame)
    }

    /// Loses what has not arrived; says whether the link was up.
    pub fn reset(&mut self, pair: Pair) -> bool {
        let link = self.link(pair);
        link.queue.clear();
        link.bytes = 0;
        link.ticket += 1;
        std::mem::replace(&mut link.up, false)
    }

    /// A new link. The handshake needs both directions; says whether it came about.
    pub fn connect(&mut self, pair: Pair) -> bool {
        let back = Pair { from: pair.to, to: pair.from };
        let cut = self.link(back).cut || self.link(pair).cut;
        let link = self.link(pair);
        if cut || link.up {
            return false;
        }
        link.up = true;
        link.ticket += 1;
        link.last_due_us = 0;
        true
    }

    /// Whether a handshake between two pods would come about.
    pub fn is_open(&self, one: usize, other: usize) -> bool {
        let cut = |from: usize, to: usize| self.links[from * self.pods + to].cut;
        !cut(one, other) && !cut(other, one)
    }

    pub fn is_up(&mut self, pair: Pair) -> bool {
        self.link(pair).up
    }

    pub fn cut(&mut self, pair: Pair) {
        let link = self.link(pair);
        link.cut = true;
        link.ticket += 1;
    }

    /// Ends a cut; the times at which the frames that were held arrive.
    pub fn heal(&mut self, now_us: u64, rng: &mut ChaCha8Rng, pair: Pair) -> (Vec<u64>, Ticket) {
        let link = self.link(pair);
        if !std::mem::replace(&mut link.cut, false) {
            return (Vec::new(), Ticket(link.ticket));
        }
        link.ticket += 1;
        link.last_due_us = 0;
        let dues = (0..link.queue.len()).map(|_| link.next_due(now_us, rng)).collect();
        (dues, Ticket(link.ticket))
    }

    pub fn set_delay(&mut self, pair: Pair, delay: Delay) {
        self.link(pair).delay = delay;
    }
}

fn encoded_bytes(frame: &[Message]) -> usize {
    postcard::to_allocvec(frame).expect("messages encode").len()
}

impl Link {
    fn next_due(&mut self, now_us: u64, rng: &mut ChaCha8Rng) -> u64 {
        let due = now_us + self.delay.base_us + rng.random_range(0..=self.delay.jitter_us);
        self.last_due_us = self.last_due_us.max(due);
        self.last_due_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    const AB: Pair = Pair { from: 0, to: 1 };
    const BA: Pair = Pair { from: 1, to: 0 };

    fn net() -> (Net, ChaCha8Rng) {
        let mut net = Net::new(2, Delay { base_us: 100, jitter_us: 900 }, None);
        assert!(net.connect(AB));
        (net, ChaCha8Rng::seed_from_u64(3))
    }

    fn due(sent: &Sent) -> (u64, Ticket) {
        match sent {
            Sent::Due(at, ticket) => (*at, *ticket),
            Sent::Held | Sent::Lost | Sent::Full => panic!("{sent:?}"),
        }
    }

    #[test]
    fn frames_arrive_in_order_and_once() {
        let (mut net, mut rng) = net();
        let sent: Vec<(u64, Ticket)> =
            (0..200).map(|i| due(&net.send(i, &mut rng, AB, Vec::new()))).collect();
        assert!(sent.is_sorted_by_key(|(at, _)| *at));
        assert!(sent.iter().all(|(_, ticket)| net.arrive(AB, *ticket).is_some()));
        assert_eq!(net.arrive(AB, sent[0].1), None);
    }

    #[test]
    fn a_reset_loses_what_is_under_way() {
        let (mut net, mut rng) = net();
        let (_, ticket) = due(&net.send(0, &mut rng, AB, Vec::new()));
        assert!(net.reset(AB));
        assert_eq!(net.send(1, &mut rng, AB, Vec::new()), Sent::Lost);
        assert!(net.connect(AB));
        assert_eq!(net.arrive(AB, ticket), None, "a frame of the old link");
        let (_, ticket) = due(&net.send(2, &mut rng, AB, Vec::new()));
        assert!(net.arrive(AB, ticket).is_some());
    }

    #[test]
    fn a_cut_holds_one_direction_back() {
        let (mut net, mut rng) = net();
        assert!(net.connect(BA));
        let (_, before) = due(&net.send(0, &mut rng, AB, Vec::new()));
        net.cut(AB);
        assert_eq!(net.send(1, &mut rng, AB, Vec::new()), Sent::Held);
        assert_eq!(net.arrive(AB, before), None);
        let (_, ticket) = due(&net.send(1, &mut rng, BA, Vec::new()));
        assert!(net.arrive(BA, ticket).is_some());
        assert!(net.reset(BA));
        assert!(!net.connect(BA), "no handshake through a cut");
        let (dues, ticket) = net.heal(10, &mut rng, AB);
        assert_eq!(dues.len(), 2);
        assert!(dues.is_sorted() && dues[0] > 10);
        assert!(net.arrive(AB, ticket).is_some() && net.arrive(AB, ticket).is_some());
    }

    #[test]
    fn a_full_queue_is_told() {
        let (mut net, mut rng) = net();
        net.cut(AB);
        for _ in 0..QUEUE_FRAMES_MAX {
            assert_eq!(net.send(0, &mut rng, AB, Vec::new()), Sent::Held);
        }
        assert_eq!(net.send(0, &mut rng, AB, Vec::new()), Sent::Full);
    }
}
