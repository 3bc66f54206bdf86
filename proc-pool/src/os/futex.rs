//! The doorbell of a worker, in the memory that it shares with its leader: nobody asks for memory, and who is awake makes
//! no system call.
//!
//! Of the leader's slots, the first counts the bells, and is what the worker sleeps at; the second says that there will be
//! no more. The leader's death is told by its liveness channel.

use std::io;
use std::os::fd::OwnedFd;

use shm_buffers::slots::Slots;

/// Bells that a worker may have left unheard, at most, when it is rung again: any number is one to it.
pub(crate) const MOST_UNHEARD: u64 = u64::MAX;

/// The leader's end needs nothing but the shared slots.
#[derive(Debug)]
pub(crate) struct ToWorker;
/// The worker's end needs nothing but the shared slots.
#[derive(Debug)]
pub(crate) struct FromLeader;

/// Makes nothing: no descriptor has to go to the worker.
#[expect(clippy::unnecessary_wraps, reason = "other systems make a channel")]
pub(crate) fn channel() -> io::Result<(ToWorker, Option<OwnedFd>)> {
    Ok((ToWorker, None))
}

/// Takes nothing out of what came with the introduction.
pub(crate) fn adopt(_fds: &mut impl Iterator<Item = OwnedFd>) {}

pub(crate) fn from_leader() -> FromLeader {
    FromLeader
}

const BELLS: usize = 0;
const CLOSED: usize = 1;

/// The leader's side. Dropping it tells the worker to end.
#[derive(Debug)]
pub(crate) struct Doorbell {
    slots: Slots,
    /// What the worker reads there, it could have written as well.
    rung: u64,
}

impl Doorbell {
    /// In the two slots.
    pub(crate) fn new(slots: Slots, _: ToWorker) -> Self {
        Self { slots, rung: 0 }
    }

    /// Bells so far.
    pub(crate) fn rung(&self) -> u64 {
        self.rung
    }

    pub(crate) fn ring(&mut self) {
        self.rung += 1;
        let bells = self.slots.slot(BELLS);
        bells.publish(self.rung);
        // It fails where such calls are forbidden: then the worker could not sleep, and has ended.
        let _ = bells.wake();
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        self.slots.slot(CLOSED).set(1);
        self.ring();
    }
}

/// The leader has gone, or wants this worker to end.
#[derive(Debug)]
pub(crate) struct Ended;

/// The worker's side.
#[derive(Debug)]
pub(crate) struct Ear {
    slots: Slots,
    heard: u64,
    closed: bool,
}

impl Ear {
    pub(crate) fn new(slots: Slots, _: FromLeader) -> Self {
        Self {
            slots,
            heard: 0,
            closed: false,
        }
    }

    /// Sleeps until a bell rings that was not heard yet; gives how many were. The last one is heard like any other, so
    /// that what was done before it is seen; it is the next that never comes.
    pub(crate) fn hear(&mut self) -> Result<u64, Ended> {
        if self.closed {
            return Err(Ended);
        }
        let bells = self.slots.slot(BELLS);
        loop {
            let rung = bells.observe();
            if rung != self.heard {
                self.heard = rung;
                self.closed = self.slots.slot(CLOSED).get() != 0;
                return Ok(rung);
            }
            bells.sleep_at(rung).map_err(|_| Ended)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn pair() -> (Doorbell, Ear) {
        let slots = Slots::in_process(2);
        (
            Doorbell::new(slots.clone(), ToWorker),
            Ear::new(slots, FromLeader),
        )
    }

    #[test]
    fn bells_add_up_and_the_last_is_heard_before_the_end() {
        let (mut doorbell, mut ear) = pair();
        doorbell.ring();
        doorbell.ring();
        assert_eq!((doorbell.rung(), ear.hear().ok()), (2, Some(2)));
        doorbell.ring();
        drop(doorbell);
        assert_eq!(ear.hear().ok(), Some(4));
        assert!(ear.hear().is_err());
    }

    #[test]
    fn a_sleeper_hears_every_bell() {
        let (mut doorbell, mut ear) = pair();
        let (heard, told) = std::sync::mpsc::channel();
        let sleeper = thread::spawn(move || {
            while let Ok(bells) = ear.hear() {
                heard.send(bells).expect("it listens");
            }
        });
        for bell in 1..=1000 {
            doorbell.ring();
            assert_eq!(told.recv().ok(), Some(bell));
        }
        drop(doorbell);
        sleeper.join().expect("it ends");
    }
}
