//! Deliberate breaks: places where the code does one thing wrong if it is told to by name, so that the
//! simulator can show that it would notice.
//!
//! Without the feature `breaks` every site is `if false`, and nothing of it is left in the binary. With
//! it, the environment variable `BREAK` names the one that is broken in this process.

#[cfg(feature = "breaks")]
mod switch {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    static NAME: OnceLock<Option<String>> = OnceLock::new();
    static MET: AtomicBool = AtomicBool::new(false);

    /// Whether this process is broken at the site of that name.
    pub fn is(name: &str) -> bool {
        let broken = NAME.get_or_init(|| std::env::var("BREAK").ok()).as_deref() == Some(name);
        if broken {
            MET.store(true, Ordering::Relaxed);
        }
        broken
    }

    /// Whether the site that is broken was ever passed: if not, its name is a typing error.
    pub fn met() -> bool {
        MET.load(Ordering::Relaxed)
    }
}

#[cfg(feature = "breaks")]
pub use switch::{is, met};

/// Whether this process is broken at the site of that name: never, without the feature.
#[cfg(not(feature = "breaks"))]
#[must_use]
pub const fn is(_name: &str) -> bool {
    false
}
