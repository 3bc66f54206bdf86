//! [`Origin`]: whether this process is a forked copy of the process that made a value. In a copy, the threads of the original
//! do not exist, locks that they held stay locked, and rings and descriptors are shared with the original. So the
//! copy of a pool must touch none of that.
#![cfg_attr(unix, allow(unsafe_code, reason = "registers a fork handler with libc"))]

/// The process that made a value.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    pid: u32,
    /// Number of forks that led to that process, if forks are counted.
    forks: Option<u64>,
}

impl Origin {
    /// Returns this process.
    pub fn here() -> Self {
        Self {
            pid: std::process::id(),
            forks: counting::count(),
        }
    }

    /// Returns the process id.
    pub fn pid(self) -> u32 {
        self.pid
    }

    /// Returns whether the current process is that process, without a system call, for what is done for each task. It does
    /// not notice a copy that was made without the C library, by a bare `clone`.
    #[inline]
    pub fn is_here(&self) -> bool {
        match self.forks {
            Some(forks) => counting::now() == forks,
            None => self.is_surely_here(),
        }
    }

    /// Returns whether the current process is that process. It notices every copy, and costs a system call.
    pub fn is_surely_here(&self) -> bool {
        self.pid == std::process::id()
    }
}

#[cfg(unix)]
mod counting {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Number of forks between the program's first process and this one. It is in private memory, so each process has its own
    /// count.
    static FORKS: AtomicU64 = AtomicU64::new(0);

    extern "C" fn on_fork() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the count, which is kept up to date from the first call on; `None` if the C library refuses to count.
    pub(super) fn count() -> Option<u64> {
        static COUNTED: OnceLock<bool> = OnceLock::new();
        let counted = *COUNTED.get_or_init(|| {
            // SAFETY: `on_fork` exists as long as this code does (the C library unregisters it when it unloads a library that
            // contains it). It only adds to an atomic, which is allowed in the child of a process with threads.
            unsafe { libc::pthread_atfork(None, None, Some(on_fork)) == 0 }
        });
        counted.then(now)
    }

    #[inline]
    pub(super) fn now() -> u64 {
        FORKS.load(Ordering::Relaxed)
    }
}

/// The count on systems without `fork`.
#[cfg(not(unix))]
mod counting {
    pub(super) fn count() -> Option<u64> {
        Some(0)
    }

    #[inline]
    pub(super) fn now() -> u64 {
        0
    }
}
