//! Segments: [`SegmentMut`] → [`freeze`](SegmentMut::freeze) → [`Segment`] → [`SegmentHandle`] → attach.
#![allow(unsafe_code, reason = "views frozen memory as a slice")]

mod in_place;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::backing::{Backing, BackingKind, CoreDump, Pages};
use crate::copy;
use crate::error::{AttachError, CreateError, FreezeError, ParseHandleError};
use crate::handle_text;
use crate::os::{self, Access, AttachedOrigin, Locator, Mapping, MoveSource, OpenFile, Store};

pub use in_place::KeptMemory;

/// Zeroed memory that only its owner can access, until it is filled and frozen.
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
    /// Creates a segment of `len` zeroed bytes. The space is reserved, so no later access fails because it is missing.
    ///
    /// # Errors
    /// [`CreateError::NoSpace`], with the numbers, if the memory or disk space that is left does not suffice. Nothing is
    /// touched then.
    pub fn create(backing: &Backing, len: usize) -> Result<Self, CreateError> {
        Self::create_from(backing, len, None)
    }

    /// Like [`create`](Self::create), for bytes that are moved from `source`, which releases its memory: less memory suffices.
    pub(crate) fn create_for_move(
        backing: &Backing,
        len: usize,
        source: &mut MoveSource<'_>,
    ) -> Result<Self, CreateError> {
        Self::create_from(backing, len, Some(source))
    }

    fn create_from(
        backing: &Backing,
        len: usize,
        source: Option<&mut MoveSource<'_>>,
    ) -> Result<Self, CreateError> {
        let (store, mapping) = os::create(backing, len, source)?;
        exclude_from_core_dumps(&mapping);
        Ok(Self { store, mapping, len })
    }

    /// Returns the kind of memory that the segment is in.
    pub fn backing(&self) -> BackingKind {
        self.store.kind()
    }

    /// Returns the kind of pages that the system granted. [`Backing::HugePages`] requests huge pages.
    pub fn pages(&self) -> Pages {
        self.store.pages()
    }

    /// Changes the length to `len` bytes. New bytes are zeroed, and their space is reserved as in [`create`](Self::create);
    /// removed bytes are released to the system. Growing may move the memory, but copies no pages (Linux).
    ///
    /// # Errors
    /// As [`create`](Self::create). The segment is unchanged then.
    pub fn resize(&mut self, len: usize) -> Result<(), CreateError> {
        if len != self.len {
            if len < self.len {
                // Bytes that stay (at least one, or the rest of a reserved page) must be zero if the segment grows again.
                let kept = match self.pages() {
                    Pages::Reserved => self.len,
                    Pages::Ordinary | Pages::Transparent => len.max(1),
                };
                self[len..kept].fill(0);
            }
            os::resize(&mut self.store, &mut self.mapping, len)?;
            exclude_from_core_dumps(&self.mapping);
            self.len = len;
        }
        Ok(())
    }

    /// Copies `source` to `offset`, on all cores. This is the fastest way to fill a new segment, faster than through a slice.
    ///
    /// # Panics
    /// If the bytes do not fit there.
    pub fn copy_at(&mut self, offset: usize, source: &[u8]) {
        let (target, write) = self.target(offset, source.len());
        copy::copy(target, source, write);
    }

    /// Like [`copy_at`](Self::copy_at), but releases the pages of `source`, whose contents are unspecified afterwards.
    pub(crate) fn move_at(&mut self, offset: usize, source: &mut [u8]) {
        let (target, write) = self.target(offset, source.len());
        copy::copy_and_release(target, source, write);
    }

    /// Returns the `len` bytes at `offset`, and a function that writes a part of them through the file and returns whether it
    /// could.
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

    /// Makes the memory read-only permanently: it is unmapped for writing and, where the system supports that, sealed, so that
    /// no process can write it any more.
    ///
    /// # Errors
    /// If the system refuses to seal or to map the memory. On Linux, sealing waits up to two seconds for children that another
    /// thread has forked while it was writable.
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
        Ok(Segment::new(Origin::Created(store), mapping, len))
    }
}

/// Excludes a mapping from core dumps, where the system supports that.
fn exclude_from_core_dumps(mapping: &Mapping) {
    // If the system refuses, core dumps are larger, and nothing else happens.
    drop(mapping.dump(CoreDump::Exclude));
}

impl std::ops::Deref for SegmentMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: until the segment is frozen, only `self` can reach the memory: no locator was returned. Writes need
        // `&mut self`.
        unsafe { &self.mapping.bytes()[..self.len] }
    }
}

