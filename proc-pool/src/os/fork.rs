//! Whether this process is a forked copy of the one that made a value. The threads of the original are not there, locks
//! that they held stay held, and rings and descriptors are shared with it: the copy of a pool must touch none of that.
#![cfg_attr(unix, allow(unsafe_code))]

/// The process that made a value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    pid: u32,
    /// Forks that had led to it, if they are counted.
    forks: Option<u64>,
}

impl Origin {
    /// This process.
    pub(crate) fn here() -> Self {
        Self {
            pid: std::process::id(),
            forks: counting::count(),
        }
    }

    /// The process's id.
    pub(crate) fn pid(self) -> u32 {
        self.pid
    }

    /// Whether this is that process, without a system call: for what is done for each task. A copy that was made
    /// around the C library, by a bare `clone`, is not noticed.
    #[inline]
    pub(crate) fn is_here(self) -> bool {
        match self.forks {
            Some(forks) => counting::now() == forks,
            None => self.is_surely_here(),
        }
    }

    /// The same of any copy, at the price of a system call.
    pub(crate) fn is_surely_here(self) -> bool {
        self.pid == std::process::id()
    }
}

#[cfg(unix)]
mod counting {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Forks between the program's first process and this one. Private memory: each process has its own count.
    static FORKS: AtomicU64 = AtomicU64::new(0);

    extern "C" fn forked() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }

    /// The count, from now on kept up to date; `None` if that can't be done.
    pub(super) fn count() -> Option<u64> {
        static COUNTED: OnceLock<bool> = OnceLock::new();
        let counted = *COUNTED.get_or_init(|| {
            // SAFETY: `forked` lives as long as this code does (the C library unregisters it when it unloads a library that
            // contains it), and only adds to an atomic: the child of a process with threads may do that.
            unsafe { libc::pthread_atfork(None, None, Some(forked)) == 0 }
        });
        counted.then(now)
    }

    #[inline]
    pub(super) fn now() -> u64 {
        FORKS.load(Ordering::Relaxed)
    }
}

/// Where processes are not copied.
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
