//! Unix: memfd (Linux), POSIX shared memory, files.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{Mode, OFlags};

use super::descriptors::adopted;
use super::{Access, Locator, Mapping, Moved, space};
use crate::backing::{Backing, BackingKind, Pages};
use crate::error::{AttachError, CreateError};

#[cfg(target_os = "linux")]
mod huge;
mod name;
mod named;
mod reserve;

use reserve::reserve;

use self::name::{Name, Place};

/// Keeps memory in existence and findable.
#[derive(Debug)]
pub(crate) struct Store {
    kind: BackingKind,
    pages: Pages,
    file: File,
    /// Removed from its name space when this is dropped.
    name: Option<Name>,
    /// Until after the name is gone.
    #[cfg(not(target_os = "linux"))]
    _mark: Option<super::sweep::Mark>,
}

pub(super) fn create(
    backing: &Backing,
    len: usize,
    moved: Option<&mut Moved<'_>>,
) -> Result<(Store, Mapping), CreateError> {
    #[cfg(not(target_os = "linux"))]
    let _ = moved;
    let store = match backing {
        Backing::Anonymous => anonymous(len)?,
        #[cfg(target_os = "linux")]
        Backing::HugePages => return huge::create(len, moved),
        #[cfg(not(target_os = "linux"))]
        Backing::HugePages => anonymous(len)?,
        Backing::Named => named::create(len)?,
        Backing::File(dir) => in_directory(dir, len)?,
        Backing::Auto => {
            return Err(CreateError::Unsupported {
                backing: BackingKind::Anonymous,
            });
        }
    };
    let mapping = store
        .map(len, Access::ReadWrite)
        .map_err(|e| failed("map", len, store.kind, e))?;
    Ok((store, mapping))
}

fn failed(step: &'static str, len: usize, backing: BackingKind, source: io::Error) -> CreateError {
    CreateError::Os {
        step,
        len,
        backing,
        source,
    }
}

#[cfg(target_os = "linux")]
fn anonymous(len: usize) -> Result<Store, CreateError> {
    use rustix::fs::{MemfdFlags, memfd_create};

    let kind = BackingKind::Anonymous;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 don't know NOEXEC_SEAL.
    let fd = memfd_create("shm-buffers", flags | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| memfd_create("shm-buffers", flags))
        .map_err(|e| failed("create", len, kind, e.into()))?;
    let file = File::from(fd);
    // Not reserved page by page: a memfd has no size limit of its own, so that the first touch can fail only as
    // any allocation does. Admission looked at those limits.
    file.set_len(len as u64)
        .map_err(|e| failed("size", len, kind, e))?;
    // Reachable through its owner's descriptor, by which the file's mode is asked as well.
    rustix::fs::fchmod(&file, Mode::RUSR | Mode::WUSR).map_err(|e| failed("protect", len, kind, e.into()))?;
    Ok(Store {
        kind,
        pages: Pages::Ordinary,
        file,
        name: None,
    })
}

#[cfg(not(target_os = "linux"))]
fn anonymous(_len: usize) -> Result<Store, CreateError> {
    Err(CreateError::Unsupported {
        backing: BackingKind::Anonymous,
    })
}

fn in_directory(dir: &Path, len: usize) -> Result<Store, CreateError> {
    let directory = |source| CreateError::Directory {
        dir: dir.to_owned(),
        source,
    };
    // Linux opens an unlinked file through its owner's descriptor; elsewhere the path has to stay.
    #[cfg(target_os = "linux")]
    let (file, name) = (tempfile::tempfile_in(dir).map_err(directory)?, None);
    #[cfg(not(target_os = "linux"))]
    let (file, name) = {
        super::sweep::sweep(dir);
        let file = tempfile::Builder::new()
            .prefix(super::sweep::NAME_PREFIX)
            .tempfile_in(dir)
            .map_err(directory)?;
        // Where a file system can't lock, nobody finds that this one is not locked.
        let _ = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared);
        let (file, path) = file.keep().map_err(|e| directory(e.error))?;
        (file, Some(Name::new(Place::Path(path))))
    };
    reserve(&file, 0, len, BackingKind::File)?;
    Ok(Store {
        kind: BackingKind::File,
        pages: Pages::Ordinary,
        file,
        name,
        #[cfg(not(target_os = "linux"))]
        _mark: None,
    })
}

