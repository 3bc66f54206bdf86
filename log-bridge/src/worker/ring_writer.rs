//! The writing end of the ring, shared by all threads of the worker.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use shm_buffers::ring::Producer;

use super::summaries::{Counted, Summaries};
use crate::wire::counters::Counters;
use crate::wire::level::LEVELS;
use crate::wire::record::put_drops;

/// Attempts to get the lock, for ordinary levels and for WARN and ERROR: the first ones spin, the others yield. The lock
/// is held for a copy of a few hundred bytes, so more attempts are needed only while its holder is not running.
const ATTEMPTS: [usize; 2] = [SPINS + 32, SPINS + 4096];
const SPINS: usize = 64;

/// The index of WARN: this level and ERROR may use the reserved quarter of the ring.
const LAST_RESERVED: usize = 1;

/// What happens to an event when the ring is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// The event is dropped and counted.
    #[default]
    DropNewest,
    /// The event is dropped and counted. When the ring has room again, one record for each callsite that lost events
    /// summarizes them: the first lost event, with a field `repeats` that holds the number of lost events.
    ///
    /// A summary is a record in addition to the emitted events; [`Tally::collapsed`](crate::Tally::collapsed) counts the
    /// events that summaries stand for. At most 64 callsites and 64 KiB of records wait for room.
    /// [`WorkerGuard`](crate::WorkerGuard) writes them when the worker ends.
    Collapse,
}

/// Lets any thread of the worker write into the ring. No call blocks: a thread that does not get the lock within a bounded
/// number of attempts drops its event.
pub(super) struct RingWriter {
    counters: Counters,
    overflow: Overflow,
    state: Mutex<State>,
    /// For ordinary and for reserved levels, the bytes of the last record that was dropped for lack of room; 0 if none was
    /// since there was room. While it is set, events are dropped before they are encoded.
    missing_room: [AtomicUsize; 2],
}

struct State {
    producer: Producer,
    /// Upper bound of the bytes in use: the leader may have freed some since it was read from the ring.
    used: usize,
    /// The drops that the last drop report in the ring contains.
    reported: [u64; LEVELS],
    /// Buffer for drop reports.
    report: Vec<u8>,
    summaries: Summaries,
}

impl RingWriter {
    pub(super) fn new(producer: Producer, counters: Counters, overflow: Overflow) -> Self {
        Self {
            counters,
            overflow,
            state: Mutex::new(State {
                producer,
                used: 0,
                reported: [0; LEVELS],
                report: Vec::with_capacity(64),
                summaries: Summaries::default(),
            }),
            missing_room: Default::default(),
        }
    }

    /// Drops an event that need not be encoded, because the ring is full, and returns whether it did. `key` identifies the
    /// event's callsite.
    #[inline]
    pub(super) fn drops_early(&self, level: usize, key: u64) -> bool {
        let missing = self.missing_room[class(level)].load(Ordering::Relaxed);
        missing > 0 && self.drops_early_if_full(level, key, missing)
    }

    fn drops_early_if_full(&self, level: usize, key: u64, missing: usize) -> bool {
        let drops = self.lock(level).is_none_or(|mut state| {
            if state.has_room(level, missing) {
                self.missing_room[class(level)].store(0, Ordering::Relaxed);
                return false;
            }
            // The first dropped event of a callsite is encoded for the summary; later ones are only counted.
            self.overflow == Overflow::DropNewest || state.summaries.count(key) != Counted::NoSummary
        });
        if drops {
            self.counters.drop_event(level);
        }
        drops
    }

    /// Writes the record of an event and returns `true`, or drops and counts the event.
    pub(super) fn write(&self, level: usize, key: u64, frame: &[u8]) -> bool {
        let written = self.lock(level).is_some_and(|mut state| {
            let written = state.write(&self.counters, level, frame);
            if !written {
                self.missing_room[class(level)].store(ring_bytes(frame.len()), Ordering::Relaxed);
                if self.overflow == Overflow::Collapse && state.summaries.count(key) == Counted::NoSummary {
                    state.summaries.insert(key, level, frame);
                }
            }
            written
        });
        if !written {
            self.counters.drop_event(level);
        }
        written
    }

    /// Counts an event that could not be encoded.
    pub(super) fn drop_event(&self, level: usize) {
        self.counters.drop_event(level);
    }

