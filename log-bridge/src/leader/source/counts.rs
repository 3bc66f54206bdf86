//! The counts of one source: written by the thread that replays it, readable by any thread at any moment.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::leader::tally::{LevelTally, Tally};
use crate::wire::counters::Counters;
use crate::wire::level::LEVELS;

/// The counts of one source's events.
#[derive(Debug)]
pub(crate) struct SourceCounts {
    counters: Counters,
    /// Events that a subscriber or logger was called with.
    delivered: [Count; LEVELS],
    /// Events that were read while there was neither.
    without_subscriber: [Count; LEVELS],
    pub(crate) collapsed: Count,
    pub(crate) truncated: Count,
    pub(crate) unregistered: Count,
    /// The stream was abandoned because of an error.
    corrupt: AtomicBool,
    /// No more events will be delivered.
    finalized: AtomicBool,
}

/// A number that one thread increases.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        if n == 0 {
            return;
        }
        // Release: a thread that sees the new count also sees that a replay is in progress.
        self.0
            .store(self.0.load(Ordering::Relaxed) + n, Ordering::Release);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

impl SourceCounts {
    pub(super) fn new(counters: Counters) -> Self {
        Self {
            counters,
            delivered: Default::default(),
            without_subscriber: Default::default(),
            collapsed: Count::default(),
            truncated: Count::default(),
            unregistered: Count::default(),
            corrupt: AtomicBool::new(false),
            finalized: AtomicBool::new(false),
        }
    }

    /// Counts an event as delivered. Call it before the replay: the event counts as delivered even if the subscriber
    /// panics or blocks.
    #[inline]
    pub(crate) fn deliver(&self, level: usize) {
        self.delivered
            .get(level)
            .into_iter()
            .for_each(|count| count.add(1));
    }

    /// Counts an event that was read while there was no subscriber or logger. It is a dropped event.
    #[inline]
    pub(crate) fn drop_without_subscriber(&self, level: usize) {
        self.without_subscriber
            .get(level)
            .into_iter()
            .for_each(|count| count.add(1));
    }

    /// Returns how many events of each level were dropped: by the worker, and for lack of a subscriber.
    pub(crate) fn dropped(&self) -> [u64; LEVELS] {
        let dropped = self.counters.dropped();
        std::array::from_fn(|level| dropped[level].saturating_add(self.without_subscriber[level].get()))
    }

    /// Returns how many events of each level were dropped for lack of a subscriber.
    pub(crate) fn without_subscriber(&self) -> [u64; LEVELS] {
        std::array::from_fn(|level| self.without_subscriber[level].get())
    }

    /// Returns how many events were read, of all levels.
    pub(crate) fn read(&self) -> u64 {
        let read = self.delivered.iter().zip(&self.without_subscriber);
        read.fold(0, |sum, (delivered, without)| {
            sum.saturating_add(delivered.get()).saturating_add(without.get())
        })
    }

    /// Returns how many events the worker has written into its ring, of all levels.
    pub(crate) fn accepted(&self) -> u64 {
        let accepted = self.counters.accepted();
        accepted.into_iter().fold(0, u64::saturating_add)
    }

    /// Marks the stream as abandoned because of an error.
    pub(crate) fn mark_corrupt(&self) {
        self.corrupt.store(true, Ordering::Release);
    }

    /// Makes the counts final: events that are still waiting count as dropped.
    pub(super) fn finalize(&self) {
        self.finalized.store(true, Ordering::Release);
    }

    pub(crate) fn tally(&self) -> Tally {
        let corrupt = self.corrupt.load(Ordering::Acquire);
        let is_final = corrupt || self.finalized.load(Ordering::Acquire);
        // The worker counts an event as accepted before it is read here; so reads are loaded first.
        let delivered: [u64; LEVELS] = std::array::from_fn(|level| self.delivered[level].get());
        let dropped = self.dropped();
        let without_subscriber = self.without_subscriber();
        let accepted = self.counters.accepted();
        let levels = std::array::from_fn(|level| {
            let delivered = delivered[level];
            let dropped_here = without_subscriber[level].min(dropped[level]);
            let dropped_there = dropped[level] - dropped_here;
            // The counters of a hostile worker are raised until they add up.
            let accepted = accepted[level].max(delivered.saturating_add(dropped_here));
            let emitted = accepted.saturating_add(dropped_there);
            let waiting = match is_final {
                true => 0,
                false => accepted - delivered - dropped_here,
            };
            LevelTally {
                emitted,
                delivered,
                dropped: emitted - delivered - waiting,
            }
        });
        Tally {
            levels,
            collapsed: self.collapsed.get(),
            truncated: self.truncated.get(),
            corrupt_sources: u64::from(corrupt),
            unregistered: self.unregistered.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::counters::SLOTS;
    use shm_buffers::slots::Slots;

    fn counts(slots: &Slots) -> (Counters, SourceCounts) {
        let counters = Counters::new(slots).unwrap();
        (counters.clone(), SourceCounts::new(counters))
    }

    fn numbers(tally: &LevelTally) -> [u64; 4] {
        [tally.emitted, tally.delivered, tally.dropped, tally.waiting()]
    }

    #[test]
    fn emitted_is_delivered_dropped_and_waiting_at_every_moment() {
        let (counters, counts) = counts(&Slots::in_process(SLOTS));
        (0..4).for_each(|_| counters.accept(0));
        counters.undo_accept(0);
        counters.drop_event(0);
        counts.deliver(0);
        assert_eq!(numbers(&counts.tally().levels[0]), [4, 1, 1, 2]);
        counts.drop_without_subscriber(0);
        assert_eq!(numbers(&counts.tally().levels[0]), [4, 1, 2, 1]);
        // The worker was killed after it had counted the last event and before it published that: emitted, not delivered.
        counts.finalize();
        assert_eq!(numbers(&counts.tally().levels[0]), [4, 1, 3, 0]);
    }

    #[test]
    fn counts_add_up_for_any_contents_of_the_slots() {
        let slots = Slots::in_process(SLOTS);
        slots.slot(2).set(u64::MAX);
        slots.slot(LEVELS + 2).set(u64::MAX);
        slots.slot(LEVELS + 3).set(u64::MAX);
        let (_, counts) = counts(&slots);
        (0..LEVELS).for_each(|level| counts.deliver(level));
        (0..LEVELS).for_each(|level| counts.drop_without_subscriber(level));
        for is_final in [false, true] {
            if is_final {
                counts.finalize();
            }
            for level in counts.tally().levels {
                assert_eq!(level.emitted, level.delivered + level.dropped + level.waiting());
            }
        }
        assert!(Counters::new(&Slots::in_process(SLOTS - 1)).is_none());
    }
}
