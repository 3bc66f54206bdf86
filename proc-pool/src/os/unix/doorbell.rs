//! The doorbell of a worker on systems where nothing in shared memory can be slept on between processes: bytes on a pair
//! of sockets.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

use shm_buffers::slots::Slots;

use super::introduction::send_flags;

/// Bells that a worker may have left unheard, at most, when it is rung again: any number fits, because the leader never
/// waits, and one that is lost comes after many others.
pub(crate) const MOST_UNHEARD: u64 = 8;

/// The leader's end.
pub(crate) type ToWorker = UnixStream;
/// The worker's end.
pub(crate) type FromLeader = Option<UnixStream>;

/// Makes the pair; the second one goes to the worker, before all other descriptors.
pub(crate) fn channel() -> io::Result<(ToWorker, Option<OwnedFd>)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((ours, Some(theirs.into())))
}

static FROM_LEADER: Mutex<FromLeader> = Mutex::new(None);

/// Takes the worker's end out of what came with the introduction.
pub(crate) fn adopt(fds: &mut impl Iterator<Item = OwnedFd>) {
    *FROM_LEADER.lock().unwrap_or_else(PoisonError::into_inner) = fds.next().map(UnixStream::from);
}

pub(crate) fn from_leader() -> FromLeader {
    FROM_LEADER.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// The leader's side. Dropping it asks the worker to end.
#[derive(Debug)]
pub(crate) struct Doorbell {
    channel: ToWorker,
    rung: u64,
}

impl Doorbell {
    /// On the channel; the slots are for systems that can sleep there.
    pub(crate) fn new(_slots: Slots, channel: ToWorker) -> Self {
        Self { channel, rung: 0 }
    }

    /// Bells so far.
    pub(crate) fn rung(&self) -> u64 {
        self.rung
    }

    pub(crate) fn ring(&mut self) {
        self.rung += 1;
        // It fails if the worker has died; its end is noticed by other means.
        let _ = rustix::net::send(&self.channel, &[1], send_flags());
    }
}

/// The leader has gone, or wants this worker to end.
#[derive(Debug)]
pub(crate) struct Ended;

/// The worker's side.
#[derive(Debug)]
pub(crate) struct Ear {
    channel: FromLeader,
    heard: u64,
}

impl Ear {
    pub(crate) fn new(_slots: Slots, channel: FromLeader) -> Self {
        Self { channel, heard: 0 }
    }

    /// Sleeps until a bell rings that was not heard yet; returns how many were.
    pub(crate) fn hear(&mut self) -> Result<u64, Ended> {
        let channel = self.channel.as_mut().ok_or(Ended)?;
        let mut bells = [0; 64];
        loop {
            match channel.read(&mut bells) {
                Ok(0) => return Err(Ended),
                Ok(count) => {
                    self.heard += count as u64;
                    return Ok(self.heard);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Ended),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bells_are_heard_and_then_the_end() {
        let (ours, theirs) = channel().expect("a pair");
        let slots = Slots::in_process(2);
        let mut ear = Ear::new(slots.clone(), theirs.map(UnixStream::from));
        let mut doorbell = Doorbell::new(slots, ours);
        doorbell.ring();
        doorbell.ring();
        assert_eq!(ear.hear().ok(), Some(2));
        drop(doorbell);
        assert!(ear.hear().is_err());
    }
}