    /// Writes pending summaries, if at least half of the ring is free.
    pub(super) fn write_summaries(&self) {
        if self.overflow == Overflow::Collapse
            && let Some(mut state) = self.lock(0)
        {
            state.write_summaries(SummaryRoom::HalfFree);
            state.producer.publish_quietly();
        }
    }

    /// Writes the pending summaries and a report of new drops, as far as the ring has room for them, using the reserved
    /// quarter as well: the worker ends. Returns how many records are still pending; 1 if the lock is held for too long.
    pub(super) fn flush(&self) -> usize {
        let Some(mut state) = self.lock(0) else { return 1 };
        state.write_summaries(SummaryRoom::Any);
        let reported = state.write_report(&self.counters);
        state.producer.publish_quietly();
        state.summaries.len() + usize::from(!reported)
    }

    fn lock(&self, level: usize) -> Option<MutexGuard<'_, State>> {
        for attempt in 0..ATTEMPTS[class(level)] {
            match self.state.try_lock() {
                Ok(state) => return Some(state),
                // No code under the lock panics, and a panic would leave counters and ring consistent.
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if attempt < SPINS => std::hint::spin_loop(),
                Err(TryLockError::WouldBlock) => std::thread::yield_now(),
            }
        }
        None
    }
}

impl Drop for RingWriter {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.write_summaries(SummaryRoom::Any);
        state.producer.publish_quietly();
    }
}

/// How much of the ring summaries may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SummaryRoom {
    /// What their levels may use, and only while half of the ring is free: summaries must not displace events.
    HalfFree,
    /// All of it.
    Any,
}

impl State {
    /// Returns whether a record of this level may use `bytes` more: the last quarter is reserved for WARN and ERROR.
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
        self.update_used();
        self.used + bytes <= limit
    }

    fn update_used(&mut self) {
        // A corrupt ring counts as full.
        self.used = self.producer.used().unwrap_or(self.producer.capacity());
    }

    /// Writes the record of an event, after a report of new drops; returns whether there was room.
    #[inline]
    fn write(&mut self, counters: &Counters, level: usize, frame: &[u8]) -> bool {
        if !self.summaries.is_empty() {
            self.write_summaries(SummaryRoom::HalfFree);
        }
        let dropped = counters.dropped();
        let mut bytes = ring_bytes(frame.len());
        if dropped != self.reported {
            bytes += self.encode_report(&dropped);
        }
        if !self.has_room(level, bytes) {
            return false;
        }
        if dropped != self.reported && self.producer.stage(&self.report).is_ok() {
            self.reported = dropped;
        }
        counters.accept(level);
        self.used += bytes;
        // Contains the single store that publishes the event.
        let written = self.producer.push(frame).is_ok();
        if !written {
            counters.undo_accept(level);
        }
        written
    }

    /// Encodes a report of these drops, and returns how many bytes of the ring it takes.
    fn encode_report(&mut self, dropped: &[u64; LEVELS]) -> usize {
        self.report.clear();
        put_drops(&mut self.report, dropped);
        ring_bytes(self.report.len())
    }

    /// Stages a report of the drops since the last one; returns whether none is pending now.
    fn write_report(&mut self, counters: &Counters) -> bool {
        let dropped = counters.dropped();
        if dropped == self.reported {
            return true;
        }
        let bytes = self.encode_report(&dropped);
        let written =
            self.has_room_below(self.producer.capacity(), bytes) && self.producer.stage(&self.report).is_ok();
        if written {
            self.used += bytes;
            self.reported = dropped;
        }
        written
    }

    /// Stages pending summaries, as far as `room` allows.
    fn write_summaries(&mut self, room: SummaryRoom) {
        let mut summaries = std::mem::take(&mut self.summaries);
        if !summaries.is_empty() {
            self.update_used();
        }
        let capacity = self.producer.capacity();
        if room == SummaryRoom::Any || self.used <= capacity / 2 {
            summaries.write_each(|level, frame| {
                let bytes = ring_bytes(frame.len());
                let fits = match room {
                    SummaryRoom::HalfFree => self.has_room(level, bytes),
                    SummaryRoom::Any => self.has_room_below(capacity, bytes),
                };
                let written = fits && self.producer.stage(frame).is_ok();
                if written {
                    self.used += bytes;
                }
                written
            });
        }
        self.summaries = summaries;
    }
}

