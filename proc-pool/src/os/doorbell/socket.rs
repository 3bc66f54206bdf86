//! The doorbell on Unix systems where processes can't sleep on shared memory: one byte a ring, on a pair of sockets.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use shm_buffers::slots::Slots;

use super::DoorbellClosed;
use crate::os::introduction::send_flags;

/// Any number would be correct, because the leader never waits for room, and a ring that is lost comes after many unseen
/// ones.
pub(crate) const MAX_UNSEEN: u64 = 8;

/// The leader's end.
pub(crate) type ToWorker = UnixStream;
/// The worker's end.
pub(crate) type FromLeader = Option<UnixStream>;

/// Makes the pair of sockets. The second one is sent to the worker, before all other descriptors.
pub(crate) fn channel() -> io::Result<(ToWorker, Option<OwnedFd>)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((ours, Some(theirs.into())))
}

static FROM_LEADER: Mutex<FromLeader> = Mutex::new(None);

/// Takes the worker's end out of the descriptors that came with the handshake.
pub(crate) fn adopt(fds: &mut impl Iterator<Item = OwnedFd>) {
    *FROM_LEADER.lock().unwrap_or_else(PoisonError::into_inner) = fds.next().map(UnixStream::from);
}

pub(crate) fn from_leader() -> FromLeader {
    FROM_LEADER.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// The leader's end. Dropping it asks the worker to end.
#[derive(Debug)]
pub(crate) struct Doorbell {
    channel: ToWorker,
    rung: u64,
}

impl Doorbell {
    /// Makes the leader's end, on this channel. The slots are for systems that can sleep on them.
    pub(crate) fn new(_slots: Slots, channel: ToWorker) -> Self {
        Self { channel, rung: 0 }
    }

    /// Returns the number of rings so far.
    pub(crate) fn rung(&self) -> u64 {
        self.rung
    }

    pub(crate) fn ring(&mut self) {
        self.rung += 1;
        // It fails if the worker has died. The leader notices that by other means.
        let _ = rustix::net::send(&self.channel, &[1], send_flags());
    }
}

/// The worker's end.
#[derive(Debug)]
pub(crate) struct WakeListener {
    channel: FromLeader,
    seen: u64,
}

impl WakeListener {
    pub(crate) fn new(_slots: Slots, channel: FromLeader) -> Self {
        Self { channel, seen: 0 }
    }

    /// Sleeps until there is a ring that this listener has not seen, and returns the number of rings so far.
    pub(crate) fn wait(&mut self) -> Result<u64, DoorbellClosed> {
        loop {
            if let Some(rung) = self.read(None)? {
                return Ok(rung);
            }
        }
    }

    /// Does the same, and returns `None` if there was no ring for about this time.
    pub(crate) fn wait_for(&mut self, time: Duration) -> Result<Option<u64>, DoorbellClosed> {
        self.read(Some(time))
    }

    fn read(&mut self, timeout: Option<Duration>) -> Result<Option<u64>, DoorbellClosed> {
        let channel = self.channel.as_mut().ok_or(DoorbellClosed)?;
        channel.set_read_timeout(timeout).map_err(|_| DoorbellClosed)?;
        let mut rings = [0; 64];
        loop {
            match channel.read(&mut rings) {
                Ok(0) => return Err(DoorbellClosed),
                Ok(count) => {
                    self.seen += count as u64;
                    return Ok(Some(self.seen));
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // Systems report a timeout by either of these errors.
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Ok(None);
                }
                Err(_) => return Err(DoorbellClosed),
            }
        }
    }

    /// As [`wait`](Self::wait), for about `timeout`. Returns `None` if there was no ring in this time.
    pub(crate) fn wait_for(&mut self, timeout: Duration) -> Result<Option<u64>, DoorbellClosed> {
        let channel = self.channel.as_ref().ok_or(DoorbellClosed)?;
        let mut polled = [PollFd::new(channel, PollFlags::IN)];
        // A timeout beyond the range of the system's type never ends.
        let timeout = Timespec::try_from(timeout).ok();
        match rustix::event::poll(&mut polled, timeout.as_ref()) {
            Ok(0) | Err(Errno::INTR) => Ok(None),
            _ => self.wait().map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_are_seen_and_then_the_end() {
        let (ours, theirs) = channel().expect("a pair");
        let slots = Slots::in_process(2);
        let mut listener = WakeListener::new(slots.clone(), theirs.map(UnixStream::from));
        let mut doorbell = Doorbell::new(slots, ours);
        assert_eq!(listener.wait_for(Duration::from_millis(2)).ok(), Some(None));
        doorbell.ring();
        doorbell.ring();
        assert_eq!(listener.wait().ok(), Some(2));
        assert_eq!(listener.wait_for(Duration::from_millis(1)).ok(), Some(None));
        drop(doorbell);
        assert!(listener.wait().is_err());
    }
}
