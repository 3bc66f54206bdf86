//! [`Workers`]: how many workers a pool has.

use std::num::NonZeroUsize;
use std::thread;

use crate::error::PoolError;
use crate::process::threads::Nesting;

/// The maximum number of workers of a pool.
pub const MAX_WORKERS: usize = 1024;

/// How many workers a pool has. A `usize` converts into [`Workers::Count`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Workers {
    /// One worker for each core that this process may use: by its CPU quota and affinity, and within a worker by that
    /// worker's share of its leader's cores (see [`NativeThreads`](crate::NativeThreads)). At most [`MAX_WORKERS`].
    #[default]
    All,
    /// This number of workers.
    Count(usize),
}

impl Workers {
    /// Returns the number of workers.
    ///
    /// # Errors
    /// [`PoolError::WorkerCount`] if it is zero, or more than [`MAX_WORKERS`].
    pub fn resolve(self) -> Result<NonZeroUsize, PoolError> {
        let count = match self {
            Self::All => cores().min(MAX_WORKERS),
            Self::Count(count) => count,
        };
        NonZeroUsize::new(count)
            .filter(|n| n.get() <= MAX_WORKERS)
            .ok_or(PoolError::WorkerCount {
                asked: count,
                max: MAX_WORKERS,
            })
    }
}

impl From<usize> for Workers {
    fn from(count: usize) -> Self {
        Self::Count(count)
    }
}

/// Returns the number of cores that this process may use.
pub(crate) fn cores() -> usize {
    Nesting::here().cores(thread::available_parallelism().map_or(1, usize::from))
}
