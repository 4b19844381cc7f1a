//! The machine that something was measured on, for reports: figures without it mean nothing.

use serde::{Deserialize, Serialize};

/// What is not known is left empty.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub memory_mib: u64,
    pub system: String,
    /// The version of kassa that measured.
    pub kassa: String,
    pub is_release_build: bool,
}

impl Machine {
    #[must_use]
    pub fn this() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let system = format!(
            "{} {}",
            read("/proc/sys/kernel/ostype").trim(),
            read("/proc/sys/kernel/osrelease").trim()
        );
        Self {
            processor: after(&read("/proc/cpuinfo"), "model name").to_owned(),
            cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            memory_mib: kibibytes(&read("/proc/meminfo")) / 1024,
            system: system.trim().to_owned(),
            kassa: env!("CARGO_PKG_VERSION").to_owned(),
            is_release_build: !cfg!(debug_assertions),
        }
    }

    /// In one line.
    #[must_use]
    pub fn line(&self) -> String {
        let known = |text: &str| if text.is_empty() { "unknown".to_owned() } else { text.to_owned() };
        let build = if self.is_release_build { "release" } else { "debug" };
        format!(
            "{}, {} cores, {} MiB, {}, kassa {} ({build} build)",
            known(&self.processor),
            self.cores,
            self.memory_mib,
            known(&self.system),
            self.kassa
        )
    }
}

/// The value of the first line `name : value`.
fn after<'a>(text: &'a str, name: &str) -> &'a str {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(key, _)| key.trim() == name).map_or("", |(_, value)| value.trim())
}

fn kibibytes(text: &str) -> u64 {
    after(text, "MemTotal").split(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_tells_is_found() {
        assert_eq!(after("a\t: 1\nmodel name\t: Xeon : 3\nmodel name\t: other\n", "model name"), "Xeon : 3");
        assert_eq!(after("", "model name"), "");
        assert_eq!(kibibytes("MemFree: 1 kB\nMemTotal:       8010792 kB\n"), 8_010_792);
        let machine = Machine::this();
        assert!(
            machine.cores > 0 && machine.memory_mib > 0 && machine.system.starts_with("Linux"),
            "{machine:?}"
        );
    }
}
