//! The doorbell on Windows: one message a ring, on a channel of `ipc-channel`.
//!
//! The end has a message of its own, because the worker would not notice that the channel closes: `ipc-channel` keeps a
//! handle of every channel that was sent to another process.

use std::time::Duration;

use ipc_channel::IpcError;
use ipc_channel::ipc::{IpcBytesReceiver, IpcBytesSender};
use shm_buffers::slots::Slots;

use super::DoorbellClosed;

/// More unseen rings could fill the channel, and then sending would block.
pub(crate) const MAX_UNSEEN: u64 = 8;

/// The leader's end.
pub(crate) type ToWorker = IpcBytesSender;
/// The worker's end.
pub(crate) type FromLeader = IpcBytesReceiver;

const RING: [u8; 1] = [1];
const CLOSED: [u8; 1] = [0];

/// The leader's end. Dropping it asks the worker to end.
#[derive(Debug)]
pub(crate) struct Doorbell {
    channel: IpcBytesSender,
    rung: u64,
}

impl Doorbell {
    /// Makes the leader's end, on this channel. The slots are for systems that can sleep on them.
    pub(crate) fn new(_slots: Slots, channel: IpcBytesSender) -> Self {
        Self { channel, rung: 0 }
    }

    /// Returns the number of rings so far.
    pub(crate) fn rung(&self) -> u64 {
        self.rung
    }

    pub(crate) fn ring(&mut self) {
        self.rung += 1;
        // It fails if the worker has died. The leader notices that by other means.
        let _ = self.channel.send(&RING);
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        let _ = self.channel.send(&CLOSED);
    }
}

/// The worker's end.
#[derive(Debug)]
pub(crate) struct WakeListener {
    channel: IpcBytesReceiver,
    seen: u64,
}

impl WakeListener {
    pub(crate) fn new(_slots: Slots, channel: IpcBytesReceiver) -> Self {
        Self { channel, seen: 0 }
    }

    /// Sleeps until there is a ring that this listener has not seen, and returns the number of rings so far.
    pub(crate) fn wait(&mut self) -> Result<u64, DoorbellClosed> {
        loop {
            match self.channel.recv() {
                Ok(bytes) if bytes == RING => {
                    self.seen += 1;
                    return Ok(self.seen);
                }
                Err(IpcError::Io(e)) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => return Err(DoorbellClosed),
            }
        }
    }

    /// Does the same: a channel has no wait that ends after some time.
    pub(crate) fn wait_for(&mut self, _: Duration) -> Result<Option<u64>, DoorbellClosed> {
        self.wait().map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc_channel::ipc;

    #[test]
    fn rings_are_seen_one_by_one_and_then_the_end() {
        let (sender, receiver) = ipc::bytes_channel().expect("a channel");
        let slots = Slots::in_process(2);
        let (mut doorbell, mut listener) = (
            Doorbell::new(slots.clone(), sender),
            WakeListener::new(slots, receiver),
        );
        doorbell.ring();
        doorbell.ring();
        assert_eq!((listener.wait().ok(), listener.wait().ok()), (Some(1), Some(2)));
        drop(doorbell);
        assert!(listener.wait().is_err());
    }
}
