//! The counts of events per level: emitted, delivered, dropped.

use std::fmt;
use std::ops::AddAssign;

use tracing_core::Level;

use crate::wire::level::{LEVELS, level_from_index, level_index};

/// The counts of one level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LevelTally {
    /// Events that passed the worker's filter.
    pub emitted: u64,
    /// Events that the leader called a subscriber or logger with, whatever that did with them.
    pub delivered: u64,
    /// Events that no subscriber or logger will receive: the ring had no room for them, or there was neither.
    pub dropped: u64,
}

impl LevelTally {
    /// Returns how many events are on their way: emitted, and neither delivered nor dropped yet.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        (self.emitted.saturating_sub(self.delivered)).saturating_sub(self.dropped)
    }
}

impl AddAssign for LevelTally {
    fn add_assign(&mut self, other: Self) {
        self.emitted = self.emitted.saturating_add(other.emitted);
        self.delivered = self.delivered.saturating_add(other.delivered);
        self.dropped = self.dropped.saturating_add(other.dropped);
    }
}

/// The counts of the events of one worker, or of all workers.
///
/// For each level, `emitted = delivered + dropped + waiting` holds exactly at every moment. No event of a removed source is
/// waiting after its remaining records were replayed.
///
/// The equation also holds after a SIGKILL at any instruction, because each event takes one of two paths. Either the worker
/// counts it as accepted, under the lock of the ring, and then publishes it with one store; or it counts the event as
/// dropped with one atomic addition, which needs no lock. If the worker is killed between counting and publishing, the event
/// was emitted and not delivered, so it counts as dropped; if it is killed before counting, the event was not emitted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    pub(super) levels: [LevelTally; LEVELS],
    pub(super) collapsed: u64,
    pub(super) truncated: u64,
    pub(super) corrupt_sources: u64,
    pub(super) unregistered: u64,
}

impl Tally {
    /// Returns the counts of one level.
    #[must_use]
    pub fn level(&self, level: Level) -> LevelTally {
        self.levels[level_index(level)]
    }

    /// Returns the sums over all levels.
    #[must_use]
    pub fn total(&self) -> LevelTally {
        let mut total = LevelTally::default();
        self.levels.iter().for_each(|level| total += *level);
        total
    }

    /// Returns how many of the dropped events are part of a delivered summary, see
    /// [`Overflow::Collapse`](crate::Overflow::Collapse).
    #[must_use]
    pub fn collapsed(&self) -> u64 {
        self.collapsed
    }

    /// Returns how many values and spans were shortened or left out to keep their record within its bound.
    #[must_use]
    pub fn truncated(&self) -> u64 {
        self.truncated
    }

    /// Returns how many sources were abandoned because their stream was corrupt.
    #[must_use]
    pub fn corrupt_sources(&self) -> u64 {
        self.corrupt_sources
    }

    /// Returns how many events and spans were replayed without metadata of their own, because there were too many distinct
    /// callsites.
    #[must_use]
    pub fn unregistered(&self) -> u64 {
        self.unregistered
    }
}

impl AddAssign<&Tally> for Tally {
    fn add_assign(&mut self, other: &Tally) {
        self.levels
            .iter_mut()
            .zip(other.levels)
            .for_each(|(mine, theirs)| *mine += theirs);
        self.collapsed += other.collapsed;
        self.truncated += other.truncated;
        self.corrupt_sources += other.corrupt_sources;
        self.unregistered += other.unregistered;
    }
}

impl fmt::Display for Tally {
    /// Writes `1204 delivered, 31 dropped (1 warn, 30 debug)`, followed by `, 7 waiting` if any events are waiting.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total();
        write!(f, "{} delivered, {} dropped", total.delivered, total.dropped)?;
        let dropped = self.levels.iter().enumerate().filter(|(_, l)| l.dropped > 0);
        for (nth, (index, level)) in dropped.enumerate() {
            let separator = if nth == 0 { " (" } else { ", " };
            let name = level_from_index(index).as_str().to_ascii_lowercase();
            write!(f, "{separator}{} {name}", level.dropped)?;
        }
        if total.dropped > 0 {
            f.write_str(")")?;
        }
        match total.waiting() {
            0 => Ok(()),
            waiting => write!(f, ", {waiting} waiting"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_dropped_events_by_level_and_waiting_ones() {
        let mut tally = Tally::default();
        tally.levels[2].delivered = 7;
        assert_eq!(tally.to_string(), "7 delivered, 0 dropped");
        tally.levels[1].dropped = 1;
        tally.levels[3].dropped = 30;
        assert_eq!(tally.to_string(), "7 delivered, 31 dropped (1 warn, 30 debug)");
        tally
            .levels
            .iter_mut()
            .for_each(|level| level.emitted = level.delivered + level.dropped);
        tally.levels[0].emitted += 2;
        assert_eq!(
            tally.to_string(),
            "7 delivered, 31 dropped (1 warn, 30 debug), 2 waiting"
        );
    }
}
