//! [`MemoryInfo`]: how much memory is left for segments.

#[cfg(target_os = "linux")]
use std::path::Path;

#[cfg(unix)]
use crate::limits;
#[cfg(target_os = "linux")]
use crate::limits::MachineMemory;
use crate::os;

/// How much memory the machine has and how much is left for segments, in bytes.
///
/// A field is `None` if the system does not report it, or if a limit is not set. Linux reports all of them, other systems
/// some.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryInfo {
    /// The machine's memory.
    pub total: Option<u64>,
    /// Bytes that can still be allocated: the least of the available memory plus swap and of the rest that the limit of each
    /// enclosing cgroup leaves. Page cache that the kernel reclaims on demand counts as available.
    pub available: Option<u64>,
    /// The least memory limit of the enclosing cgroups.
    pub cgroup_limit: Option<u64>,
    /// The size of `/dev/shm`, which bounds [`Backing::Named`](crate::Backing::Named).
    pub shm: Option<u64>,
    /// The free bytes of `/dev/shm`.
    pub shm_free: Option<u64>,
    /// The free bytes of reserved huge pages, for [`Backing::HugePages`](crate::Backing::HugePages).
    pub huge_free: Option<u64>,
    /// The largest size that a file may have (`RLIMIT_FSIZE`). On Linux, this limit applies to all shared memory as well.
    pub file_size: Option<u64>,
    /// The limit on the process's address space (`RLIMIT_AS`).
    pub address_space: Option<u64>,
}

impl MemoryInfo {
    /// Reads the current numbers.
    ///
    /// ```
    /// let memory = shm_buffers::MemoryInfo::now();
    /// if let (Some(shm), Some(available)) = (memory.shm_free, memory.available) {
    ///     println!("{shm} bytes are left for named segments, {available} for anonymous ones");
    /// }
    /// ```
    #[cfg(target_os = "linux")]
    pub fn now() -> Self {
        let machine = MachineMemory::now();
        let shm = os::file_system_space(Path::new("/dev/shm"));
        Self {
            total: machine.total,
            available: machine.available(0).map(|(bytes, _)| bytes),
            cgroup_limit: machine.cgroup_limit(),
            shm: shm.map(|space| space.total),
            shm_free: shm.map(|space| space.available),
            huge_free: machine.huge_free,
            file_size: limits::max_file_size(),
            address_space: limits::address_space().map(|space| space.limit),
        }
    }

    /// Reads the current numbers. Shared memory has no limits of its own on Windows.
    #[cfg(windows)]
    pub fn now() -> Self {
        let memory = os::machine_memory();
        Self {
            total: memory.map(|(total, _)| total),
            available: memory.map(|(_, available)| available),
            ..Self::default()
        }
    }

    /// Reads the current numbers. Free memory means little on systems that compress and swap pages to make space (macOS).
    #[cfg(not(any(target_os = "linux", windows)))]
    pub fn now() -> Self {
        Self {
            total: os::machine_memory(),
            file_size: limits::max_file_size(),
            ..Self::default()
        }
    }
}