/// Returns 1 for the levels that may use the reserved quarter, 0 for the others.
#[inline]
fn class(level: usize) -> usize {
    usize::from(level <= LAST_RESERVED)
}

/// Returns how many bytes of the ring a frame takes: a header word, and whole words.
#[inline]
fn ring_bytes(len: usize) -> usize {
    const WORD: usize = size_of::<u64>();
    WORD + len.next_multiple_of(WORD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::counters::SLOTS;
    use crate::wire::record::EventHeader;
    use shm_buffers::{ring, slots::Slots};

    fn ring_writer(capacity: usize, overflow: Overflow) -> (RingWriter, ring::Consumer, Counters) {
        let (producer, consumer) = ring::in_process(capacity);
        let counters = Counters::new(&Slots::in_process(SLOTS)).unwrap();
        (
            RingWriter::new(producer, counters.clone(), overflow),
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
    fn the_last_quarter_is_reserved_for_warn_and_error() {
        let (writer, mut consumer, counters) = ring_writer(1024, Overflow::DropNewest);
        let frame = [0; 56];
        (0..100).for_each(|_| _ = writer.write(3, 0, &frame));
        // 12 records of 64 bytes fit into three quarters.
        assert_eq!(counters.dropped(), [0, 0, 0, 88, 0]);
        // One more takes as much as the drop report before it.
        (0..3).for_each(|_| _ = writer.write(1, 0, &frame));
        assert_eq!(counters.dropped()[1], 0);
        (0..2).for_each(|_| _ = writer.write(0, 0, &frame));
        assert_eq!(counters.dropped()[0], 2);
        assert_eq!(frames(&mut consumer).len(), 12 + 1 + 3);
        assert_eq!(counters.accepted()[3] + counters.dropped()[3], 100);
    }

    #[test]
    fn events_are_dropped_before_encoding_until_there_is_room() {
        let (writer, mut consumer, counters) = ring_writer(1024, Overflow::DropNewest);
        assert!(!writer.drops_early(3, 0));
        (0..13).for_each(|_| _ = writer.write(3, 0, &[0; 56]));
        assert!(writer.drops_early(3, 0));
        assert!(!writer.drops_early(1, 0), "the reserved quarter is free");
        assert_eq!(counters.dropped(), [0, 0, 0, 2, 0]);
        consumer.pop(&mut Vec::new()).unwrap();
        assert!(!writer.drops_early(3, 0));
    }

    #[test]
    fn a_thread_that_does_not_get_the_lock_drops_its_event() {
        let (writer, _consumer, counters) = ring_writer(1024, Overflow::DropNewest);
        let held = writer.lock(0).unwrap();
        assert!(!writer.write(2, 0, &[0; 8]));
        writer.drop_event(2);
        assert_eq!(counters.dropped(), [0, 0, 2, 0, 0]);
        drop(held);
        assert!(writer.write(2, 0, &[0; 8]));
        assert_eq!(counters.accepted()[2] + counters.dropped()[2], 3);
    }

    #[test]
    fn summaries_are_written_once_half_of_the_ring_is_free() {
        let (writer, mut consumer, counters) = ring_writer(1024, Overflow::Collapse);
        let mut frame = EventHeader::default().encode().to_vec();
        frame.resize(56, 7);
        (0..12).for_each(|_| assert!(writer.write(3, 7, &frame)));
        assert!(!writer.write(3, 7, &frame));
        assert!(writer.drops_early(3, 7), "only counted");
        assert!(
            !writer.drops_early(3, 8),
            "the first event of another callsite is encoded"
        );
        assert!(!writer.write(3, 8, &frame));
        assert_eq!(counters.dropped(), [0, 0, 0, 3, 0]);
        // There is room, but less than half of the ring.
        consumer.pop(&mut Vec::new()).unwrap();
        writer.write_summaries();
        assert_eq!(frames(&mut consumer).len(), 11);
        writer.write_summaries();
        let repeats: Vec<u8> = frames(&mut consumer).iter().map(|frame| frame[24]).collect();
        assert_eq!(repeats, [2, 1]);
        writer.write_summaries();
        drop(writer);
        assert!(frames(&mut consumer).is_empty());
        assert_eq!(counters.accepted()[3] + counters.dropped()[3], 15);
    }
}
