//! `kassa replace`: the operator's word that a pod's disk is lost.
//!
//! Any pod that lives takes it. The pod with the empty directory has to wait already: its log, and its
//! `/readyz`, say that it does. The command then follows the refill until the cluster has noted that the pod is
//! whole; that goes on without it.

use super::fail::{self, Exit};
use super::http::{Broken, Connection, Kept, Target, field};
use super::{place, print};
use crate::node::{DiskStatus, Refill, Status};
use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::time::{Duration, Instant};

/// A pod that says nothing for this long is passed over.
const WAIT: Duration = Duration::from_secs(2);
/// The word may take as long as any request: the cluster has to agree on it.
const WORD_WAIT: Duration = Duration::from_secs(15);
/// How often the refill is looked at; the pod tells others of it as often.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often, and for how long, a cluster that cannot decide just now is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(300);
const DECIDES_WITHIN: Duration = Duration::from_secs(30);

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  kassa replace --pod 2 --url http://127.0.0.1:8000

First start pod 2 with an empty data directory; its log says when it waits (`kassa up` starts it by itself).
Without --url the pods of the cluster in ./kassa-data are asked. Next: `kassa status`, `kassa verify`.
Exit codes: 0 refilled, 2 no such pod, 3 refused, no cluster there, or not refilled in time.")]
pub struct ReplaceArgs {
    /// The pod whose disk is lost
    #[arg(long, value_name = "N")]
    pub pod: u8,
    /// A pod that lives; may be given several times [default: all of ./kassa-data, else port 8000]
    #[arg(long, value_name = "URL")]
    pub url: Vec<String>,
    /// Give up watching after so long; the refill goes on
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    pub seconds: u64,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

/// What programs are told.
#[derive(Debug, Serialize)]
struct Told<'a> {
    pod: u8,
    disk: &'a str,
    replaced: u32,
    whole: bool,
    refill: Option<Refill>,
    seconds: f64,
}

/// Says the word, and watches.
///
/// # Errors
/// Where it is refused, where there is no cluster, or where the pod is not whole in time.
pub fn run(args: &ReplaceArgs) -> anyhow::Result<Exit> {
    let targets = place::pods(&args.url)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    runtime.block_on(async {
        let (began, disk) = (Instant::now(), word(args.pod, &targets).await?);
        let whole = watch(args, &targets, &disk, began).await?;
        let seconds = began.elapsed().as_secs_f64();
        if args.json {
            let DiskStatus { pod, disk, replaced, whole, refill } = whole;
            let told = Told { pod, disk: &disk, replaced, whole, refill, seconds };
            print::line(&serde_json::to_string(&told).context("cannot write JSON")?);
        } else {
            let got = whole.refill.map_or_else(String::new, |refill| format!(": {}", received(&refill)));
            print::line(&format!("pod {} is whole again after {seconds:.1} s{got}", args.pod));
        }
        Ok(Exit::Done)
    })
}

