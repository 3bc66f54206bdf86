//! A new filter on its way from the leader to a running worker, through slots.
//!
//! The first slot is the generation, odd while the leader writes; the others hold the length of the encoded filter, then
//! its bytes. It is a sequence lock: the worker uses what it has read only if the generation was even and is unchanged
//! afterwards.

use std::error::Error;
use std::fmt;
use std::sync::atomic::{Ordering, fence};

use shm_buffers::slots::Slots;

use super::Filter;
use crate::wire::counters::FILTER;

const WORD: usize = size_of::<u64>();
const WORDS: usize = FILTER.end - FILTER.start - 1;
/// Bytes of the length.
const LENGTH: usize = 2;
/// Bytes of an encoded filter.
const MAX_FILTER: usize = WORDS * WORD - LENGTH;
/// How often the worker reads again while the leader writes.
const ATTEMPTS: usize = 16;

/// A filter has too many or too long targets to be sent to a running worker.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FilterTooLong {
    bytes: usize,
}

impl fmt::Display for FilterTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "log filter takes {} bytes, at most {MAX_FILTER} can be sent to a running worker: name fewer targets, or set it before workers start",
            self.bytes
        )
    }
}

impl Error for FilterTooLong {}

/// An encoded filter that fits into the slots.
#[derive(Debug, Clone)]
pub(crate) struct FilterUpdate {
    filter: Filter,
    words: [u64; WORDS],
}

impl FilterUpdate {
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
        Ok(Self {
            filter: filter.clone(),
            words: std::array::from_fn(|index| u64::from_le_bytes(words[index])),
        })
    }

    pub(crate) fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Writes the filter for the worker that has `slots`. Only one thread may write at a time.
    pub(crate) fn publish(&self, slots: &Slots) {
        let slots = filter_slots(slots);
        let generation = slots.slot(0);
        let next = (generation.get() | 1).wrapping_add(1);
        generation.set(next - 1);
        // A worker that sees one of the words that follow also sees the odd generation.
        fence(Ordering::Release);
        for (index, word) in self.words.iter().enumerate() {
            slots.slot(1 + index).set(*word);
        }
        generation.store_release(next);
    }
}

/// Returns the slots that belong to the filter.
fn filter_slots(slots: &Slots) -> Slots {
    slots.part(FILTER)
}

/// The worker's end.
#[derive(Debug)]
pub(crate) struct UpdateReceiver {
    slots: Slots,
    generation: u64,
}

impl UpdateReceiver {
    pub(crate) fn new(slots: &Slots) -> Self {
        Self {
            slots: filter_slots(slots),
            generation: 0,
        }
    }

    /// Returns the filter that was published last, unless an earlier call has returned it. `None` as well while it is
    /// being written, and if the slots hold no valid filter.
    pub(crate) fn receive(&mut self) -> Option<Filter> {
        for _ in 0..ATTEMPTS {
            let generation = self.slots.slot(0).load_acquire();
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
            return Filter::decode(bytes[LENGTH..].get(..len)?).ok();
        }
        None
    }
}

shm_buffers::debug_with_causes!(FilterTooLong);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::counters::{COUNTERS, SLOTS};
    use tracing_core::LevelFilter;

    #[test]
    fn a_filter_is_received_once() {
        let slots = Slots::in_process(SLOTS);
        let mut receiver = UpdateReceiver::new(&slots);
        assert_eq!(receiver.receive(), None);
        let one = Filter::new(LevelFilter::INFO).target("a::b", LevelFilter::TRACE);
        FilterUpdate::new(&one).unwrap().publish(&slots);
        assert_eq!(receiver.receive(), Some(one));
        assert_eq!(receiver.receive(), None);
        let other = Filter::off();
        FilterUpdate::new(&other).unwrap().publish(&slots);
        assert_eq!(receiver.receive(), Some(other));
        assert!((0..COUNTERS).all(|counter| slots.slot(counter).get() == 0));
    }

    #[test]
    fn a_half_written_or_invalid_filter_is_not_received() {
        let slots = Slots::in_process(SLOTS);
        let mut receiver = UpdateReceiver::new(&slots);
        slots.slot(COUNTERS).set(1);
        assert_eq!(receiver.receive(), None);
        slots.slot(COUNTERS).set(2);
        slots.slot(COUNTERS + 1).set(u64::MAX);
        assert_eq!(receiver.receive(), None);
    }

    #[test]
    fn a_filter_that_does_not_fit_is_an_error() {
        let long = Filter::off().target("x".repeat(500), LevelFilter::INFO);
        let error = FilterUpdate::new(&long).unwrap_err();
        assert!(error.to_string().contains("505 bytes, at most 422"), "{error}");
    }
}
