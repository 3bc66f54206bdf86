//! The memory of a process.

#[cfg(not(windows))]
use shm_buffers::limits::kib_field as kib;

/// The memory of one process, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessMemory {
    /// Resident: everything mapped and in memory, shared pages in full.
    pub resident: u64,
    /// Proportional (`Pss`): each shared page divided by the number of processes that map it, so that sums over
    /// processes count it once. `None` where the system does not report it (all but Linux).
    pub proportional: Option<u64>,
}

/// Returns the private memory of process `pid` in bytes: what it has allocated and touched, swapped out or not, without shared
/// memory and files. Returns `None` if the process has ended or the system does not report it.
///
/// The system maintains these numbers: unlike [`ProcessMemory::of`], this does not go through all pages.
#[cfg(windows)]
pub(crate) fn own_memory(pid: u32) -> Option<u64> {
    super::windows::memory(pid).map(|usage| usage.private)
}

/// Like the above.
#[cfg(not(windows))]
pub(crate) fn own_memory(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(kib(&status, "RssAnon:")? + kib(&status, "VmSwap:").unwrap_or(0))
}

/// Appends `bytes`. If they are many and need new memory, requests huge pages for it.
#[inline]
pub(crate) fn append(into: &mut Vec<u8>, bytes: &[u8]) {
    if into.capacity() - into.len() < bytes.len() {
        into.reserve(bytes.len());
        shm_buffers::prefer_huge_pages(into);
    }
    into.extend_from_slice(bytes);
}

impl ProcessMemory {
    /// Returns the resident bytes of process `pid`. Without the proportional part, that is far cheaper for a large process.
    pub(crate) fn resident_of(pid: u32) -> Option<u64> {
        #[cfg(target_os = "linux")]
        {
            let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
            let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
            // A zombie has no pages.
            (pages > 0).then(|| pages * rustix::param::page_size() as u64)
        }
        #[cfg(not(target_os = "linux"))]
        {
            Self::of(pid).map(|memory| memory.resident)
        }
    }

    /// Returns the peak of the resident bytes of process `pid`, with shared pages in full; `None` if the process has ended or the
    /// system does not report it (Linux and Windows do).
    #[cfg(windows)]
    pub fn peak_of(pid: u32) -> Option<u64> {
        super::windows::memory(pid).map(|usage| usage.peak)
    }

    /// Like the above.
    #[cfg(not(windows))]
    pub fn peak_of(pid: u32) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        kib(&status, "VmHWM:")
    }

    /// Returns the memory of process `pid`; `None` if the process has ended or the system does not report it.
    #[cfg(windows)]
    pub fn of(pid: u32) -> Option<Self> {
        super::windows::memory(pid).map(|usage| Self {
            resident: usage.resident,
            proportional: None,
        })
    }

    /// Returns the memory of process `pid`; `None` if the process has ended or the system does not report it.
    #[cfg(not(windows))]
    pub fn of(pid: u32) -> Option<Self> {
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        Some(Self {
            resident: kib(&rollup, "Rss:")?,
            proportional: kib(&rollup, "Pss:"),
        })
    }
}

#[cfg(all(test, any(target_os = "linux", windows)))]
mod tests {
    use super::*;

    #[test]
    fn only_existing_processes_have_memory() {
        let own = own_memory(std::process::id());
        assert!(own > Some(0) || (cfg!(windows) && own.is_some()), "{own:?}");
        assert_eq!(own_memory(u32::MAX), None);
        let now = ProcessMemory::of(std::process::id()).map(|memory| memory.resident);
        assert!(ProcessMemory::peak_of(std::process::id()) > now.map(|bytes| bytes / 2));
        assert_eq!(ProcessMemory::peak_of(u32::MAX), None);
    }
}
