//! When something was broken, or might still be.

use std::cell::{Cell, RefCell};

/// How long the effects of a fault linger once all pods are ready again: elections, questions in doubt, a
/// link that was slow to notice. Nothing counts as calm until then.
pub const AFTERMATH_US: u64 = 4_000_000;
/// A request may be under way for so long: its failure may be due to what was ill when it began.
const REQUEST_US: u64 = 12_000_000;

#[derive(Clone, Copy, Debug, Default)]
struct Storm {
    from_us: u64,
    /// From then on nothing was broken and every pod was ready; nothing while it lasts.
    to_us: Option<u64>,
    /// More than one pod may have been ill, or nginx was.
    severe: bool,
}

/// What was broken so far, by the time of the run in microseconds.
#[derive(Debug, Default)]
pub struct Weather {
    storms: RefCell<Vec<Storm>>,
    /// When the faults that are still to come begin.
    coming_us: RefCell<Vec<u64>>,
    /// A disk was lost: what a pod that was cut off had acknowledged alone may be lost with it.
    pub disk_lost: Cell<bool>,
}

impl Weather {
    /// Of a cluster that has just become ready, with faults to come at these times.
    #[must_use]
    pub fn new(coming_us: Vec<u64>) -> Self {
        let formed = Storm { from_us: 0, to_us: Some(0), severe: true };
        Self {
            storms: RefCell::new(vec![formed]),
            coming_us: RefCell::new(coming_us),
            disk_lost: Cell::new(false),
        }
    }

    /// Something is broken from now on.
    pub fn breaks(&self, now_us: u64, severe: bool) {
        let mut storms = self.storms.borrow_mut();
        match storms.last_mut() {
            Some(storm) if storm.to_us.is_none() => storm.severe |= severe,
            Some(_) | None => storms.push(Storm { from_us: now_us, to_us: None, severe }),
        }
        self.coming_us.borrow_mut().retain(|&coming| coming > now_us);
    }

    /// Nothing is broken any more, and all pods are ready.
    pub fn clears(&self, now_us: u64) {
        if let Some(storm) = self.storms.borrow_mut().last_mut() {
            storm.to_us.get_or_insert(now_us);
        }
    }

    /// No more faults will come.
    pub fn ends(&self) {
        self.coming_us.borrow_mut().clear();
    }

    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.storms.borrow().last().is_some_and(|storm| storm.to_us.is_none())
    }

    /// Whether nothing was broken between the two moments, nor lingered of what was.
    #[must_use]
    pub fn is_calm(&self, from_us: u64, to_us: u64) -> bool {
        // Storms come one after the other: whoever is before all but the last few overlaps none of the rest.
        self.storms
            .borrow()
            .iter()
            .rev()
            .all(|storm| to_us < storm.from_us || storm.to_us.is_some_and(|end| from_us > end + AFTERMATH_US))
    }

    /// Whether it is calm now and no fault is due within `ahead_us`.
    #[must_use]
    pub fn stays_calm(&self, now_us: u64, ahead_us: u64) -> bool {
        let due = self.coming_us.borrow().iter().any(|&coming| coming <= now_us + ahead_us);
        !due && self.is_calm(now_us, now_us)
    }

    /// Whether an error of these times may be due to a majority that was ill, or to nginx.
    #[must_use]
    pub fn is_severe(&self, from_us: u64, to_us: u64) -> bool {
        let over = |storm: &Storm| storm.to_us.is_some_and(|end| from_us > end + REQUEST_US);
        self.storms.borrow().iter().any(|storm| storm.severe && to_us >= storm.from_us && !over(storm))
    }

    /// How many storms there were: no shard can have lost its leader more often than some multiple of it.
    #[must_use]
    pub fn storms(&self) -> u64 {
        u64::try_from(self.storms.borrow().len()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: u64 = 1_000_000;

    #[test]
    fn it_is_calm_only_well_after_a_storm() {
        let weather = Weather::new(vec![20 * SECOND_US]);
        assert!(!weather.is_calm(SECOND_US, 2 * SECOND_US), "it has just formed");
        assert!(weather.is_calm(5 * SECOND_US, 6 * SECOND_US));
        assert!(weather.stays_calm(6 * SECOND_US, 10 * SECOND_US));
        assert!(!weather.stays_calm(16 * SECOND_US, 10 * SECOND_US));
        weather.breaks(20 * SECOND_US, false);
        assert!(weather.is_broken() && !weather.is_calm(19 * SECOND_US, 21 * SECOND_US));
        weather.clears(22 * SECOND_US);
        weather.clears(30 * SECOND_US);
        assert!(!weather.is_broken() && !weather.is_calm(24 * SECOND_US, 25 * SECOND_US));
        assert!(weather.is_calm(27 * SECOND_US, 28 * SECOND_US));
        assert!(weather.is_calm(10 * SECOND_US, 19 * SECOND_US));
    }

    #[test]
    fn errors_are_excused_where_a_majority_may_have_been_ill() {
        let weather = Weather::new(Vec::new());
        weather.breaks(20 * SECOND_US, false);
        assert!(!weather.is_severe(20 * SECOND_US, 21 * SECOND_US));
        weather.breaks(21 * SECOND_US, true);
        assert!(weather.is_severe(20 * SECOND_US, 21 * SECOND_US));
        weather.clears(22 * SECOND_US);
        assert!(weather.is_severe(30 * SECOND_US, 31 * SECOND_US));
        assert!(!weather.is_severe(35 * SECOND_US, 36 * SECOND_US));
    }
}