/// Changes the length of memory that only this process knows: what is new is zeroed and reserved as at creation, what
/// is behind the end goes back to the system. After an error nothing has changed.
pub(crate) fn resize(store: &mut Store, mapping: &mut Mapping, len: usize) -> Result<(), CreateError> {
    let failed = |step, source| failed(step, len, store.kind, source);
    let new = store.whole_pages(len.max(1)).map_err(|e| failed("measure", e))?;
    let old = mapping.len();
    // Shared memory has one size on macOS.
    if store.kind == BackingKind::Named && !cfg!(target_os = "linux") {
        return replace(store, mapping, new);
    }
    if new > old {
        space::admit_growth((store.kind, store.pages), &store.file, old, new)?;
        match store.kind {
            BackingKind::Anonymous if store.pages == Pages::Reserved => {
                reserve(&store.file, old, new, store.kind)?;
            }
            BackingKind::Anonymous => {
                store.file.set_len(new as u64).map_err(|e| failed("size", e))?;
            }
            BackingKind::Named | BackingKind::File => {
                let reserved = reserve(&store.file, old, new, store.kind);
                if let Err(error) = reserved {
                    // What was reserved of it is no use.
                    drop(store.file.set_len(old as u64));
                    return Err(error);
                }
            }
        }
    }
    // Moving the mapping keeps its pages; where the system can't, they are mapped again on touch.
    if mapping.remap(new).is_err() {
        *mapping = store.map(new, Access::ReadWrite).map_err(|e| failed("map", e))?;
    }
    if store.pages == Pages::Transparent {
        drop(mapping.advise_huge_pages());
    }
    if new < old {
        store.file.set_len(new as u64).map_err(|e| failed("size", e))?;
    }
    Ok(())
}

/// Bytes of the machine's memory.
#[cfg(not(target_os = "linux"))]
pub(super) fn memory() -> Option<u64> {
    // SAFETY: it has no preconditions.
    let pages = unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) };
    u64::try_from(pages)
        .ok()?
        .checked_mul(rustix::param::page_size() as u64)
}

/// Copies named memory to another of `len` bytes, which takes its place.
fn replace(store: &mut Store, mapping: &mut Mapping, len: usize) -> Result<(), CreateError> {
    let (new_store, mut new_mapping) = super::create(&Backing::Named, len, None)?;
    let kept = mapping.len().min(new_mapping.len());
    // SAFETY: it is mapped for writing by `create`, and nobody else knows it yet.
    let target = unsafe { new_mapping.bytes_mut() };
    // SAFETY: its owner, who lends it exclusively, has handed no locator out.
    let source = unsafe { mapping.bytes() };
    target[..kept].copy_from_slice(&source[..kept]);
    *mapping = new_mapping;
    *store = new_store;
    Ok(())
}

impl Store {
    pub(crate) fn kind(&self) -> BackingKind {
        self.kind
    }

    pub(crate) fn pages(&self) -> Pages {
        self.pages
    }

    /// Maps `len` bytes, or the whole pages that hold them.
    pub(crate) fn map(&self, len: usize, access: Access) -> io::Result<Mapping> {
        map(&self.file, self.whole_pages(len)?, access)
    }

    /// Files on reserved huge pages are sized and mapped by whole pages.
    fn whole_pages(&self, len: usize) -> io::Result<usize> {
        match self.pages {
            Pages::Reserved => whole_blocks(&rustix::fs::fstat(&self.file)?, len),
            Pages::Ordinary | Pages::Transparent => Ok(len),
        }
    }

