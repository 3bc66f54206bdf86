//! [`Limits`]: what becomes of tasks that take long, or kill.

use std::time::Duration;

/// What becomes of tasks that take long, or kill.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    /// How long a task may run.
    pub(crate) deadline: Option<Duration>,
    /// Workers that a task may cost before that is its error.
    pub(crate) retries: u32,
}
