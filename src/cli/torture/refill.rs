//! A pod whose disk is lost: its data taken away, and given back by the others.

use crate::cli::http::{Connection, Target};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::Command;

/// How long a pod may take to say whether it is ready.
const READY_WAIT: Duration = Duration::from_millis(500);
/// The pod has to wait for its refill, and the cluster to agree on it: until then it is asked for again.
const AGAIN_AFTER: Duration = Duration::from_millis(300);
/// A few seconds of a shop's data come back within this, in any storm.
const REFILLED_WITHIN: Duration = Duration::from_secs(60);
/// What stays of a pod's directory: how it was started, and what it said.
const STAYS: [&str; 2] = ["kassa.toml", "log"];

/// # Errors
/// Where the file system refuses.
pub fn wipe(directory: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if STAYS.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Has the pod refilled, as an operator would, and waits until it is whole.
///
/// # Errors
/// What the command said last, if the pod is not whole in time.
pub async fn refill(pod: u16, pods: &[Target]) -> Result<(), String> {
    let this =
        std::env::current_exe().map_err(|error| format!("cannot find the kassa binary itself: {error}"))?;
    let target = pods.get(usize::from(pod)).ok_or_else(|| format!("there is no pod {pod}"))?;
    let until = Instant::now() + REFILLED_WITHIN;
    loop {
        let mut command = Command::new(&this);
        command.args(["replace", "--json", "--seconds", "20", "--pod", &pod.to_string()]).kill_on_drop(true);
        for other in pods.iter().filter(|other| *other != target) {
            command.args(["--url", &other.url()]);
        }
        let output = command.stdin(Stdio::null()).output().await;
        let output = output.map_err(|error| format!("cannot run `kassa replace`: {error}"))?;
        // Whoever watched may have lost sight of a refill that went on.
        if output.status.success() || is_ready(target).await.is_ok() {
            return Ok(());
        }
        if Instant::now() > until {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            let seconds = REFILLED_WITHIN.as_secs();
            return Err(format!("pod {pod} lost its disk and is not refilled after {seconds} s\n    {said}"));
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// Whether a pod, or nginx for one of them, says that it is ready.
///
/// # Errors
/// Why not.
pub async fn is_ready(target: &Target) -> Result<(), String> {
    let request = target.request("GET", "/readyz", None);
    let mut connection = Connection::new(target);
    match tokio::time::timeout(READY_WAIT, connection.ask(&request)).await {
        Ok(Ok(answer)) if answer.status == 200 => Ok(()),
        Ok(Ok(answer)) => Err(answer.body.trim().to_owned()),
        Ok(Err(broken)) => Err(broken.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}
