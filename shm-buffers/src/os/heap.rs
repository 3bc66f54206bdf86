//! Returns memory that this process has freed to the system.
#![allow(unsafe_code, reason = "calls malloc_trim")]

/// Returns the pages of freed allocations to the system, if the C library can do that and is this program's allocator. Returns
/// whether any were returned.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn return_freed_memory() -> bool {
    // SAFETY: `malloc_trim` takes the allocator's own locks, and changes no memory that is in use.
    unsafe { libc::malloc_trim(0) == 1 }
}

/// Returns `false`: only glibc has such a call.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn return_freed_memory() -> bool {
    false
}