impl std::ops::DerefMut for SegmentMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: `create` and `resize` map for writing; unshared as in `deref`.
        unsafe { &mut self.mapping.bytes_mut()[..self.len] }
    }
}

/// Read-only memory that any number of threads and processes share. Cheap to clone; dropping the last clone frees it.
#[derive(Debug, Clone)]
pub struct Segment(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    origin: Origin,
    mapping: Mapping,
    len: usize,
}

/// The origin of a segment's memory.
#[derive(Debug)]
enum Origin {
    /// This process created the memory, and keeps it in existence.
    Created(Store),
    /// This process mapped an existing file.
    File(OpenFile),
    /// Another process, or another segment of this one, created the memory.
    Attached(AttachedOrigin),
}

impl Segment {
    /// Returns a handle with which another process can [`attach`](Self::attach) the segment, as long as a clone of the segment
    /// lives in this process.
    ///
    /// An attached segment can be handed on: the third process maps the same memory. On Linux, the handle of anonymous memory
    /// and of files is valid even after the owner has dropped the segment or exited. Elsewhere, and for
    /// [named](Backing::Named) memory, it is the handle that the segment was attached by, and valid as long as that one.
    ///
    /// # Errors
    /// If the system refuses to identify the memory.
    pub fn handle(&self) -> std::io::Result<SegmentHandle> {
        let locator = match &self.0.origin {
            Origin::Created(store) => store.locator()?,
            Origin::File(file) => file.locator()?,
            Origin::Attached(origin) => origin.locator().clone(),
        };
        Ok(SegmentHandle {
            locator,
            len: self.0.len,
            provenance: Provenance::Own,
            others: Arc::default(),
        })
    }

    /// Maps a segment of another (or this) process, read-only, in time independent of its size. For the handle of a mapped
    /// file, the process that [opened](crate::Image::open) it guarantees that no process changes the file.
    ///
    /// # Errors
    /// If the owner has exited or can't be reached.
    pub fn attach(handle: &SegmentHandle) -> Result<Self, AttachError> {
        let os::Attached { mapping, origin } = os::attach(&handle.locator, handle.len, Access::ReadOnly)?;
        Ok(Self::new(Origin::Attached(origin), mapping, handle.len))
    }

    /// Returns the segment of a mapped file. The caller ensures that no process changes the file: see [`crate::Image::open`].
    pub(crate) fn of_file(file: OpenFile, mapping: Mapping) -> Self {
        let len = file.len();
        Self::new(Origin::File(file), mapping, len)
    }

    /// Returns a number that this segment and its clones have, and no other segment at the same time.
    #[cfg(feature = "models")]
    pub(crate) fn identity(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    fn new(origin: Origin, mapping: Mapping, len: usize) -> Self {
        exclude_from_core_dumps(&mapping);
        Self(Arc::new(Inner { origin, mapping, len }))
    }

    /// Sets whether a core dump of this process contains the segment. By default it does not. Other processes that map
    /// the segment are not affected. [`Buffer::segment`](crate::Buffer::segment) returns the segment of a model's buffer.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use shm_buffers::{Backing, CoreDump, SegmentMut};
    ///
    /// let segment = SegmentMut::create(&Backing::Auto, 5)?.freeze()?;
    /// if cfg!(target_os = "linux") {
    ///     segment.core_dump(CoreDump::Include)?; // to inspect it in a debugger
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If the system refuses; [`Unsupported`](std::io::ErrorKind::Unsupported) on systems other than Linux.
    pub fn core_dump(&self, dump: CoreDump) -> std::io::Result<()> {
        self.0.mapping.dump(dump)
    }

    /// Returns the kind of pages that the memory consists of, or `None` for an attached segment.
    pub fn pages(&self) -> Option<Pages> {
        match &self.0.origin {
            Origin::Created(store) => Some(store.pages()),
            Origin::File(_) => Some(Pages::Ordinary),
            Origin::Attached(_) => None,
        }
    }

    /// Returns the kind of memory that the segment is in, or `None` for an attached segment.
    pub fn backing(&self) -> Option<BackingKind> {
        match &self.0.origin {
            Origin::Created(store) => Some(store.kind()),
            Origin::File(_) => Some(BackingKind::File),
            Origin::Attached(_) => None,
        }
    }
}

impl std::ops::Deref for Segment {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the memory is frozen: the owner dropped its only writable mapping before any `Segment` or handle existed,
        // and this crate attaches read-only. Anonymous memory is sealed against all writers. Named memory and files have
        // mode 0600 and random names, so only processes of the same user can write them, and only on purpose. Existing
        // files are mapped by the `unsafe fn`s of `mapped` alone, whose caller guarantees that no process changes them.
        unsafe { &self.0.mapping.bytes()[..self.0.len] }
    }
}

