//! How the process ends: the exit codes that scripts lean on, and the stop that runs no destructors.

/// Done and good.
pub const GOOD: u8 = 0;
/// Ran, and found something wrong.
pub const FOUND_WRONG: u8 = 1;
/// Wrong use or configuration.
pub const WRONG_USE: u8 = 2;
/// Could not be done: port taken, disk unreadable, no cluster there.
pub const IMPOSSIBLE: u8 = 3;
/// A broken invariant or a failed persist: the pod stopped itself.
pub const BROKEN: u8 = 70;

/// Stops the process at once, after one line on stderr.
///
/// No destructor runs, on no thread: the storage engine's would repeat the fsync that has failed, and
/// a second fsync may succeed over data that never reached the disk (Rebello et al., 2020).
pub fn fail_stop(what: &str) -> ! {
    eprintln!("kassa: {what}; this pod stops itself (exit {BROKEN})");
    std::process::exit(i32::from(BROKEN))
}
