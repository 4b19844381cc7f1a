//! Failpoints: places where the process crashes if it is told to by name, so that a test can see what a
//! crash there leaves behind.
//!
//! Without the feature `failpoints` a site is nothing at all. With it, `KASSA_FAILPOINT=site` in the
//! environment ends the process the first time that it comes there, `site:40` the fortieth time: by
//! SIGKILL, so that no destructor runs and nothing more is written. One site a process.

/// Whether this process has failpoints: for what only they need to find out.
pub const ENABLED: bool = cfg!(feature = "failpoints");

#[cfg(feature = "failpoints")]
mod switch {
    use rustix::process::{Signal, getpid, kill_process};
    use std::fmt::Display;
    use std::io::Write;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Where this process is to crash, and how often it has still to come there.
    struct Chosen {
        site: String,
        left: AtomicU64,
    }

    fn chosen() -> Option<&'static Chosen> {
        static CHOSEN: OnceLock<Option<Chosen>> = OnceLock::new();
        let read = || {
            let said = std::env::var("KASSA_FAILPOINT").ok()?;
            let (site, nth) = said.split_once(':').unwrap_or((&said, "1"));
            let nth = nth.parse().expect("KASSA_FAILPOINT is SITE or SITE:NTH");
            Some(Chosen { site: site.to_owned(), left: AtomicU64::new(nth) })
        };
        CHOSEN.get_or_init(read).as_ref()
    }

    /// The site at which this process is to crash.
    pub fn site() -> Option<&'static str> {
        chosen().map(|chosen| chosen.site.as_str())
    }

    /// Crashes if this is the place and the time.
    pub fn hit(site: &str) {
        if let Some(chosen) = chosen().filter(|chosen| chosen.site == site) {
            count(chosen);
        }
    }

    /// The same for a site that each store has: its name is that of the store, a dot, and `site`.
    pub fn hit_in(store: impl Display, site: &str) {
        let is_it = |chosen: &&Chosen| chosen.site == format!("{store}.{site}");
        if let Some(chosen) = chosen().filter(is_it) {
            count(chosen);
        }
    }

    fn count(chosen: &Chosen) {
        if chosen.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            let _ = writeln!(std::io::stderr(), "kassa: failpoint {}", chosen.site);
            let _ = kill_process(getpid(), Signal::KILL);
            // Until the signal arrives, this thread at least does nothing more.
            loop {
                std::thread::park();
            }
        }
    }
}

#[cfg(feature = "failpoints")]
pub use switch::{hit, hit_in, site};

/// Crashes if this is the place and the time: never, without the feature.
#[cfg(not(feature = "failpoints"))]
pub const fn hit(_site: &str) {}

/// The same for a site that each store has.
#[cfg(not(feature = "failpoints"))]
pub fn hit_in(_store: impl std::fmt::Display, _site: &str) {}

/// The site at which this process is to crash: none, without the feature.
#[cfg(not(feature = "failpoints"))]
#[must_use]
pub const fn site() -> Option<&'static str> {
    None
}