/// Removes the [named](Backing::Named) segments and regions of this user whose owners were killed, and returns their number.
///
/// POSIX shared memory stays when its owner is killed. Every named segment that is created removes what was left behind, so
/// that a program only calls this if it creates no more of them. Memory of living owners is never removed, and processes
/// that have attached orphaned memory keep it. [Files](Backing::File) are not removed here: on Linux they have no name,
/// elsewhere the next one in their directory removes them. On Windows the system removes orphaned memory, and this returns 0.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// let removed = shm_buffers::remove_orphaned_segments()?;
/// println!("{removed} segments of killed processes were removed");
/// # Ok(()) }
/// ```
///
/// # Errors
/// If the names can't be listed. Names that can't be opened or removed are left, and not counted.
pub fn remove_orphaned_segments() -> std::io::Result<usize> {
    os::remove_orphaned()
}

/// A reference to a segment, for other processes.
///
/// Its text (`Display`, `FromStr`) is one word of printable ASCII characters, for an argument or an environment variable of
/// another process. With serde, it is a string with that text. [`descriptors::collect`](crate::descriptors::collect) finds the
/// descriptors of handles whose texts are written.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use shm_buffers::{Backing, Segment, SegmentHandle, SegmentMut};
///
/// let segment = SegmentMut::create(&Backing::Auto, 5)?.freeze()?;
/// let text = segment.handle()?.to_string(); // goes to another process, which does
/// let handle: SegmentHandle = text.parse()?;
/// assert_eq!(Segment::attach(&handle)?.len(), 5);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct SegmentHandle {
    pub(crate) locator: Locator,
    pub(crate) len: usize,
    pub(crate) provenance: Provenance,
    /// The segments that an image in this one refers to: their descriptors are sent along. They are not part of the text.
    pub(crate) others: Arc<[Locator]>,
}

/// Handles are equal if their texts are.
impl PartialEq for SegmentHandle {
    fn eq(&self, other: &Self) -> bool {
        (&self.locator, self.len, self.provenance) == (&other.locator, other.len, other.provenance)
    }
}

impl Eq for SegmentHandle {}

/// The author of a segment's bytes, on which it depends whether an image in it may refer to other segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provenance {
    /// The process that created the segment.
    Own,
    /// The author of a file, or an unknown source.
    Foreign,
}

impl SegmentHandle {
    /// Returns the kind of memory that the handle declares.
    ///
    /// [`Segment::attach`] checks that anonymous memory is sealed. A process that attaches segments of an untrusted process
    /// should accept no other kind, because a file can be truncated while it is read.
    pub fn backing(&self) -> BackingKind {
        self.locator.kind()
    }

    /// Returns the number of bytes of the segment.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether the segment has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The text of a handle: `segment`, the length, the provenance, and where the memory is.
impl fmt::Display for SegmentHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for locator in std::iter::once(&self.locator).chain(&*self.others) {
            os::descriptors::note(locator, Access::ReadOnly);
        }
        let provenance = match self.provenance {
            Provenance::Own => "own",
            Provenance::Foreign => "foreign",
        };
        write!(f, "segment:{}:{provenance}:{}", self.len, os::Text(&self.locator))
    }
}

/// Parses the text that `Display` writes. The text may come from an untrusted source: [`Segment::attach`] checks what it leads
/// to, see [`SegmentHandle::backing`].
impl FromStr for SegmentHandle {
    type Err = ParseHandleError;

    fn from_str(text: &str) -> Result<Self, ParseHandleError> {
        let parse = || {
            let (len, rest) = handle_text::split(text, "segment")?;
            let (provenance, rest) = rest.split_once(':').ok_or("it has too few fields")?;
            Ok(Self {
                locator: Locator::parse(rest)?,
                len,
                provenance: match provenance {
                    "own" => Provenance::Own,
                    "foreign" => Provenance::Foreign,
                    _ => return Err("it does not say where the bytes come from"),
                },
                others: Arc::default(),
            })
        };
        let expected = "segment handle";
        parse().map_err(|reason| ParseHandleError { expected, reason })
    }
}

crate::serde_as_text!(SegmentHandle, "the text of a segment handle");
