//! The worker's end: one ring and its counters, shared by all threads of the worker.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, MutexGuard, TryLockError};

use shm_buffers::ring::Producer;

use crate::tally::{Counters, LEVELS};
use crate::wire::{KIND_DROPS, VERSION, put};

/// Attempts to get the lock, of which the first ones spin and the others yield. The lock is held for a copy of a
/// few hundred bytes, so more are needed only while its holder is not running.
const SPINS: usize = 64;
const ATTEMPTS: usize = SPINS + 32;

/// WARN, and ERROR above it.
const LAST_RESERVED: usize = 1;

/// Lets any thread of the worker write into the one ring, without ever waiting for long.
pub(crate) struct Outlet {
    state: Mutex<State>,
    /// Drops that their threads could not count themselves, having missed the lock. Whoever holds it does.
    pending: [AtomicU64; LEVELS],
    /// Bytes that were missing room when a record was dropped last, for ordinary and reserved levels; 0 while
    /// there was room. Spares the encoding of what would be dropped anyway.
    congested: [AtomicUsize; 2],
}

struct State {
    producer: Producer,
    counters: Counters,
    /// Drops that a record in the ring tells about.
    announced: [u64; LEVELS],
    /// The buffer of that record.
    notice: Vec<u8>,
}

impl Outlet {
    pub(crate) fn new(producer: Producer, counters: Counters) -> Self {
        Self {
            state: Mutex::new(State {
                producer,
                counters,
                announced: [0; LEVELS],
                notice: Vec::with_capacity(64),
            }),
            pending: Default::default(),
            congested: Default::default(),
        }
    }

    /// Whether an event of this level would be lost anyway; it is counted as dropped then.
    #[inline]
    pub(crate) fn refuses(&self, level: usize) -> bool {
        let congested = &self.congested[class(level)];
        let missing = congested.load(Ordering::Relaxed);
        if missing == 0 {
            return false;
        }
        self.locked(level, |state| {
            if state.has_room(level, missing) {
                congested.store(0, Ordering::Relaxed);
                return false;
            }
            state.counters.emit(level, 1);
            state.counters.lose(level, 1);
            true
        })
        .unwrap_or(true)
    }

    /// Writes the record of one event, or counts it as dropped.
    pub(crate) fn offer(&self, level: usize, frame: &[u8]) {
        self.locked(level, |state| {
            state.counters.emit(level, 1);
            if !state.write(level, frame) {
                state.counters.lose(level, 1);
                self.congested[class(level)].store(taken(frame.len()), Ordering::Relaxed);
            }
        });
    }

    /// Counts an event that could not be recorded.
    pub(crate) fn lose(&self, level: usize) {
        self.locked(level, |state| {
            state.counters.emit(level, 1);
            state.counters.lose(level, 1);
        });
    }

    /// Runs `critical` under the lock; if it can't be had the event is left to its holder as a drop, and it is `None`.
    fn locked<T>(&self, level: usize, critical: impl FnOnce(&mut State) -> T) -> Option<T> {
        let done = self.lock(ATTEMPTS).map(|mut state| critical(&mut state));
        if done.is_none() {
            self.pending[level].fetch_add(1, Ordering::Relaxed);
        }
        // Against the same fence of the lock's holder after it let go: it sees our drop, or we get the lock.
        fence(Ordering::SeqCst);
        while self
            .pending
            .iter()
            .any(|pending| pending.load(Ordering::Relaxed) > 0)
        {
            let Some(state) = self.lock(1) else { break };
            for (level, pending) in self.pending.iter().enumerate() {
                let drops = pending.swap(0, Ordering::Relaxed);
                if drops > 0 {
                    state.counters.emit(level, drops);
                    state.counters.lose(level, drops);
                }
            }
            drop(state);
            fence(Ordering::SeqCst);
        }
        done
    }

    fn lock(&self, attempts: usize) -> Option<MutexGuard<'_, State>> {
        for attempt in 0..attempts {
            match self.state.try_lock() {
                Ok(state) => return Some(state),
                // Nothing under the lock panics, and if it did, counters and ring would be whole.
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if attempt < SPINS => std::hint::spin_loop(),
                Err(TryLockError::WouldBlock) => std::thread::yield_now(),
            }
        }
        None
    }

    #[cfg(test)]
    fn dropped(&self) -> [u64; LEVELS] {
        self.lock(1).unwrap().counters.dropped()
    }
}

