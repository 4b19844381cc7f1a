//! `kassa status`: pods, shards, leaders, lag, and what is in flight.

use super::fail::{self, Exit};
use super::http::{Connection, Target};
use super::{loss, place, print};
use crate::node::{ShardStatus, Status};
use anyhow::Context;
use clap::Args;
use comfy_table::{Table, presets};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A pod that says nothing for this long is shown as silent.
const WAIT: Duration = Duration::from_secs(2);

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  kassa status --url http://127.0.0.1:8001 --shards

Without --url it asks every pod of the cluster in ./kassa-data. `--json` is for programs.
Next: the log of a pod is kassa-data/pod-N/log; `kassa verify` tests what the cluster holds.")]
pub struct StatusArgs {
    /// Which pod to ask; may be given several times [default: all of ./kassa-data, else port 8000]
    #[arg(long, value_name = "URL")]
    pub url: Vec<String>,
    /// One row for every shard
    #[arg(long)]
    pub shards: bool,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

/// One pod, or why it says nothing.
#[derive(Debug, Serialize)]
struct Seen {
    url: String,
    /// By module: how many shards it holds and leads.
    holds: BTreeMap<&'static str, Holds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// What one pod has of a module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Holds {
    shards: usize,
    leads: usize,
}

/// The modules that may lie on some pods and not on others; orders lie where payment does.
const MODULES: [&str; 2] = ["payment", "stock"];

fn holds(status: &Status) -> BTreeMap<&'static str, Holds> {
    let of = |module| {
        let held = status.shards.iter().filter(|shard| shard.module == module);
        let leads = held.clone().filter(|shard| shard.leader == Some(status.pod)).count();
        (module, Holds { shards: held.count(), leads })
    };
    MODULES.map(of).into()
}

/// Asks and shows.
///
/// # Errors
/// Where no pod answers.
pub fn run(args: &StatusArgs) -> anyhow::Result<Exit> {
    let targets = place::pods(&args.url)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let seen = runtime.block_on(async {
        let mut asked = Vec::new();
        for target in targets {
            asked.push(tokio::spawn(ask(target)));
        }
        let mut seen = Vec::new();
        for pod in asked {
            seen.push(pod.await.context("a task of `status` failed")?);
        }
        anyhow::Ok(seen)
    })?;
    if let [first, ..] = seen.as_slice()
        && seen.iter().all(|pod| pod.status.is_none())
    {
        return Err(fail::impossible(format!(
            "no cluster at {}: {}\nstart one with `kassa up`, or name a pod with --url",
            first.url,
            first.error.as_deref().unwrap_or("no answer")
        ))
        .into());
    }
    if args.json {
        print::line(&serde_json::to_string_pretty(&seen).context("cannot write JSON")?);
        return Ok(Exit::Done);
    }
    print::line(&pods(&seen));
    for line in locks(&seen).into_iter().chain(refills(&seen)) {
        print::line(&line);
    }
    let shards = newest(&seen);
    if let Some(warning) = copies(&shards).and_then(loss::warning) {
        print::line(warning);
    }
    print::line(&if args.shards { all(&shards) } else { summary(&shards) });
    Ok(Exit::Done)
}

