//! Limits of this process: file sizes and address space (getrlimit(2)).

/// The limit on address space and its remainder, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AddressSpace {
    /// The limit.
    pub limit: u64,
    /// Bytes of it that are not mapped yet.
    pub left: u64,
}

/// The largest size in bytes that this process may give a file (`RLIMIT_FSIZE`, `ulimit -f`); `None` without a limit.
///
/// On Linux the limit holds for shared memory as well. A process that exceeds it is killed by a signal (`SIGXFSZ`).
pub fn file_size() -> Option<u64> {
    #[cfg(unix)]
    return rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
    #[cfg(not(unix))]
    None
}

/// The limit on this process's address space (`RLIMIT_AS`, `ulimit -v`); `None` without one. Linux.
pub fn address_space() -> Option<AddressSpace> {
    #[cfg(target_os = "linux")]
    {
        let limit = rustix::process::getrlimit(rustix::process::Resource::As).current?;
        let used = || {
            let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
            let pages = super::number(statm.split(' ').next()?)?;
            pages.checked_mul(rustix::param::page_size() as u64)
        };
        Some(AddressSpace {
            limit,
            left: limit.saturating_sub(used().unwrap_or(0)),
        })
    }
    #[cfg(not(target_os = "linux"))]
    None
}
