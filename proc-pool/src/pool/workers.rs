//! [`Workers`]: how many workers a pool has.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::thread;

use crate::error::PoolError;
use crate::process::threads::Nesting;

/// The maximum number of workers of a pool.
pub const MAX_WORKERS: usize = 1024;

/// How many workers a pool has. Made from a number, or parsed from `all` or a number.
///
/// ```
/// use proc_pool::Workers;
///
/// assert_eq!(Workers::from(4), Workers::Count(4));
/// assert_eq!("all".parse::<Workers>()?, Workers::All);
/// # Ok::<(), proc_pool::ParseWorkersError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
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

impl From<NonZeroUsize> for Workers {
    fn from(count: NonZeroUsize) -> Self {
        Self::Count(count.get())
    }
}

impl fmt::Display for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.pad("all"),
            Self::Count(count) => fmt::Display::fmt(count, f),
        }
    }
}

impl FromStr for Workers {
    type Err = ParseWorkersError;

    fn from_str(text: &str) -> Result<Self, ParseWorkersError> {
        match text {
            "all" => Ok(Self::All),
            number => match number.parse::<NonZeroUsize>() {
                Ok(count) => Ok(count.into()),
                Err(_) => Err(ParseWorkersError(text.to_owned())),
            },
        }
    }
}

/// The error of parsing [`Workers`].
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a number of workers: use `all` or a whole number from 1")]
pub struct ParseWorkersError(String);

shm_buffers::debug_with_causes!(ParseWorkersError);

/// Returns the number of cores that this process may use.
pub(crate) fn cores() -> usize {
    Nesting::here().cores(thread::available_parallelism().map_or(1, usize::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_all_parse_back() {
        for workers in [Workers::All, Workers::Count(1), Workers::Count(1000)] {
            assert_eq!(workers.to_string().parse(), Ok(workers));
        }
        for wrong in ["", "0", "-1", "many", "1.5", " 2"] {
            let error = wrong.parse::<Workers>().expect_err(wrong).to_string();
            assert!(error.contains(&format!("{wrong:?}")), "{error}");
        }
    }

    #[test]
    fn zero_workers_are_refused() {
        assert!(matches!(
            Workers::from(0).resolve(),
            Err(PoolError::WorkerCount { asked: 0, .. })
        ));
        assert_eq!(
            Workers::from(NonZeroUsize::MIN).resolve().ok(),
            Some(NonZeroUsize::MIN)
        );
    }
}
