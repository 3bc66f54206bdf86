//! [`Region`]: memory that several processes write, accessed as atomic words only.
#![allow(unsafe_code, reason = "views shared memory as atomic words")]

use std::ops::{Deref, Range};
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;
#[cfg(not(loom))]
use std::{fmt, str::FromStr};

use super::layout::Span;
use super::words::WORD;
#[cfg(not(loom))]
use crate::backing::Backing;
#[cfg(not(loom))]
use crate::error::{AttachError, CreateError, ParseHandleError};
#[cfg(not(loom))]
use crate::handle_text;
#[cfg(not(loom))]
use crate::os::{self, Access, Locator, Mapping, Store};
use crate::sync::AtomicU64;

/// Memory that a peer may write at any time. Rings, slots and arenas are parts of it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Region(Arc<Memory>);

#[derive(Debug)]
enum Memory {
    Heap(Box<[AtomicU64]>),
    #[cfg(not(loom))]
    Mapped {
        mapping: Mapping,
        store: Option<Store>,
    },
}

/// A reference to a region, for the process that shares it.
///
/// As with a [`SegmentHandle`](crate::SegmentHandle), its text is one word of printable ASCII characters.
#[cfg(not(loom))]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionHandle {
    locator: Locator,
    len: usize,
}

/// The text of a handle: `region`, the length, and where the memory is.
#[cfg(not(loom))]
impl fmt::Display for RegionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        os::descriptors::note(&self.locator, Access::ReadWrite);
        write!(f, "region:{}:{}", self.len, os::Text(&self.locator))
    }
}

/// Parses the text that `Display` writes.
#[cfg(not(loom))]
impl FromStr for RegionHandle {
    type Err = ParseHandleError;

    fn from_str(text: &str) -> Result<Self, ParseHandleError> {
        let parse = || {
            let (len, rest) = handle_text::split(text, "region")?;
            let locator = Locator::parse(rest)?;
            Ok(Self { locator, len })
        };
        let expected = "region handle";
        parse().map_err(|reason| ParseHandleError { expected, reason })
    }
}

#[cfg(not(loom))]
crate::serde_as_text!(RegionHandle, "the text of a region handle");

impl Region {
    /// Returns the number of bytes of the region. A span that ends later was made for a larger one.
    pub fn byte_len(&self) -> usize {
        self.words().len() * WORD
    }

    /// Creates a region of zeroed memory on this process's heap. `bytes` is rounded up to whole words.
    pub fn on_heap(bytes: usize) -> Self {
        let words = bytes.div_ceil(WORD);
        Self(Arc::new(Memory::Heap(
            (0..words).map(|_| AtomicU64::new(0)).collect(),
        )))
    }

    #[inline]
    pub(super) fn span(&self, span: Span) -> &[AtomicU64] {
        &self.words()[span.start..span.start + span.words]
    }

    /// Allocates the pages of some words of a span. With `is_checked`, it first asks the system whether it has the memory: a cgroup
    /// at its limit does not refuse pages but loses a process.
    pub(super) fn populate(
        &self,
        span: Span,
        words: std::ops::Range<usize>,
        is_checked: bool,
    ) -> std::io::Result<()> {
        match &*self.0 {
            Memory::Heap(_) => {
                let _ = (span, words, is_checked);
                Ok(())
            }
            #[cfg(not(loom))]
            Memory::Mapped { mapping, .. } => {
                if is_checked {
                    os::admit_pages(words.len() * WORD)?;
                }
                mapping.populate((span.start + words.start) * WORD, words.len() * WORD)
            }
        }
    }

    /// Returns the pages of a span from the word `first` on to the system. The words are 0 afterwards, in every process. Returns
    /// whether that is supported.
    pub(super) fn release(&self, span: Span, first: usize) -> bool {
        match &*self.0 {
            Memory::Heap(_) => {
                let _ = (span, first);
                false
            }
            #[cfg(not(loom))]
            Memory::Mapped { mapping, .. } => {
                // SAFETY: the constructors map for reading and writing, and `words` is the only other access to the mapping.
                unsafe { mapping.release((span.start + first) * WORD, (span.words - first) * WORD) }.is_ok()
            }
        }
    }

