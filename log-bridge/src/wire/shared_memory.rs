//! The division of a region that the leader creates for one source: the slots, then the ring.

use shm_buffers::{Layout, Span};

use super::counters::SLOTS;

/// Bytes of the smallest ring: it holds a few records.
pub(crate) const MIN_RING: usize = 1024;
/// Bytes of the largest ring in a region of its own.
pub(crate) const MAX_RING: usize = 1 << 30;

/// The parts of a source's region.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    pub(crate) slots: Span,
    pub(crate) ring: Span,
    /// Bytes of the region.
    pub(crate) bytes: usize,
}

impl SharedMemory {
    /// Returns the division for a ring of `ring_bytes`, or `None` if that is no power of two between [`MIN_RING`] and
    /// [`MAX_RING`].
    pub(crate) fn new(ring_bytes: usize) -> Option<Self> {
        if !ring_bytes.is_power_of_two() || !(MIN_RING..=MAX_RING).contains(&ring_bytes) {
            return None;
        }
        let mut layout = Layout::new();
        let (slots, ring) = (layout.slots(SLOTS), layout.ring(ring_bytes));
        Some(Self {
            slots,
            ring,
            bytes: layout.byte_len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_power_of_two_within_the_bounds_is_the_size_of_a_ring() {
        for bytes in [0, MIN_RING / 2, MIN_RING + 8, MAX_RING * 2, usize::MAX] {
            assert!(SharedMemory::new(bytes).is_none(), "{bytes}");
        }
        let smallest = SharedMemory::new(MIN_RING).unwrap();
        assert!(smallest.bytes > MIN_RING + SLOTS * 8);
    }
}
