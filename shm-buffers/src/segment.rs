//! Segments: [`SegmentMut`] → [`freeze`](SegmentMut::freeze) → [`Segment`] → [`SegmentHandle`] → attach.
#![allow(unsafe_code)]

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::backing::{Backing, BackingKind, Pages};
use crate::copy;
use crate::error::{AttachError, CreateError, FreezeError};
use crate::os::{self, Access, Locator, Mapping, Moved, Store};

/// Zeroed memory that only its owner sees, to be filled and frozen.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use shm_buffers::{Backing, Segment, SegmentMut};
/// let mut segment = SegmentMut::create(&Backing::Auto, 5)?;
/// segment.copy_from_slice(b"hello");
/// let segment = segment.freeze()?;
///
/// let handle = segment.handle()?; // goes to another process, which does
/// let theirs = Segment::attach(&handle)?;
/// assert_eq!(&theirs[..], b"hello");
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct SegmentMut {
    store: Store,
    mapping: Mapping,
    len: usize,
}

impl SegmentMut {
    /// Makes `len` zeroed bytes. Their space is reserved: no later access fails for want of it.
    ///
    /// # Errors
    /// [`CreateError::NoSpace`] with the numbers when it is too large, before anything is touched.
    pub fn create(backing: &Backing, len: usize) -> Result<Self, CreateError> {
        Self::create_for(backing, len, None)
    }

    /// As [`create`](Self::create), for bytes that are `moved` there: less room will do.
    pub(crate) fn create_for(
        backing: &Backing,
        len: usize,
        moved: Option<&mut Moved<'_>>,
    ) -> Result<Self, CreateError> {
        let (store, mapping) = os::create(backing, len, moved)?;
        Ok(Self { store, mapping, len })
    }

    /// Where the memory is.
    pub fn backing(&self) -> BackingKind {
        self.store.kind()
    }

    /// The pages that were got for it; [`Backing::HugePages`] wants huge ones.
    pub fn pages(&self) -> Pages {
        self.store.pages()
    }

    /// Makes it `len` bytes long: what is new is zeroed, and its space reserved as at creation; what is behind the
    /// end goes back to the system. Grown memory may move, but its pages are not copied (Linux).
    ///
    /// # Errors
    /// As [`create`](Self::create); the segment then is what it was.
    pub fn resize(&mut self, len: usize) -> Result<(), CreateError> {
        if len != self.len {
            if len < self.len {
                // What stays (a byte at least, or the rest of a reserved page) must read as zeros if it grows again.
                let kept = match self.pages() {
                    Pages::Reserved => self.len,
                    Pages::Ordinary | Pages::Transparent => len.max(1),
                };
                self[len..kept].fill(0);
            }
            os::resize(&mut self.store, &mut self.mapping, len)?;
            self.len = len;
        }
        Ok(())
    }

    /// Copies `source` to `offset` on all cores: the fastest way to fill a fresh segment, faster than through a slice.
    ///
    /// # Panics
    /// If it does not fit there, as `copy_from_slice` does.
    pub fn copy_at(&mut self, offset: usize, source: &[u8]) {
        let (target, write) = self.target(offset, source.len());
        copy::copy(target, source, write);
    }

    /// As [`copy_at`](Self::copy_at), giving `source`'s pages back on the way; it reads as anything afterwards.
    pub(crate) fn move_at(&mut self, offset: usize, source: &mut [u8]) {
        let (target, write) = self.target(offset, source.len());
        copy::moving(target, source, write);
    }

    /// The `len` bytes at `offset`, and what writes a part of them through the file.
    pub(crate) fn target(
        &mut self,
        offset: usize,
        len: usize,
    ) -> (&mut [u8], impl Fn(usize, &[u8]) -> bool + Sync) {
        let end = offset.saturating_add(len);
        assert!(
            end <= self.len,
            "{len} bytes at {offset} in a segment of {}",
            self.len
        );
        // SAFETY: as in `deref_mut`.
        let bytes = unsafe { self.mapping.bytes_mut() };
        let store = &self.store;
        (&mut bytes[offset..end], move |start, part| {
            store.write_at(part, offset + start).is_ok()
        })
    }

