//! A filter on its way from the leader to a running worker, through slots.
//!
//! The first slot is the generation, odd while the leader writes; the others hold the encoded filter after its length.
//! It is a sequence lock: the worker takes what it read only if the generation was even and still is the same.

use std::sync::atomic::{Ordering, fence};

use shm_buffers::slots::Slots;

use crate::filter::Filter;
use crate::tally::{COUNTERS, SLOTS};

const WORD: usize = size_of::<u64>();
const WORDS: usize = SLOTS - COUNTERS - 1;
/// Bytes of an encoded filter at most.
pub(crate) const MAX_FILTER: usize = WORDS * WORD - LENGTH;
const LENGTH: usize = 2;
const ATTEMPTS: usize = 16;

/// A filter has too many or too long targets to be sent to a running worker.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "log filter takes {bytes} bytes, at most {MAX_FILTER} can be sent to a running worker: name fewer targets, or set it before workers start"
)]
pub struct FilterTooLong {
    bytes: usize,
}

/// A filter that fits.
#[derive(Debug, Clone)]
pub(crate) struct Pushable([u64; WORDS]);

impl Pushable {
    pub(crate) fn new(filter: &Filter) -> Result<Self, FilterTooLong> {
        let encoded = filter.encode();
        let bytes = encoded.len();
        if bytes > MAX_FILTER {
            return Err(FilterTooLong { bytes });
        }
        let mut padded = [0; WORDS * WORD];
        padded[..LENGTH].copy_from_slice(&(bytes as u16).to_le_bytes());
        padded[LENGTH..LENGTH + bytes].copy_from_slice(&encoded);
        let (words, _) = padded.as_chunks();
        Ok(Self(std::array::from_fn(|index| {
            u64::from_le_bytes(words[index])
        })))
    }

    /// Writes it for the worker that has `slots`; for the one leader.
    pub(crate) fn write(&self, slots: &Slots) {
        let area = Area::new(slots);
        let generation = area.0.slot(0);
        let next = (generation.get() | 1).wrapping_add(1);
        generation.set(next - 1);
        // Who sees one of the words that follow sees that the generation is odd.
        fence(Ordering::Release);
        for (index, word) in self.0.iter().enumerate() {
            area.0.slot(1 + index).set(*word);
        }
        generation.publish(next);
    }
}

struct Area(Slots);

impl Area {
    fn new(slots: &Slots) -> Self {
        Self(slots.part(COUNTERS..SLOTS))
    }
}

/// The worker's end.
#[derive(Debug)]
pub(crate) struct Receiver {
    slots: Slots,
    generation: u64,
}

impl Receiver {
    pub(crate) fn new(slots: &Slots) -> Self {
        Self {
            slots: Area::new(slots).0,
            generation: 0,
        }
    }

    /// The filter that was sent since the last call, if there is one.
    pub(crate) fn take(&mut self) -> Option<Filter> {
        for _ in 0..ATTEMPTS {
            let generation = self.slots.slot(0).observe();
            if generation == self.generation {
                return None;
            }
            let mut bytes = [0; WORDS * WORD];
            let (words, _) = bytes.as_chunks_mut();
            for (index, word) in words.iter_mut().enumerate() {
                *word = self.slots.slot(1 + index).get().to_le_bytes();
            }
            fence(Ordering::Acquire);
            if generation % 2 == 1 || self.slots.slot(0).get() != generation {
                std::hint::spin_loop();
                continue;
            }
            self.generation = generation;
            let len = u16::from_le_bytes([bytes[0], bytes[1]]).into();
            // What is no filter is no wish.
            return Filter::decode(bytes[LENGTH..].get(..len)?).ok();
        }
        None
    }
}

shm_buffers::debug_with_causes!(FilterTooLong);

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_core::LevelFilter;

    #[test]
    fn a_filter_arrives_once() {
        let slots = Slots::in_process(SLOTS);
        let mut receiver = Receiver::new(&slots);
        assert_eq!(receiver.take(), None);
        let one = Filter::new(LevelFilter::INFO).target("a::b", LevelFilter::TRACE);
        Pushable::new(&one).unwrap().write(&slots);
        assert_eq!(receiver.take(), Some(one));
        assert_eq!(receiver.take(), None);
        let other = Filter::off();
        Pushable::new(&other).unwrap().write(&slots);
        assert_eq!(receiver.take(), Some(other));
        assert!((0..COUNTERS).all(|counter| slots.slot(counter).get() == 0));
    }

    #[test]
    fn what_is_half_written_or_nonsense_is_not_taken() {
        let slots = Slots::in_process(SLOTS);
        let mut receiver = Receiver::new(&slots);
        slots.slot(COUNTERS).set(1);
        assert_eq!(receiver.take(), None);
        slots.slot(COUNTERS).set(2);
        slots.slot(COUNTERS + 1).set(u64::MAX);
        assert_eq!(receiver.take(), None);
        let long = Filter::off().target("x".repeat(500), LevelFilter::INFO);
        let error = Pushable::new(&long).unwrap_err();
        assert!(error.to_string().contains("505 bytes, at most 422"), "{error}");
    }
}
