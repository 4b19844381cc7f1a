//! The stop that runs no destructors, and the last words before it.

use std::io::Write;

/// The exit code of a pod that stopped itself: a broken invariant or a failed persist.
pub const BROKEN: u8 = 70;

/// Stops the process at once, after one line on stderr.
///
/// No destructor runs, on no thread: the storage engine's would repeat the fsync that has failed, and
/// a second fsync may succeed over data that never reached the disk (Rebello et al., 2020).
pub fn fail_stop(what: &str) -> ! {
    say(what);
    std::process::exit(i32::from(BROKEN))
}

/// The exit code of a pod that may not use its disk: nobody starts it again before a person has looked.
pub const REFUSED: u8 = 3;

/// Stops the process at once, after one line on stderr: its disk may not be used, and nothing more may be said.
pub fn refused(why: &str) -> ! {
    say(why);
    std::process::exit(i32::from(REFUSED))
}

/// One line to stderr, which may be a file on the disk that has just filled up, or a pipe that nobody
/// reads any more: that is no reason to stop, as `eprintln!` would.
pub fn say(what: &str) {
    let _ = writeln!(std::io::stderr().lock(), "kassa: {what}");
}
