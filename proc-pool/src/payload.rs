//! Payloads: small ones travel through a ring, large ones in a segment of their own.

use shm_buffers::{Backing, Segment, SegmentHandle, SegmentMut};

use crate::protocol::Tag;
use crate::service::encode;

/// A payload of more bytes than this gets a segment of its own.
pub(crate) const MAX_INLINE: usize = 32 << 10;

/// A payload in a segment of its own; cheap to clone. The segment lives as long as any clone.
#[derive(Debug, Clone)]
pub(crate) struct Large {
    segment: Segment,
    /// Its tag and handle: what goes through the ring.
    pub(crate) frame: Vec<u8>,
}

/// A payload on its way into a ring: a frame of tag and bytes, or what leads to the bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Payload<'a> {
    Inline(&'a [u8]),
    Large(&'a Large),
}

impl Large {
    /// Copies `bytes` into a new segment.
    pub(crate) fn new(bytes: &[u8]) -> Result<Self, String> {
        let (segment, handle) = to_segment(bytes)?;
        let mut frame = vec![Tag::Segment as u8];
        encode(&handle, &mut frame).map_err(|e| e.to_string())?;
        Ok(Self { segment, frame })
    }

    /// Bytes of the payload.
    pub(crate) fn len(&self) -> usize {
        self.segment.len()
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
