//! [`Region`]: memory that several processes write, reachable only as atomic words.
#![cfg_attr(not(loom), allow(unsafe_code))]

use std::sync::Arc;

#[cfg(not(loom))]
use serde::{Deserialize, Serialize};

#[cfg(not(loom))]
use crate::backing::Backing;
#[cfg(not(loom))]
use crate::error::{AttachError, CreateError};
use crate::layout::Span;
#[cfg(not(loom))]
use crate::os::{self, Access, Locator, Mapping, Store};
use crate::sync::AtomicU64;

/// Memory that a peer may write at any time: the home of rings and slots. Cheap to clone.
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

/// What crosses to the process that shares a region.
#[cfg(not(loom))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionHandle {
    #[serde(serialize_with = "os::descriptors::serialize_read_write")]
    locator: Locator,
    len: usize,
}

impl Region {
    /// Zeroed memory of this process, `bytes` rounded up to whole words.
    pub fn on_heap(bytes: usize) -> Self {
        let words = bytes.div_ceil(size_of::<u64>());
        Self(Arc::new(Memory::Heap(
            (0..words).map(|_| AtomicU64::new(0)).collect(),
        )))
    }

    #[inline]
    pub(crate) fn span(&self, span: Span) -> &[AtomicU64] {
        &self.words()[span.start..span.start + span.words]
    }

    /// Makes the pages of these words of a span.
    pub(crate) fn populate(&self, span: Span, words: std::ops::Range<usize>) -> std::io::Result<()> {
        match &*self.0 {
            Memory::Heap(_) => {
                let _ = (span, words);
                Ok(())
            }
            #[cfg(not(loom))]
            Memory::Mapped { mapping, .. } => {
                let word = size_of::<u64>();
                mapping.populate((span.start + words.start) * word, words.len() * word)
            }
        }
    }

    #[inline]
    fn words(&self) -> &[AtomicU64] {
        match &*self.0 {
            Memory::Heap(words) => words,
            #[cfg(not(loom))]
            Memory::Mapped { mapping, .. } => {
                // SAFETY: mapped for reading and writing by `create` and `attach`, the only constructors.
                unsafe { mapping.words() }
            }
        }
    }
}

#[cfg(not(loom))]
impl Region {
    /// Zeroed memory of `bytes` bytes, rounded up to whole words, that another process can attach. Its size is
    /// sealed where the system can, so that a peer can't take it away under the other's feet.
    ///
    /// # Errors
    /// As [`SegmentMut::create`](crate::SegmentMut::create).
    pub fn create(backing: &Backing, bytes: usize) -> Result<Self, CreateError> {
        let len = bytes.next_multiple_of(size_of::<u64>());
        Self::sealed(os::create(backing, len, None)?, len)
    }

    /// As [`create`](Self::create), for memory of which little is touched, as a rule: where the system needs no reservation
    /// for it (anonymous memory of Linux), the room for all of it is not asked for.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_sparse(backing: &Backing, bytes: usize) -> Result<Self, CreateError> {
        let len = bytes.next_multiple_of(size_of::<u64>());
        Self::sealed(os::create_sparse(backing, len)?, len)
    }

    fn sealed((store, mapping): (Store, Mapping), len: usize) -> Result<Self, CreateError> {
        store.seal(Access::ReadWrite).map_err(|source| CreateError::Os {
            step: "seal",
            len,
            backing: store.kind(),
            source,
        })?;
        Ok(Self(Arc::new(Memory::Mapped {
            mapping,
            store: Some(store),
        })))
    }

    /// What another process needs to [`attach`](Self::attach), as long as a clone of this region lives here.
    ///
    /// # Errors
    /// For a region on the heap, or an attached one.
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
                "only the owner of a shared region makes handles",
            )),
        }
    }

    /// Maps a region of another (or this) process for reading and writing.
    ///
    /// # Errors
    /// When the owner is gone or can't be reached.
    pub fn attach(handle: &RegionHandle) -> Result<Self, AttachError> {
        let mapping = os::attach(&handle.locator, handle.len, Access::ReadWrite)?;
        Ok(Self(Arc::new(Memory::Mapped { mapping, store: None })))
    }
}
