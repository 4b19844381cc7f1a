//! Scripts: each states a property and plays a case of it. `UPDATE_GOLDENFILES=1` writes outputs anew;
//! the oracle still refuses what breaks an invariant.

use crate::cluster::Cluster;
use bytes::Bytes;
use goldenscript::{ArgumentConsumer, Command, Context, Runner};
use kassa_protocols::ids::PodId;
use kassa_protocols::paxos::Timing;
use kassa_protocols::time::Span;
use std::error::Error;
use std::fmt::Write as _;

#[derive(Default)]
struct Script {
    cluster: Option<Cluster>,
}

type Outcome<T> = Result<T, Box<dyn Error>>;

fn pod(args: &mut ArgumentConsumer) -> Outcome<PodId> {
    Ok(PodId(args.next_pos().ok_or("a pod is missing")?.parse()?))
}
fn value(args: &mut ArgumentConsumer, key: &str, otherwise: u64) -> Outcome<u64> {
    args.take_key(key).map_or(Ok(otherwise), |value| Ok(value.parse()?))
}

impl Script {
    /// `voters=3 learners=0 ms=0`: makes the pods, starts them all and runs for `ms`.
    fn form(&mut self, args: &mut ArgumentConsumer) -> Outcome<()> {
        let voters = u8::try_from(value(args, "voters", 3)?)?;
        let learners = u8::try_from(value(args, "learners", 0)?)?;
        let mut cluster = Cluster::new(voters, learners, Timing::default());
        for id in cluster.ids() {
            cluster.start(id);
        }
        let ms = value(args, "ms", 0)?;
        if ms > 0 {
            cluster.run(Span::from_millis(ms));
        }
        self.cluster = Some(cluster);
        Ok(())
    }

    fn command(&mut self, name: &str, args: &mut ArgumentConsumer, out: &mut String) -> Outcome<()> {
        if name == "form" {
            return self.form(args);
        }
        let cluster = self.cluster.as_mut().ok_or("form a cluster first")?;
        match name {
            // Time passes, all links and disks work at once.
            "run" => cluster.run(Span::from_millis(value(args, "ms", 0)?)),
            // Only time passes.
            "wait" => cluster.now = cluster.now + Span::from_millis(value(args, "ms", 0)?),
            // `pod text…`: proposes each; `size=` makes them so large, `times=` repeats them.
            "propose" => {
                let id = pod(args)?;
                let size = usize::try_from(value(args, "size", 0)?)?;
                let times = value(args, "times", 1)?;
                let mut taken = Vec::new();
                while let Some(text) = args.next_pos() {
                    for _ in 0..times {
                        let mut commands = text.as_bytes().to_vec();
                        commands.resize(commands.len().max(size), b'.');
                        taken.push(cluster.propose(id, Bytes::from(commands)));
                    }
                }
                match taken[..] {
                    [Some(index)] => writeln!(out, "{id} proposes {index}")?,
                    [None] => writeln!(out, "{id} refuses")?,
                    _ => {
                        let refused = taken.iter().filter(|index| index.is_none()).count();
                        writeln!(out, "{id} proposes {}, refuses {refused}", taken.len() - refused)?;
                    }
                }
            }
            "barrier" => {
                let id = pod(args)?;
                match cluster.barrier(id) {
                    Some(ticket) => writeln!(out, "{id} gives ticket {ticket}")?,
                    None => writeln!(out, "{id} gives no ticket")?,
                }
            }
            "tick" => {
                let id = pod(args)?;
                cluster.tick(id);
            }
            "sync" => {
                let id = pod(args)?;
                cluster.sync(id);
            }
            // `from to n=all`: hands over queued messages, one after the other.
            "deliver" => {
                let (from, to) = (pod(args)?, pod(args)?);
                for _ in 0..value(args, "n", 1_000)? {
                    if !cluster.deliver(from, to) {
                        break;
                    }
                }
            }
            "lose" => {
                let (from, to) = (pod(args)?, pod(args)?);
                cluster.lose_first(from, to);
            }
            "reset" => {
                let (from, to) = (pod(args)?, pod(args)?);
                cluster.reset_link(from, to);
            }
            // One way.
            "cut" | "mend" => {
                let (from, to) = (pod(args)?, pod(args)?);
                cluster.cut(from, to, name == "cut");
            }
            // Both ways.
            "part" | "join" => {
                let (one, other) = (pod(args)?, pod(args)?);
                cluster.cut(one, other, name == "part");
                cluster.cut(other, one, name == "part");
            }
            "crash" => {
                let id = pod(args)?;
                cluster.crash(id, usize::try_from(value(args, "survive", 0)?)?);
            }
            "start" => {
                let id = pod(args)?;
                cluster.start(id);
            }
            // `pod preferred urgent=0`
            "prefer" => {
                let (id, preferred) = (pod(args)?, pod(args)?);
                let urgent = value(args, "urgent", 0)? > 0;
                cluster.pod(id).replica.as_mut().ok_or("it is down")?.prefer(preferred, urgent);
            }
            "lose_disk" => {
                let id = pod(args)?;
                cluster.lose_disk(id);
            }
            // A new disk takes the place of the lost one; the pod starts with it.
            "replace" => {
                let id = pod(args)?;
                cluster.replace(id);
                cluster.start(id);
            }
            // `pod…`: these learn of it.
            "tell" => {
                while let Some(id) = args.next_pos() {
                    cluster.tell(PodId(id.parse()?));
                }
            }
            "checkpoint" => {
                let id = pod(args)?;
                cluster.checkpoint(id);
            }
            "status" => {
                for (id, pod) in &cluster.pods {
                    let Some(replica) = &pod.replica else {
                        writeln!(out, "{id} down")?;
                        continue;
                    };
                    let leader = replica.leader().map_or("nobody".to_owned(), |leader| leader.to_string());
                    let (ballot, applied) = (replica.ballot(), replica.applied());
                    let leads = if replica.is_leading() { "leads" } else { "follows" };
                    let leads = if replica.is_joining() { "joins, follows" } else { leads };
                    let leader = if replica.is_leading() { String::new() } else { format!(" {leader}") };
                    writeln!(out, "{id} {leads}{leader} in {ballot}, applied {applied}")?;
                }
            }
            _ => return Err(format!("unknown command {name}").into()),
        }
        Ok(())
    }
}

impl Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _context: &Context) -> Outcome<String> {
        let mut args = command.consume_args();
        let mut out = String::new();
        self.command(&command.name, &mut args, &mut out)?;
        args.reject_next()?;
        if let Some(cluster) = &mut self.cluster {
            for line in cluster.trace.drain(..) {
                writeln!(out, "{line}")?;
            }
        }
        Ok(out)
    }
}

macro_rules! scripts {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/paxos/scripts/", stringify!($name));
            goldenscript::run(&mut Script::default(), path).expect("the script runs as written");
        })*
        /// A script that no test runs would prove nothing.
        #[test]
        fn every_script_is_run() {
            let listed: std::collections::BTreeSet<String> =
                [$(stringify!($name).to_owned()),*].into_iter().collect();
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/paxos/scripts");
            let found = std::fs::read_dir(folder).expect("the folder of scripts");
            let found = found.map(|file| file.expect("an entry").file_name().into_string().expect("UTF-8"));
            assert_eq!(listed, found.collect());
        }
    };
}

scripts!(
    candidate_crash,
    catch_up,
    chain,
    cut_off,
    formation,
    failover,
    handover,
    laggard,
    learner,
    lost_disk,
    lost_disk_cut_off,
    one_way,
    reads,
    single,
    snapshot,
    stale_promise,
    tail,
    window,
);
