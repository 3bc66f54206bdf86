//! Counting what was emitted, delivered and dropped, per level.

use std::fmt;
use std::ops::AddAssign;

use shm_buffers::slots::Slots;
use tracing_core::Level;

use crate::wire::{level_index, level_of};

/// ERROR to TRACE.
pub(crate) const LEVELS: usize = 5;

/// How many [`Slots`] one worker needs: its counters, and room for a filter that the leader sends.
pub const SLOTS: usize = 64;

/// The slots of the counters; the filter has the others.
pub(crate) const COUNTERS: usize = 2 * LEVELS;

/// The worker's counters: `accepted` and `dropped` of each level. What was emitted is their sum.
#[derive(Debug, Clone)]
pub(crate) struct Counters(Slots);

impl Counters {
    /// `None` if there are too few slots.
    pub(crate) fn new(slots: &Slots) -> Option<Self> {
        (slots.len() >= SLOTS).then(|| Self(slots.part(0..COUNTERS)))
    }

    /// To be called under the lock of the ring, before the record is published.
    #[inline]
    pub(crate) fn accept(&self, level: usize) {
        self.0.slot(level).add(1);
    }

    /// Takes an [`accept`](Self::accept) back whose record was not published after all; under the same lock.
    pub(crate) fn reject(&self, level: usize) {
        self.0.slot(level).add(u64::MAX);
    }

    /// To be called by any thread once an event turned out to be lost.
    #[inline]
    pub(crate) fn lose(&self, level: usize) {
        self.0.slot(LEVELS + level).fetch_add(1);
    }

    pub(crate) fn dropped(&self) -> [u64; LEVELS] {
        std::array::from_fn(|level| self.0.slot(LEVELS + level).observe())
    }

    pub(crate) fn accepted(&self) -> [u64; LEVELS] {
        std::array::from_fn(|level| self.0.slot(level).observe())
    }
}

/// The counts of one level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LevelTally {
    /// Events that passed the worker's filter.
    pub emitted: u64,
    /// Events that the leader asked a subscriber about, or a logger, whatever the answer was.
    pub delivered: u64,
    /// Events that no subscriber will be asked about: there was no room for them, or nothing to ask.
    pub dropped: u64,
}

impl LevelTally {
    /// Events on their way: emitted, and neither delivered nor dropped yet.
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

/// What became of the events of one worker or of all.
///
/// Per level, `emitted = delivered + dropped + waiting` at every moment, to the event. Of a source that was removed
/// nothing waits once its rest was replayed.
///
/// Why this holds after a SIGKILL at any instruction: an event has one fate. Either it is counted as accepted, under
/// the lock of the ring, and then published by one store; or it is counted as dropped by one atomic addition, which
/// needs no lock. An event cut off between its acceptance and its publication was emitted and not delivered, which
/// makes it dropped; one cut off before was not emitted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    pub(crate) levels: [LevelTally; LEVELS],
    pub(crate) collapsed: u64,
    pub(crate) truncated: u64,
    pub(crate) broken: u64,
    pub(crate) unregistered: u64,
}

impl Tally {
    /// The counts of one level.
    pub fn level(&self, level: Level) -> LevelTally {
        self.levels[level_index(level)]
    }

    /// The counts of all levels together.
    pub fn total(&self) -> LevelTally {
        let mut total = LevelTally::default();
        self.levels.iter().for_each(|level| total += *level);
        total
    }

    /// Those of the dropped events for which [`Overflow::Batch`](crate::Overflow::Batch) delivered a summary.
    pub fn collapsed(&self) -> u64 {
        self.collapsed
    }

    /// Values and spans that were shortened or left out to keep their record within its bound.
    pub fn truncated(&self) -> u64 {
        self.truncated
    }

    /// Sources whose stream was corrupt and was given up.
    pub fn broken(&self) -> u64 {
        self.broken
    }

    /// Events and spans replayed without metadata of their own, because there were too many distinct callsites.
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
        self.broken += other.broken;
        self.unregistered += other.unregistered;
    }
}

impl fmt::Display for Tally {
    /// `1204 delivered, 31 dropped (1 warn, 30 debug)`, and `, 7 waiting` if there are such.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total();
        write!(f, "{} delivered, {} dropped", total.delivered, total.dropped)?;
        let lost = self.levels.iter().enumerate().filter(|(_, l)| l.dropped > 0);
        for (nth, (index, level)) in lost.enumerate() {
            let open = if nth == 0 { " (" } else { ", " };
            let name = level_of(index).as_str().to_ascii_lowercase();
            write!(f, "{open}{} {name}", level.dropped)?;
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
    fn it_prints_what_was_lost() {
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
