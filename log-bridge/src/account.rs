//! The counts of one source: written by the thread that replays it, readable by any thread at any moment.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::tally::{Counters, LEVELS, LevelTally, Tally};

/// What became of one source's events.
#[derive(Debug)]
pub(crate) struct Account {
    counters: Counters,
    /// Events that a subscriber was asked about.
    delivered: [Count; LEVELS],
    /// Events that were read while there was no subscriber to ask.
    unheard: [Count; LEVELS],
    pub(crate) collapsed: Count,
    pub(crate) truncated: Count,
    pub(crate) unregistered: Count,
    /// The stream was given up.
    broken: AtomicBool,
    /// Nothing more will be delivered.
    settled: AtomicBool,
}

/// A number that one thread raises.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        if n == 0 {
            return;
        }
        // Release: a thread that sees the new count sees that the pump is replaying.
        self.0
            .store(self.0.load(Ordering::Relaxed) + n, Ordering::Release);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

impl Account {
    pub(crate) fn new(counters: Counters) -> Self {
        Self {
            counters,
            delivered: Default::default(),
            unheard: Default::default(),
            collapsed: Count::default(),
            truncated: Count::default(),
            unregistered: Count::default(),
            broken: AtomicBool::new(false),
            settled: AtomicBool::new(false),
        }
    }

    /// An event is about to be replayed: a subscriber that panics or blocks was asked all the same.
    #[inline]
    pub(crate) fn deliver(&self, level: usize) {
        self.delivered
            .get(level)
            .into_iter()
            .for_each(|count| count.add(1));
    }

    /// An event was read, and there is no subscriber.
    #[inline]
    pub(crate) fn miss(&self, level: usize) {
        self.unheard.get(level).into_iter().for_each(|count| count.add(1));
    }

    /// Events that the worker dropped, and those that no subscriber was there for.
    pub(crate) fn missed(&self) -> [u64; LEVELS] {
        let dropped = self.counters.dropped();
        std::array::from_fn(|level| dropped[level].saturating_add(self.unheard[level].get()))
    }

    /// Events that no subscriber was there for.
    pub(crate) fn unheard(&self) -> [u64; LEVELS] {
        std::array::from_fn(|level| self.unheard[level].get())
    }

    /// Events that were read.
    pub(crate) fn read(&self) -> u64 {
        let read = self.delivered.iter().zip(&self.unheard);
        read.fold(0, |sum, (delivered, unheard)| {
            sum.saturating_add(delivered.get()).saturating_add(unheard.get())
        })
    }

    /// Events that the worker has put into its ring.
    pub(crate) fn accepted(&self) -> u64 {
        let accepted = self.counters.accepted();
        accepted.into_iter().fold(0, u64::saturating_add)
    }

    pub(crate) fn give_up(&self) {
        self.broken.store(true, Ordering::Release);
    }

    /// Events that wait now will not be delivered.
    pub(crate) fn settle(&self) {
        self.settled.store(true, Ordering::Release);
    }

    pub(crate) fn tally(&self) -> Tally {
        let broken = self.broken.load(Ordering::Acquire);
        let over = broken || self.settled.load(Ordering::Acquire);
        // A worker counts an event as accepted before it is read here, so the reads are loaded first.
        let delivered: [u64; LEVELS] = std::array::from_fn(|level| self.delivered[level].get());
        let missed = self.missed();
        let unheard = self.unheard();
        let accepted = self.counters.accepted();
        let levels = std::array::from_fn(|level| {
            let delivered = delivered[level];
            let lost_here = unheard[level].min(missed[level]);
            let lost_there = missed[level] - lost_here;
            // A worker that lies about its counts gets what adds up.
            let accepted = accepted[level].max(delivered.saturating_add(lost_here));
            let emitted = accepted.saturating_add(lost_there);
            let waiting = match over {
                true => 0,
                false => accepted - delivered - lost_here,
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
            broken: u64::from(broken),
            unregistered: self.unregistered.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::SLOTS;
    use shm_buffers::slots::Slots;

    fn account(slots: &Slots) -> (Counters, Account) {
        let counters = Counters::new(slots).unwrap();
        (counters.clone(), Account::new(counters))
    }

    fn numbers(tally: &LevelTally) -> [u64; 4] {
        [tally.emitted, tally.delivered, tally.dropped, tally.waiting()]
    }

    #[test]
    fn emitted_is_delivered_dropped_and_waiting_at_every_moment() {
        let (counters, account) = account(&Slots::in_process(SLOTS));
        (0..4).for_each(|_| counters.accept(0));
        counters.reject(0);
        counters.lose(0);
        account.deliver(0);
        assert_eq!(numbers(&account.tally().levels[0]), [4, 1, 1, 2]);
        account.miss(0);
        assert_eq!(numbers(&account.tally().levels[0]), [4, 1, 2, 1]);
        // Cut off between its acceptance and its publication: emitted and not delivered.
        account.settle();
        assert_eq!(numbers(&account.tally().levels[0]), [4, 1, 3, 0]);
    }

    #[test]
    fn slots_full_of_lies_still_add_up() {
        let slots = Slots::in_process(SLOTS);
        slots.slot(2).set(u64::MAX);
        slots.slot(LEVELS + 2).set(u64::MAX);
        slots.slot(LEVELS + 3).set(u64::MAX);
        let (_, account) = account(&slots);
        (0..LEVELS).for_each(|level| account.deliver(level));
        (0..LEVELS).for_each(|level| account.miss(level));
        for settled in [false, true] {
            if settled {
                account.settle();
            }
            for level in account.tally().levels {
                assert_eq!(level.emitted, level.delivered + level.dropped + level.waiting());
            }
        }
        assert!(Counters::new(&Slots::in_process(SLOTS - 1)).is_none());
    }
}
