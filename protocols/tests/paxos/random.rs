//! Random runs: faults of every kind from one seed, then peace, in which everything must come right.

use crate::cluster::Cluster;
use bytes::Bytes;
use kassa_protocols::ids::PodId;
use kassa_protocols::paxos::Timing;
use kassa_protocols::time::Span;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

struct Run {
    cluster: Cluster,
    rng: ChaCha8Rng,
    /// Whether commands are large enough for logs to be trimmed and snapshots to be needed.
    fat: bool,
    voters: Vec<PodId>,
    proposed: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let voters: u8 = *[1, 3, 3, 3, 5].choose(&mut rng).expect("not empty");
        let learners = u8::from(rng.random_bool(0.3));
        let handover = Span::from_millis(rng.random_range(300..3_000));
        let mut cluster = Cluster::new(voters, learners, Timing { handover, ..Timing::default() });
        for id in cluster.ids() {
            cluster.start(id);
        }
        let fat = rng.random_bool(0.4);
        // Large commands would only make the codec's part slow.
        cluster.encodes = !fat;
        Self { cluster, rng, fat, voters: (1..=voters).map(PodId).collect(), proposed: 0 }
    }

    fn any(&mut self) -> PodId {
        *self.cluster.ids().choose(&mut self.rng).expect("not empty")
    }
    fn two(&mut self) -> Option<(PodId, PodId)> {
        let (from, to) = (self.any(), self.any());
        (from != to).then_some((from, to))
    }

    fn propose(&mut self) {
        let leaders = self.cluster.leaders();
        let Some(leader) = leaders.choose(&mut self.rng).copied() else { return };
        let size = if self.fat { 60_000 } else { 16 };
        let mut commands = format!("c{}", self.proposed).into_bytes();
        commands.resize(size, b'.');
        if self.cluster.propose(leader, Bytes::from(commands)).is_some() {
            self.proposed += 1;
        }
    }
    fn barrier(&mut self) {
        let leaders = self.cluster.leaders();
        if let Some(leader) = leaders.choose(&mut self.rng).copied() {
            self.cluster.barrier(leader);
        }
    }

    /// Some time passes; some messages arrive, some disks finish.
    fn pass(&mut self) {
        self.cluster.now = self.cluster.now + Span(self.rng.random_range(0..2_000));
        for (from, to) in self.cluster.queued() {
            if self.rng.random_bool(0.01) {
                self.cluster.delay_last(from, to, Span(self.rng.random_range(0..300_000)));
            }
            for _ in 0..self.rng.random_range(0..4) {
                self.cluster.deliver(from, to);
            }
        }
        for id in self.cluster.ids() {
            if self.rng.random_bool(0.9) {
                self.cluster.tick(id);
            }
            if self.cluster.is_up(id) && self.rng.random_bool(0.5) {
                self.cluster.sync(id);
            }
        }
    }

    fn fault(&mut self) {
        let id = self.any();
        match self.rng.random_range(0..19) {
            0..=1 => {
                if self.cluster.is_up(id) {
                    let survive = self.rng.random_range(0..3);
                    self.cluster.crash(id, survive);
                }
            }
            2..=5 => {
                if !self.cluster.is_up(id) {
                    self.cluster.start(id);
                }
            }
            6 => {
                if let Some((from, to)) = self.two() {
                    self.cluster.cut(from, to, true);
                    if self.rng.random_bool(0.5) {
                        self.cluster.cut(to, from, true);
                    }
                }
            }
            7..=8 => {
                if let Some((from, to)) = self.two() {
                    self.cluster.cut(from, to, false);
                    self.cluster.cut(to, from, false);
                }
            }
            9..=10 => {
                if let Some((from, to)) = self.two() {
                    self.cluster.reset_link(from, to);
                }
            }
            11..=12 => {
                if let Some((from, to)) = self.two() {
                    self.cluster.lose_first(from, to);
                }
            }
            13 => {
                // One pod alone.
                for peer in self.cluster.ids() {
                    if peer != id {
                        self.cluster.cut(id, peer, true);
                        self.cluster.cut(peer, id, true);
                    }
                }
            }
            14 => {
                let ids = self.cluster.ids();
                for from in &ids {
                    for to in ids.iter().filter(|to| *to != from) {
                        self.cluster.cut(*from, *to, false);
                    }
                }
            }
            15 => self.cluster.checkpoint(id),
            16 => {
                // A disk, and the next one only once that is made good.
                if self.voters.len() > 2 && self.voters.contains(&id) && !self.cluster.lacks_a_disk() {
                    self.cluster.lose_disk(id);
                }
            }
            17 => {
                let preferred = self.voters[self.rng.random_range(0..self.voters.len())];
                self.prefer(id, preferred);
            }
            _ => {
                for id in self.voters.clone() {
                    if self.cluster.waits(id) {
                        self.cluster.replace(id);
                        self.cluster.start(id);
                    } else if self.rng.random_bool(0.5) && self.cluster.is_behind(id) {
                        self.cluster.tell(id);
                    }
                }
            }
        }
    }

    /// As a pod does that finds another too slow to lead, and later that it is not.
    fn prefer(&mut self, id: PodId, preferred: PodId) {
        let urgent = self.rng.random_bool(0.5);
        if let Some(replica) = &mut self.cluster.pod(id).replica {
            replica.prefer(preferred, urgent);
        }
    }

    /// All prefer the same: while each prefers another, an office may go round for ever.
    fn agree(&mut self) {
        for id in self.cluster.ids() {
            self.prefer(id, PodId(1));
        }
    }

    fn storm(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.rng.random_range(0..100) {
                0..=24 => self.propose(),
                25..=34 => self.barrier(),
                35..=36 => self.fault(),
                _ => self.pass(),
            }
        }
    }

    /// Links stay cut, some one way, but one voter still hears a majority and is heard by it: within four
    /// election time-outs of that, as long as they have grown in the storm (and what it takes to catch up),
    /// some leader gets commands through.
    fn partial(&mut self) {
        self.cluster.heal();
        self.agree();
        if self.cluster.lacks_a_disk() {
            self.cluster.run(Span::from_millis(2_000));
        }
        let voters = self.voters.clone();
        for from in &voters {
            for to in voters.iter().filter(|to| *to != from) {
                let cut = self.rng.random_bool(0.35);
                self.cluster.cut(*from, *to, cut);
            }
        }
        let majority = voters.len() / 2 + 1;
        let heard =
            |hub: &PodId| 1 + voters.iter().filter(|v| *v != hub && self.cluster.joined(*hub, **v)).count();
        if !voters.iter().any(|voter| heard(voter) >= majority) {
            return;
        }
        // Everything still on its way counts as a fault.
        self.cluster.run(Span::from_millis(400));
        self.cluster.run(Span::from_millis(8_000));
        let before = self.cluster.oracle.newest;
        for leader in self.cluster.leaders() {
            self.cluster.propose(leader, Bytes::from_static(b"partial"));
        }
        self.cluster.run(Span::from_millis(100));
        assert!(self.cluster.oracle.newest > before, "a voter that reaches a majority is enough");
    }

    fn coverage(&self) -> [usize; KINDS.len()] {
        KINDS.map(|kind| self.cluster.trace.iter().filter(|line| line.contains(kind)).count())
    }

    /// After the faults: within a bounded time there is one leader, the preferred one has its office
    /// back, new commands and reads get through, and all replicas are the same.
    fn peace(&mut self) {
        self.cluster.heal();
        self.agree();
        // What is delayed on links, the longest election, and the delay before the office is returned.
        self.cluster.run(Span::from_millis(6_000));
        assert_eq!(self.cluster.leaders(), vec![PodId(1)], "the preferred leader leads");
        let passed = self.cluster.pods[&PodId(1)].passed;
        for _ in 0..3 {
            let before = self.proposed;
            self.propose();
            assert_eq!(self.proposed, before + 1, "a leader at rest takes commands");
            assert!(self.cluster.barrier(PodId(1)).is_some());
        }
        self.cluster.run(Span::from_millis(200));
        assert!(self.cluster.agrees(), "all have applied all");
        assert_eq!(self.cluster.pods[&PodId(1)].passed, passed + 3);
    }
}

/// What must have happened often enough for the runs to mean anything.
const KINDS: [&str; 6] = [" leads ", " deposed", " passes ", " installs ", " applies ", " whole"];

fn run(seed: u64) -> [usize; KINDS.len()] {
    eprintln!("SEED={seed}");
    let mut run = Run::new(seed);
    for _ in 0..3 {
        run.storm(6_000);
        run.partial();
        run.peace();
    }
    assert!(run.proposed > 9, "commands got through");
    run.coverage()
}

/// `SEED=n cargo test --test paxos` replays one; `SEEDS=n` tries so many.
#[test]
fn nothing_is_lost_and_all_comes_right() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    match number("SEED") {
        Some(seed) => {
            run(seed);
        }
        None => {
            let mut seen = [0; KINDS.len()];
            for seed in 0..number("SEEDS").unwrap_or(60) {
                let counts = run(seed);
                seen.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            }
            for (kind, count) in KINDS.iter().zip(seen) {
                assert!(count > 100, "{kind} {count} times: these runs prove little");
            }
        }
    }
}
