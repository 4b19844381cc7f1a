//! The `kassa` command.

use kassa::cli;
use kassa::exit::{fail_stop, say};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A broken invariant ends the process at once, whichever thread finds it.
    std::panic::set_hook(Box::new(|broken| {
        let message = broken.payload_as_str().unwrap_or("no message");
        let place = broken.location().map_or_else(String::new, |place| format!(" at {place}"));
        fail_stop(&format!("broken invariant{place}: {message}"));
    }));
    match cli::run() {
        Ok(exit) => exit.into(),
        Err(error) => {
            say(&format!("{error:#}"));
            cli::fail::exit_of(&error).into()
        }
    }
}
