//! [`CrashContext`]: the last output of a process that has ended, for the error of its task.

/// The last output of a process that has ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct CrashContext {
    /// Last log messages, from the observer.
    pub(crate) logs: Vec<String>,
    /// Last lines printed.
    pub(crate) printed: Vec<String>,
    /// The panics that ended it.
    pub(crate) panics: Vec<String>,
    /// The stack of its overdue task.
    pub(crate) stack: Option<String>,
}
