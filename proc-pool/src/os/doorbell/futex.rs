//! The doorbell on Linux: a futex in the memory that worker and leader share.
//!
//! Of the leader's two slots, the first counts the rings, and the worker sleeps on it; the second says that no more rings
//! follow. The death of the leader is reported by another channel: see
//! [`watch_leader`](crate::os::introduction::ParentConnection::watch_leader).

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use shm_buffers::slots::Slots;

use super::DoorbellClosed;

/// Any number of unseen rings has the same effect as one.
pub(crate) const MAX_UNSEEN: u64 = u64::MAX;

/// Nothing: the leader's end needs only the shared slots.
#[derive(Debug)]
pub(crate) struct ToWorker;
/// Nothing: the worker's end needs only the shared slots.
#[derive(Debug)]
pub(crate) struct FromLeader;

/// Makes no channel: the worker needs no descriptor.
#[expect(clippy::unnecessary_wraps, reason = "other systems make a channel")]
pub(crate) fn channel() -> io::Result<(ToWorker, Option<OwnedFd>)> {
    Ok((ToWorker, None))
}

/// Takes none of the descriptors that came with the handshake.
pub(crate) fn adopt(_fds: &mut impl Iterator<Item = OwnedFd>) {}

pub(crate) fn from_leader() -> FromLeader {
    FromLeader
}

const RINGS: usize = 0;
const CLOSED: usize = 1;

/// The leader's end. Dropping it asks the worker to end.
#[derive(Debug)]
pub(crate) struct Doorbell {
    slots: Slots,
    /// The count in the shared slot, kept in private memory because the worker can write to the slot.
    rung: u64,
}

impl Doorbell {
    /// Makes the leader's end, in these two slots.
    pub(crate) fn new(slots: Slots, _: ToWorker) -> Self {
        Self { slots, rung: 0 }
    }

    /// Returns the number of rings so far.
    pub(crate) fn rung(&self) -> u64 {
        self.rung
    }

    pub(crate) fn ring(&mut self) {
        self.rung += 1;
        let rings = self.slots.slot(RINGS);
        rings.store_release(self.rung);
        // It fails only where such calls are forbidden. There the worker could not sleep either, and has ended.
        let _ = rings.wake();
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        self.slots.slot(CLOSED).set(1);
        self.ring();
    }
}

/// The worker's end.
#[derive(Debug)]
pub(crate) struct WakeListener {
    slots: Slots,
    seen: u64,
    closed: bool,
}

impl WakeListener {
    pub(crate) fn new(slots: Slots, _: FromLeader) -> Self {
        Self {
            slots,
            seen: 0,
            closed: false,
        }
    }

    /// Sleeps until there is a ring that this listener has not seen, and returns the number of rings so far. The ring of the
    /// drop is returned like any other, so that the worker sees what the leader did before it; the next call is the one that
    /// fails.
    pub(crate) fn wait(&mut self) -> Result<u64, DoorbellClosed> {
        loop {
            if let Some(rung) = self.look()? {
                return Ok(rung);
            }
            let slept = self.slots.slot(RINGS).sleep_while(self.seen);
            slept.map_err(|_| DoorbellClosed)?;
        }
    }

    /// Does the same, and returns `None` if there was no ring for this time.
    pub(crate) fn wait_for(&mut self, time: Duration) -> Result<Option<u64>, DoorbellClosed> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let rung = self.look()?;
            if rung.is_some() || left.is_zero() {
                return Ok(rung);
            }
            let slept = self.slots.slot(RINGS).sleep_while_for(self.seen, left);
            slept.map_err(|_| DoorbellClosed)?;
        }
    }

    /// Returns the number of rings if there is one that this listener has not seen.
    fn look(&mut self) -> Result<Option<u64>, DoorbellClosed> {
        if self.closed {
            return Err(DoorbellClosed);
        }
        let rung = self.slots.slot(RINGS).load_acquire();
        if rung == self.seen {
            return Ok(None);
        }
        self.seen = rung;
        self.closed = self.slots.slot(CLOSED).get() != 0;
        Ok(Some(rung))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn pair() -> (Doorbell, WakeListener) {
        let slots = Slots::in_process(2);
        (
            Doorbell::new(slots.clone(), ToWorker),
            WakeListener::new(slots, FromLeader),
        )
    }

    #[test]
    fn rings_add_up_and_the_last_is_returned_before_the_end() {
        let (mut doorbell, mut listener) = pair();
        doorbell.ring();
        doorbell.ring();
        assert_eq!((doorbell.rung(), listener.wait().ok()), (2, Some(2)));
        doorbell.ring();
        drop(doorbell);
        assert_eq!(listener.wait().ok(), Some(4));
        assert!(listener.wait().is_err());
    }

    #[test]
    fn a_wait_for_some_time_ends_without_a_ring() {
        let (mut doorbell, mut listener) = pair();
        let time = Duration::from_millis(2);
        assert_eq!(listener.wait_for(time).ok(), Some(None));
        doorbell.ring();
        assert_eq!(listener.wait_for(time).ok(), Some(Some(1)));
        drop(doorbell);
        assert_eq!(listener.wait_for(time).ok(), Some(Some(2)));
        assert!(listener.wait_for(time).is_err());
    }

    #[test]
    fn a_sleeping_worker_sees_every_ring() {
        let (mut doorbell, mut listener) = pair();
        let (sender, receiver) = std::sync::mpsc::channel();
        let sleeper = thread::spawn(move || {
            while let Ok(rings) = listener.wait() {
                sender.send(rings).expect("the test receives");
            }
        });
        for ring in 1..=1000 {
            doorbell.ring();
            assert_eq!(receiver.recv().ok(), Some(ring));
        }
        drop(doorbell);
        sleeper.join().expect("the thread ends");
    }
}
