//! The worker's counters, in slots that both sides see.

use std::ops::Range;

use shm_buffers::slots::Slots;

use super::level::LEVELS;

/// The number of [`Slots`] that one worker needs: its counters, space for a filter that the leader sends, and the state of the
/// connection.
pub const SLOTS: usize = 66;

/// The first slots are counters.
pub(crate) const COUNTERS: usize = 2 * LEVELS;
/// These slots belong to the filter.
pub(crate) const FILTER: Range<usize> = COUNTERS..64;
/// How often a worker has tried to connect to the ring.
pub(crate) const CONNECTED: usize = 64;
/// Not 0 when the leader does not read the ring any more.
pub(crate) const LEADER_ENDED: usize = 65;

/// For each level, how many events were accepted and how many were dropped. Their sum is the number of emitted events.
#[derive(Debug, Clone)]
pub(crate) struct Counters(Slots);

impl Counters {
    /// Returns `None` if there are fewer than [`SLOTS`] slots.
    pub(crate) fn new(slots: &Slots) -> Option<Self> {
        (slots.len() >= SLOTS).then(|| Self(slots.part(0..COUNTERS)))
    }

    /// Counts an event as accepted. The caller holds the ring's lock and has not published the record yet.
    #[inline]
    pub(crate) fn accept(&self, level: usize) {
        self.0.slot(level).add(1);
    }

    /// Undoes [`accept`](Self::accept) for a record that was not published after all, under the same lock.
    pub(crate) fn undo_accept(&self, level: usize) {
        self.0.slot(level).add(u64::MAX);
    }

    /// Counts an event as dropped. Any thread may call it, without the lock.
    #[inline]
    pub(crate) fn drop_event(&self, level: usize) {
        self.0.slot(LEVELS + level).fetch_add(1);
    }

    pub(crate) fn dropped(&self) -> [u64; LEVELS] {
        std::array::from_fn(|level| self.0.slot(LEVELS + level).load_acquire())
    }

    pub(crate) fn accepted(&self) -> [u64; LEVELS] {
        std::array::from_fn(|level| self.0.slot(level).load_acquire())
    }
}
