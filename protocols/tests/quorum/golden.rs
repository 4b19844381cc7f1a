//! Golden scripts: each shows one property. `UPDATE_GOLDENFILES=1` rewrites their output; the world
//! checks its invariants after every command all the same, so a new output cannot bless a violation.

use crate::model::{Action, Value};
use crate::pod::Frame;
use crate::world::World;
use bytes::Bytes;
use goldenscript::{Command, Context, Runner};
use kassa_protocols::ids::PodId;
use kassa_protocols::quorum::{Have, Message, Write};
use kassa_protocols::time::Span;
use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;

#[test]
fn golden_scripts() {
    let scripts = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/quorum/scripts");
    let mut paths: Vec<_> = std::fs::read_dir(scripts).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "there are scripts");
    for path in paths {
        goldenscript::run(&mut Golden::default(), path).unwrap();
    }
}

#[derive(Default)]
struct Golden {
    world: Option<World>,
}

impl Runner for Golden {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        let mut args = command.consume_args();
        let mut output = String::new();
        if command.name == "start" {
            let n: u8 = args.take_key("n").unwrap_or("3").parse()?;
            let w = args.take_key("w").map_or(Ok(usize::from(n) / 2 + 1), str::parse)?;
            let mut world = World::new(n, w);
            for pod in world.all() {
                world.start(pod);
            }
            world.run(Span::from_millis(100));
            self.world = Some(world);
        }
        let world = self.world.as_mut().ok_or("a script begins with start")?;
        let mut pod = || -> Result<PodId, Box<dyn Error>> {
            let name = args.next_pos().ok_or("which pod?")?;
            Ok(PodId(name.trim_start_matches('p').parse()?))
        };
        match command.name.as_str() {
            "start" => {}
            "settle" => world.settle(),
            "run" => world.run(millis(args.next_pos())?),
            "time" => world.pass_time(millis(args.next_pos())?),
            "sync" => {
                let pod = pod()?;
                assert!(world.sync(pod), "{pod} has nothing to write");
            }
            "deliver" => {
                let (from, to) = (pod()?, pod()?);
                let count = args.next_pos().map_or(Ok(1), str::parse)?;
                assert!(world.deliver(from, to, count), "nothing to deliver from {from} to {to}");
            }
            "cut" => {
                let pair = (pod()?, pod()?);
                let link = world.links.get_mut(&pair).ok_or("no such link")?;
                link.cut = true;
                link.queue.clear();
            }
            "heal" => world.links.values_mut().for_each(|link| link.cut = false),
            "reset" => {
                let (a, b) = (pod()?, pod()?);
                world.reset(a, b);
            }
            "crash" => {
                let pod = pod()?;
                world.crash(pod, 0);
            }
            "restart" => {
                let pod = pod()?;
                world.start(pod);
            }
            "lose_disk" => {
                let pod = pod()?;
                world.lose_disk(pod);
            }
            "replace" => {
                let pod = pod()?;
                world.replace(pod);
            }
            "forget_epoch" => {
                let pod = pod()?;
                world.forget_epoch(pod);
            }
            "tell" => {
                let pod = pod()?;
                world.tell(pod);
            }
            "set" => {
                let pod = pod()?;
                let (key, value) = args.next_key().ok_or("which record?")?;
                world.ask(pod, key, Action::Set(Some(Bytes::copy_from_slice(value.as_bytes()))));
            }
            "del" => {
                let pod = pod()?;
                world.ask(pod, args.next_pos().ok_or("which key?")?, Action::Set(None));
            }
            "get" => {
                let pod = pod()?;
                world.ask(pod, args.next_pos().ok_or("which key?")?, Action::Get);
            }
            "read" => {
                let pod = pod()?;
                world.read(pod, args.next_pos().ok_or("which key?")?);
            }
            // As if its coordinator had handed over to it.
            "stand" => {
                let pod = pod()?;
                let ballot = world.pod(pod).replica().ballot();
                let link = world.links.get_mut(&(ballot.pod(), pod)).ok_or("nothing to hand over")?;
                link.queue.clear();
                link.queue.push_back(Frame::Protocol(Message::Handover { ballot }));
                world.deliver(ballot.pod(), pod, 1);
            }
            // `pod preferred [urgent]`
            "prefer" => {
                let (pod, preferred) = (pod()?, pod()?);
                let urgent = args.next_pos() == Some("urgent");
                world.pod(pod).replica().prefer(preferred, urgent);
            }
            "checkpoint" => {
                let pod = pod()?;
                world.checkpoint(pod, true);
            }
            "drop_deletions" => {
                let pod = pod()?;
                let all = args.next_pos() == Some("all");
                let bound = all.then(|| world.pod(pod).replica().committed());
                writeln!(output, "dropped {}", world.drop_deletions(pod, bound))?;
            }
            "links" => show_links(world, &mut output)?,
            "state" => show_state(world, &mut output)?,
            name => return Err(format!("no such command: {name}").into()),
        }
        args.reject_next()?;
        for pod in &mut world.pods {
            for event in pod.events.drain(..) {
                writeln!(output, "{}: {event}", pod.me)?;
            }
        }
        Ok(output)
    }
}

