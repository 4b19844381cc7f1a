//! Processes that must not outlive the one that started them.
//!
//! The kernel sends the signal when the parent's *thread* that started the child ends; `kassa up` starts
//! all its children on its main thread.

use anyhow::{Context, bail};
use clap::Args;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Asks the kernel for `signal` when the parent ends, however it ends.
///
/// # Errors
/// Where `parent` is no longer the parent: it ended before the kernel was asked.
pub fn die_with(parent: u32, signal: Signal) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(signal)).context("cannot ask to be told of the parent's end")?;
    let is_child =
        getppid().map(Pid::as_raw_nonzero).is_some_and(|pid| u32::try_from(pid.get()) == Ok(parent));
    if !is_child {
        bail!("process {parent}, which this one belongs to, has ended");
    }
    Ok(())
}

#[derive(Args, Debug)]
pub struct WithParentArgs {
    /// The process whose end is this one's end.
    parent: u32,
    /// The program to become, and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Becomes another program, which is told to end (SIGTERM) when the parent does. nginx ends its worker
/// on that signal, which it could not on SIGKILL.
///
/// # Errors
/// Where the program cannot be started; otherwise this does not return.
pub fn run(args: &WithParentArgs) -> anyhow::Result<()> {
    die_with(args.parent, Signal::TERM)?;
    let (program, arguments) = args.command.split_first().context("no program was named")?;
    Err(Command::new(program).args(arguments).exec()).with_context(|| format!("cannot start {program}"))
}