    /// Makes the memory read-only for good: unmapped for writing, and sealed where the system can, so that
    /// no process can write it any more.
    ///
    /// # Errors
    /// When the system refuses to seal or to map again.
    pub fn freeze(self) -> Result<Segment, FreezeError> {
        let Self { store, mapping, len } = self;
        drop(mapping);
        store.seal(Access::ReadOnly).map_err(|source| FreezeError {
            step: "seal",
            len,
            source,
        })?;
        let mapping = store.map(len, Access::ReadOnly).map_err(|source| FreezeError {
            step: "map read-only",
            len,
            source,
        })?;
        Ok(Segment(Arc::new(Inner {
            store: Some(store),
            mapping,
            len,
        })))
    }
}

impl std::ops::Deref for SegmentMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: until it is frozen, nobody but `self` knows the memory: no locator was handed out. Writes need
        // `&mut self`.
        unsafe { &self.mapping.bytes()[..self.len] }
    }
}

impl std::ops::DerefMut for SegmentMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: mapped for writing by `create`; unshared as in `deref`.
        unsafe { &mut self.mapping.bytes_mut()[..self.len] }
    }
}

/// Read-only memory shared by any number of threads and processes. Cheap to clone; the last clone frees it.
#[derive(Debug, Clone)]
pub struct Segment(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// With its owner only.
    store: Option<Store>,
    mapping: Mapping,
    len: usize,
}

impl Segment {
    /// What another process needs to [`attach`](Self::attach). It leads somewhere as long as a clone of
    /// this segment lives in its owner.
    ///
    /// # Errors
    /// An attached segment has no handle: ask its owner.
    pub fn handle(&self) -> std::io::Result<SegmentHandle> {
        let store = self.0.store.as_ref().ok_or_else(|| {
            std::io::Error::other("an attached segment can't be handed on; its owner makes handles")
        })?;
        Ok(SegmentHandle {
            locator: store.locator()?,
            len: self.0.len,
        })
    }

    /// Maps a segment of another (or this) process, read-only, in time independent of its size.
    ///
    /// # Errors
    /// When the owner is gone or can't be reached.
    pub fn attach(handle: &SegmentHandle) -> Result<Self, AttachError> {
        let mapping = os::attach(&handle.locator, handle.len, Access::ReadOnly)?;
        Ok(Self(Arc::new(Inner {
            store: None,
            mapping,
            len: handle.len,
        })))
    }

    /// The pages that its memory is made of; `None` for an attached segment.
    pub fn pages(&self) -> Option<Pages> {
        self.0.store.as_ref().map(Store::pages)
    }

    /// Where the memory is; `None` for an attached segment.
    pub fn backing(&self) -> Option<BackingKind> {
        self.0.store.as_ref().map(Store::kind)
    }
}

impl std::ops::Deref for Segment {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: frozen: the owner gave up its only writable mapping before any `Segment` or handle existed,
        // and processes of this crate attach read-only. An anonymous segment is sealed against everybody; named
        // ones and files are protected by mode 0600 and random names from all but processes of the same user
        // that write them on purpose, as any mapped file is.
        unsafe { &self.0.mapping.bytes()[..self.0.len] }
    }
}

/// What crosses to another process: a few bytes that tell where a segment is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentHandle {
    #[serde(serialize_with = "os::descriptors::serialize_read_only")]
    pub(crate) locator: Locator,
    pub(crate) len: usize,
}

impl SegmentHandle {
    /// Where its maker says that the memory is. Anonymous memory is sealed, which [`Segment::attach`] checks; whoever
    /// attaches what an untrusted process made takes no other, because a file can be cut off under a reader's feet.
    pub fn backing(&self) -> BackingKind {
        self.locator.kind()
    }

    /// Bytes of the segment.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the segment has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}
