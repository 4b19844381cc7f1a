//! `kassa check`: whether a pod's data directory is whole, and what is in it. Changes nothing there.

use super::fail::{self, Exit};
use super::print;
use crate::exit::say;
use crate::fabric::identity::Identity;
use clap::Args;
use comfy_table::{Table, presets};
use kassa_storage::{OpenError, Report};
use std::path::{Path, PathBuf};

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  kassa check kassa-data/pod-1

A whole data directory of `kassa up` works too: all of its pods are checked. The pods must not be
running. Exit code 1 if something is damaged, and the message says which file.
Next: `kassa up` starts the cluster again; a pod that is damaged refuses, and the others sell on.")]
pub struct CheckArgs {
    /// A pod's directory, or one that holds several
    pub dir: PathBuf,
}

/// Checks and shows every store.
///
/// # Errors
/// Where there is no pod, it is in use, or its files cannot be read.
pub fn run(args: &CheckArgs) -> anyhow::Result<Exit> {
    let mut exit = Exit::Done;
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "store",
        "state",
        "shards",
        "records",
        "bytes",
        "log",
        "log bytes",
        "journals",
        "table files",
    ]);
    let mut faults = Vec::new();
    for pod in pods(&args.dir)? {
        match identity(&pod) {
            Ok(line) => print::line(&line),
            Err(fault) => faults.push(fault),
        }
        for dir in STORES.map(|name| pod.join(name)) {
            match kassa_storage::check(&dir) {
                Ok(report) => {
                    table.add_row(row(&dir, &report));
                }
                Err(error) => {
                    if !is_damage(&error) {
                        return Err(fail::impossible(error.to_string()).into());
                    }
                    table.add_row([dir.display().to_string(), "DAMAGED".to_owned()]);
                    faults.push(error.to_string());
                }
            }
        }
    }
    print::line(&table.to_string());
    for fault in &faults {
        say(fault);
        exit = Exit::Wrong;
    }
    Ok(exit)
}

const IDENTITY: &str = "identity";
const STORES: [&str; 3] = ["order", "stock", "payment"];

/// Which pod of which cluster the directory is, or what is wrong with that.
fn identity(pod: &Path) -> Result<String, String> {
    let identity = Identity::read(pod).map_err(|error| error.to_string())?;
    let identity = identity.ok_or_else(|| format!("{} is missing", pod.join(IDENTITY).display()))?;
    let cluster = identity.formed.map_or_else(
        || "of a cluster that has not formed yet".to_owned(),
        |formed| format!("cluster {}", formed.cluster),
    );
    Ok(format!("{}: pod {}, disk {}, {cluster}", pod.display(), identity.pod.0, identity.disk))
}

/// The directory itself if it is a pod's, else the pods in it.
fn pods(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let is_pod =
        |dir: &Path| dir.join(IDENTITY).exists() || STORES.iter().any(|name| dir.join(name).exists());
    if is_pod(dir) {
        return Ok(vec![dir.to_owned()]);
    }
    let entries = std::fs::read_dir(dir)
        .map_err(|error| fail::impossible(format!("{} cannot be read: {error}", dir.display())))?;
    let mut pods: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| is_pod(path)).collect();
    pods.sort();
    if pods.is_empty() {
        return Err(fail::impossible(format!(
            "{} holds no pod\nname a directory such as kassa-data/pod-0",
            dir.display()
        ))
        .into());
    }
    Ok(pods)
}

fn row(dir: &Path, report: &Report) -> Vec<String> {
    let state = match report.torn_bytes {
        0 => "whole".to_owned(),
        torn => format!("whole, {torn} torn bytes at the end to be cut"),
    };
    let records: u64 = report.shards.values().map(|shard| shard.records).sum();
    let bytes: u64 = report.shards.values().map(|shard| shard.bytes).sum();
    vec![
        dir.display().to_string(),
        state,
        report.shards.len().to_string(),
        records.to_string(),
        bytes.to_string(),
        report.log_positions.map_or_else(|| "empty".to_owned(), |(low, high)| format!("{low} to {high}")),
        report.log_bytes.to_string(),
        report.journals.to_string(),
        format!("{} ({} bytes)", report.table_files, report.table_file_bytes),
    ]
}

/// Whether the data is to blame, and not the way in which it was asked for.
const fn is_damage(error: &OpenError) -> bool {
    match error {
        OpenError::Damaged(_)
        | OpenError::Database { .. }
        | OpenError::Read { .. }
        | OpenError::Missing { .. } => true,
        OpenError::Locked { .. }
        | OpenError::NewerFormat { .. }
        | OpenError::Foreign { .. }
        | OpenError::Io { .. } => false,
    }
}
