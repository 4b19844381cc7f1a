//! The stop that runs no destructors.

/// The exit code of a pod that stopped itself: a broken invariant or a failed persist.
pub const BROKEN: u8 = 70;

/// Stops the process at once, after one line on stderr.
///
/// No destructor runs, on no thread: the storage engine's would repeat the fsync that has failed, and
/// a second fsync may succeed over data that never reached the disk (Rebello et al., 2020).
pub fn fail_stop(what: &str) -> ! {
    eprintln!("kassa: {what}");
    std::process::exit(i32::from(BROKEN))
}
