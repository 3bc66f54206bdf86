//! Values that a worker needs to start: a small one is part of the handshake, a large one travels in a segment.

use serde::{Deserialize, Serialize};
use shm_buffers::{AttachError, Backing, Segment, SegmentHandle, SegmentMut};

use crate::error::chain;

/// Maximum size in bytes of a value that is part of the handshake; a larger one gets a segment.
pub(crate) const MAX_IN_HANDSHAKE: usize = 2 << 10;

/// An encoded value in a handshake.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum ValuePayload {
    Inline(Vec<u8>),
    Segment(SegmentHandle),
}

/// The leader's end of an encoded value. It is kept as long as a process may read the value.
#[derive(Debug)]
pub(crate) struct PreparedValue {
    payload: ValuePayload,
    _segment: Option<Segment>,
}

impl PreparedValue {
    /// Prepares the value of these bytes for any number of handshakes.
    ///
    /// # Errors
    /// If there is no shared memory for a large value. The text is the message of the error and its causes.
    pub(crate) fn new(bytes: Vec<u8>) -> Result<Self, String> {
        if bytes.len() <= MAX_IN_HANDSHAKE {
            return Ok(Self {
                payload: ValuePayload::Inline(bytes),
                _segment: None,
            });
        }
        let mut segment = SegmentMut::create(&Backing::Auto, bytes.len()).map_err(|e| chain(&e))?;
        segment.copy_at(0, &bytes);
        let segment = segment.freeze().map_err(|e| chain(&e))?;
        let handle = segment.handle().map_err(|e| chain(&e))?;
        Ok(Self {
            payload: ValuePayload::Segment(handle),
            _segment: Some(segment),
        })
    }

    /// Returns the value for a handshake.
    pub(crate) fn payload(&self) -> ValuePayload {
        self.payload.clone()
    }
}

impl ValuePayload {
    /// Calls `f` with the encoded value, wherever it is.
    pub(crate) fn with_bytes<R>(&self, f: impl FnOnce(&[u8]) -> R) -> Result<R, AttachError> {
        Ok(match self {
            Self::Inline(bytes) => f(bytes),
            Self::Segment(handle) => f(&Segment::attach(handle)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_values_are_inline_and_large_ones_in_a_segment() {
        for (len, inline) in [(0, true), (MAX_IN_HANDSHAKE, true), (MAX_IN_HANDSHAKE + 1, false)] {
            let prepared = PreparedValue::new(vec![7; len]).expect("there is memory");
            let payload = prepared.payload();
            assert_eq!(matches!(payload, ValuePayload::Inline(_)), inline, "{len}");
            let read = payload.with_bytes(<[u8]>::to_vec).expect("it is kept");
            assert_eq!(read, vec![7; len]);
        }
    }
}
