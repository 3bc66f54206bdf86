//! [`Room`]: how much memory there is to share, for those who want to know before.

use crate::os;

/// How much memory there is to share, in bytes, as far as the system tells (it is Linux that does).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Room {
    /// The machine's memory.
    pub memory: Option<u64>,
    /// What can still be allocated: of memory, swap, and what each enclosing control group leaves, the least.
    pub available: Option<u64>,
    /// The least limit of the enclosing control groups; `None` where there is none.
    pub limit: Option<u64>,
    /// Size of `/dev/shm`, which bounds [`Backing::Named`](crate::Backing::Named).
    pub shm: Option<u64>,
    /// What is free of it.
    pub shm_free: Option<u64>,
    /// Reserved huge pages that are free, for [`Backing::HugePages`](crate::Backing::HugePages).
    pub huge_free: Option<u64>,
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
