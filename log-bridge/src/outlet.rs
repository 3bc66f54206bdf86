//! The worker's end: one ring and its counters, shared by all threads of the worker.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use shm_buffers::ring::Producer;

use crate::repeats::{Known, Repeats};
use crate::tally::{Counters, LEVELS};
use crate::wire::{KIND_DROPS, VERSION};

/// Attempts to get the lock, of which the first ones spin and the others yield. The lock is held for a copy of a
/// few hundred bytes, so more are needed only while its holder is not running. For WARN and ERROR there are more.
const SPINS: usize = 64;
const ATTEMPTS: [usize; 2] = [SPINS + 32, SPINS + 4096];

/// WARN, and ERROR above it.
const LAST_RESERVED: usize = 1;

/// What happens to an event when the ring is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// It is dropped and counted.
    #[default]
    DropNewest,
    /// It is dropped and counted, and once there is room again each callsite that lost events is told as one record:
    /// the first of the lost events, with how many they were in a field `repeats`. That record is one more than were
    /// emitted; [`Tally::collapsed`](crate::Tally::collapsed) counts those that it stands for. At most 64 callsites
    /// and 64 KiB of records wait. At a worker's end its [`WorkerGuard`](crate::WorkerGuard) writes them.
    Batch,
}

/// Lets any thread of the worker write into the one ring, without ever waiting for long.
pub(crate) struct Outlet {
    counters: Counters,
    overflow: Overflow,
    state: Mutex<State>,
    /// Bytes that were missing room when a record was dropped last, for ordinary and reserved levels; 0 while
    /// there was room. Spares the encoding of what would be dropped anyway.
    congested: [AtomicUsize; 2],
}

struct State {
    producer: Producer,
    /// Bytes of the ring that are taken at most: the leader may have freed some since we looked.
    used: usize,
    /// Drops that a record in the ring tells about.
    announced: [u64; LEVELS],
    /// The buffer of that record.
    notice: Vec<u8>,
    repeats: Repeats,
}

impl Outlet {
    pub(crate) fn new(producer: Producer, counters: Counters, overflow: Overflow) -> Self {
        Self {
            counters,
            overflow,
            state: Mutex::new(State {
                producer,
                used: 0,
                announced: [0; LEVELS],
                notice: Vec::with_capacity(64),
                repeats: Repeats::default(),
            }),
            congested: Default::default(),
        }
    }

    /// Whether an event of this level would be lost anyway; it is counted as dropped then. `key` tells its callsite.
    #[inline]
    pub(crate) fn refuses(&self, level: usize, key: u64) -> bool {
        let missing = self.congested[class(level)].load(Ordering::Relaxed);
        missing > 0 && self.refuses_now(level, key, missing)
    }

    fn refuses_now(&self, level: usize, key: u64, missing: usize) -> bool {
        let refused = self.lock(level).is_none_or(|mut state| {
            if state.has_room(level, missing) {
                self.congested[class(level)].store(0, Ordering::Relaxed);
                return false;
            }
            // The first of a callsite is to be encoded, the others are only counted.
            self.overflow == Overflow::DropNewest || state.repeats.again(key) != Known::No
        });
        if refused {
            self.counters.lose(level);
        }
        refused
    }

    /// Writes the record of one event and tells so, or counts it as dropped.
    pub(crate) fn offer(&self, level: usize, key: u64, frame: &[u8]) -> bool {
        let written = self.lock(level).is_some_and(|mut state| {
            let written = state.write(&self.counters, level, frame);
            if !written {
                self.congested[class(level)].store(taken(frame.len()), Ordering::Relaxed);
                if self.overflow == Overflow::Batch && state.repeats.again(key) == Known::No {
                    state.repeats.first(key, level, frame);
                }
            }
            written
        });
        if !written {
            self.counters.lose(level);
        }
        written
    }

    /// Counts an event that could not be recorded.
    pub(crate) fn lose(&self, level: usize) {
        self.counters.lose(level);
    }

