//! Limits of this process: file sizes and address space (getrlimit(2)).

/// The limit on this process's address space, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AddressSpace {
    /// The limit.
    pub limit: u64,
    /// Bytes below the limit that are not mapped yet.
    pub remaining: u64,
}

/// Returns the largest size in bytes that a file of this process may have (`RLIMIT_FSIZE`, `ulimit -f`), or `None` without a
/// limit.
///
/// On Linux the limit applies to shared memory as well. A signal (`SIGXFSZ`) kills a process that exceeds it.
pub fn max_file_size() -> Option<u64> {
    #[cfg(unix)]
    return rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
    #[cfg(not(unix))]
    None
}

/// Returns the limit on this process's address space (`RLIMIT_AS`, `ulimit -v`), or `None` without a limit. Linux only.
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
            remaining: limit.saturating_sub(used().unwrap_or(0)),
        })
    }
    #[cfg(not(target_os = "linux"))]
    None
}
