//! Memory that Python objects view through the buffer protocol.
#![allow(unsafe_code, reason = "hands addresses of memory to the interpreter")]

use std::ffi::c_int;
use std::ptr::NonNull;
use std::sync::Arc;

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use shm_buffers::{Adoptable, CopyOnWrite, Segment};

use crate::segment::{Building, CoreSegment};

/// Returns the bytes of a contiguous buffer.
pub(crate) fn contiguous(buffer: &PyUntypedBuffer) -> PyResult<&[u8]> {
    if !buffer.is_c_contiguous() && !buffer.is_fortran_contiguous() {
        return Err(PyBufferError::new_err("the buffer is not contiguous"));
    }
    if buffer.len_bytes() == 0 {
        return Ok(&[]);
    }
    // SAFETY: the buffer has these contiguous bytes at this address until it is released, and it is borrowed. The callers are attached to
    // the interpreter while they read, so other threads that keep its rules write no array, except in a C function that has released
    // it, or in an interpreter without a global lock: that would be a data race of the program with any reader of the array, which
    // NumPy forbids.
    Ok(unsafe { std::slice::from_raw_parts(buffer.buf_ptr().cast::<u8>(), buffer.len_bytes()) })
}

/// Returns the memory of a contiguous buffer for an image that adopts it, or `None` if the buffer is empty.
///
/// The caller has checked that it is memory of glibc's `malloc`.
pub(crate) fn adoptable(buffer: &PyUntypedBuffer) -> PyResult<Option<Adoptable>> {
    let len = contiguous(buffer)?.len();
    let Some(start) = NonNull::new(buffer.buf_ptr().cast::<u8>()) else {
        return Ok(None);
    };
    // SAFETY: the buffer has these contiguous bytes at this address until it is released. The caller releases it after the image
    // was written. Until then it stays attached to the interpreter, and users of `adopt=True` promise that no code writes the array which has
    // released that, or runs in an interpreter without a global lock. The memory is of glibc's `malloc`, which gets by with such pages.
    Ok(Some(unsafe { Adoptable::new(start, len) }))
}

/// The memory of an array that is built in shared memory.
#[pyclass(frozen, module = "invokerpool._core")]
pub(crate) struct SharedMemory(Building);

#[pymethods]
impl SharedMemory {
    #[new]
    fn new(len: usize) -> PyResult<Self> {
        Building::new(len).map(Self)
    }

    /// Makes a segment of the memory. The array stays where it is, and what is written later stays in this process. None if that was done
    /// before, or the system refuses.
    fn freeze(&self) -> Option<CoreSegment> {
        // Attached to the interpreter, so that no other thread that keeps its rules writes at the same time. Where there is no global lock,
        // what another thread writes during the move may be lost.
        self.0.freeze().map(|segment| CoreSegment { segment })
    }

    /// Returns where the bytes of a buffer are in this memory.
    fn position(&self, buffer: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
        Ok(self.0.position(&PyUntypedBuffer::get(buffer)?))
    }

    /// # Safety
    /// Called by the interpreter, with a view to fill.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let (address, len) = (slf.get().0.address, slf.get().0.len);
        let address = std::ptr::with_exposed_provenance_mut(address);
        // SAFETY: the interpreter passes a view. The memory stays at this address while the object lives, also when it is frozen, and the
        // view keeps the object alive. No Rust code of this crate makes a reference to it.
        unsafe { fill(slf.as_any(), address, len, Writable::Yes, view, flags) }
    }
}

/// Private memory that was received, and that arrays view. It is freed when the last array is.
#[pyclass(frozen, module = "invokerpool._core")]
pub(crate) struct Memory {
    /// Never changed by Rust code after this object was made: only views use it.
    address: SendPtr,
    len: usize,
    _owner: Vec<u8>,
}

/// An address of memory that its owner keeps alive.
#[derive(Clone, Copy)]
struct SendPtr(*mut u8);

// SAFETY: an address is a number. The memory behind it is used by Python's rules for buffers, which do not depend on a thread.
unsafe impl Send for SendPtr {}
// SAFETY: as above.
unsafe impl Sync for SendPtr {}

