//! The doorbell of a worker on Windows: bytes on a channel of `ipc-channel`.
//!
//! The closing of the channel would not end the worker: `ipc-channel` keeps a handle of every channel that was handed over.

use ipc_channel::IpcError;
use ipc_channel::ipc::{IpcBytesReceiver, IpcBytesSender};
use shm_buffers::slots::Slots;

/// Bells that a worker may have left unheard, at most, when it is rung again: more could fill the channel, and sending
/// would block.
pub(crate) const MOST_UNHEARD: u64 = 8;

/// The leader's end.
pub(crate) type ToWorker = IpcBytesSender;
/// The worker's end.
pub(crate) type FromLeader = IpcBytesReceiver;

const BELL: [u8; 1] = [1];
const CLOSED: [u8; 1] = [0];

/// The leader's side. Dropping it tells the worker to end.
#[derive(Debug)]
pub(crate) struct Doorbell {
    channel: IpcBytesSender,
    rung: u64,
}

impl Doorbell {
    /// On the channel; the slots are for systems that can sleep there.
    pub(crate) fn new(_slots: Slots, channel: IpcBytesSender) -> Self {
        Self { channel, rung: 0 }
    }

    /// Bells so far.
    pub(crate) fn rung(&self) -> u64 {
        self.rung
    }

    pub(crate) fn ring(&mut self) {
        self.rung += 1;
        // It fails if the worker has died; its end is told by other means.
        let _ = self.channel.send(&BELL);
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        let _ = self.channel.send(&CLOSED);
    }
}

/// The leader has gone, or wants this worker to end.
#[derive(Debug)]
pub(crate) struct Ended;

/// The worker's side.
#[derive(Debug)]
pub(crate) struct Ear {
    channel: IpcBytesReceiver,
    heard: u64,
}

impl Ear {
    pub(crate) fn new(_slots: Slots, channel: IpcBytesReceiver) -> Self {
        Self { channel, heard: 0 }
    }

    /// Sleeps until a bell rings that was not heard yet; gives how many were.
    pub(crate) fn hear(&mut self) -> Result<u64, Ended> {
        loop {
            match self.channel.recv() {
                Ok(bytes) if bytes == BELL => {
                    self.heard += 1;
                    return Ok(self.heard);
                }
                Err(IpcError::Io(e)) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => return Err(Ended),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc_channel::ipc;

    #[test]
    fn bells_are_heard_one_by_one_and_then_the_end() {
        let (sender, receiver) = ipc::bytes_channel().expect("a channel");
        let slots = Slots::in_process(2);
        let (mut doorbell, mut ear) = (Doorbell::new(slots.clone(), sender), Ear::new(slots, receiver));
        doorbell.ring();
        doorbell.ring();
        assert_eq!((ear.hear().ok(), ear.hear().ok()), (Some(1), Some(2)));
        drop(doorbell);
        assert!(ear.hear().is_err());
    }
}
