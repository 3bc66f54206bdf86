//! [`Executor`]: where ops run, and the options of each place.

mod processes;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub(crate) use processes::PanicLogs;
pub use processes::Processes;

/// Where ops run. Outputs and errors are the same everywhere; the difference is what a crash costs.
///
/// Parsed and printed as `processes`, `threads` or `inline`.
///
/// ```
/// use invoker::Executor;
///
/// let executor: Executor = "threads".parse()?;
/// assert_eq!(executor, Executor::Threads);
/// assert_eq!(Executor::Inline.to_string(), "inline");
/// # Ok::<(), invoker::ParseExecutorError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Executor {
    /// Worker processes: an op that crashes, exits or is killed costs its own task. [`Processes`] holds the options.
    #[default]
    Processes,
    /// Threads of this process: a panic costs its own task, a crash ends the program. Use it to run the same job without
    /// processes: under a debugger or a sanitizer, in tests, or where no process may be started. It is not a faster
    /// path: where ops need no isolation, use rayon.
    Threads,
    /// The calling thread. An op runs when its output is requested, or immediately when its task is
    /// [submitted](crate::Invoker::submit).
    Inline,
}

impl Executor {
    const ALL: [Self; 3] = [Self::Processes, Self::Threads, Self::Inline];

    fn name(self) -> &'static str {
        match self {
            Self::Processes => "processes",
            Self::Threads => "threads",
            Self::Inline => "inline",
        }
    }
}

impl fmt::Display for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Executor {
    type Err = ParseExecutorError;

    fn from_str(name: &str) -> Result<Self, ParseExecutorError> {
        let found = Self::ALL.into_iter().find(|executor| executor.name() == name);
        found.ok_or_else(|| ParseExecutorError(name.to_owned()))
    }
}

/// The error of parsing an [`Executor`].
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("no executor is called {0:?}: use processes, threads or inline")]
pub struct ParseExecutorError(String);

shm_buffers::debug_with_causes!(ParseExecutorError);

/// An executor with its options: the argument of [`Builder::executor`](crate::Builder::executor), made from an
/// [`Executor`] or from [`Processes`].
#[derive(Debug, Clone)]
pub struct ExecutorOptions(pub(crate) Options);

#[derive(Debug, Clone)]
pub(crate) enum Options {
    Processes(Box<Processes>),
    Threads,
    Inline,
}

impl ExecutorOptions {
    pub(crate) fn executor(&self) -> Executor {
        match self.0 {
            Options::Processes(_) => Executor::Processes,
            Options::Threads => Executor::Threads,
            Options::Inline => Executor::Inline,
        }
    }
}

impl From<Executor> for ExecutorOptions {
    fn from(executor: Executor) -> Self {
        Self(match executor {
            Executor::Processes => Options::Processes(Box::default()),
            Executor::Threads => Options::Threads,
            Executor::Inline => Options::Inline,
        })
    }
}

impl From<Processes> for ExecutorOptions {
    fn from(options: Processes) -> Self {
        Self(Options::Processes(Box::new(options)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back_and_are_those_of_json() {
        for executor in Executor::ALL {
            let name = executor.to_string();
            assert_eq!(name.parse(), Ok(executor));
            let json = serde_json::to_string(&executor).expect("a name");
            assert_eq!(json, format!("{name:?}"));
            assert_eq!(ExecutorOptions::from(executor).executor(), executor);
        }
        let error = "fork".parse::<Executor>().expect_err("not an executor");
        let expected = "no executor is called \"fork\": use processes, threads or inline";
        assert_eq!(error.to_string(), expected);
    }
}
