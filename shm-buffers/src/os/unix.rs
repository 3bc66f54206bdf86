//! Unix: memfd (Linux), POSIX shared memory, files.
#![allow(unsafe_code, reason = "returns pages of exclusive memory to the system")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
#[cfg(target_os = "linux")]
use std::time::{Duration, Instant};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{Mode, OFlags};

use super::descriptors::adopted;
use super::{Access, Locator, Mapping, MoveSource, space};
use crate::backing::{Backing, BackingKind, Pages};
use crate::error::{AttachError, CreateError};

mod file;
#[cfg(target_os = "linux")]
mod huge;
#[cfg(any(feature = "named", not(target_os = "linux")))]
mod named;
#[cfg(all(not(feature = "named"), target_os = "linux"))]
use unnamed as named;
mod owned_name;
mod reserve;
#[cfg(all(not(feature = "named"), target_os = "linux"))]
mod unnamed;

use self::owned_name::{Name, OwnedName};
use self::reserve::reserve;

/// Keeps memory in existence, under its name if it has one.
#[derive(Debug)]
pub(crate) struct Store {
    kind: BackingKind,
    pages: Pages,
    file: File,
    /// Removed when this is dropped.
    name: Option<OwnedName>,
    /// Released after the name is removed.
    #[cfg(not(target_os = "linux"))]
    _lock: Option<super::sweep::OwnerLock>,
}

pub(super) fn create(
    backing: &Backing,
    len: usize,
    source: Option<&mut MoveSource<'_>>,
) -> Result<(Store, Mapping), CreateError> {
    #[cfg(not(target_os = "linux"))]
    let _ = source;
    let store = match backing {
        Backing::Anonymous => anonymous(len)?,
        #[cfg(target_os = "linux")]
        Backing::HugePages => return huge::create(len, source),
        #[cfg(not(target_os = "linux"))]
        Backing::HugePages => anonymous(len)?,
        Backing::Named => named::create(len)?,
        Backing::File(dir) => file::create(dir, len)?,
        Backing::Auto => {
            return Err(CreateError::Unsupported {
                backing: BackingKind::Anonymous,
            });
        }
    };
    let mapping = store
        .map(len, Access::ReadWrite)
        .map_err(|e| CreateError::os("map", len, store.kind, e))?;
    Ok((store, mapping))
}

#[cfg(target_os = "linux")]
fn anonymous(len: usize) -> Result<Store, CreateError> {
    use rustix::fs::{MemfdFlags, memfd_create};

    let kind = BackingKind::Anonymous;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 don't have NOEXEC_SEAL.
    let fd = memfd_create("shm-buffers", flags | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| memfd_create("shm-buffers", flags))
        .map_err(|e| CreateError::os("create", len, kind, e.into()))?;
    let file = File::from(fd);
    // The pages are not reserved: a memfd has no size limit of its own, so the first touch can only fail as any allocation
    // does. Admission has checked those limits.
    file.set_len(len as u64)
        .map_err(|e| CreateError::os("size", len, kind, e))?;
    // Other processes open the owner's descriptor through `/proc`, which checks the file's mode.
    rustix::fs::fchmod(&file, Mode::RUSR | Mode::WUSR)
        .map_err(|e| CreateError::os("protect", len, kind, e.into()))?;
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

/// Changes the length of memory that only this process can access. New bytes are zeroed and reserved as in [`create`], and
/// removed bytes are released to the system. After an error nothing has changed.
pub(crate) fn resize(store: &mut Store, mapping: &mut Mapping, len: usize) -> Result<(), CreateError> {
    let failed = |step, source| CreateError::os(step, len, store.kind, source);
    let new = store.whole_pages(len.max(1)).map_err(|e| failed("measure", e))?;
    let old = mapping.len();
    // On macOS, the size of shared memory is final.
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
                    // Releases the space that was reserved before the error.
                    drop(store.file.set_len(old as u64));
                    return Err(error);
                }
            }
        }
    }
    // Moving the mapping keeps its page table entries. A new mapping faults once for each page.
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

/// Returns the bytes of the machine's memory.
#[cfg(not(target_os = "linux"))]
pub(crate) fn machine_memory() -> Option<u64> {
    // SAFETY: sysconf has no preconditions.
    let pages = unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) };
    u64::try_from(pages)
        .ok()?
        .checked_mul(rustix::param::page_size() as u64)
}