fn millis(arg: Option<&str>) -> Result<Span, Box<dyn Error>> {
    Ok(Span::from_millis(arg.ok_or("how many ms?")?.parse()?))
}

fn show_state(world: &World, output: &mut String) -> Result<(), Box<dyn Error>> {
    for pod in &world.pods {
        let Some(replica) = &pod.replica else {
            writeln!(output, "{}: down", pod.me)?;
            continue;
        };
        let role = match replica.leader() {
            Some(leader) if leader == pod.me => "leads".to_string(),
            Some(leader) => format!("follows {leader}"),
            None => "no leader".to_string(),
        };
        let role = if replica.is_joining() { format!("joins, {role}") } else { role };
        let tail: Vec<_> = replica.tail().map(|write| write.version.to_string()).collect();
        let records = pod.tables.iter().map(|(key, (version, value))| {
            format!("{}={}@{version}", String::from_utf8_lossy(key), text(value))
        });
        let records: Vec<_> = records.collect();
        writeln!(
            output,
            "{}: {role}, promised {}, committed {}, tail [{}], tables [{}]",
            pod.me,
            replica.ballot(),
            replica.committed(),
            tail.join(" "),
            records.join(" ")
        )?;
    }
    Ok(())
}

fn show_links(world: &World, output: &mut String) -> Result<(), Box<dyn Error>> {
    for ((from, to), link) in &world.links {
        for frame in &link.queue {
            writeln!(output, "{from}→{to} {}", show(frame))?;
        }
    }
    Ok(())
}

fn show(frame: &Frame) -> String {
    match frame {
        Frame::Protocol(message) => show_message(message),
        Frame::Transfer { head, records } => {
            format!("Transfer at {} newer than {}, {} records", head.version, head.newer_than, records.len())
        }
        Frame::Read { key, .. } => format!("Read {key:?}"),
        Frame::Answer { state, written, value, .. } => {
            format!("Answer {} written {written}, accepted {}", text(value), state.accepted)
        }
    }
}

fn show_message(message: &Message) -> String {
    let writes = |writes: &[Arc<Write>]| {
        let versions: Vec<_> = writes.iter().map(|write| write.version.to_string()).collect();
        versions.join(" ")
    };
    let have = |have: &Have| have.accepted();
    match message {
        Message::Canvass { ballot } => format!("Canvass {ballot}"),
        Message::Canvassed { ballot, lost, .. } => format!("Canvassed {ballot} lost={lost}"),
        Message::Prepare { ballot, have: h } => format!("Prepare {ballot} have {}", have(h)),
        Message::Promise { ballot, have: h, repair } => {
            format!("Promise {ballot} have {} repair [{}]", have(h), writes(repair))
        }
        Message::Write { write, beat } => {
            format!("Write {} on {} commit {} round {}", write.version, write.prev, beat.commit, beat.round)
        }
        Message::Heartbeat { tip, beat, .. } => {
            format!("Heartbeat tip {tip} commit {} round {}", beat.commit, beat.round)
        }
        Message::Ack { ballot, accepted, round, durable } => {
            format!("Ack {ballot} accepted {accepted} round {round} durable {durable}")
        }
        Message::CatchUp { ballot, have: h } => format!("CatchUp {ballot} have {}", have(h)),
        Message::Repair { writes: w, beat, .. } => format!("Repair [{}] commit {}", writes(w), beat.commit),
        Message::Refuse { promised } => format!("Refuse, promised {promised}"),
        Message::Handover { ballot } => format!("Handover {ballot}"),
    }
}

fn text(value: &Value) -> String {
    value.as_ref().map_or_else(|| "deleted".to_string(), |v| String::from_utf8_lossy(v).into_owned())
}