    /// Writes as to a file, which saves the faults of touching the memory first. Not for huge pages: those of the reserve
    /// can't be written so, the transparent ones are made by faults.
    pub(crate) fn write_at(&self, bytes: &[u8], offset: usize) -> io::Result<()> {
        match self.pages {
            Pages::Ordinary if cfg!(target_os = "linux") => self.file.write_all_at(bytes, offset as u64),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Forbids, where the system can, every later write, and for memory that stays writable every change of
    /// size. All writable mappings must be gone for [`Access::ReadOnly`].
    pub(crate) fn seal(&self, access: Access) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if self.kind == BackingKind::Anonymous {
            use rustix::fs::SealFlags;
            let mut seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
            if access == Access::ReadOnly {
                seals |= SealFlags::WRITE;
            }
            rustix::fs::fcntl_add_seals(&self.file, seals)?;
        }
        let _ = access;
        Ok(())
    }

    pub(crate) fn locator(&self) -> io::Result<Locator> {
        match self.name.as_ref().map(|name| &name.place) {
            Some(Place::Shm(name)) => Ok(Locator::Name(name.clone())),
            Some(Place::Path(path)) => Ok(Locator::Path(path.clone())),
            None => {
                let stat = rustix::fs::fstat(&self.file)?;
                Ok(Locator::Descriptor {
                    pid: std::process::id(),
                    fd: self.file.as_raw_fd(),
                    device: stat.st_dev as u64,
                    inode: stat.st_ino as u64,
                    kind: self.kind,
                })
            }
        }
    }
}

fn whole_blocks(stat: &rustix::fs::Stat, len: usize) -> io::Result<usize> {
    let block = usize::try_from(stat.st_blksize).unwrap_or(1).max(1);
    len.checked_next_multiple_of(block)
        .ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

fn map(file: impl AsFd, len: usize, access: Access) -> io::Result<Mapping> {
    let fd = file.as_fd().as_raw_fd();
    let mut options = MmapOptions::new();
    let options = options.len(len.max(1));
    let mmap: MmapRaw = match access {
        Access::ReadOnly => options.map_raw_read_only(fd)?,
        Access::ReadWrite => options.map_raw(fd)?,
    };
    Ok(Mapping::from_mmap(mmap))
}

/// Maps what `locator` leads to, after checking that it still is what the locator was made for and is at least
/// `len` bytes, so that no access can fail. Anonymous memory must be sealed, or its owner could cut it off under
/// a reader, for whom that is SIGBUS.
pub(super) fn attach(locator: &Locator, len: usize, access: Access) -> Result<Mapping, AttachError> {
    let what = || locator.to_string();
    let unreachable = |source: io::Error| AttachError::Unreachable { what: what(), source };
    // NONBLOCK: a descriptor that was used again may be a pipe.
    let flags = OFlags::CLOEXEC
        | OFlags::NONBLOCK
        | if access == Access::ReadOnly {
            OFlags::RDONLY
        } else {
            OFlags::RDWR
        };
    let fd: Arc<OwnedFd> = match locator {
        Locator::Descriptor {
            pid,
            fd,
            device,
            inode,
            ..
        } => match adopted((*device, *inode)) {
            Some(fd) => fd,
            None => {
                let fd = rustix::fs::open(format!("/proc/{pid}/fd/{fd}"), flags, Mode::empty());
                Arc::new(fd.map_err(|e| unreachable(e.into()))?)
            }
        },
        Locator::Name(name) => Arc::new(named::open(name, access).map_err(unreachable)?),
        Locator::Path(path) | Locator::File { path, .. } => {
            let fd = rustix::fs::open(path, flags, Mode::empty());
            Arc::new(fd.map_err(|e| unreachable(e.into()))?)
        }
    };
    let fd = fd.as_fd();
    let stat = rustix::fs::fstat(fd).map_err(|e| unreachable(e.into()))?;
    let same = match locator {
        Locator::Descriptor { device, inode, .. } => {
            stat.st_dev as u64 == *device && stat.st_ino as u64 == *inode
        }
        Locator::Name(_) | Locator::Path(_) => true,
        // Only ever mapped read-only, by `file_image`.
        Locator::File { .. } => false,
    };
    let regular = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
    // POSIX shared memory is no regular file on every system.
    let mappable = regular || matches!(locator, Locator::Name(_));
    if !same || !mappable || u64::try_from(stat.st_size).is_ok_and(|size| size < len as u64) {
        return Err(AttachError::Replaced { what: what() });
    }
    let map_failed = |source| space::map_failed(what(), len, source);
    #[cfg(target_os = "linux")]
    let whole = match locator {
        Locator::Descriptor {
            kind: BackingKind::Anonymous,
            ..
        } => {
            if !is_sealed(fd, access) {
                return Err(AttachError::Unsealed { what: what() });
            }
            match rustix::fs::fstatfs(fd) {
                Ok(fs) if fs.f_type == HUGETLBFS => whole_blocks(&stat, len).map_err(map_failed)?,
                _ => len,
            }
        }
        _ => len,
    };
    #[cfg(not(target_os = "linux"))]
    let whole = len;
    map(fd, whole, access).map_err(map_failed)
}

/// `HUGETLBFS_MAGIC` of linux/magic.h.
#[cfg(target_os = "linux")]
const HUGETLBFS: rustix::fs::FsWord = 0x9584_58f6;

/// Whether nobody can shrink the memory any more nor, if it is for reading, write it. Seals are never taken off.
#[cfg(target_os = "linux")]
fn is_sealed(file: impl AsFd, access: Access) -> bool {
    use rustix::fs::SealFlags;

    let needed = match access {
        Access::ReadOnly => SealFlags::SHRINK | SealFlags::WRITE,
        Access::ReadWrite => SealFlags::SHRINK,
    };
    rustix::fs::fcntl_get_seals(file).is_ok_and(|seals| seals.contains(needed))
}

/// Has the system make the pages of `bytes` at once instead of one by one when each is touched. Only a hint.
#[cfg(feature = "zstd")]
pub(crate) fn populate(bytes: &mut [u8]) {
    #[cfg(target_os = "linux")]
    {
        let page = rustix::param::page_size();
        let start = bytes.as_ptr().align_offset(page);
        let Some(inner) = bytes.get_mut(start..) else {
            return;
        };
        let len = inner.len() / page * page;
        let advice = rustix::mm::Advice::LinuxPopulateWrite;
        // SAFETY: the range is whole mapped pages inside an exclusively borrowed slice, and making them changes
        // nothing in them. Where it fails (kernels before 5.14), touching them does the same.
        let _ = unsafe { rustix::mm::madvise(inner.as_mut_ptr().cast(), len, advice) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = bytes;
}

/// Gives the whole pages inside `bytes` back to the system; they read as zeros (or as anything) afterwards.
pub(crate) fn release_pages(bytes: &mut [u8]) {
    let page = rustix::param::page_size();
    let start = bytes.as_ptr().align_offset(page);
    let Some(inner) = bytes.get_mut(start..) else {
        return;
    };
    let len = inner.len() / page * page;
    if len == 0 {
        return;
    }
    // Elsewhere DONTNEED keeps what is in the pages, and so has to write them somewhere.
    let advice = match cfg!(target_os = "linux") {
        true => libc::MADV_DONTNEED,
        false => libc::MADV_FREE,
    };
    // SAFETY: the range is whole pages inside an exclusively borrowed slice, so nobody else has a reference into
    // it. Either advice leaves it mapped, with zeros or older contents: any bytes are valid u8. It fails, with no
    // effect, on memory that can't be released (locked pages), which is why the result doesn't matter.
    let _ = unsafe { libc::madvise(inner.as_mut_ptr().cast(), len, advice) };
}
