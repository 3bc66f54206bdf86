//! Segments: [`SegmentMut`] → [`freeze`](SegmentMut::freeze) → [`Segment`] → [`SegmentHandle`] → attach.
#![allow(unsafe_code)]

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::backing::{Backing, BackingKind, CoreDump, Pages};
use crate::copy;
use crate::error::{AttachError, CreateError, FreezeError};
use crate::os::{self, Access, Locator, Mapping, Moved, OpenFile, Store};

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
        exclude(&mapping);
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
            exclude(&self.mapping);
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
        Ok(Segment::of(Origin::Made(store), mapping, len))
    }
}

/// Keeps a mapping out of core dumps, as far as the system can.
fn exclude(mapping: &Mapping) {
    // A system that refuses makes cores larger, and nothing else.
    drop(mapping.dump(CoreDump::Exclude));
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
    origin: Origin,
    mapping: Mapping,
    len: usize,
}

/// How a segment came here.
#[derive(Debug)]
enum Origin {
    /// This process made it, and keeps it in existence.
    Made(Store),
    /// This process has mapped a file that existed already.
    File(OpenFile),
    /// Another process, or another segment of this one, keeps it.
    Attached,
}

impl Segment {
    /// What another process needs to [`attach`](Self::attach). It leads somewhere as long as a clone of
    /// this segment lives in its owner.
    ///
    /// # Errors
    /// An attached segment has no handle: ask its owner.
    pub fn handle(&self) -> std::io::Result<SegmentHandle> {
        let locator = match &self.0.origin {
            Origin::Made(store) => store.locator()?,
            Origin::File(file) => file.locator()?,
            Origin::Attached => {
                return Err(std::io::Error::other(
                    "an attached segment can't be handed on; its owner makes handles",
                ));
            }
        };
        Ok(SegmentHandle {
            locator,
            len: self.0.len,
            content: Content::Own,
        })
    }

    /// Maps a segment of another (or this) process, read-only, in time independent of its size. The handle of a mapped file
    /// comes with the promise of the process that [opened](crate::Image::open) it: no process changes the file.
    ///
    /// # Errors
    /// When the owner is gone or can't be reached.
    pub fn attach(handle: &SegmentHandle) -> Result<Self, AttachError> {
        let mapping = os::attach(&handle.locator, handle.len, Access::ReadOnly)?;
        Ok(Self::of(Origin::Attached, mapping, handle.len))
    }

    /// The segment of a mapped file. The caller sees to it that no process changes the file: see [`crate::Image::open`].
    pub(crate) fn of_file(file: OpenFile, mapping: Mapping) -> Self {
        let len = file.len();
        Self::of(Origin::File(file), mapping, len)
    }

    fn of(origin: Origin, mapping: Mapping, len: usize) -> Self {
        exclude(&mapping);
        Self(Arc::new(Inner { origin, mapping, len }))
    }

    /// Decides whether a core dump of this process contains the segment: it does not, by default. Other processes that map
    /// the segment are not affected. Of a model, each [`Buffer`](crate::Buffer) knows its [segment](crate::Buffer::segment).
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use shm_buffers::{Backing, CoreDump, SegmentMut};
    ///
    /// let segment = SegmentMut::create(&Backing::Auto, 5)?.freeze()?;
    /// if cfg!(target_os = "linux") {
    ///     segment.core_dump(CoreDump::Include)?; // to look at it in a debugger
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// When the system refuses; it is [`Unsupported`](std::io::ErrorKind::Unsupported) where the system is not Linux.
    pub fn core_dump(&self, dump: CoreDump) -> std::io::Result<()> {
        self.0.mapping.dump(dump)
    }

    /// The pages that its memory is made of; `None` for an attached segment.
    pub fn pages(&self) -> Option<Pages> {
        match &self.0.origin {
            Origin::Made(store) => Some(store.pages()),
            Origin::File(_) => Some(Pages::Ordinary),
            Origin::Attached => None,
        }
    }

    /// Where the memory is; `None` for an attached segment.
    pub fn backing(&self) -> Option<BackingKind> {
        match &self.0.origin {
            Origin::Made(store) => Some(store.kind()),
            Origin::File(_) => Some(BackingKind::File),
            Origin::Attached => None,
        }
    }
}

impl std::ops::Deref for Segment {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: frozen: the owner gave up its only writable mapping before any `Segment` or handle existed,
        // and processes of this crate attach read-only. An anonymous segment is sealed against everybody; named
        // ones and files are protected by mode 0600 and random names from all but processes of the same user
        // that write them on purpose. Files that existed already don't change on the word of the caller of an `unsafe fn`
        // of `mapped`.
        unsafe { &self.0.mapping.bytes()[..self.0.len] }
    }
}

/// What crosses to another process: a few bytes that tell where a segment is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentHandle {
    #[serde(serialize_with = "os::descriptors::serialize_read_only")]
    pub(crate) locator: Locator,
    pub(crate) len: usize,
    #[serde(default)]
    pub(crate) content: Content,
}

/// Whose bytes a segment has, which decides whether an image in it may name other segments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Content {
    /// Those that its maker wrote.
    Own,
    /// Those of a file, or of an unknown source.
    #[default]
    Foreign,
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
