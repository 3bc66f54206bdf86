//! Whether leader and worker use the ring, in slots that both sides see.

use shm_buffers::slots::Slots;

use super::counters::{CONNECTED, LEADER_ENDED, SLOTS};

/// The slots for the state of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Link(Slots);

impl Link {
    /// Returns `None` if there are fewer than [`SLOTS`] slots.
    pub(crate) fn new(slots: &Slots) -> Option<Self> {
        (slots.len() >= SLOTS).then(|| Self(slots.clone()))
    }

    /// Makes the caller the ring's only writer; returns `false` if there is one already. The right is never returned.
    pub(crate) fn claim(&self) -> bool {
        self.0.slot(CONNECTED).fetch_add(1) == 0
    }

    /// Records that the leader does not read the ring any more.
    pub(crate) fn close(&self) {
        self.0.slot(LEADER_ENDED).store_release(1);
    }

    /// Returns whether the leader has stopped reading the ring.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.slot(LEADER_ENDED).load_acquire() != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_has_one_writer_and_a_closed_one_stays_closed() {
        let slots = Slots::in_process(SLOTS);
        let (one, other) = (Link::new(&slots).unwrap(), Link::new(&slots).unwrap());
        assert!(one.claim());
        assert!(!other.claim() && !one.claim());
        assert!(!one.is_closed());
        other.close();
        assert!(one.is_closed());
        assert!(Link::new(&Slots::in_process(SLOTS - 1)).is_none());
    }
}
