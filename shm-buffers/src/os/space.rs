//! Admission: whether so much memory can be had at all, asked before any of it is touched.
//!
//! Linux lets memory be promised that is not there: the first touch then ends in SIGBUS (a full tmpfs) or an OOM
//! kill (a cgroup limit), and a size beyond the limit on files in SIGXFSZ. So the numbers are looked at first. Windows
//! refuses by itself what it can't keep, but the numbers make a better error. Where they can't be read, the answer is yes.

#[cfg(unix)]
use std::path::Path;

#[cfg(unix)]
use crate::backing::Pages;
use crate::backing::{Backing, BackingKind};
use crate::error::{AttachError, CreateError};
use crate::limits;
#[cfg(target_os = "linux")]
use crate::limits::{Bound, MachineMemory};
use crate::room::Room;

/// The source of a segment's bytes: memory of this process, some of which comes back to the system on the way.
#[cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "only Linux says what a process may still use")
)]
pub(crate) struct Moved<'a> {
    /// Bytes that are in both places at the same time.
    pub(crate) window: u64,
    /// Counts the bytes that come back; asked only where the whole would not fit.
    pub(crate) comes_back: &'a mut dyn FnMut() -> u64,
}

/// A new anonymous segment of at most this many bytes is admitted unseen: the answer takes a dozen files, and a process
/// without room for it ends at the next page of its stack. (Growth is admitted each time, because small steps add up.)
const LITTLE: usize = 1 << 20;

/// Refuses a new segment of `len` bytes where that much is known to be missing.
pub(super) fn admit_new(
    backing: &Backing,
    len: usize,
    moved: Option<&mut Moved<'_>>,
) -> Result<(), CreateError> {
    if let Some(kind) = backing.kind() {
        admit_size(kind, 0, len)?;
    }
    match *backing == Backing::Anonymous && len <= LITTLE {
        true => Ok(()),
        false => admit(backing, len, moved),
    }
}

/// As [`admit_new`], for memory of which little is touched: anonymous memory, which needs no reservation, only has to be within
/// the limit of file sizes.
pub(super) fn admit_sparse(backing: &Backing, len: usize) -> Result<(), CreateError> {
    match backing {
        Backing::Anonymous => admit_size(BackingKind::Anonymous, 0, len),
        _ => admit_new(backing, len, None),
    }
}

/// Refuses a segment that grows from `old` to `new` bytes.
#[cfg(unix)]
pub(super) fn admit_growth(
    (kind, pages): (BackingKind, Pages),
    file: &std::fs::File,
    old: usize,
    new: usize,
) -> Result<(), CreateError> {
    admit_size(kind, old, new)?;
    #[cfg(target_os = "linux")]
    {
        let in_memory = match kind {
            // Reserved huge pages are no part of the memory that is left.
            BackingKind::Anonymous => pages != Pages::Reserved,
            BackingKind::Named => true,
            BackingKind::File => rustix::fs::fstatfs(file).is_ok_and(|stat| is_memory(&stat)),
        };
        if in_memory {
            let (needed, left, hint) = memory(new - old, None);
            return compare(kind, needed, left, hint);
        }
    }
    let _ = (file, pages);
    Ok(())
}

/// Refuses a write of `len` bytes to the empty `file` where the system would kill the process for it.
pub(crate) fn admit_write(file: &std::fs::File, len: usize) -> std::io::Result<()> {
    limits::FileSizeError::check(len as u64)?;
    #[cfg(target_os = "linux")]
    if rustix::fs::fstatfs(file).is_ok_and(|stat| is_memory(&stat)) {
        let (needed, left, hint) = memory(len, None);
        return compare(BackingKind::File, needed, left, hint)
            .map_err(|e| std::io::Error::new(std::io::ErrorKind::StorageFull, e));
    }
    let _ = file;
    Ok(())
}

