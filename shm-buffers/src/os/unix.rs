//! Unix: memfd (Linux), POSIX shared memory, files.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, Mode, OFlags};
use shared_memory::ShmemConf;

use super::{Access, Locator, Mapping};
use crate::backing::{Backing, BackingKind};
use crate::error::{AttachError, CreateError};

/// Keeps memory in existence and findable.
#[derive(Debug)]
pub(crate) struct Store {
    kind: BackingKind,
    file: File,
    /// Removed from its name space when this is dropped.
    name: Option<Name>,
}

#[derive(Debug)]
enum Name {
    Shm(String),
    #[cfg_attr(
        target_os = "linux",
        allow(dead_code, reason = "Linux finds unlinked files by descriptor")
    )]
    Path(PathBuf),
}

impl Drop for Name {
    fn drop(&mut self) {
        // Somebody may have removed it already, which is as good.
        match self {
            Self::Shm(name) => drop(rustix::shm::unlink(&**name)),
            Self::Path(path) => drop(std::fs::remove_file(path)),
        }
    }
}

pub(super) fn create(backing: &Backing, len: usize) -> Result<(Store, Mapping), CreateError> {
    let store = match backing {
        Backing::Anonymous => anonymous(len)?,
        Backing::Named => named(len)?,
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
    Ok(Store {
        kind,
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

const NAME_PREFIX: &str = "shm-buffers-";

fn named(len: usize) -> Result<Store, CreateError> {
    let kind = BackingKind::Named;
    sweep();
    let name = format!(
        "/{NAME_PREFIX}{:016x}",
        random().map_err(|e| failed("name", len, kind, e))?
    );
    let shmem = ShmemConf::new()
        .os_id(&name)
        .size(len)
        .create()
        .map_err(|e| failed("create", len, kind, io::Error::other(e)))?;
    // From here on the name is ours to remove: `Shmem` keeps a writable mapping for as long as it lives, and
    // that must end when the segment is frozen.
    let fd = open_shm(&name, Access::ReadWrite).map_err(|e| failed("open", len, kind, e))?;
    let mut shmem = shmem;
    let name = Name::Shm(name);
    shmem.set_owner(false);
    drop(shmem);
    let file = File::from(fd);
    // Held by the owner alone: who gets it exclusively has found a dead owner's segment. See `sweep`.
    #[cfg(target_os = "linux")]
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared)
        .map_err(|e| failed("lock", len, kind, e.into()))?;
    reserve(&file, len, kind, Path::new("/dev/shm"))?;
    Ok(Store {
        kind,
        file,
        name: Some(name),
    })
}

fn open_shm(name: &str, access: Access) -> io::Result<OwnedFd> {
    let flags = match access {
        Access::ReadOnly => rustix::shm::OFlags::RDONLY,
        Access::ReadWrite => rustix::shm::OFlags::RDWR,
    };
    Ok(rustix::shm::open(name, flags, Mode::empty())?)
}

/// Removes named segments whose owner died without a chance to do so. A living owner's lock protects its own;
/// what is younger than a minute may not have been locked yet and is left alone.
#[cfg(target_os = "linux")]
fn sweep() {
    let Ok(entries) = std::fs::read_dir("/dev/shm") else {
        return;
    };
    for entry in entries.flatten() {
        let ours = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(NAME_PREFIX));
        let old = entry
            .metadata()
            .and_then(|m| m.modified())
            .is_ok_and(|time| time.elapsed().is_ok_and(|age| age.as_secs() > 60));
        if !(ours && old) {
            continue;
        }
        let Ok(file) = File::open(entry.path()) else {
            continue;
        };
        let orphaned = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok();
        if orphaned {
            drop(std::fs::remove_file(entry.path()));
        }
    }
}

/// POSIX shared memory can't be listed here.
#[cfg(not(target_os = "linux"))]
fn sweep() {}

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
        let file = tempfile::Builder::new()
            .prefix(NAME_PREFIX)
            .tempfile_in(dir)
            .map_err(directory)?;
        let (file, path) = file.keep().map_err(|e| directory(e.error))?;
        (file, Some(Name::Path(path)))
    };
    reserve(&file, len, BackingKind::File, dir)?;
    Ok(Store {
        kind: BackingKind::File,
        file,
        name,
    })
}

