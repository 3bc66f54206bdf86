//! How much memory a process has.

/// Memory of one process, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident: everything mapped and in memory, shared pages in full.
    pub resident: u64,
    /// Proportional (`Pss`): each shared page divided by the number of processes that map it, so that sums over
    /// processes count it once. `None` where the system does not tell (it is Linux's).
    pub proportional: Option<u64>,
}

/// Memory of process `pid` that is its alone, in bytes: what it has allocated and touched, also where that was
/// swapped out; nothing that it shares, and no files. `None` when it is gone or the system does not tell.
///
/// The system keeps these numbers: unlike [`Memory::of`], this does not go through all pages.
#[cfg(windows)]
pub(crate) fn own_memory(pid: u32) -> Option<u64> {
    super::windows::memory(pid).map(|usage| usage.private)
}

/// See above.
#[cfg(not(windows))]
pub(crate) fn own_memory(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(kib(&status, "RssAnon:")? + kib(&status, "VmSwap:").unwrap_or(0))
}

/// A field of Linux's, in bytes.
#[cfg(not(windows))]
fn kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let number = line.trim().strip_suffix("kB")?.trim();
    number.parse::<u64>().ok().map(|kib| kib * 1024)
}

impl Memory {
    /// Resident bytes of process `pid`, without the proportional part: far cheaper for a process with much memory.
    pub(crate) fn resident_of(pid: u32) -> Option<u64> {
        #[cfg(target_os = "linux")]
        {
            let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
            let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
            // A zombie has none, and no memory either.
            (pages > 0).then(|| pages * rustix::param::page_size() as u64)
        }
        #[cfg(not(target_os = "linux"))]
        {
            Self::of(pid).map(|memory| memory.resident)
        }
    }

    /// The most that process `pid` has had resident at once, in bytes, shared pages in full; `None` when it is gone or the
    /// system does not tell (Linux and Windows do).
    #[cfg(windows)]
    pub fn peak_of(pid: u32) -> Option<u64> {
        super::windows::memory(pid).map(|usage| usage.peak)
    }

    /// See above.
    #[cfg(not(windows))]
    pub fn peak_of(pid: u32) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        kib(&status, "VmHWM:")
    }

    /// The memory of process `pid` now; `None` when it is gone or the system does not tell.
    #[cfg(windows)]
    pub fn of(pid: u32) -> Option<Self> {
        super::windows::memory(pid).map(|usage| Self {
            resident: usage.resident,
            proportional: None,
        })
    }

    /// The memory of process `pid` now; `None` when it is gone or the system does not tell.
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
    fn nobody_has_no_memory() {
        let own = own_memory(std::process::id());
        assert!(own > Some(0) || (cfg!(windows) && own.is_some()), "{own:?}");
        assert_eq!(own_memory(u32::MAX), None);
        let now = Memory::of(std::process::id()).map(|memory| memory.resident);
        assert!(Memory::peak_of(std::process::id()) > now.map(|bytes| bytes / 2));
        assert_eq!(Memory::peak_of(u32::MAX), None);
    }
}
