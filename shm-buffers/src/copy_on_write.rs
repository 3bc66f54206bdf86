//! [`CopyOnWrite`]: a segment that this process may write, without that any other process sees it.
#![allow(unsafe_code, reason = "views private pages as a mutable slice")]

use std::ops::{Deref, DerefMut};

use crate::error::AttachError;
use crate::os::{self, Access, Attached, AttachedOrigin, Mapping};
use crate::segment::SegmentHandle;

/// A segment, attached so that this process may write it: a page is copied when it is written for the first time, and only this mapping
/// sees the copy. Pages that are only read stay shared and cost no memory.
///
/// It is for code that insists on writable memory, such as numeric libraries which take `double *` and do not write. Each mapping of the
/// same segment has pages of its own.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use shm_buffers::{Backing, CopyOnWrite, SegmentMut};
///
/// let mut segment = SegmentMut::create(&Backing::Auto, 5)?;
/// segment.copy_from_slice(b"hello");
/// let segment = segment.freeze()?;
///
/// let mut private = CopyOnWrite::attach(&segment.handle()?)?;
/// private[0] = b'j';
/// assert_eq!((&private[..], &segment[..]), (&b"jello"[..], &b"hello"[..]));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct CopyOnWrite {
    mapping: Mapping,
    /// Keeps the descriptor open that the memory was attached by.
    _origin: Option<AttachedOrigin>,
    len: usize,
}

impl CopyOnWrite {
    /// Maps a segment of another (or this) process, in time independent of its size.
    ///
    /// Private pages are not reserved: a process that writes more of them than there is memory is ended by the system, as with
    /// any memory that it allocates.
    ///
    /// # Errors
    /// As [`Segment::attach`](crate::Segment::attach).
    pub fn attach(handle: &SegmentHandle) -> Result<Self, AttachError> {
        let Attached { mapping, origin } = os::attach(&handle.locator, handle.len, Access::CopyOnWrite)?;
        Ok(Self {
            mapping,
            _origin: Some(origin),
            len: handle.len,
        })
    }

    /// Makes a value of a private mapping that may be written, of which only this process sees changes.
    pub(crate) fn from_mapping(mapping: Mapping, len: usize) -> Self {
        Self {
            mapping,
            _origin: None,
            len,
        }
    }

    /// Returns the address of the first byte, which stays the same while this value lives, for code of other languages.
    ///
    /// The memory may be written through it: `len` bytes. No write may happen while a reference exists that
    /// [`deref`](Self::deref) or [`deref_mut`](Self::deref_mut) has returned.
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.mapping.start()
    }
}

impl Deref for CopyOnWrite {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: no process can write the segment any more (`attach` has checked that it is frozen: see `Segment`; `from_mapping` gets one
        // that is, or that no other process has), and writes
        // to this mapping's private pages need `&mut self`, or code that keeps the promise of `as_mut_ptr`.
        unsafe { &self.mapping.bytes()[..self.len] }
    }
}

impl DerefMut for CopyOnWrite {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is writable, and its pages are either frozen or private to it; `&mut self` excludes other references.
        unsafe { &mut self.mapping.bytes_mut()[..self.len] }
    }
}
