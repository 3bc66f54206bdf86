//! [`Memory`]: what keeps the elements of a buffer in existence, without their type.

use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::segment::Segment;

/// The memory of a buffer. A view of a segment shares the segment's own reference count: it allocates nothing.
#[derive(Clone)]
pub(crate) enum Memory {
    Segment(Segment),
    Heap(Arc<dyn HeapMemory>),
}

/// Memory of this process.
pub(crate) trait HeapMemory: Send + Sync {
    /// Returns all of the memory.
    fn bytes(&self) -> &[u8];

    /// Returns all of the memory for writing, or `None` if its owner does not allow that. The caller holds the last reference.
    fn exclusive(&mut self) -> Option<&mut [u8]>;
}

impl Memory {
    /// Returns all of the memory.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Segment(segment) => segment,
            Self::Heap(heap) => heap.bytes(),
        }
    }

    /// Returns the segment that the memory belongs to, or `None` if it is on the heap.
    pub(crate) fn segment(&self) -> Option<&Segment> {
        match self {
            Self::Segment(segment) => Some(segment),
            Self::Heap(_) => None,
        }
    }
}

/// A range of a buffer's memory. It keeps the memory alive.
pub(crate) struct MemoryRange {
    memory: Memory,
    range: Range<usize>,
}

impl MemoryRange {
    /// Returns the range of `memory` that `bytes` is.
    pub(crate) fn new(memory: Memory, bytes: &[u8]) -> Self {
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

    /// Returns the number of bytes.
    pub(crate) fn len(&self) -> usize {
        self.range.len()
    }

    /// Returns the offset of the range in its memory, in bytes.
    pub(crate) fn offset(&self) -> usize {
        self.range.start
    }

    /// Returns the memory for [`HeapMemory::exclusive`], if it is heap memory of this process, this range is all of it, and
    /// this is the last reference.
    pub(crate) fn into_exclusive(self) -> Result<Arc<dyn HeapMemory>, Self> {
        let Self { memory, range } = self;
        let Memory::Heap(mut heap) = memory else {
            return Err(Self { memory, range });
        };
        let bytes = Arc::get_mut(&mut heap).and_then(|heap| heap.exclusive());
        match bytes {
            Some(bytes) if range == (0..bytes.len()) => Ok(heap),
            _ => Err(Self {
                memory: Memory::Heap(heap),
                range,
            }),
        }
    }
}

impl AsRef<[u8]> for MemoryRange {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Deref for MemoryRange {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory.bytes()[self.range.clone()]
    }
}
