//! Admission: checks that enough memory is left for a segment before any of it is touched.
//!
//! Linux grants memory that it does not have. The first touch then ends in SIGBUS (a full tmpfs) or an OOM kill (a cgroup
//! limit), and a size beyond the limit on file sizes ends in SIGXFSZ. So the numbers are checked first. Windows refuses
//! memory that it does not have, but the numbers make a better error. If they can't be read, the segment is admitted.

#[cfg(unix)]
use std::path::Path;

#[cfg(unix)]
use crate::backing::Pages;
use crate::backing::{Backing, BackingKind};
use crate::error::{AttachError, CreateError};
use crate::limits;
#[cfg(target_os = "linux")]
use crate::limits::{MachineMemory, MemoryLimit};

/// The source of bytes that are moved into a segment: memory of this process that is released during the move.
#[cfg_attr(
    not(target_os = "linux"),
    expect(
        dead_code,
        reason = "only Linux reports how much memory a process may still use"
    )
)]
pub(crate) struct MoveSource<'a> {
    /// The most bytes that are in both places at the same time.
    pub(crate) window: u64,
    /// Returns the bytes that will be released. Called only if the whole does not fit.
    pub(crate) releasable: &'a mut dyn FnMut() -> u64,
}

/// New anonymous segments of up to this many bytes are admitted without a check: it reads a dozen files, and a process
/// without this much memory ends at the next page of its stack. (Growth is always checked, because small steps add up.)
const UNCHECKED: usize = 1 << 20;

/// Refuses a new segment of `len` bytes if that much is known to be missing.
pub(super) fn admit_new(
    backing: &Backing,
    len: usize,
    source: Option<&mut MoveSource<'_>>,
) -> Result<(), CreateError> {
    if let Some(kind) = backing.kind() {
        admit_size(kind, 0, len)?;
    }
    match *backing == Backing::Anonymous && len <= UNCHECKED {
        true => Ok(()),
        false => admit(backing, len, source),
    }
}

/// Like [`admit_new`], for memory of which only a small part is touched. Anonymous memory, which needs no reservation, only
/// has to be within the limit on file sizes.
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
            // Reserved huge pages are not part of the available memory.
            BackingKind::Anonymous => pages != Pages::Reserved,
            BackingKind::Named => true,
            BackingKind::File => rustix::fs::fstatfs(file).is_ok_and(|stat| is_memory(&stat)),
        };
        if in_memory {
            let (needed, available, hint) = memory(new - old, None);
            return check(kind, needed, available, hint);
        }
    }
    let _ = (file, pages);
    Ok(())
}

/// Refuses a write of `len` bytes to the empty `file` if the system would kill the process for it.
pub(crate) fn admit_write(file: &std::fs::File, len: usize) -> std::io::Result<()> {
    limits::FileSizeError::check(len as u64)?;
    #[cfg(target_os = "linux")]
    if rustix::fs::fstatfs(file).is_ok_and(|stat| is_memory(&stat)) {
        let (needed, available, hint) = memory(len, None);
        return check(BackingKind::File, needed, available, hint)
            .map_err(|e| std::io::Error::new(std::io::ErrorKind::StorageFull, e));
    }
    let _ = file;
    Ok(())
}

/// Refuses `len` more bytes of anonymous memory, whose address space is reserved already.
pub(crate) fn admit_pages(len: usize) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        let (needed, available, hint) = memory(len, None);
        check(BackingKind::Anonymous, needed, available, hint)
            .map_err(|e| std::io::Error::new(std::io::ErrorKind::OutOfMemory, e))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = len;
        Ok(())
    }
}

/// Refuses growth of memory from `old` to `new` bytes if that exceeds a limit of this process.
fn admit_size(kind: BackingKind, old: usize, new: usize) -> Result<(), CreateError> {
    const FILE: &str = match cfg!(target_os = "linux") {
        true => {
            "raise the limit on file sizes (RLIMIT_FSIZE, `ulimit -f`), which applies to shared memory as well"
        }
        false => "raise the limit on file sizes (RLIMIT_FSIZE, `ulimit -f`)",
    };
    if cfg!(target_os = "linux") || kind == BackingKind::File {
        check(kind, new as u64, limits::max_file_size(), FILE)?;
    }
    let remaining = limits::address_space().map(|space| space.remaining);
    check(kind, new.saturating_sub(old) as u64, remaining, ADDRESS_SPACE)
}

/// Returns the error of a failed mapping of `len` bytes, which names the limit on address space if that leaves less.
pub(super) fn map_failed(what: String, len: usize, source: std::io::Error) -> AttachError {
    match limits::address_space() {
        Some(space) if space.remaining < len as u64 => AttachError::AddressSpace {
            what,
            needed: len as u64,
            available: space.remaining,
            hint: ADDRESS_SPACE,
            source,
        },
        _ => AttachError::Map { what, len, source },
    }
}

const ADDRESS_SPACE: &str = "raise the limit on address space (RLIMIT_AS, `ulimit -v`)";

/// The remedy for a disk that is too small.
const DISK: &str = "free disk space, or choose another directory";

/// Refuses `needed` bytes if fewer are known to be available.
fn check(
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

/// The space of a file system, in bytes.
#[cfg(unix)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileSystemSpace {
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "only Linux has a file system for shared memory")
    )]
    pub(crate) total: u64,
    /// Bytes that this user may still write.
    pub(crate) available: u64,
}