    /// Tells what was collapsed, if there is room.
    pub(crate) fn tell_repeats(&self) {
        if self.overflow == Overflow::Batch
            && let Some(mut state) = self.lock(0)
        {
            state.tell_repeats(Pressure::Matters);
            state.producer.publish_quietly();
        }
    }

    /// Writes all summaries that the ring has room for, into the reserved quarter, too: the worker ends.
    pub(crate) fn flush(&self) {
        if let Some(mut state) = self.lock(0) {
            state.tell_repeats(Pressure::Ignored);
            state.producer.publish_quietly();
        }
    }

    fn lock(&self, level: usize) -> Option<MutexGuard<'_, State>> {
        for attempt in 0..ATTEMPTS[class(level)] {
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
}

impl Drop for Outlet {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.tell_repeats(Pressure::Ignored);
        state.producer.publish_quietly();
    }
}

/// Whether summaries wait until the ring is half empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pressure {
    Matters,
    Ignored,
}

impl State {
    /// Whether `bytes` more may be taken by this level: the last quarter belongs to WARN and ERROR.
    #[inline]
    fn has_room(&mut self, level: usize, bytes: usize) -> bool {
        let capacity = self.producer.capacity();
        let limit = match class(level) {
            0 => capacity - capacity / 4,
            _ => capacity,
        };
        self.has_room_below(limit, bytes)
    }

    #[inline]
    fn has_room_below(&mut self, limit: usize, bytes: usize) -> bool {
        if self.used + bytes <= limit {
            return true;
        }
        self.look();
        self.used + bytes <= limit
    }

    fn look(&mut self) {
        // A leader that lies gets nothing more.
        self.used = self.producer.used().unwrap_or(self.producer.capacity());
    }

    /// Tells whether the record was written; what was dropped before goes ahead of it.
    #[inline]
    fn write(&mut self, counters: &Counters, level: usize, frame: &[u8]) -> bool {
        if !self.repeats.is_empty() {
            self.tell_repeats(Pressure::Matters);
        }
        let dropped = counters.dropped();
        let mut bytes = taken(frame.len());
        if dropped != self.announced {
            self.notice.clear();
            self.notice.extend_from_slice(&[VERSION, KIND_DROPS]);
            dropped
                .iter()
                .for_each(|level| self.notice.extend_from_slice(&level.to_le_bytes()));
            bytes += taken(self.notice.len());
        }
        if !self.has_room(level, bytes) {
            return false;
        }
        if dropped != self.announced && self.producer.stage(&self.notice).is_ok() {
            self.announced = dropped;
        }
        counters.accept(level);
        self.used += bytes;
        // The one store that makes the event a delivered one is in here.
        let written = self.producer.push(frame).is_ok();
        if !written {
            counters.reject(level);
        }
        written
    }

    /// Stages summaries of dropped events, usually only when the pressure is off: they must not displace events.
    fn tell_repeats(&mut self, pressure: Pressure) {
        let mut repeats = std::mem::take(&mut self.repeats);
        if !repeats.is_empty() {
            self.look();
        }
        let capacity = self.producer.capacity();
        if pressure == Pressure::Ignored || self.used <= capacity / 2 {
            repeats.tell(|level, frame| {
                let bytes = taken(frame.len());
                let room = match pressure {
                    Pressure::Matters => self.has_room(level, bytes),
                    Pressure::Ignored => self.has_room_below(capacity, bytes),
                };
                let told = room && self.producer.stage(frame).is_ok();
                if told {
                    self.used += taken(frame.len());
                }
                told
            });
        }
        self.repeats = repeats;
    }
}

#[inline]
fn class(level: usize) -> usize {
    usize::from(level <= LAST_RESERVED)
}