impl Memory {
    pub(crate) fn new(mut bytes: Vec<u8>) -> Self {
        Self {
            address: SendPtr(bytes.as_mut_ptr()),
            len: bytes.len(),
            _owner: bytes,
        }
    }

    /// Calls `read` with the bytes of a new object, of which no view exists before.
    pub(crate) fn with_bytes<R>(memory: &Bound<'_, Self>, read: impl FnOnce(&[u8]) -> R) -> R {
        let this = memory.get();
        // SAFETY: the vector that the object owns has these bytes, and stays where it is while `memory` is borrowed. Views that `read`
        // makes are writable, but it returns them first: Python code writes an array only after it was decoded. Decoding a value of the
        // native encoding runs no such code.
        read(unsafe { std::slice::from_raw_parts(this.address.0, this.len) })
    }
}

#[pymethods]
impl Memory {
    /// # Safety
    /// Called by the interpreter, with a view to fill.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let (address, len) = (slf.get().address, slf.get().len);
        // SAFETY: the interpreter passes a view. `address` is that of the object's own vector. That is neither moved nor
        // changed while the object lives, and the view keeps the object alive.
        unsafe { fill(slf.as_any(), address.0, len, Writable::Yes, view, flags) }
    }
}

/// A part of a segment: a tensor of an image.
#[pyclass(frozen, module = "invokerpool._core")]
pub(crate) struct SharedBytes {
    source: Arc<Mapped>,
    start: usize,
    len: usize,
}

/// A mapping of a segment.
pub(crate) enum Mapped {
    ReadOnly(Segment),
    CopyOnWrite(CopyOnWrite),
}

impl Mapped {
    fn len(&self) -> usize {
        match self {
            Self::ReadOnly(segment) => segment.len(),
            Self::CopyOnWrite(mapping) => mapping.len(),
        }
    }
}

impl SharedBytes {
    /// Returns `None` if the bytes lie outside of the mapping.
    pub(crate) fn new(source: &Arc<Mapped>, start: usize, len: usize) -> Option<Self> {
        let fits = start.checked_add(len).is_some_and(|end| end <= source.len());
        fits.then(|| Self {
            source: source.clone(),
            start,
            len,
        })
    }
}

#[pymethods]
impl SharedBytes {
    fn __len__(&self) -> usize {
        self.len
    }

    /// # Safety
    /// Called by the interpreter, with a view to fill.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let this = slf.get();
        let (start, writable) = match &*this.source {
            Mapped::ReadOnly(segment) => (segment.as_ptr().cast_mut(), Writable::No),
            Mapped::CopyOnWrite(mapping) => (mapping.as_mut_ptr(), Writable::Yes),
        };
        // The constructor has checked that the part lies in the mapping.
        let address = start.wrapping_add(this.start);
        // SAFETY: the interpreter passes a view. The part is mapped while the object lives, and the view keeps that alive. Where it may
        // be written, no Rust code of this crate makes a reference to it.
        unsafe { fill(slf.as_any(), address, this.len, writable, view, flags) }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Writable {
    Yes,
    No,
}

/// Fills a view of `len` bytes at `address`, which keeps `owner` alive.
///
/// # Safety
/// `view` is a view to fill or null. The memory stays where it is while `owner` lives, and may be written if it is writable.
unsafe fn fill(
    owner: &Bound<'_, PyAny>,
    address: *mut u8,
    len: usize,
    writable: Writable,
    view: *mut ffi::Py_buffer,
    flags: c_int,
) -> PyResult<()> {
    let readonly = c_int::from(writable == Writable::No);
    // SAFETY: `owner` is an object, and the rest is this function's contract. The call checks `view` and `flags`, and takes a reference
    // to `owner` that the view's release returns.
    let filled = unsafe {
        ffi::PyBuffer_FillInfo(
            view,
            owner.as_ptr(),
            address.cast(),
            len as isize,
            readonly,
            flags,
        )
    };
    match filled {
        0 => Ok(()),
        _ => Err(PyErr::fetch(owner.py())),
    }
}
