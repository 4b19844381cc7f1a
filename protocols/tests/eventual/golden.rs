//! Scripts: each states a property and plays a case of it. `UPDATE_GOLDENFILES=1` writes outputs anew; the
//! books still refuse what breaks an invariant.

use crate::world::World;
use goldenscript::{ArgumentConsumer, Command, Context, Runner};
use kassa_protocols::ids::PodId;
use kassa_protocols::time::Span;
use std::error::Error;
use std::fmt::Write as _;

type Outcome<T> = Result<T, Box<dyn Error>>;

struct Script {
    world: World,
    hush: bool,
}

fn pod(args: &mut ArgumentConsumer) -> Outcome<PodId> {
    Ok(PodId(args.next_pos().ok_or("a pod is missing")?.parse()?))
}

impl Script {
    fn command(&mut self, name: &str, args: &mut ArgumentConsumer) -> Outcome<()> {
        let world = &mut self.world;
        match name {
            // `pods=n`: begins anew.
            "form" => {
                let n = args.take_key("pods").map_or(Ok(3), |n| n.parse())?;
                *world = World::new(n);
                world.settle();
            }
            // `pod entity n…`: an edit for each.
            "edit" => {
                let pod = pod(args)?;
                let entity = args.next_pos().ok_or("an entity is missing")?;
                while let Some(n) = args.next_pos() {
                    match n.split_once("..") {
                        Some((from, to)) => {
                            // Very many, on entities of a hundred each.
                            world.checks_digests = false;
                            for n in from.parse::<u64>()?..to.parse()? {
                                world.edit(pod, &format!("{entity}{}", n / 100), n, "x");
                            }
                        }
                        None => world.edit(pod, entity, n.parse()?, "x"),
                    }
                }
            }
            // `pod`: all sets, told once what they show is durable.
            "read" => world.read(pod(args)?),
            // `from to [n]`: hands over queued messages.
            "deliver" => {
                let (from, to) = (pod(args)?, pod(args)?);
                let n: usize = args.next_pos().map_or(Ok(1_000), |n| n.parse())?;
                for _ in 0..n {
                    world.deliver(from, to);
                }
            }
            "lose" => {
                let (from, to) = (pod(args)?, pod(args)?);
                world.lose(from, to);
            }
            "settle" => world.settle(),
            "run" => world.run(Span::from_millis(args.next_pos().ok_or("how long?")?.parse()?)),
            "wait" => world.now = world.now + Span::from_millis(args.next_pos().ok_or("how long?")?.parse()?),
            "tick" => world.tick(pod(args)?),
            // Both ways.
            "part" | "join" => {
                let (one, other) = (pod(args)?, pod(args)?);
                world.link(one, other, name == "join");
                world.link(other, one, name == "join");
            }
            "hold" => world.auto_sync = false,
            "sync" => {
                let pod = pod(args)?;
                world.sync(pod);
            }
            "crash" => world.crash(pod(args)?),
            "lose_disk" => world.lose_disk(pod(args)?),
            // A new disk in the place of the lost one; the pod starts with it.
            "replace" => world.replace(pod(args)?),
            // `pod…`: these learn of it.
            "tell" => {
                while let Some(pod) = args.next_pos() {
                    world.tell(PodId(pod.parse()?));
                }
            }
            "start" => world.start(pod(args)?),
            "checkpoint" => world.checkpoint(pod(args)?),
            // `pod voter…`: these promise its ballot.
            "elect" => {
                let owner = pod(args)?;
                let mut voters = vec![owner];
                while let Some(voter) = args.next_pos() {
                    voters.push(PodId(voter.parse()?));
                }
                world.elect(owner, &voters);
            }
            // `pod of`: the pod promises what the other has.
            "promise" => {
                let (pod, of) = (pod(args)?, pod(args)?);
                world.promise(pod, world.promised(of));
            }
            "depose" => world.depose(pod(args)?),
            "status" => {
                for pod in world.ids() {
                    let state = world.state_of(pod);
                    let trace = world.trace.get_or_insert_default();
                    writeln!(trace, "{state}")?;
                }
            }
            "count" => {
                let (updates, items) = world.delivered;
                writeln!(world.trace.get_or_insert_default(), "{updates} updates with {items} items")?;
            }
            // Whether two pods have the same sets.
            "same" => {
                let (one, other) = (pod(args)?, pod(args)?);
                let same = world.sets(one) == world.sets(other);
                writeln!(
                    world.trace.get_or_insert_default(),
                    "{}",
                    if same { "the same" } else { "not the same" }
                )?;
            }
            // What is said is not shown until `speak`.
            "hush" => self.hush = true,
            "speak" => self.hush = false,
            other => return Err(format!("no such command: {other}").into()),
        }
        Ok(())
    }
}

impl Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _context: &Context) -> Outcome<String> {
        let shows = matches!(command.name.as_str(), "status" | "count" | "same");
        self.world.trace = (!self.hush || shows).then(String::new);
        let mut args = command.consume_args();
        self.command(&command.name, &mut args)?;
        args.reject_next()?;
        Ok(self.world.trace.take().unwrap_or_default())
    }
}

#[test]
fn scripts_say_what_they_said() {
    for entry in std::fs::read_dir("tests/eventual/scripts").expect("the scripts are there") {
        let path = entry.expect("a readable folder").path();
        let mut script = Script { world: World::new(3), hush: false };
        script.world.settle();
        goldenscript::run(&mut script, &path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}
