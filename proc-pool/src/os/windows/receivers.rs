//! A set of channels that may be listened to from one thread and later from another.
#![allow(unsafe_code)]

use std::ops::{Deref, DerefMut};

use ipc_channel::ipc::IpcReceiverSet;

/// `ipc-channel`'s set, which waits on an I/O completion port: for any number of channels.
pub(crate) struct ReceiverSet(IpcReceiverSet);

// SAFETY: a set owns handles (of pipes, events, its port), buffers, and the structures that the kernel writes to while a
// read is under way, on the heap. Nothing of it belongs to a thread: reads of a pipe that is bound to a port go on when
// the thread that began them ends. It is not `Send` only because those structures have raw pointers in them;
// `ipc-channel` declares its single receivers, which have the same, `Send`.
unsafe impl Send for ReceiverSet {}

impl ReceiverSet {
    pub(crate) fn new() -> std::io::Result<Self> {
        IpcReceiverSet::new().map(Self)
    }
}

impl Deref for ReceiverSet {
    type Target = IpcReceiverSet;

    fn deref(&self) -> &IpcReceiverSet {
        &self.0
    }
}

impl DerefMut for ReceiverSet {
    fn deref_mut(&mut self) -> &mut IpcReceiverSet {
        &mut self.0
    }
}