/// Refuses `new` bytes of a file that has `old` by the limits of this process.
fn admit_size(kind: BackingKind, old: usize, new: usize) -> Result<(), CreateError> {
    const FILE: &str = match cfg!(target_os = "linux") {
        true => {
            "raise the limit on file sizes (RLIMIT_FSIZE, `ulimit -f`), which holds for shared memory, too"
        }
        false => "raise the limit on file sizes (RLIMIT_FSIZE, `ulimit -f`)",
    };
    if cfg!(target_os = "linux") || kind == BackingKind::File {
        compare(kind, new as u64, limits::file_size(), FILE)?;
    }
    let left = limits::address_space().map(|space| space.left);
    compare(kind, new.saturating_sub(old) as u64, left, ADDRESS_SPACE)
}

/// A mapping of `len` bytes that failed: the limit on address space, if it leaves less.
pub(super) fn map_failed(what: String, len: usize, source: std::io::Error) -> AttachError {
    match limits::address_space() {
        Some(space) if space.left < len as u64 => AttachError::AddressSpace {
            what,
            needed: len as u64,
            available: space.left,
            hint: ADDRESS_SPACE,
            source,
        },
        _ => AttachError::Map { what, len, source },
    }
}

const ADDRESS_SPACE: &str = "raise the limit on address space (RLIMIT_AS, `ulimit -v`)";

/// The remedy for a disk that is too small.
const DISK: &str = "free disk space, or choose another directory";

/// Refuses `needed` bytes where fewer are known to be available.
fn compare(
    backing: BackingKind,
    needed: u64,
    available: Option<u64>,
    hint: &'static str,
) -> Result<(), CreateError> {
    match available {
        Some(available) if available < needed => Err(CreateError::NoSpace {
            needed,
            available,
            backing,
            hint,
        }),
        _ => Ok(()),
    }
}

