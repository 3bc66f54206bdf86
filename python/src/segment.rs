//! Arrays that are built in shared memory, and become parts of models without a copy.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::buffer::PyUntypedBuffer;
use pyo3::prelude::*;
use shm_buffers::{Backing, CopyOnWrite, KeptMemory, Segment, SegmentHandle, SegmentMut};

use crate::faults::{memory_error, os_error, value_error};
use crate::memory::{Mapped, SharedBytes};

/// Memory of an array, which stays at its address while this object lives.
pub(crate) struct Building {
    pub(crate) address: usize,
    pub(crate) len: usize,
    memory: Mutex<Memory>,
}

#[expect(
    dead_code,
    reason = "the variants own the memory; Python code uses it by its address"
)]
enum Memory {
    Shared(SegmentMut),
    /// It was frozen: writes stay in this process.
    Private(CopyOnWrite),
    /// While it is frozen.
    Freezing,
}

impl Building {
    pub(crate) fn new(len: usize) -> PyResult<Self> {
        let segment = SegmentMut::create(&Backing::Auto, len);
        let mut segment = segment.map_err(|error| memory_error(&error))?;
        Ok(Self {
            address: segment.as_mut_ptr().expose_provenance(),
            len,
            memory: Mutex::new(Memory::Shared(segment)),
        })
    }

    /// Makes a segment of the memory, which stays in place. Returns `None` if that was done before, or the system refuses.
    pub(crate) fn freeze(&self) -> Option<Segment> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *memory, Memory::Freezing) {
            Memory::Shared(segment) => {
                let (kept, segment) = match segment.freeze_in_place() {
                    Ok((segment, mine)) => (Memory::Private(mine), Some(segment)),
                    Err((_, KeptMemory::Shared(memory))) => (Memory::Shared(memory), None),
                    Err((_, KeptMemory::Private(memory))) => (Memory::Private(memory), None),
                };
                *memory = kept;
                segment
            }
            other => {
                *memory = other;
                None
            }
        }
    }

    /// Returns where the bytes of a buffer are in this memory.
    pub(crate) fn position(&self, buffer: &PyUntypedBuffer) -> Option<usize> {
        let start = buffer.buf_ptr().addr().checked_sub(self.address)?;
        let end = start.checked_add(buffer.len_bytes())?;
        (end <= self.len).then_some(start)
    }
}

/// A segment of a model, beside its image.
#[pyclass(frozen, module = "invokerpool._core")]
pub(crate) struct CoreSegment {
    pub(crate) segment: Segment,
}

#[pymethods]
impl CoreSegment {
    /// Attaches the segment of another process.
    #[staticmethod]
    fn attach(handle: &str) -> PyResult<Self> {
        let handle: SegmentHandle = handle.parse().map_err(value_error)?;
        let segment = Segment::attach(&handle).map_err(|error| os_error(&error))?;
        Ok(Self { segment })
    }

    /// Returns parts in place: positions and lengths. With `writable`, this process may write them, and no other one sees it.
    fn parts(&self, places: Vec<(usize, usize)>, writable: bool) -> PyResult<Vec<SharedBytes>> {
        let mapped = match writable {
            false => Mapped::ReadOnly(self.segment.clone()),
            true => {
                let handle = self.segment.handle().map_err(|error| os_error(&error))?;
                Mapped::CopyOnWrite(CopyOnWrite::attach(&handle).map_err(|error| os_error(&error))?)
            }
        };
        let mapped = Arc::new(mapped);
        let parts = places.into_iter().map(|(start, len)| {
            let part = SharedBytes::new(&mapped, start, len);
            part.ok_or_else(|| value_error("an array lies outside of its segment"))
        });
        parts.collect()
    }

    /// Returns the bytes of the segment.
    fn byte_len(&self) -> usize {
        self.segment.len()
    }
}