/// Makes sure that touching the file's pages can't fail later.
fn reserve(file: &File, len: usize, kind: BackingKind, place: &Path) -> Result<(), CreateError> {
    let size = len as u64;
    file.set_len(size).map_err(|e| failed("size", len, kind, e))?;
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    let reserved = rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size);
    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    let reserved = Err(rustix::io::Errno::OPNOTSUPP);
    match reserved {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => {
            let stat = rustix::fs::statvfs(place);
            let available = stat.map_or(0, |s| s.f_bavail.saturating_mul(s.f_frsize));
            let hint = "free some, or choose another backing";
            Err(CreateError::NoSpace {
                needed: size,
                available,
                backing: kind,
                hint,
            })
        }
        // File systems that can't (network ones mostly): written zeros are reserved space.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) if kind == BackingKind::File => {
            let zeros = vec![0; 1 << 20];
            let mut left = len;
            let mut target = file;
            while left > 0 {
                let n = left.min(zeros.len());
                target
                    .write_all(&zeros[..n])
                    .map_err(|e| failed("reserve", len, kind, e))?;
                left -= n;
            }
            Ok(())
        }
        // Shared memory outside Linux: nothing to reserve with.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::INVAL) if cfg!(not(target_os = "linux")) => {
            Ok(())
        }
        Err(e) => Err(failed("reserve", len, kind, e.into())),
    }
}

fn random() -> io::Result<u64> {
    getrandom::u64().map_err(io::Error::other)
}

impl Store {
    pub(crate) fn kind(&self) -> BackingKind {
        self.kind
    }

    pub(crate) fn map(&self, len: usize, access: Access) -> io::Result<Mapping> {
        map(&self.file, len, access)
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
        match &self.name {
            Some(Name::Shm(name)) => Ok(Locator::Name(name.clone())),
            Some(Name::Path(path)) => Ok(Locator::Path(path.clone())),
            None => {
                let stat = rustix::fs::fstat(&self.file)?;
                Ok(Locator::Descriptor {
                    pid: std::process::id(),
                    fd: self.file.as_raw_fd(),
                    device: stat.st_dev as u64,
                    inode: stat.st_ino as u64,
                })
            }
        }
    }
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
/// `len` bytes, so that no access can fail.
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
    let fd: OwnedFd = match locator {
        Locator::Descriptor { pid, fd, .. } => {
            rustix::fs::open(format!("/proc/{pid}/fd/{fd}"), flags, Mode::empty())
                .map_err(|e| unreachable(e.into()))?
        }
        Locator::Name(name) => open_shm(name, access).map_err(unreachable)?,
        Locator::Path(path) | Locator::File { path, .. } => {
            rustix::fs::open(path, flags, Mode::empty()).map_err(|e| unreachable(e.into()))?
        }
    };
    let stat = rustix::fs::fstat(&fd).map_err(|e| unreachable(e.into()))?;
    let same = match locator {
        Locator::Descriptor { device, inode, .. } => {
            stat.st_dev as u64 == *device && stat.st_ino as u64 == *inode
        }
        Locator::Name(_) | Locator::Path(_) => true,
        // Only ever mapped read-only, by `file_image`.
        Locator::File { .. } => false,
    };
    if !same || u64::try_from(stat.st_size).is_ok_and(|size| size < len as u64) {
        return Err(AttachError::Replaced { what: what() });
    }
    map(fd, len, access).map_err(|source| AttachError::Map {
        what: what(),
        len,
        source,
    })
}

#[cfg(target_os = "linux")]
const RELEASE: rustix::mm::Advice = rustix::mm::Advice::LinuxDontNeed;
#[cfg(not(target_os = "linux"))]
const RELEASE: rustix::mm::Advice = rustix::mm::Advice::DontNeed;

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
    // SAFETY: the range is whole pages inside an exclusively borrowed slice, so nobody else has a reference into
    // it. DONTNEED leaves it mapped, with zeros or older contents: any bytes are valid u8. It fails, with no
    // effect, on memory that can't be released (locked pages), which is why the result doesn't matter.
    let _ = unsafe { rustix::mm::madvise(inner.as_mut_ptr().cast(), len, RELEASE) };
}