/// What a frame takes in the ring: a header word, and whole words.
#[inline]
fn taken(len: usize) -> usize {
    const WORD: usize = size_of::<u64>();
    WORD + len.next_multiple_of(WORD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::SLOTS;
    use crate::wire::Header;
    use shm_buffers::{ring, slots::Slots};

    fn outlet(capacity: usize, overflow: Overflow) -> (Outlet, ring::Consumer, Counters) {
        let (producer, consumer) = ring::in_process(capacity);
        let counters = Counters::new(&Slots::in_process(SLOTS)).unwrap();
        (
            Outlet::new(producer, counters.clone(), overflow),
            consumer,
            counters,
        )
    }

    fn frames(consumer: &mut ring::Consumer) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        loop {
            let mut frame = Vec::new();
            if consumer.pop(&mut frame).unwrap().is_none() {
                return frames;
            }
            frames.push(frame);
        }
    }

    #[test]
    fn the_last_quarter_is_for_warn_and_error() {
        let (outlet, mut consumer, counters) = outlet(1024, Overflow::DropNewest);
        let frame = [0; 56];
        (0..100).for_each(|_| _ = outlet.offer(3, 0, &frame));
        // 12 of 64 bytes fit into three quarters.
        assert_eq!(counters.dropped(), [0, 0, 0, 88, 0]);
        // One place goes to the notice of what was dropped.
        (0..3).for_each(|_| _ = outlet.offer(1, 0, &frame));
        assert_eq!(counters.dropped()[1], 0);
        (0..2).for_each(|_| _ = outlet.offer(0, 0, &frame));
        assert_eq!(counters.dropped()[0], 2);
        assert_eq!(frames(&mut consumer).len(), 12 + 1 + 3);
        assert_eq!(counters.accepted()[3] + counters.dropped()[3], 100);
    }

    #[test]
    fn congestion_is_told_before_encoding_and_ends_with_room() {
        let (outlet, mut consumer, counters) = outlet(1024, Overflow::DropNewest);
        assert!(!outlet.refuses(3, 0));
        (0..13).for_each(|_| _ = outlet.offer(3, 0, &[0; 56]));
        assert!(outlet.refuses(3, 0));
        assert!(!outlet.refuses(1, 0), "reserved room is left");
        assert_eq!(counters.dropped(), [0, 0, 0, 2, 0]);
        consumer.pop(&mut Vec::new()).unwrap();
        assert!(!outlet.refuses(3, 0));
    }

    #[test]
    fn who_misses_the_lock_counts_his_drop_himself() {
        let (outlet, _consumer, counters) = outlet(1024, Overflow::DropNewest);
        let held = outlet.lock(0).unwrap();
        assert!(!outlet.offer(2, 0, &[0; 8]));
        outlet.lose(2);
        assert_eq!(counters.dropped(), [0, 0, 2, 0, 0]);
        drop(held);
        assert!(outlet.offer(2, 0, &[0; 8]));
        assert_eq!(counters.accepted()[2] + counters.dropped()[2], 3);
    }

    #[test]
    fn repeats_are_told_once_the_pressure_is_off() {
        let (outlet, mut consumer, counters) = outlet(1024, Overflow::Batch);
        let mut frame = Header::default().encode().to_vec();
        frame.resize(56, 7);
        (0..12).for_each(|_| assert!(outlet.offer(3, 7, &frame)));
        assert!(!outlet.offer(3, 7, &frame));
        assert!(outlet.refuses(3, 7), "counted");
        assert!(
            !outlet.refuses(3, 8),
            "the first of another callsite is to be encoded"
        );
        assert!(!outlet.offer(3, 8, &frame));
        assert_eq!(counters.dropped(), [0, 0, 0, 3, 0]);
        // Room, but the pressure is still on.
        consumer.pop(&mut Vec::new()).unwrap();
        outlet.tell_repeats();
        assert_eq!(frames(&mut consumer).len(), 11);
        outlet.tell_repeats();
        let told: Vec<u8> = frames(&mut consumer).iter().map(|frame| frame[24]).collect();
        assert_eq!(told, [2, 1]);
        outlet.tell_repeats();
        drop(outlet);
        assert!(frames(&mut consumer).is_empty());
        assert_eq!(counters.accepted()[3] + counters.dropped()[3], 15);
    }
}
