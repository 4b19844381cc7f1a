//! The command line: what people and scripts see of kassa.
//!
//! # Layout
//! One file or folder a command. [`up`] runs a whole cluster on this machine, `serve` one pod of it;
//! [`status`], [`verify`] and [`bench`] ask a running cluster over HTTP, with the lean client of
//! [`http`]; [`torture`] breaks a cluster of its own, and [`compare`] measures some of its own; [`check`] reads a data directory. Reports are drawn with
//! [`page`]. `anyhow` is used here and in `main` alone.

pub mod bench;
pub mod check;
pub mod compare;
pub mod config;
mod crowd;
pub mod fail;
mod faults;
pub mod http;
mod loss;
pub mod machine;
pub mod noop;
pub mod page;
pub mod parent;
mod place;
mod print;
pub mod replace;
pub mod serve;
pub mod status;
pub mod torture;
pub mod up;
pub mod verify;

use clap::{CommandFactory, Parser, Subcommand};
use fail::Exit;

/// A web shop's orders, stock and payment: replicated, and never blocked by a pod that dies.
///
/// Without a command, `kassa` is `kassa up`: a cluster of three pods on this machine.
#[derive(Debug, Parser)]
#[command(
    name = "kassa",
    version,
    after_help = "\
Example:
  kassa                            three pods, nginx in front if there is one, data in ./kassa-data

`kassa COMMAND --help` tells about each command, with an example.
Exit codes: 0 good, 1 found something wrong, 2 wrong use, 3 could not be done, 70 broken invariant."
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole cluster on this machine: pods, and nginx in front (the default)
    Up(up::UpArgs),
    /// Run one pod, by its configuration
    Serve(serve::ServeArgs),
    /// Show pods, shards, leaders, lag and what is in flight
    Status(status::StatusArgs),
    /// Have a pod whose disk is lost refilled from the others
    Replace(replace::ReplaceArgs),
    /// Test that the cluster sells, charges and tells the truth
    Verify(verify::VerifyArgs),
    /// Measure how many checkouts are committed a second
    Bench(bench::BenchArgs),
    /// Measure what each way to commit and to replicate costs and bears, side by side
    Compare(compare::CompareArgs),
    /// Break a cluster of its own on purpose, under load, and check that nothing is lost or untrue
    Torture(torture::TortureArgs),
    /// Say whether a stopped pod's data directory is whole, and what is in it
    Check(check::CheckArgs),
    /// Become another program that ends with the one that started it
    #[command(hide = true)]
    RunWithParent(parent::WithParentArgs),
    /// Serve an HTTP handler that does nothing: what `bench --noop` measures against
    #[command(hide = true)]
    Noop(noop::NoopArgs),
}

/// Runs what the arguments ask for.
///
/// # Errors
/// What went wrong, in one or two lines; [`fail::exit_of`] tells the exit code.
pub fn run() -> anyhow::Result<Exit> {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            let named = std::env::args().skip(1).find(|word| Cli::command().find_subcommand(word).is_some());
            return Err(fail::usage(shorten(&error.to_string(), named.as_deref())).into());
        }
        Err(help) => {
            print::line(help.render().to_string().trim_end());
            return Ok(Exit::Done);
        }
    };
    let default = || Cli::parse_from(["kassa", "up"]).command;
    match cli.command.or_else(default) {
        Some(Command::Up(args)) => up::run(&args).map(|()| Exit::Done),
        Some(Command::Serve(args)) => serve::run(&args),
        Some(Command::Status(args)) => status::run(&args),
        Some(Command::Replace(args)) => replace::run(&args),
        Some(Command::Verify(args)) => verify::run(&args),
        Some(Command::Bench(args)) => bench::run(&args),
        Some(Command::Compare(args)) => compare::run(&args),
        Some(Command::Torture(args)) => torture::run(&args),
        Some(Command::Check(args)) => check::run(&args),
        Some(Command::RunWithParent(args)) => parent::run(&args).map(|()| Exit::Done),
        Some(Command::Noop(args)) => noop::run(&args).map(|()| Exit::Done),
        None => Ok(Exit::Done),
    }
}

/// What is wrong and where help is, in two lines.
fn shorten(error: &str, command: Option<&str>) -> String {
    let text = error.strip_prefix("error: ").unwrap_or(error);
    let what: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let tip = text.lines().map(str::trim).find(|line| line.starts_with("tip: "));
    let help =
        command.map_or_else(|| "`kassa --help`".to_owned(), |command| format!("`kassa {command} --help`"));
    let tip = tip.map_or_else(String::new, |tip| format!("{tip}; "));
    format!("{}\n{tip}see {help}", what.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_teaches_with_an_example() {
        for command in Cli::command().get_subcommands_mut().filter(|command| !command.is_hide_set()) {
            let help = command.render_help().to_string();
            assert!(help.contains("Example:") && help.contains("kassa "), "{}: {help}", command.get_name());
        }
    }

    #[test]
    fn wrong_use_is_told_in_two_lines() {
        for arguments in
            [vec!["kassa", "upp"], vec!["kassa", "up", "--pods", "0"], vec!["kassa", "up", "--pod"]]
        {
            let error = Cli::try_parse_from(&arguments).expect_err("wrong use");
            let text = shorten(&error.to_string(), Some("up"));
            assert_eq!(text.lines().count(), 2, "{text}");
            assert!(text.contains("--help`"), "{text}");
        }
    }
}