impl State {
    /// Whether `bytes` more may be taken by this level: the last quarter belongs to WARN and ERROR.
    fn has_room(&mut self, level: usize, bytes: usize) -> bool {
        let capacity = self.producer.capacity();
        let limit = match class(level) {
            0 => capacity - capacity / 4,
            _ => capacity,
        };
        self.producer.used().is_ok_and(|used| used + bytes <= limit)
    }

    /// Tells whether the record was written; what was dropped before goes ahead of it.
    fn write(&mut self, level: usize, frame: &[u8]) -> bool {
        let dropped = self.counters.dropped();
        let mut bytes = taken(frame.len());
        if dropped != self.announced {
            self.notice.clear();
            self.notice.extend_from_slice(&[VERSION, KIND_DROPS]);
            put(&mut self.notice, &dropped);
            bytes += taken(self.notice.len());
        }
        if !self.has_room(level, bytes) {
            return false;
        }
        if dropped != self.announced && self.producer.stage(&self.notice).is_ok() {
            self.announced = dropped;
        }
        // The one store that makes the event a delivered one is in here.
        self.producer.push(frame).is_ok()
    }
}

fn class(level: usize) -> usize {
    usize::from(level <= LAST_RESERVED)
}

/// What a frame takes in the ring: a header word, and whole words.
fn taken(len: usize) -> usize {
    const WORD: usize = size_of::<u64>();
    WORD + len.next_multiple_of(WORD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::SLOTS;
    use shm_buffers::{ring, slots::Slots};

    fn outlet(capacity: usize) -> (Outlet, ring::Consumer, Counters) {
        let (producer, consumer) = ring::in_process(capacity);
        let counters = Counters::new(Slots::in_process(SLOTS)).unwrap();
        (Outlet::new(producer, counters.clone()), consumer, counters)
    }

    #[test]
    fn the_last_quarter_is_for_warn_and_error() {
        let (outlet, mut consumer, _) = outlet(1024);
        let frame = [0; 56];
        for _ in 0..100 {
            outlet.offer(3, &frame);
        }
        assert_eq!(
            outlet.dropped(),
            [0, 0, 0, 88, 0],
            "12 of 64 bytes fit into three quarters"
        );
        // One place goes to the notice of what was dropped.
        (0..3).for_each(|_| outlet.offer(1, &frame));
        assert_eq!(outlet.dropped()[1], 0);
        (0..2).for_each(|_| outlet.offer(0, &frame));
        assert_eq!(outlet.dropped()[0], 2);
        let mut frames = 0;
        while consumer.pop(&mut Vec::new()).unwrap().is_some() {
            frames += 1;
        }
        assert_eq!(frames, 12 + 1 + 3);
    }

    #[test]
    fn congestion_is_told_before_encoding_and_ends_with_room() {
        let (outlet, mut consumer, _) = outlet(1024);
        assert!(!outlet.refuses(3));
        (0..13).for_each(|_| outlet.offer(3, &[0; 56]));
        assert!(outlet.refuses(3));
        assert!(!outlet.refuses(1), "reserved room is left");
        assert_eq!(outlet.dropped(), [0, 0, 0, 2, 0]);
        consumer.pop(&mut Vec::new()).unwrap();
        assert!(!outlet.refuses(3));
    }

    #[test]
    fn who_misses_the_lock_leaves_his_drop_to_its_holder() {
        let (outlet, _consumer, counters) = outlet(1024);
        let held = outlet.lock(1).unwrap();
        outlet.offer(2, &[0; 8]);
        outlet.lose(2);
        assert_eq!(counters.dropped(), [0; LEVELS]);
        drop(held);
        outlet.offer(2, &[0; 8]);
        assert_eq!(counters.dropped(), [0, 0, 2, 0, 0]);
        assert_eq!(counters.last(&[0, 0, 1, 0, 0])[2].emitted, 3);
    }
}
