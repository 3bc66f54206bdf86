//! Counting what was emitted, delivered and dropped, per level.

use std::fmt;
use std::ops::AddAssign;

use shm_buffers::slots::Slots;
use tracing_core::Level;

use crate::wire::{level_index, level_of};

/// ERROR to TRACE.
pub(crate) const LEVELS: usize = 5;

/// How many [`Slots`] one worker needs.
pub const SLOTS: usize = 2 * LEVELS;

/// The worker's counters: `emitted` and `dropped` of each level.
///
/// The worker writes them under the lock of its ring, so each slot has one writer at a time.
#[derive(Debug, Clone)]
pub(crate) struct Counters(Slots);

impl Counters {
    /// `None` if there are too few slots.
    pub(crate) fn new(slots: Slots) -> Option<Self> {
        (slots.len() >= SLOTS).then_some(Self(slots))
    }

    /// To be called before the fate of an event is decided.
    #[inline]
    pub(crate) fn emit(&self, level: usize, events: u64) {
        self.0.slot(level).add(events);
    }

    /// To be called once an event, already emitted, turned out to be lost.
    #[inline]
    pub(crate) fn lose(&self, level: usize, events: u64) {
        let slot = self.0.slot(LEVELS + level);
        // A release store: the count of emitted events never lags behind.
        slot.publish(slot.get().wrapping_add(events));
    }

    pub(crate) fn dropped(&self) -> [u64; LEVELS] {
        std::array::from_fn(|level| self.0.slot(LEVELS + level).observe())
    }

    fn emitted(&self) -> [u64; LEVELS] {
        std::array::from_fn(|level| self.0.slot(level).observe())
    }

    /// The counts of a worker that may still be writing.
    pub(crate) fn running(&self, delivered: &[u64; LEVELS]) -> [LevelTally; LEVELS] {
        let dropped = self.dropped();
        let emitted = self.emitted();
        std::array::from_fn(|level| LevelTally {
            emitted: emitted[level].max(delivered[level].saturating_add(dropped[level])),
            delivered: delivered[level],
            dropped: dropped[level],
        })
    }

    /// The counts of a worker that will write no more and whose ring was drained: what it emitted and the leader
    /// did not get is dropped, whatever became of it.
    pub(crate) fn last(&self, delivered: &[u64; LEVELS]) -> [LevelTally; LEVELS] {
        self.running(delivered).map(|level| LevelTally {
            dropped: level.emitted - level.delivered,
            ..level
        })
    }
}

/// The counts of one level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LevelTally {
    /// Events that passed the worker's filter.
    pub emitted: u64,
    /// Events that the leader read.
    pub delivered: u64,
    /// Events that never reached the leader.
    pub dropped: u64,
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
/// For a removed source `emitted = delivered + dropped` per level, to the event. While a worker runs, the
/// difference is what waits in its ring.
///
/// Why this holds after a SIGKILL at any instruction: a worker first counts an event as emitted, then either
/// publishes its record (one store) or counts it as dropped (one store). So an event has one fate, an event cut
/// off in between was emitted and not delivered, which makes it dropped, and an event that was not counted yet
/// was not emitted. One thing may be missing: when a thread can't get the lock within its bounded spin, it leaves
/// its drop to whoever holds the lock, and a SIGKILL before that one went on takes the count along.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    pub(crate) levels: [LevelTally; LEVELS],
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
        self.truncated += other.truncated;
        self.broken += other.broken;
        self.unregistered += other.unregistered;
    }
}

impl fmt::Display for Tally {
    /// `1204 delivered, 31 dropped (1 warn, 30 debug)`.
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
            f.write_str(")")
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_cut_off_between_emission_and_fate_is_dropped() {
        let counters = Counters::new(Slots::in_process(SLOTS)).unwrap();
        counters.emit(0, 3);
        counters.lose(0, 1);
        let delivered = [1, 0, 0, 0, 0];
        let running = counters.running(&delivered)[0];
        assert_eq!((running.emitted, running.delivered, running.dropped), (3, 1, 1));
        let last = counters.last(&delivered)[0];
        assert_eq!((last.emitted, last.delivered, last.dropped), (3, 1, 2));
    }

    #[test]
    fn slots_full_of_lies_still_add_up() {
        let counters = Counters::new(Slots::in_process(SLOTS)).unwrap();
        counters.lose(2, u64::MAX);
        for level in counters.last(&[5; LEVELS]) {
            assert_eq!(level.emitted, level.delivered + level.dropped);
        }
        assert!(Counters::new(Slots::in_process(SLOTS - 1)).is_none());
    }

    #[test]
    fn it_prints_what_was_lost() {
        let mut tally = Tally::default();
        tally.levels[2].delivered = 7;
        assert_eq!(tally.to_string(), "7 delivered, 0 dropped");
        tally.levels[1].dropped = 1;
        tally.levels[3].dropped = 30;
        assert_eq!(tally.to_string(), "7 delivered, 31 dropped (1 warn, 30 debug)");
    }
}
