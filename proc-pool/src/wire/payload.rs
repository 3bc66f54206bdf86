//! Payloads: a small one is a frame in a ring, a large one travels in [pieces](crate::wire::pieces), and the buffers of a value may
//! travel [apart](crate::wire::apart) from it.

use std::sync::Arc;

use shm_buffers::out_of_band::Sent;

use crate::os::prefer_huge_pages;
use crate::wire::apart::drop_unlocked;
use crate::wire::owned_bytes::OwnedBytes;

/// The largest payload that travels in one frame, in bytes. A larger one travels in pieces: the measured costs of both are equal here.
pub(crate) const MAX_INLINE: usize = 4 << 10;
/// The longest text of an error, in bytes. It always travels in one frame.
pub(crate) const MAX_TEXT: usize = 32 << 10;

/// A task that travels in pieces, or whose buffers do. The leader keeps its bytes in private memory until the task is answered, and
/// references to its buffers, so that it can be sent again. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Large(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    encoding: OwnedBytes,
    /// The encoding starts here.
    start: usize,
    /// The buffers that the encoding leaves out. `None` if it is the whole task.
    buffers: Option<Vec<Sent>>,
    /// The number of bytes of the encoding and the buffers.
    len: usize,
}

/// A task to be sent to a worker: a frame of tag and bytes, or the parts of a large task.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Payload<'a> {
    Inline(&'a [u8]),
    Large(&'a Large),
}

impl Large {
    /// Makes a payload of all but the first `start` of `bytes`, without a copy.
    pub(crate) fn new(bytes: impl Into<OwnedBytes>, start: usize) -> Self {
        let encoding = bytes.into();
        let start = start.min(encoding.len());
        Self(Arc::new(Parts {
            len: encoding.len() - start,
            encoding,
            start,
            buffers: None,
        }))
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

    /// Adds the buffers that the encoding leaves out. There is no clone of this payload yet.
    #[must_use]
    pub(crate) fn with_buffers(mut self, buffers: Vec<Sent>) -> Self {
        if let Some(parts) = Arc::get_mut(&mut self.0) {
            parts.len += buffers.iter().map(|buffer| buffer.len()).sum::<usize>();
            parts.buffers = Some(buffers);
        }
        self
    }

    /// Returns the encoding, which may leave out buffers.
    pub(crate) fn encoding(&self) -> &[u8] {
        &self.0.encoding[self.0.start..]
    }

    /// Returns the buffers that the encoding leaves out, or `None` if it is the whole task.
    pub(crate) fn buffers(&self) -> Option<&[Sent]> {
        self.0.buffers.as_deref()
    }

    /// Returns the number of bytes of the encoding and of the buffers.
    pub(crate) fn len(&self) -> usize {
        self.0.len
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        if let Some(buffers) = self.buffers.take() {
            drop_unlocked(buffers);
        }
    }
}
