//! Windows: named file mappings through `shared_memory`, and files.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use memmap2::MmapOptions;
use shared_memory::ShmemConf;

use super::{Access, Locator, Mapping};
use crate::backing::{Backing, BackingKind, Pages};
use crate::error::{AttachError, CreateError};

/// Keeps memory in existence and findable.
pub(crate) enum Store {
    /// The mapping object lives as long as somebody has it open; this is the owner's.
    Named { name: String, _keep: Mapping },
    /// Deleted when dropped.
    File(tempfile::NamedTempFile),
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("kind", &self.kind())
            .finish_non_exhaustive()
    }
}

pub(super) fn create(backing: &Backing, len: usize) -> Result<(Store, Mapping), CreateError> {
    match backing {
        Backing::Named => {
            let kind = BackingKind::Named;
            let failed = |step, source| CreateError::Os {
                step,
                len,
                backing: kind,
                source,
            };
            let random = getrandom::u64().map_err(|e| failed("name", io::Error::other(e)))?;
            let name = format!("shm-buffers-{random:016x}");
            let made = ShmemConf::new().os_id(&name).size(len).create();
            let made = made.map_err(|e| failed("create", io::Error::other(e)))?;
            let store = Store::Named {
                name,
                _keep: Mapping::from_shmem(made, len),
            };
            let mapping = store.map(len, Access::ReadWrite).map_err(|e| failed("map", e))?;
            Ok((store, mapping))
        }
        Backing::File(dir) => {
            let store = in_directory(dir, len)?;
            let failed = |source| CreateError::Os {
                step: "map",
                len,
                backing: BackingKind::File,
                source,
            };
            let mapping = store.map(len, Access::ReadWrite).map_err(failed)?;
            Ok((store, mapping))
        }
        Backing::Anonymous | Backing::HugePages | Backing::Auto => Err(CreateError::Unsupported {
            backing: BackingKind::Anonymous,
        }),
    }
}

fn in_directory(dir: &Path, len: usize) -> Result<Store, CreateError> {
    let directory = |source| CreateError::Directory {
        dir: PathBuf::from(dir),
        source,
    };
    let file = tempfile::Builder::new()
        .prefix("shm-buffers-")
        .tempfile_in(dir)
        .map_err(directory)?;
    file.as_file().set_len(len as u64).map_err(directory)?;
    Ok(Store::File(file))
}

impl Store {
    pub(crate) fn kind(&self) -> BackingKind {
        match self {
            Self::Named { .. } => BackingKind::Named,
            Self::File(_) => BackingKind::File,
        }
    }

    pub(crate) fn pages(&self) -> Pages {
        Pages::Ordinary
    }

    pub(crate) fn map(&self, len: usize, access: Access) -> io::Result<Mapping> {
        match self {
            Self::Named { name, .. } => open_named(name, len),
            Self::File(file) => map(file.as_file(), len, access),
        }
    }

    /// Files and their mappings are not always coherent here.
    pub(crate) fn write_at(&self, _bytes: &[u8], _offset: usize) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Nothing to seal with here.
    pub(crate) fn seal(&self, _access: Access) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn locator(&self) -> io::Result<Locator> {
        Ok(match self {
            Self::Named { name, .. } => Locator::Name(name.clone()),
            Self::File(file) => Locator::Path(file.path().to_owned()),
        })
    }
}

/// Changes the length of memory that only this process knows: what is new is zeroed. Mapped objects have a fixed size
/// here, so it is copied.
pub(crate) fn resize(store: &mut Store, mapping: &mut Mapping, len: usize) -> Result<(), CreateError> {
    let backing = match store {
        Store::Named { .. } => Backing::Named,
        Store::File(file) => Backing::File(file.path().parent().unwrap_or(file.path()).to_owned()),
    };
    let (new_store, mut new_mapping) = create(&backing, len.max(1))?;
    let kept = mapping.len().min(new_mapping.len());
    // SAFETY: both are mapped for writing by `create`, and their owner, who lends them exclusively, has handed no
    // locator out.
    let target = unsafe { new_mapping.bytes_mut() };
    // SAFETY: as above.
    let source = unsafe { mapping.bytes() };
    target[..kept].copy_from_slice(&source[..kept]);
    (*store, *mapping) = (new_store, new_mapping);
    Ok(())
}

fn open_named(name: &str, len: usize) -> io::Result<Mapping> {
    let shmem = ShmemConf::new()
        .os_id(name)
        .size(len)
        .open()
        .map_err(io::Error::other)?;
    if shmem.len() < len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Mapping::from_shmem(shmem, len))
}

fn map(file: &File, len: usize, access: Access) -> io::Result<Mapping> {
    let mut options = MmapOptions::new();
    let options = options.len(len.max(1));
    Ok(Mapping::from_mmap(match access {
        Access::ReadOnly => options.map_raw_read_only(file)?,
        Access::ReadWrite => options.map_raw(file)?,
    }))
}

/// Maps what `locator` leads to.
pub(super) fn attach(locator: &Locator, len: usize, access: Access) -> Result<Mapping, AttachError> {
    let what = || locator.to_string();
    let unreachable = |source| AttachError::Unreachable { what: what(), source };
    match locator {
        Locator::Name(name) => open_named(name, len).map_err(unreachable),
        Locator::Path(path) => {
            let write = access == Access::ReadWrite;
            let file = File::options()
                .read(true)
                .write(write)
                .open(path)
                .map_err(unreachable)?;
            if file.metadata().map_err(unreachable)?.len() < len as u64 {
                return Err(AttachError::Replaced { what: what() });
            }
            map(&file, len, access).map_err(|source| AttachError::Map {
                what: what(),
                len,
                source,
            })
        }
        Locator::Descriptor { .. } | Locator::File { .. } => {
            Err(unreachable(io::ErrorKind::Unsupported.into()))
        }
    }
}

/// Pages can't be given back piecemeal here.
pub(crate) fn release_pages(_bytes: &mut [u8]) {}

/// Pages are made when they are touched.
#[cfg(feature = "zstd")]
pub(crate) fn populate(_bytes: &mut [u8]) {}