    #[inline]
    fn words(&self) -> &[AtomicU64] {
        match &*self.0 {
            Memory::Heap(words) => words,
            #[cfg(not(loom))]
            Memory::Mapped { mapping, .. } => {
                // SAFETY: `sealed` and `attach`, the only constructors of `Memory::Mapped`, map for reading and writing.
                unsafe { mapping.words() }
            }
        }
    }
}

/// The words of a span of a region. It finds them when it is created, so that an access does not have to look up the kind of the region's
/// memory. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct RegionWords {
    first: NonNull<AtomicU64>,
    words: usize,
    /// Keeps the words alive.
    region: Region,
}

// SAFETY: it is a `&[AtomicU64]` that keeps its owner alive, and both can be sent to other threads and shared with them.
unsafe impl Send for RegionWords {}
// SAFETY: as above.
unsafe impl Sync for RegionWords {}

impl RegionWords {
    /// Finds the words of a span.
    ///
    /// # Panics
    /// If the span lies outside the region.
    pub(super) fn new(region: &Region, span: Span) -> Self {
        Self::of(region, region.span(span))
    }

    /// Returns the words in `range`.
    ///
    /// # Panics
    /// If `range` reaches beyond these words.
    pub(super) fn part(&self, range: Range<usize>) -> Self {
        Self::of(&self.region, &self[range])
    }

    /// `words` are some of the region.
    fn of(region: &Region, words: &[AtomicU64]) -> Self {
        Self {
            first: NonNull::from(words).cast(),
            words: words.len(),
            region: region.clone(),
        }
    }
}

impl Deref for RegionWords {
    type Target = [AtomicU64];

    #[inline]
    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: `of`, the only constructor, has taken pointer and length from a shared slice of the region's words. A region neither moves
        // nor replaces its words: they are on the heap or in a mapping, which live as long as a clone of the region, and `region` is one.
        unsafe { slice::from_raw_parts(self.first.as_ptr(), self.words) }
    }
}

#[cfg(not(loom))]
impl Region {
    /// Creates a region of zeroed memory that another process can attach. `bytes` is rounded up to whole words.
    ///
    /// The size is sealed where the system supports that, so that neither peer can truncate memory that the other one
    /// accesses.
    ///
    /// # Errors
    /// As [`SegmentMut::create`](crate::SegmentMut::create).
    pub fn create(backing: &Backing, bytes: usize) -> Result<Self, CreateError> {
        let len = bytes.next_multiple_of(WORD);
        Self::sealed(os::create(backing, len, None)?, len)
    }

    /// Like [`create`](Self::create), for memory of which only a small part is usually touched.
    ///
    /// Where the system needs no reservation (anonymous memory of Linux), the memory limits are not checked for all of it.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_sparse(backing: &Backing, bytes: usize) -> Result<Self, CreateError> {
        let len = bytes.next_multiple_of(WORD);
        Self::sealed(os::create_sparse(backing, len)?, len)
    }

    fn sealed((store, mapping): (Store, Mapping), len: usize) -> Result<Self, CreateError> {
        store
            .seal(Access::ReadWrite)
            .map_err(|e| CreateError::os("seal", len, store.kind(), e))?;
        Ok(Self(Arc::new(Memory::Mapped {
            mapping,
            store: Some(store),
        })))
    }

    /// Returns a handle with which another process can [`attach`](Self::attach) the region, as long as a clone of the region
    /// lives in this process.
    ///
    /// # Errors
    /// If the region is on the heap, or attached.
    pub fn handle(&self) -> std::io::Result<RegionHandle> {
        match &*self.0 {
            Memory::Mapped {
                mapping,
                store: Some(store),
            } => Ok(RegionHandle {
                locator: store.locator()?,
                len: mapping.len(),
            }),
            _ => Err(std::io::Error::other(
                "cannot make a handle of a region on the heap or of an attached one; ask the process that created it",
            )),
        }
    }

    /// Maps a region of another (or this) process for reading and writing.
    ///
    /// # Errors
    /// If the owner has exited or can't be reached.
    pub fn attach(handle: &RegionHandle) -> Result<Self, AttachError> {
        let mapping = os::attach(&handle.locator, handle.len, Access::ReadWrite)?.mapping;
        Ok(Self(Arc::new(Memory::Mapped { mapping, store: None })))
    }
}