/// Returns the space of the file system with the directory `dir`.
#[cfg(unix)]
pub(crate) fn file_system_space(dir: &Path) -> Option<FileSystemSpace> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some(FileSystemSpace {
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
        available: stat.f_bavail.saturating_mul(stat.f_frsize),
    })
}

#[cfg(unix)]
fn disk_available(dir: &Path) -> Option<u64> {
    file_system_space(dir).map(|space| space.available)
}

/// Free memory means little on systems that compress and swap pages to make space (macOS), so shared memory is only refused
/// if it exceeds the machine's memory.
#[cfg(not(any(target_os = "linux", windows)))]
fn admit(backing: &Backing, len: usize, _: Option<&mut MoveSource<'_>>) -> Result<(), CreateError> {
    const MEMORY: &str = "the machine has no more memory; use `Backing::File` on a disk with enough space";
    let needed = len as u64;
    match backing {
        Backing::Named => check(BackingKind::Named, needed, super::machine_memory(), MEMORY),
        Backing::File(dir) => check(BackingKind::File, needed, disk_available(dir), DISK),
        Backing::Anonymous | Backing::HugePages | Backing::Auto => Ok(()),
    }
}

#[cfg(windows)]
fn admit(backing: &Backing, len: usize, _: Option<&mut MoveSource<'_>>) -> Result<(), CreateError> {
    use super::windows;

    const MEMORY: &str =
        "free memory, enlarge the paging file, or use `Backing::File` on a disk with enough space";
    let (backing, available, hint) = match backing {
        Backing::Named => (
            BackingKind::Named,
            windows::machine_memory().map(|(_, available)| available),
            MEMORY,
        ),
        Backing::File(dir) => (BackingKind::File, windows::disk_available(dir), DISK),
        Backing::Anonymous | Backing::HugePages | Backing::Auto => return Ok(()),
    };
    check(backing, len as u64, available, hint)
}

#[cfg(target_os = "linux")]
pub(super) fn admit(
    backing: &Backing,
    len: usize,
    source: Option<&mut MoveSource<'_>>,
) -> Result<(), CreateError> {
    const SHM: &str = "enlarge /dev/shm, or use `Backing::Anonymous` or `Backing::File`";
    let (kind, disk, hint) = match backing {
        Backing::Anonymous => (BackingKind::Anonymous, None, ""),
        Backing::Named => (BackingKind::Named, disk_available(Path::new("/dev/shm")), SHM),
        Backing::File(dir) => (BackingKind::File, disk_available(dir), DISK),
        // Reserved huge pages are not part of these numbers. `huge` checks again if too few are reserved.
        Backing::HugePages | Backing::Auto => return Ok(()),
    };
    check(kind, len as u64, disk, hint)?;
    let in_memory = match backing {
        Backing::File(dir) => rustix::fs::statfs(dir).is_ok_and(|stat| is_memory(&stat)),
        _ => true,
    };
    if !in_memory {
        return Ok(());
    }
    // Named memory and files are reserved as a whole before the first byte is moved.
    let (needed, available, hint) = memory(len, source.filter(|_| kind == BackingKind::Anonymous));
    check(kind, needed, available, hint)
}

/// Returns the bytes of memory that `len` bytes of a segment need, the bytes that are available for them, and the remedy if
/// those are fewer.
#[cfg(target_os = "linux")]
fn memory(len: usize, source: Option<&mut MoveSource<'_>>) -> (u64, Option<u64>, &'static str) {
    let memory = MachineMemory::now();
    let remedy = |limit| match limit {
        MemoryLimit::Machine => "free memory, or use `Backing::File` on a disk with enough space",
        MemoryLimit::Cgroup => {
            "free memory, raise the container's limit, or use `Backing::File` on a disk with enough space"
        }
        MemoryLimit::Commit => {
            "free memory, allow the system to commit more (vm.overcommit_memory), or use `Backing::File` on a disk with enough space"
        }
    };
    let available_after = |released| match memory.available(released) {
        Some((bytes, limit)) => (Some(bytes.saturating_sub(overhead(len))), remedy(limit)),
        None => (None, ""),
    };
    let needed = len as u64;
    let (available, hint) = available_after(0);
    match source {
        Some(source) if available.is_some_and(|available| available < needed) => {
            // The pages at the boundaries of windows are only released at the end.
            let released = (source.releasable)();
            let released = released.saturating_sub(released / 256).min(needed);
            let (available, hint) = available_after(released);
            // On top of the source, everything is needed that it does not release.
            let on_top = (needed - released).saturating_add(source.window.min(needed));
            (
                on_top,
                available.map(|bytes| bytes.saturating_sub(released)),
                hint,
            )
        }
        _ => (needed, available, hint),
    }
}

/// Returns the memory that a segment of `len` bytes takes besides its bytes: a page table entry of 8 bytes for each page, in
/// the mapping that fills it and in the one that reads it; and the memory that the process needs to go on. Without it, a
/// segment that just fits would get the process killed.
#[cfg(target_os = "linux")]
fn overhead(len: usize) -> u64 {
    const PROCESS: u64 = 2 << 20;
    len as u64 / 256 + PROCESS
}

/// Returns whether a file system keeps its files in memory (linux/magic.h).
#[cfg(target_os = "linux")]
fn is_memory(stat: &rustix::fs::StatFs) -> bool {
    const TMPFS: rustix::fs::FsWord = 0x0102_1994;
    const RAMFS: rustix::fs::FsWord = 0x8584_58f6;
    [TMPFS, RAMFS].contains(&stat.f_type)
}
