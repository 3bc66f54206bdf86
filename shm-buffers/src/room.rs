//! [`Room`]: how much memory there is to share, for those who want to know before.

use crate::os;

/// How much memory there is to share, in bytes, as far as the system reports it: Linux reports everything, other systems
/// some of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Room {
    /// The machine's memory.
    pub memory: Option<u64>,
    /// Bytes that can still be allocated: the least of what memory and swap have and what the limit of each enclosing cgroup
    /// leaves. Page cache that the kernel takes back when memory is needed counts as free.
    pub available: Option<u64>,
    /// The least limit of the enclosing cgroups; `None` without a limit.
    pub limit: Option<u64>,
    /// Size of `/dev/shm`, which bounds [`Backing::Named`](crate::Backing::Named).
    pub shm: Option<u64>,
    /// What is free of it.
    pub shm_free: Option<u64>,
    /// Reserved huge pages that are free, for [`Backing::HugePages`](crate::Backing::HugePages).
    pub huge_free: Option<u64>,
    /// The largest size that a file may have, which on Linux holds for all shared memory as well (`RLIMIT_FSIZE`); `None`
    /// without a limit.
    pub file_size: Option<u64>,
    /// The limit on the process's address space (`RLIMIT_AS`); `None` without one.
    pub address_space: Option<u64>,
}

impl Room {
    /// How much there is now.
    ///
    /// ```
    /// let room = shm_buffers::Room::now();
    /// if let (Some(shm), Some(memory)) = (room.shm_free, room.available) {
    ///     println!("{shm} bytes by name, {memory} without");
    /// }
    /// ```
    pub fn now() -> Self {
        os::room()
    }
}
