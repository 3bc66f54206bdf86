//! [`BufferMemory`]: what keeps the elements of a buffer in existence, without their type.

use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::segment::Segment;

/// The memory of a buffer.
pub(crate) trait BufferMemory: Send + Sync {
    /// Returns all of the memory.
    fn bytes(&self) -> &[u8];

    /// Returns the segment that the memory belongs to, or `None` if it is on the heap.
    fn segment(&self) -> Option<&Segment>;

    /// Returns all of the memory for writing, if it is heap memory of this process. The caller holds the last reference.
    fn exclusive(&mut self) -> Option<&mut [u8]>;
}

impl BufferMemory for Segment {
    fn bytes(&self) -> &[u8] {
        self
    }

    fn segment(&self) -> Option<&Segment> {
        Some(self)
    }

    fn exclusive(&mut self) -> Option<&mut [u8]> {
        None
    }
}

/// A range of a buffer's memory. It keeps the memory alive.
pub(crate) struct MemoryRange {
    memory: Arc<dyn BufferMemory>,
    range: Range<usize>,
}

impl MemoryRange {
    /// Returns the range of `memory` that `bytes` is.
    pub(crate) fn new(memory: Arc<dyn BufferMemory>, bytes: &[u8]) -> Self {
        let start = bytes.as_ptr().addr() - memory.bytes().as_ptr().addr();
        Self {
            memory,
            range: start..start + bytes.len(),
        }
    }

    /// Returns the segment that the memory belongs to, or `None` if it is on the heap.
    pub(crate) fn segment(&self) -> Option<&Segment> {
        self.memory.segment()
    }

    /// Returns the memory for [`BufferMemory::exclusive`], if it is heap memory of this process, this range is all of it, and
    /// this is the last reference.
    pub(crate) fn into_exclusive(self) -> Result<Arc<dyn BufferMemory>, Self> {
        let Self { mut memory, range } = self;
        let bytes = Arc::get_mut(&mut memory).and_then(|memory| memory.exclusive());
        match bytes {
            Some(bytes) if range == (0..bytes.len()) => Ok(memory),
            _ => Err(Self { memory, range }),
        }
    }
}

impl Deref for MemoryRange {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory.bytes()[self.range.clone()]
    }
}
