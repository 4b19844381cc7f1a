//! Output for people and programs. A reader that has gone away (`| head`) is no error.

use std::io::Write;

/// One line to stdout.
pub fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        // Nobody reads: what was asked for is done all the same.
    }
}