/// Has the first pod that can do it replace the disk; the new disk's name.
async fn word(pod: u8, targets: &[Target]) -> anyhow::Result<String> {
    let until = Instant::now() + DECIDES_WITHIN;
    loop {
        let (mut last, mut refused) = (None, None);
        for target in targets {
            let request = target.request("POST", &format!("/replace/{pod}"), None);
            let answer = ask(target, &request, WORD_WAIT).await;
            match &answer {
                Ok(kept) if kept.status == 200 => {
                    let disk = field(&kept.body, "disk").context("the answer names no disk")?;
                    return Ok(disk.to_owned());
                }
                Ok(kept) if kept.status == 404 && field(&kept.body, "code") == Some("pod_not_found") => {
                    return Err(fail::usage(format!("--pod {pod}: {}", detail(kept))).into());
                }
                // Another pod may see more.
                Ok(kept) if kept.status == 409 => refused = Some(detail(kept)),
                Ok(_) | Err(_) => last = Some((target, answer)),
            }
        }
        if let Some(why) = refused {
            return Err(fail::impossible(why).into());
        }
        let Some((target, answer)) = last else { return Err(fail::usage("no pod to ask").into()) };
        match answer {
            // It may yet decide, or have decided.
            Ok(kept) if matches!(kept.status, 429 | 503 | 504) && Instant::now() < until => {}
            Ok(kept) => {
                let (url, detail) = (target.url(), detail(&kept));
                return Err(fail::impossible(format!("{url}: {detail}")).into());
            }
            Err(broken) => {
                let url = target.url();
                return Err(fail::impossible(format!(
                    "no cluster at {url}: {broken}\nname a pod that lives with --url"
                ))
                .into());
            }
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// Follows the refill until the cluster calls the disk whole.
async fn watch(
    args: &ReplaceArgs,
    targets: &[Target],
    disk: &str,
    began: Instant,
) -> anyhow::Result<DiskStatus> {
    let bar = if args.json { ProgressBar::hidden() } else { bar(args.pod) };
    while began.elapsed() < Duration::from_secs(args.seconds) {
        for target in targets {
            let Some(known) = seen(target, args.pod).await else { continue };
            if known.disk != disk {
                // Not every pod may have heard of it yet; one that has heard of more says that it is over.
                continue;
            }
            if let Some(refill) = &known.refill {
                let (whole, all) = refill.shards();
                bar.set_length(u64::from(all));
                bar.set_position(u64::from(whole));
                bar.set_message(format!("{}; {}", modules(refill), received(refill)));
            }
            if known.whole {
                bar.finish_and_clear();
                return Ok(known);
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    bar.abandon();
    Err(fail::impossible(format!(
        "pod {} is not whole after {} s; its refill goes on\nlook at `kassa status` and at the pod's log",
        args.pod, args.seconds
    ))
    .into())
}

async fn seen(target: &Target, pod: u8) -> Option<DiskStatus> {
    let answer = ask(target, &target.request("GET", "/status", None), WAIT).await.ok()?;
    let status: Status = serde_json::from_str(&answer.body).ok()?;
    status.disks.into_iter().find(|disk| disk.pod == pod)
}

async fn ask(target: &Target, request: &[u8], wait: Duration) -> Result<Kept, Broken> {
    let answer = tokio::time::timeout(wait, async { Connection::new(target).ask(request).await }).await;
    answer.unwrap_or(Err(Broken::TimedOut))
}

fn detail(kept: &Kept) -> String {
    let text = serde_json::from_str::<serde_json::Value>(&kept.body).ok();
    let detail = text.as_ref().and_then(|body| body.get("detail")).and_then(serde_json::Value::as_str);
    detail.map_or_else(|| format!("it answered {}", kept.status), str::to_owned)
}

/// Shown on a terminal only.
fn bar(pod: u8) -> ProgressBar {
    let bar = ProgressBar::new(0).with_prefix(format!("refilling pod {pod}"));
    if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:24} {pos}/{len} shards {elapsed} {msg}") {
        bar.set_style(style);
    }
    bar
}

/// Shards whole of all, by module.
fn modules(refill: &Refill) -> String {
    let Refill { order, stock, payment, .. } = refill;
    let part = |name: &str, (whole, all): (u16, u16)| format!("{name} {whole}/{all}");
    [part("order", *order), part("stock", *stock), part("payment", *payment)].join(" ")
}

fn received(refill: &Refill) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one digit behind the point")]
    let megabytes = refill.bytes as f64 / 1e6;
    format!("{} records, {megabytes:.1} MB", refill.records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_by_module() {
        let refill = Refill {
            order: (1, 24),
            stock: (24, 24),
            payment: (7, 24),
            cluster: (1, 1),
            records: 12_345,
            bytes: 6_780_000,
        };
        assert_eq!(modules(&refill), "order 1/24 stock 24/24 payment 7/24");
        assert_eq!(received(&refill), "12345 records, 6.8 MB");
        assert_eq!(refill.shards(), (33, 73));
        assert!(!refill.is_whole());
    }
}
