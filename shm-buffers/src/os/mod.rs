//! Operating system calls: one module for each platform, with a common interface.
//!
//! - `Store` keeps memory in existence.
//! - `Locator` refers to a store from another process.
//! - `Mapping` is a mapping in this process.

pub mod descriptors;
mod escape;
#[cfg(target_os = "linux")]
pub(crate) mod futex;
mod heap;
mod locator;
mod mapping;
mod names;
mod regular_file;
mod resident;
#[cfg(unix)]
mod sweep;
#[cfg(unix)]
mod unix;
#[cfg(unix)]
use unix as imp;
#[cfg(windows)]
mod windows;
#[cfg(windows)]
use windows as imp;
mod new_pages;
mod space;

pub use heap::{expect_blocks, prefer_huge_pages, return_freed_memory};
#[cfg(not(target_os = "linux"))]
pub(crate) use imp::machine_memory;
#[cfg(feature = "zstd")]
pub(crate) use imp::populate;
pub(crate) use imp::{Store, release_pages, resize};
pub(crate) use locator::{Locator, Text, number};
pub(crate) use mapping::Mapping;
pub use new_pages::copy_into_new;
pub(crate) use regular_file::{OpenFile, open_regular, read_exact_at};
pub(crate) use resident::releasable;
#[cfg(target_os = "linux")]
pub(crate) use space::file_system_space;
pub(crate) use space::{MoveSource, admit_pages, admit_write};

use crate::backing::{Backing, BackingKind};
use crate::error::{AttachError, CreateError};

/// The permitted uses of a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    ReadOnly,
    ReadWrite,
    /// Writes go to private copies of the pages. The memory itself is only read.
    CopyOnWrite,
}

/// Creates zeroed memory of `len` bytes (1 at least), mapped for writing, with its space reserved. Less memory suffices if
/// the bytes are moved from a `source`.
pub(crate) fn create(
    backing: &Backing,
    len: usize,
    source: Option<&mut MoveSource<'_>>,
) -> Result<(Store, Mapping), CreateError> {
    create_admitted(backing, len, source, space::admit_new)
}

/// Like [`create`], but admits anonymous memory without a check of the memory limits: it is not reserved.
pub(crate) fn create_sparse(backing: &Backing, len: usize) -> Result<(Store, Mapping), CreateError> {
    create_admitted(backing, len, None, |backing, len, _| {
        space::admit_sparse(backing, len)
    })
}

fn create_admitted(
    backing: &Backing,
    len: usize,
    mut source: Option<&mut MoveSource<'_>>,
    admit: impl Fn(&Backing, usize, Option<&mut MoveSource<'_>>) -> Result<(), CreateError>,
) -> Result<(Store, Mapping), CreateError> {
    let len = len.max(1);
    let candidates: &[Backing] = match backing {
        Backing::Auto => &[
            Backing::Anonymous,
            Backing::Named,
            Backing::File(std::env::temp_dir()),
        ],
        one => std::slice::from_ref(one),
    };
    let mut first = None;
    for candidate in candidates {
        let created = admit(candidate, len, source.as_deref_mut())
            .and_then(|()| imp::create(candidate, len, source.as_deref_mut()));
        match created {
            Ok(created) => return Ok(created),
            // Reports the error of the first candidate that exists on this platform.
            Err(error) => match first {
                None | Some(CreateError::Unsupported { .. }) => first = Some(error),
                Some(_) => {}
            },
        }
    }
    Err(first.unwrap_or(CreateError::Unsupported {
        backing: BackingKind::Anonymous,
    }))
}

/// Removes the named memory of this user whose owners were killed. Returns how much there was.
pub(crate) fn remove_orphaned() -> std::io::Result<usize> {
    #[cfg(unix)]
    return sweep::sweep(&sweep::lock_dir());
    #[cfg(windows)]
    Ok(0)
}

/// Mapped memory of another store, and what leads other processes to it.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) mapping: Mapping,
    pub(crate) origin: AttachedOrigin,
}

/// What leads other processes to attached memory.
#[derive(Debug)]
pub(crate) struct AttachedOrigin {
    locator: Locator,
    /// On Linux, the descriptor that `locator` names.
    #[cfg(target_os = "linux")]
    _descriptor: Option<std::sync::Arc<std::os::fd::OwnedFd>>,
}

impl AttachedOrigin {
    /// Returns the origin that is the locator which the memory was attached by.
    fn passed_on(locator: &Locator) -> Self {
        Self {
            locator: locator.clone(),
            #[cfg(target_os = "linux")]
            _descriptor: None,
        }
    }

    /// Returns the origin that is this process's `descriptor`, if the memory was attached by a descriptor.
    #[cfg(target_os = "linux")]
    fn of_descriptor(locator: &Locator, descriptor: &std::sync::Arc<std::os::fd::OwnedFd>) -> Option<Self> {
        let Locator::Descriptor {
            device, inode, kind, ..
        } = *locator
        else {
            return None;
        };
        Some(Self {
            locator: Locator::Descriptor {
                pid: std::process::id(),
                fd: std::os::fd::AsRawFd::as_raw_fd(descriptor),
                device,
                inode,
                kind,
            },
            _descriptor: Some(descriptor.clone()),
        })
    }

    /// Returns a locator for other processes. A descriptor is one of this process, which stays open while `self` lives; a
    /// name or path is the one that the memory was attached by, and valid as long as the owner keeps it.
    pub(crate) fn locator(&self) -> &Locator {
        &self.locator
    }
}

/// Maps the memory of a locator. Checks before that it still is the memory that the locator was made for and has at least
/// `len` bytes, so that no access can fail.
pub(crate) fn attach(locator: &Locator, len: usize, access: Access) -> Result<Attached, AttachError> {
    if let (Locator::File { path, identity }, Access::ReadOnly | Access::CopyOnWrite) = (locator, access) {
        let mapping = regular_file::attach(path, identity, len, access)?;
        let origin = AttachedOrigin::passed_on(locator);
        return Ok(Attached { mapping, origin });
    }
    #[cfg(unix)]
    let (mapping, descriptor) = imp::attach(locator, len, access)?;
    #[cfg(windows)]
    let mapping = imp::attach(locator, len, access)?;
    #[cfg(target_os = "linux")]
    if let Some(origin) = AttachedOrigin::of_descriptor(locator, &descriptor) {
        return Ok(Attached { mapping, origin });
    }
    #[cfg(unix)]
    drop(descriptor);
    let origin = AttachedOrigin::passed_on(locator);
    Ok(Attached { mapping, origin })
}