/// What one pod says of itself.
///
/// # Errors
/// Why it says nothing.
pub async fn of(target: &Target) -> Result<Status, String> {
    let request = target.request("GET", "/status", None);
    let answer = tokio::time::timeout(WAIT, async { Connection::new(target).ask(&request).await }).await;
    match answer {
        Ok(Ok(answer)) if answer.status == 200 => serde_json::from_str(&answer.body)
            .map_err(|error| format!("its /status is not understood: {error}")),
        Ok(Ok(answer)) => Err(format!("it answered {}", answer.status)),
        Ok(Err(broken)) => Err(broken.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}

async fn ask(target: Target) -> Seen {
    let (status, error) = match of(&target).await {
        Ok(status) => (Some(status), None),
        Err(error) => (None, Some(error)),
    };
    let holds = status.as_ref().map(holds).unwrap_or_default();
    Seen { url: target.url(), holds, status, error }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.iter().copied());
    table
}

fn pods(seen: &[Seen]) -> String {
    let header = ["pod", "url", "state", "peers up", "payment", "stock"];
    let counts = ["requests", "checkouts", "unfinished", "committed"];
    let mut table = table(&[header.as_slice(), &counts].concat());
    for pod in seen {
        let [payment, stock] = MODULES.map(|module| match pod.holds.get(module) {
            Some(Holds { shards: 0, .. }) | None => "-".to_owned(),
            Some(Holds { shards, leads }) => format!("{shards}, leads {leads}"),
        });
        match &pod.status {
            Some(status) => {
                let up = status.peers.iter().filter(|peer| peer.up).count();
                table.add_row([
                    status.pod.to_string(),
                    pod.url.clone(),
                    status
                        .not_ready
                        .first()
                        .map_or_else(|| "ready".to_owned(), |why| format!("not ready: {why}")),
                    format!("{up} of {}", status.peers.len()),
                    payment,
                    stock,
                    status.requests.to_string(),
                    status.checkouts.to_string(),
                    status.unfinished.to_string(),
                    status.committed.to_string(),
                ]);
            }
            None => {
                let error = pod.error.clone().unwrap_or_default();
                table.add_row(["?".to_owned(), pod.url.clone(), error]);
            }
        }
    }
    table.to_string()
}

/// What the blocking commit has locked, if anything.
fn locks(seen: &[Seen]) -> Option<String> {
    let locks = || seen.iter().filter_map(|pod| pod.status.as_ref()).map(|status| &status.locks);
    let (items, users) = locks().fold((0, 0), |(i, u), locks| (i + locks.items, u + locks.users));
    let in_doubt: u64 = locks().map(|locks| locks.in_doubt).sum();
    if items + users + in_doubt == 0 {
        return None;
    }
    let waits_for: BTreeSet<String> = locks().flat_map(|l| &l.waits_for).map(u8::to_string).collect();
    let waits_for: Vec<String> = waits_for.into_iter().collect();
    let doubt = if in_doubt == 0 {
        String::new()
    } else {
        let pods = waits_for.join(", ");
        format!("; {in_doubt} in doubt, for as long as the pod that decides is away: pod {pods}")
    };
    Some(format!("locked by checkouts: {items} items, {users} users{doubt}"))
}

/// Pods that are being refilled, as whoever has heard the most of it says.
fn refills(seen: &[Seen]) -> Vec<String> {
    let mut refills: BTreeMap<(u8, u32), (u16, u16)> = BTreeMap::new();
    let mut whole: BTreeMap<(u8, u32), bool> = BTreeMap::new();
    for disk in seen.iter().filter_map(|pod| pod.status.as_ref()).flat_map(|status| &status.disks) {
        let shards = disk.refill.map_or((0, 0), |refill| refill.shards());
        let most = refills.entry((disk.pod, disk.replaced)).or_default();
        *most = shards.max(*most);
        *whole.entry((disk.pod, disk.replaced)).or_default() |= disk.whole;
    }
    let refilled = refills.iter().filter(|(disk, _)| !whole[disk]);
    let line = |(&(pod, _), (whole, all)): (&(u8, u32), &(u16, u16))| {
        format!("pod {pod} is being refilled: {whole} of {all} shards are whole")
    };
    refilled.map(line).collect()
}

/// What is known of one shard over all pods that answered.
#[derive(Clone, Debug)]
struct Shard {
    /// As the pod saw it that knows the most.
    newest: ShardStatus,
    /// The position of the replica that is furthest behind.
    behind: u64,
}

fn newest(seen: &[Seen]) -> BTreeMap<(String, u16), Shard> {
    let mut shards: BTreeMap<(String, u16), Shard> = BTreeMap::new();
    for shard in seen.iter().filter_map(|pod| pod.status.as_ref()).flat_map(|status| &status.shards) {
        let known = shards
            .entry((shard.module.clone(), shard.shard))
            .or_insert_with(|| Shard { newest: shard.clone(), behind: shard.applied });
        known.behind = known.behind.min(shard.applied);
        let knows_more = (shard.committed, shard.leader.is_some())
            > (known.newest.committed, known.newest.leader.is_some());
        let open = known.newest.open.max(shard.open);
        if knows_more {
            known.newest = shard.clone();
        }
        known.newest.open = open;
    }
    shards
}

/// How many copies there are of the shard that has the fewest.
fn copies(shards: &BTreeMap<(String, u16), Shard>) -> Option<u64> {
    let of_modules = shards.iter().filter(|((module, _), _)| MODULES.contains(&module.as_str()));
    of_modules.map(|(_, shard)| shard.newest.replicas.len() as u64).min()
}

impl Shard {
    const fn lag(&self) -> u64 {
        self.newest.committed.saturating_sub(self.behind)
    }
}

fn summary(shards: &BTreeMap<(String, u16), Shard>) -> String {
    let mut table = table(&["module", "shards", "led by (pod:shards)", "without leader", "lag", "in flight"]);
    let mut modules: BTreeMap<&str, Vec<&Shard>> = BTreeMap::new();
    for ((module, _), shard) in shards {
        modules.entry(module).or_default().push(shard);
    }
    for (module, shards) in modules {
        let mut led: BTreeMap<u8, usize> = BTreeMap::new();
        for leader in shards.iter().filter_map(|shard| shard.newest.leader) {
            *led.entry(leader).or_default() += 1;
        }
        let without = shards.iter().filter(|shard| shard.newest.leader.is_none()).count();
        table.add_row([
            module.to_owned(),
            shards.len().to_string(),
            led.iter().map(|(pod, count)| format!("{pod}:{count}")).collect::<Vec<_>>().join(" "),
            without.to_string(),
            shards.iter().map(|shard| shard.lag()).max().unwrap_or_default().to_string(),
            shards.iter().map(|shard| shard.newest.open).sum::<u64>().to_string(),
        ]);
    }
    table.to_string()
}

fn all(shards: &BTreeMap<(String, u16), Shard>) -> String {
    let mut table =
        table(&["module", "shard", "replicas", "leader", "ballot", "committed", "lag", "in flight"]);
    for ((module, number), shard) in shards {
        let newest = &shard.newest;
        table.add_row([
            module.clone(),
            number.to_string(),
            newest.replicas.iter().map(u8::to_string).collect::<Vec<_>>().join(" "),
            newest.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string()),
            newest.ballot.clone(),
            newest.committed.to_string(),
            shard.lag().to_string(),
            newest.open.to_string(),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(applied: u64, committed: u64, leader: Option<u8>) -> ShardStatus {
        ShardStatus {
            module: "stock".into(),
            shard: 0,
            replicas: vec![0, 1, 2],
            leader,
            ballot: "1.2.0".into(),
            applied,
            committed,
            open: committed - applied,
        }
    }

    fn seen(shards: Vec<ShardStatus>) -> Seen {
        let status = Status { shards, ..Status::default() };
        Seen { url: "http://x".into(), holds: holds(&status), status: Some(status), error: None }
    }

    #[test]
    fn lag_is_that_of_the_slowest_replica() {
        let pods = [seen(vec![shard(7, 9, None)]), seen(vec![shard(10, 12, Some(2))]), seen(vec![])];
        let shards = newest(&pods);
        let shard = &shards[&("stock".to_owned(), 0)];
        assert_eq!((shard.lag(), shard.newest.leader, shard.newest.open), (5, Some(2), 2));
        assert!(summary(&shards).contains("2:1"), "{}", summary(&shards));
        assert!(all(&shards).contains("1.2.0"));
        assert_eq!(copies(&shards), Some(3));
    }

    #[test]
    fn who_holds_what_is_shown() {
        let pod = seen(vec![shard(7, 9, None), shard(7, 9, Some(0))]);
        assert_eq!(pod.holds["stock"], Holds { shards: 2, leads: 1 });
        assert_eq!(pod.holds["payment"], Holds::default());
        let table = pods(&[pod]);
        assert!(table.contains("2, leads 1") && table.contains(" - "), "{table}");
    }
}