#[cfg(unix)]
fn disk_available(dir: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// What of the memory is free says little where pages are compressed and swapped out to make room (macOS). Shared memory
/// beyond all of it is none.
#[cfg(not(any(target_os = "linux", windows)))]
fn admit(backing: &Backing, len: usize, _: Option<&mut Moved<'_>>) -> Result<(), CreateError> {
    const MEMORY: &str = "that is all the memory there is; use `Backing::File` on a disk with room";
    let needed = len as u64;
    match backing {
        Backing::Named => compare(BackingKind::Named, needed, super::unix::memory(), MEMORY),
        Backing::File(dir) => compare(BackingKind::File, needed, disk_available(dir), DISK),
        Backing::Anonymous | Backing::HugePages | Backing::Auto => Ok(()),
    }
}

#[cfg(windows)]
fn admit(backing: &Backing, len: usize, _: Option<&mut Moved<'_>>) -> Result<(), CreateError> {
    use super::windows;

    const MEMORY: &str = "free memory, enlarge the paging file, or use `Backing::File` on a disk with room";
    let (backing, available, hint) = match backing {
        Backing::Named => (
            BackingKind::Named,
            windows::memory().map(|(_, left)| left),
            MEMORY,
        ),
        Backing::File(dir) => (BackingKind::File, windows::disk_available(dir), DISK),
        Backing::Anonymous | Backing::HugePages | Backing::Auto => return Ok(()),
    };
    compare(backing, len as u64, available, hint)
}

#[cfg(target_os = "linux")]
pub(super) fn admit(backing: &Backing, len: usize, moved: Option<&mut Moved<'_>>) -> Result<(), CreateError> {
    const SHM: &str = "enlarge /dev/shm, or use `Backing::Anonymous` or `Backing::File`";
    let (kind, disk, hint) = match backing {
        Backing::Anonymous => (BackingKind::Anonymous, None, ""),
        Backing::Named => (BackingKind::Named, disk_available(Path::new("/dev/shm")), SHM),
        Backing::File(dir) => (BackingKind::File, disk_available(dir), DISK),
        // Huge pages that were reserved are in none of these numbers: it asks again where there are none.
        Backing::HugePages | Backing::Auto => return Ok(()),
    };
    compare(kind, len as u64, disk, hint)?;
    let in_memory = match backing {
        Backing::File(dir) => rustix::fs::statfs(dir).is_ok_and(|stat| is_memory(&stat)),
        _ => true,
    };
    if !in_memory {
        return Ok(());
    }
    // Named memory and files are reserved as a whole before the first byte is moved.
    let (needed, left, hint) = memory(len, moved.filter(|_| kind == BackingKind::Anonymous));
    compare(kind, needed, left, hint)
}

/// Bytes of memory that `len` bytes of a segment need, bytes that are left for them, and what helps where those are fewer.
#[cfg(target_os = "linux")]
fn memory(len: usize, moved: Option<&mut Moved<'_>>) -> (u64, Option<u64>, &'static str) {
    let memory = MachineMemory::now();
    let remedy = |bound| match bound {
        Bound::Machine => "free memory, or use `Backing::File` on a disk with room",
        Bound::Cgroup => {
            "free memory, raise the container's limit, or use `Backing::File` on a disk with room"
        }
        Bound::Commit => {
            "free memory, allow the system to promise more (vm.overcommit_memory), or use `Backing::File` on a disk with room"
        }
    };
    let left = |released| match memory.left(released) {
        Some((left, bound)) => (Some(left.saturating_sub(besides(len))), remedy(bound)),
        None => (None, ""),
    };
    let needed = len as u64;
    let (available, hint) = left(0);
    match moved {
        Some(moved) if available.is_some_and(|available| available < needed) => {
            // The pages at the seams of windows come back only with the whole.
            let released = (moved.comes_back)();
            let released = released.saturating_sub(released / 256).min(needed);
            let (available, hint) = left(released);
            // On top of the source comes all that it does not give back.
            let on_top = (needed - released).saturating_add(moved.window.min(needed));
            (
                on_top,
                available.map(|bytes| bytes.saturating_sub(released)),
                hint,
            )
        }
        _ => (needed, available, hint),
    }
}

/// What `len` bytes take besides: an entry of 8 bytes in a page table for each page, in the mapping that fills them and
/// in the one that reads them; and the process itself goes on. Without it, what just fits is killed.
#[cfg(target_os = "linux")]
fn besides(len: usize) -> u64 {
    const LIVING: u64 = 2 << 20;
    len as u64 / 256 + LIVING
}

/// Whether a file system keeps its files in memory (linux/magic.h).
#[cfg(target_os = "linux")]
fn is_memory(stat: &rustix::fs::StatFs) -> bool {
    const TMPFS: rustix::fs::FsWord = 0x0102_1994;
    const RAMFS: rustix::fs::FsWord = 0x8584_58f6;
    [TMPFS, RAMFS].contains(&stat.f_type)
}

#[cfg(target_os = "linux")]
pub(crate) fn room() -> Room {
    let memory = MachineMemory::now();
    let shm = rustix::fs::statvfs("/dev/shm").ok();
    let shm = shm.map(|stat| [stat.f_blocks, stat.f_bavail].map(|n| n.saturating_mul(stat.f_frsize)));
    Room {
        memory: memory.total,
        available: memory.left(0).map(|(left, _)| left),
        limit: memory.limit(),
        shm: shm.map(|[size, _]| size),
        shm_free: shm.map(|[_, free]| free),
        huge_free: memory.huge_free,
        file_size: limits::file_size(),
        address_space: limits::address_space().map(|space| space.limit),
    }
}

/// Shared memory has no limits of its own here.
#[cfg(windows)]
pub(crate) fn room() -> Room {
    let memory = super::windows::memory();
    Room {
        memory: memory.map(|(all, _)| all),
        available: memory.map(|(_, left)| left),
        ..Room::default()
    }
}

/// Free memory is not asked for, as in admission.
#[cfg(not(any(target_os = "linux", windows)))]
pub(crate) fn room() -> Room {
    Room {
        memory: super::unix::memory(),
        file_size: limits::file_size(),
        ..Room::default()
    }
}
