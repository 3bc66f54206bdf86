//! [`Workers`]: how many workers an invoker has.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use proc_pool::PoolError;

/// The number of workers. Made from a number, or parsed from `all` or a number.
///
/// ```
/// use invoker::Workers;
///
/// assert_eq!(Workers::from(4), Workers::Count(4));
/// assert_eq!("all".parse::<Workers>()?, Workers::All);
/// # Ok::<(), invoker::ParseWorkersError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Workers {
    /// One worker per core that this process may use. CPU quota and affinity count; in a worker process, so does that
    /// worker's share of its leader's cores ([`NativeThreads`](crate::NativeThreads)).
    #[default]
    All,
    /// This many workers.
    Count(usize),
}

impl Workers {
    pub(crate) fn for_pool(self) -> proc_pool::Workers {
        match self {
            Self::All => proc_pool::Workers::All,
            Self::Count(count) => proc_pool::Workers::Count(count),
        }
    }

    /// Returns the number.
    ///
    /// # Errors
    /// [`PoolError::WorkerCount`] for 0 and for more workers than a pool may have.
    pub(crate) fn resolve(self) -> Result<NonZeroUsize, PoolError> {
        self.for_pool().resolve()
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
