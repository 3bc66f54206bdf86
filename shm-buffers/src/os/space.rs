//! Admission: whether so much memory can be had at all, asked before any of it is touched.
//!
//! Linux lets memory be promised that is not there: the first touch then ends in SIGBUS (a full tmpfs) or an OOM
//! kill (a cgroup limit). So the numbers are looked at first. Windows refuses by itself what it can't keep, but the
//! numbers make a better error. Where they can't be read, the answer is yes.

#[cfg(unix)]
use std::path::Path;

use crate::backing::{Backing, BackingKind};
use crate::error::CreateError;
#[cfg(not(target_os = "linux"))]
use crate::room::Room;

/// A new segment of so little is not asked for: a dozen files are read for the answer, and who has no room for it ends at
/// the next page of his stack. (One that grows is asked for each time: little and little make much.)
const LITTLE: usize = 1 << 20;

/// [`admit`] for a new segment.
pub(super) fn admit_new(backing: &Backing, len: usize) -> Result<(), CreateError> {
    match *backing == Backing::Anonymous && len <= LITTLE {
        true => Ok(()),
        false => admit(backing, len),
    }
}

/// What a disk that is too small leaves to do.
const DISK: &str = "free disk space, or choose another directory";

/// Refuses `len` bytes where fewer are known to be there.
fn compare(
    backing: BackingKind,
    len: usize,
    available: Option<u64>,
    hint: &'static str,
) -> Result<(), CreateError> {
    match available {
        Some(available) if available < len as u64 => Err(CreateError::NoSpace {
            needed: len as u64,
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
pub(super) fn admit(backing: &Backing, len: usize) -> Result<(), CreateError> {
    const MEMORY: &str = "that is all the memory there is; use `Backing::File` on a disk with room";
    match backing {
        Backing::Named => compare(BackingKind::Named, len, super::unix::memory(), MEMORY),
        Backing::File(dir) => compare(BackingKind::File, len, disk_available(dir), DISK),
        Backing::Anonymous | Backing::HugePages | Backing::Auto => Ok(()),
    }
}

#[cfg(windows)]
pub(super) fn admit(backing: &Backing, len: usize) -> Result<(), CreateError> {
    use super::windows;

    const MEMORY: &str = "free memory, enlarge the paging file, or use `Backing::File` on a disk with room";
    let (backing, available, hint) = match backing {
        Backing::Named => (BackingKind::Named, windows::memory_available(), MEMORY),
        Backing::File(dir) => (BackingKind::File, windows::disk_available(dir), DISK),
        Backing::Anonymous | Backing::HugePages | Backing::Auto => return Ok(()),
    };
    compare(backing, len, available, hint)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn room() -> Room {
    Room::default()
}

#[cfg(target_os = "linux")]
pub(crate) use linux::room;

#[cfg(target_os = "linux")]
pub(super) fn admit(backing: &Backing, len: usize) -> Result<(), CreateError> {
    const MEMORY: &str =
        "free memory, raise the container's limit, or use `Backing::File` on a disk with room";
    const SHM: &str = "enlarge /dev/shm, or use `Backing::Anonymous` or `Backing::File`";
    let memory = || linux::memory_available().map(|available| available.saturating_sub(besides(len)));
    let (backing, available, hint) = match backing {
        Backing::Anonymous => (BackingKind::Anonymous, memory(), MEMORY),
        Backing::Named => {
            let shm = disk_available(Path::new("/dev/shm"));
            match (shm, memory()) {
                (Some(shm), Some(memory)) if memory < shm => (BackingKind::Named, Some(memory), MEMORY),
                (shm, _) => (BackingKind::Named, shm, SHM),
            }
        }
        Backing::File(dir) => (BackingKind::File, disk_available(dir), DISK),
        // Huge pages that were reserved are in none of these numbers: it asks again where there are none.
        Backing::HugePages | Backing::Auto => return Ok(()),
    };
    compare(backing, len, available, hint)
}

/// What `len` bytes take besides: an entry of 8 bytes in a page table for each page, in the mapping that fills them and
/// in the one that reads them; and whoever makes them goes on living. Without it, what just fits is killed.
#[cfg(target_os = "linux")]
fn besides(len: usize) -> u64 {
    const LIVING: u64 = 2 << 20;
    len as u64 / 256 + LIVING
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::path::{Path, PathBuf};

    use crate::room::Room;

    pub(crate) fn room() -> Room {
        let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory = meminfo(&info, "MemTotal:");
        let shm = rustix::fs::statvfs("/dev/shm").ok();
        let shm = shm.map(|stat| [stat.f_blocks, stat.f_bavail].map(|n| n.saturating_mul(stat.f_frsize)));
        let pages = info.lines().find_map(|line| line.strip_prefix("HugePages_Free:"));
        let pages = pages.and_then(|n| n.trim().parse::<u64>().ok());
        let limit = cgroups().into_iter().map(|(limit, _)| limit).min();
        Room {
            memory,
            available: memory_available(),
            // Without one, version 1 tells of more than any machine has.
            limit: limit.filter(|limit| memory.is_none_or(|memory| *limit < memory)),
            shm: shm.map(|[size, _]| size),
            shm_free: shm.map(|[_, free]| free),
            huge_free: pages
                .zip(meminfo(&info, "Hugepagesize:"))
                .map(|(pages, bytes)| pages.saturating_mul(bytes)),
        }
    }

    /// Bytes that can still be allocated: the least of what the machine has available (`MemAvailable` of
    /// proc(5), and free swap) and what each enclosing cgroup's limit leaves.
    pub(super) fn memory_available() -> Option<u64> {
        let info = fs::read_to_string("/proc/meminfo").ok()?;
        let machine = meminfo(&info, "MemAvailable:")? + meminfo(&info, "SwapFree:").unwrap_or(0);
        let left = cgroups().into_iter().map(|(_, left)| left).min();
        Some(left.map_or(machine, |cgroup| cgroup.min(machine)))
    }

    fn meminfo(info: &str, key: &str) -> Option<u64> {
        let line = info.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim()
            .strip_suffix("kB")?
            .trim()
            .parse::<u64>()
            .ok()
            .map(|kib| kib * 1024)
    }

    /// The limits of this process's cgroup and its ancestors, and what each leaves (cgroups(7), both versions).
    fn cgroups() -> Vec<(u64, u64)> {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut found = Vec::new();
        for line in groups.lines() {
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            let (root, limit, usage) = if controllers.is_empty() {
                ("/sys/fs/cgroup", "memory.max", "memory.current")
            } else if controllers.split(',').any(|c| c == "memory") {
                (
                    "/sys/fs/cgroup/memory",
                    "memory.limit_in_bytes",
                    "memory.usage_in_bytes",
                )
            } else {
                continue;
            };
            let mut dir = PathBuf::from(root);
            dir.push(path.trim_start_matches('/'));
            while dir.starts_with(root) {
                found.extend(headroom(&dir, limit, usage));
                dir.pop();
            }
        }
        found
    }

    fn headroom(dir: &Path, limit: &str, usage: &str) -> Option<(u64, u64)> {
        let number = |name: &str| {
            fs::read_to_string(dir.join(name))
                .ok()?
                .trim()
                .parse::<u64>()
                .ok()
        };
        let limit = number(limit)?;
        let usage = number(usage)?;
        // Page cache that can go at once is no obstacle.
        let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
        let cache = stat
            .lines()
            .find_map(|line| line.strip_prefix("inactive_file "))
            .and_then(|n| n.trim().parse::<u64>().ok())
            .unwrap_or(0);
        Some((limit, limit.saturating_sub(usage.saturating_sub(cache))))
    }

    #[cfg(test)]
    mod tests {
        #[test]
        fn meminfo_is_in_kib() {
            let info = "MemTotal:  10 kB\nMemAvailable:    7 kB\n";
            assert_eq!(super::meminfo(info, "MemAvailable:"), Some(7 * 1024));
            assert_eq!(super::meminfo(info, "SwapFree:"), None);
        }
    }
}
