//! The one way in which a pod can be made ill on purpose: its standard input, if it was started so.

use super::config::Config;
use super::fail::{self, Exit};
use crate::exit::say;
use crate::runtime::faults::Faults;
use anyhow::Context;
use std::net::SocketAddr;
use tracing::{info, warn};

/// Does from now on what each line on standard input says; its end changes nothing.
///
/// # Errors
/// If the pod could be reached from another machine.
pub fn obey_stdin(faults: Faults, config: &Config) -> anyhow::Result<()> {
    let on_loopback = |address: &String| address.parse().is_ok_and(|at: SocketAddr| at.ip().is_loopback());
    let alone = config.http.ip().is_loopback()
        && config.fabric.ip().is_loopback()
        && config.peers.values().all(on_loopback);
    if !alone {
        return Err(fail::usage(
            "--faults-from-stdin: only a pod whose addresses are all loopback's can be made ill",
        )
        .into());
    }
    warn!("this pod is made ill by whoever started it: it is of no use to customers");
    let obey = move || {
        for line in std::io::stdin().lines() {
            let Ok(line) = line else { return };
            match faults.obey(&line) {
                Ok(()) => info!("fault: {line}"),
                Err(error) => {
                    say(&format!("--faults-from-stdin: {error}"));
                    std::process::exit(i32::from(Exit::Usage.code()));
                }
            }
        }
    };
    std::thread::Builder::new()
        .name("kassa-faults".to_owned())
        .spawn(obey)
        .context("no thread for the faults")?;
    Ok(())
}
