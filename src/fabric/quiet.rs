//! One log line an event, also when the event repeats a hundred times a second.

use std::time::{Duration, Instant};

/// A repeated line is left out for this long: long enough to keep a log readable over a night with a
/// pod down, short enough to show that it still is.
const REPEAT_AFTER: Duration = Duration::from_secs(30);
/// Different lines within that time, after which they are left out too: strangers can vary theirs.
const LINES_MAX: usize = 16;

/// Remembers what was said lately.
#[derive(Debug, Default)]
pub struct Quiet {
    said: Vec<(String, Instant)>,
}

impl Quiet {
    /// Whether `line`, or a line of which it is the kind, should be said now.
    pub fn allows(&mut self, line: &str, now: Instant) -> bool {
        self.said.retain(|(_, at)| now.saturating_duration_since(*at) < REPEAT_AFTER);
        if self.said.len() >= LINES_MAX || self.said.iter().any(|(said, _)| said == line) {
            return false;
        }
        self.said.push((line.to_owned(), now));
        true
    }

    /// What was said before is worth saying again: something has changed since.
    pub fn forget(&mut self) {
        self.said.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_said_once_per_interval() {
        let (mut quiet, start) = (Quiet::default(), Instant::now());
        assert!(quiet.allows("refused", start));
        assert!(!quiet.allows("refused", start + REPEAT_AFTER / 2));
        assert!(quiet.allows("silent", start + REPEAT_AFTER / 2));
        assert!(quiet.allows("refused", start + REPEAT_AFTER));
        quiet.forget();
        assert!(quiet.allows("refused", start + REPEAT_AFTER));
    }

    #[test]
    fn varied_lines_are_bounded_too() {
        let (mut quiet, start) = (Quiet::default(), Instant::now());
        let said = (0..100).filter(|i| quiet.allows(&i.to_string(), start)).count();
        assert_eq!(said, LINES_MAX);
    }
}
