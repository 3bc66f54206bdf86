//! Payloads: a small one is a frame in a ring, a large one travels in [pieces](crate::wire::pieces). A large initial value
//! travels in a segment, which all workers share.

use std::sync::Arc;

use crate::error::chain;
use shm_buffers::{Backing, Segment, SegmentHandle, SegmentMut};

/// The largest payload that travels in one frame, in bytes. A larger one travels in pieces.
pub(crate) const MAX_INLINE: usize = 32 << 10;

/// A task that travels in pieces. The leader keeps its bytes in private memory until the task is answered, so that it can be
/// sent again. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Large {
    bytes: Arc<Vec<u8>>,
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
    pub(crate) fn new(bytes: Vec<u8>, start: usize) -> Self {
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

/// Copies `bytes` into a new segment.
pub(crate) fn to_segment(bytes: &[u8]) -> Result<(Segment, SegmentHandle), String> {
    let mut segment = SegmentMut::create(&Backing::Auto, bytes.len()).map_err(|e| chain(&e))?;
    segment.copy_at(0, bytes);
    let segment = segment.freeze().map_err(|e| chain(&e))?;
    let handle = segment.handle().map_err(|e| chain(&e))?;
    Ok((segment, handle))
}
