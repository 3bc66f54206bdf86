//! Operating system calls, one module a platform, with one face.
//!
//! - `Store`: what keeps memory in existence, whoever maps it.
//! - `Locator`: what another process needs to find it.
//! - `Mapping`: a mapping in this process.

pub mod descriptors;
mod file_image;
#[cfg(target_os = "linux")]
pub(crate) mod futex;
mod mapping;
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
mod space;

pub(crate) use file_image::{FileIdentity, OpenFile, open_regular, read_exact_at};
#[cfg(feature = "zstd")]
pub(crate) use imp::populate;
pub(crate) use imp::{Store, release_pages, resize};
pub(crate) use mapping::Mapping;
pub(crate) use resident::releasable;
pub(crate) use space::{Moved, admit_write, room};

use serde::{Deserialize, Serialize};

use crate::backing::{Backing, BackingKind};
use crate::error::{AttachError, CreateError};

/// What a mapping may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    ReadOnly,
    ReadWrite,
}

/// How another process finds a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Locator {
    /// An open descriptor of a living process, with what it must lead to.
    Descriptor {
        pid: u32,
        fd: i32,
        device: u64,
        inode: u64,
        /// Anonymous memory must be sealed when it is attached; a file can't be.
        kind: BackingKind,
    },
    /// The name of shared memory.
    Name(String),
    /// A path.
    Path(std::path::PathBuf),
    /// A file that existed already, where no descriptor leads to it.
    File {
        path: std::path::PathBuf,
        identity: FileIdentity,
    },
}

impl Locator {
    pub(crate) fn kind(&self) -> BackingKind {
        match self {
            Self::Descriptor { kind, .. } => *kind,
            Self::Name(_) => BackingKind::Named,
            Self::Path(_) | Self::File { .. } => BackingKind::File,
        }
    }
}

impl std::fmt::Display for Locator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Descriptor { pid, fd, .. } => write!(f, "descriptor {fd} of process {pid}"),
            Self::Name(name) => write!(f, "shared memory {name}"),
            Self::Path(path) | Self::File { path, .. } => write!(f, "file {}", path.display()),
        }
    }
}

/// Makes zeroed memory of `len` bytes (1 at least), mapped for writing, with its space reserved; with less room for
/// bytes that are `moved` there.
pub(crate) fn create(
    backing: &Backing,
    len: usize,
    moved: Option<&mut Moved<'_>>,
) -> Result<(Store, Mapping), CreateError> {
    create_admitted(backing, len, moved, space::admit_new)
}

/// As [`create`], but anonymous memory, which is not reserved, is made without admission.
pub(crate) fn create_sparse(backing: &Backing, len: usize) -> Result<(Store, Mapping), CreateError> {
    create_admitted(backing, len, None, |backing, len, _| {
        space::admit_sparse(backing, len)
    })
}

fn create_admitted(
    backing: &Backing,
    len: usize,
    mut moved: Option<&mut Moved<'_>>,
    admit: impl Fn(&Backing, usize, Option<&mut Moved<'_>>) -> Result<(), CreateError>,
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
        let made = admit(candidate, len, moved.as_deref_mut())
            .and_then(|()| imp::create(candidate, len, moved.as_deref_mut()));
        match made {
            Ok(made) => return Ok(made),
            // Tell what hinders the best one, unless it does not exist here at all.
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

/// Maps what `locator` leads to, after checking that it still is what the locator was made for and is at least
/// `len` bytes, so that no access can fail.
pub(crate) fn attach(locator: &Locator, len: usize, access: Access) -> Result<Mapping, AttachError> {
    match (locator, access) {
        (Locator::File { path, identity }, Access::ReadOnly) => file_image::attach(path, identity, len),
        _ => imp::attach(locator, len, access),
    }
}
