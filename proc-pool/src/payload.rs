//! Payloads: small ones travel through a ring, large ones in [pieces](crate::pieces).

use std::sync::Arc;

use shm_buffers::{Backing, Segment, SegmentHandle, SegmentMut};

/// A payload of more bytes than this travels in pieces.
pub(crate) const MAX_INLINE: usize = 32 << 10;

/// A task that travels in pieces, in memory of the leader's own until it is answered, so that it can be sent again. Cheap
/// to clone.
#[derive(Debug, Clone)]
pub(crate) struct Large {
    bytes: Arc<Vec<u8>>,
    start: usize,
}

/// A payload on its way to a worker: a frame of tag and bytes, or the bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Payload<'a> {
    Inline(&'a [u8]),
    Large(&'a Large),
}

impl Large {
    /// All but the first `start` of `bytes`.
    pub(crate) fn new(bytes: Vec<u8>, start: usize) -> Self {
        let start = start.min(bytes.len());
        let bytes = Arc::new(bytes);
        Self { bytes, start }
    }

    /// A copy of `bytes`, where there is memory for it.
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

    /// Bytes of the payload.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }
}

/// Copies `bytes` into a segment of their own.
pub(crate) fn to_segment(bytes: &[u8]) -> Result<(Segment, SegmentHandle), String> {
    let mut segment = SegmentMut::create(&Backing::Auto, bytes.len()).map_err(|e| chain(&e))?;
    segment.copy_at(0, bytes);
    let segment = segment.freeze().map_err(|e| chain(&e))?;
    let handle = segment.handle().map_err(|e| chain(&e))?;
    Ok((segment, handle))
}

/// An error with its sources, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |e| e.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
