//! [`Workers`]: how many.

use std::num::NonZeroUsize;
use std::thread;

use crate::error::PoolError;
use crate::threads::Nesting;

/// The most workers a pool can have.
pub const MAX_WORKERS: usize = 1024;

/// How many workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Workers {
    /// One for each core that this process may use: by its CPU quota and affinity, and within a worker by that
    /// worker's share of its leader's ([`Threads`](crate::Threads)).
    #[default]
    All,
    /// That many.
    Count(usize),
}

impl Workers {
    /// The number meant.
    ///
    /// # Errors
    /// [`PoolError::WorkerCount`] for none, or more than [`MAX_WORKERS`].
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

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    Nesting::here().cores(thread::available_parallelism().map_or(1, usize::from))
}
