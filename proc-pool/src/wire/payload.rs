//! Payloads: a small one is a frame in a ring, a large one travels in [pieces](crate::wire::pieces).

use std::sync::Arc;

use crate::os::prefer_huge_pages;
use crate::wire::owned_bytes::OwnedBytes;

/// The largest payload that travels in one frame, in bytes. A larger one travels in pieces: the measured costs of both are equal here.
pub(crate) const MAX_INLINE: usize = 4 << 10;
/// The longest text of an error, in bytes. It always travels in one frame.
pub(crate) const MAX_TEXT: usize = 32 << 10;

/// A task that travels in pieces. The leader keeps its bytes in private memory until the task is answered, so that it can be
/// sent again. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Large {
    bytes: Arc<OwnedBytes>,
    start: usize,
}

/// A task to be sent to a worker: a frame of tag and bytes, or the bytes of a large task.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Payload<'a> {
    Inline(&'a [u8]),
    Large(&'a Large),
}

impl Large {
    /// Makes a payload of all but the first `start` of `bytes`, without a copy.
    pub(crate) fn new(bytes: impl Into<OwnedBytes>, start: usize) -> Self {
        let bytes = bytes.into();
        let start = start.min(bytes.len());
        let bytes = Arc::new(bytes);
        Self { bytes, start }
    }

    /// Copies `bytes`.
    ///
    /// # Errors
    /// When the allocator has no memory for the copy.
    pub(crate) fn copied(bytes: &[u8]) -> Result<Self, String> {
        let mut copy = Vec::new();
        copy.try_reserve_exact(bytes.len())
            .map_err(|e| format!("no memory for a task of {} bytes: {e}", bytes.len()))?;
        prefer_huge_pages(&mut copy);
        copy.extend_from_slice(bytes);
        Ok(Self::new(copy, 0))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Returns the length of the payload in bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }
}