/// Replaces named memory by a copy of `len` bytes.
fn replace(store: &mut Store, mapping: &mut Mapping, len: usize) -> Result<(), CreateError> {
    let (new_store, mut new_mapping) = super::create(&Backing::Named, len, None)?;
    let kept = mapping.len().min(new_mapping.len());
    // SAFETY: `create` maps for writing, and no other code has the memory or its locator yet.
    let target = unsafe { new_mapping.bytes_mut() };
    // SAFETY: the caller has exclusive access to the mapping, and has returned no locator of the memory.
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

    /// Maps `len` bytes, or the whole pages that contain them.
    pub(crate) fn map(&self, len: usize, access: Access) -> io::Result<Mapping> {
        map(&self.file, self.whole_pages(len)?, access)
    }

    /// Returns `len`, rounded up to whole pages for a file on reserved huge pages: it is sized and mapped by pages.
    fn whole_pages(&self, len: usize) -> io::Result<usize> {
        match self.pages {
            Pages::Reserved => whole_blocks(&rustix::fs::fstat(&self.file)?, len),
            Pages::Ordinary | Pages::Transparent => Ok(len),
        }
    }

    /// Returns the file of the memory.
    #[cfg(target_os = "linux")]
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Writes through the file, which avoids the faults of touching the memory. Not supported for huge pages: reserved ones
    /// can't be written like that, and transparent ones are only created by faults.
    pub(crate) fn write_at(&self, bytes: &[u8], offset: usize) -> io::Result<()> {
        match self.pages {
            Pages::Ordinary if cfg!(target_os = "linux") => self.file.write_all_at(bytes, offset as u64),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Seals the memory, where the system supports that: for [`Access::ReadOnly`] against all writes, otherwise against changes
    /// of its size. All writable mappings must be dropped before the former.
    pub(crate) fn seal(&self, access: Access) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if self.kind == BackingKind::Anonymous {
            use rustix::fs::SealFlags;
            let mut seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
            if access == Access::ReadOnly {
                seals |= SealFlags::WRITE;
            }
            add_seals(&self.file, seals)?;
        }
        let _ = access;
        Ok(())
    }

    pub(crate) fn locator(&self) -> io::Result<Locator> {
        match self.name.as_ref().map(|owned| &owned.name) {
            Some(Name::Shm(name)) => Ok(Locator::Name(name.clone())),
            Some(Name::Path(path)) => Ok(Locator::Path(path.clone())),
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

/// Adds seals. Sealing against writes fails as long as a process maps the memory for writing: that of a child that another thread
/// has forked stays until the child executes a program or ends, which is usually soon. The kernel also needs a moment if it has
/// pinned a page.
#[cfg(target_os = "linux")]
fn add_seals(file: &File, seals: rustix::fs::SealFlags) -> io::Result<()> {
    const PATIENCE: Duration = Duration::from_secs(2);
    const LONGEST_PAUSE: Duration = Duration::from_millis(20);

    let (start, mut pause) = (Instant::now(), Duration::from_micros(100));
    loop {
        match rustix::fs::fcntl_add_seals(file, seals) {
            Err(rustix::io::Errno::BUSY) if start.elapsed() < PATIENCE => std::thread::sleep(pause),
            sealed => return Ok(sealed?),
        }
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}

/// Rounds `len` up to whole blocks of a file.
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
        Access::CopyOnWrite => super::mapping::copy_on_write(options, fd)?,
    };
    Ok(Mapping::from_mmap(mmap))
}

/// Maps the memory of a locator. Checks before that it still is the memory that the locator was made for and has at least
/// `len` bytes, so that no access can fail. Anonymous memory must be sealed: otherwise its owner could truncate it, and a
/// reader would get SIGBUS.
///
/// Returns the descriptor that it was mapped by as well.
pub(super) fn attach(
    locator: &Locator,
    len: usize,
    access: Access,
) -> Result<(Mapping, Arc<OwnedFd>), AttachError> {
    let what = || locator.to_string();
    let unreachable = |source: io::Error| AttachError::Unreachable { what: what(), source };
    // NONBLOCK: the descriptor may have been reused for a pipe.
    let flags = OFlags::CLOEXEC
        | OFlags::NONBLOCK
        | match access {
            Access::ReadOnly | Access::CopyOnWrite => OFlags::RDONLY,
            Access::ReadWrite => OFlags::RDWR,
        };
    let descriptor: Arc<OwnedFd> = match locator {
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
    let fd = descriptor.as_fd();
    let stat = rustix::fs::fstat(fd).map_err(|e| unreachable(e.into()))?;
    let same = match locator {
        Locator::Descriptor { device, inode, .. } => {
            stat.st_dev as u64 == *device && stat.st_ino as u64 == *inode
        }
        Locator::Name(_) | Locator::Path(_) => true,
        // `regular_file` maps these, read-only.
        Locator::File { .. } => false,
    };
    let regular = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
    // POSIX shared memory is not a regular file on every system.
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
    let mapping = map(fd, whole, access).map_err(map_failed)?;
    Ok((mapping, descriptor))
}

/// `HUGETLBFS_MAGIC` of linux/magic.h.
#[cfg(target_os = "linux")]
const HUGETLBFS: rustix::fs::FsWord = 0x9584_58f6;

/// Returns whether the memory is sealed against shrinking and, for reading, against writes. Seals are permanent.
#[cfg(target_os = "linux")]
fn is_sealed(file: impl AsFd, access: Access) -> bool {
    use rustix::fs::SealFlags;

    let needed = match access {
        Access::ReadOnly | Access::CopyOnWrite => SealFlags::SHRINK | SealFlags::WRITE,
        Access::ReadWrite => SealFlags::SHRINK,
    };
    rustix::fs::fcntl_get_seals(file).is_ok_and(|seals| seals.contains(needed))
}

/// Asks the system to allocate all pages of `bytes` in one call instead of one page at each first touch. Only a hint.
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
        // SAFETY: the range is whole mapped pages inside an exclusively borrowed slice, and allocating them does not
        // change their contents. Where it fails (kernels before 5.14), touching them has the same effect.
        let _ = unsafe { rustix::mm::madvise(inner.as_mut_ptr().cast(), len, advice) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = bytes;
}

/// Releases the whole pages inside `bytes` to the system. Their contents are unspecified afterwards.
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
    // On other systems, DONTNEED preserves the contents of the pages, and so has to write them to swap.
    let advice = match cfg!(target_os = "linux") {
        true => libc::MADV_DONTNEED,
        false => libc::MADV_FREE,
    };
    // SAFETY: the range is whole pages inside an exclusively borrowed slice, so no other reference into it exists.
    // Both advices leave it mapped, with zeros or older contents: any bytes are valid u8. The result does not matter:
    // on memory that can't be released (locked pages), the call fails without effect.
    let _ = unsafe { libc::madvise(inner.as_mut_ptr().cast(), len, advice) };
}
