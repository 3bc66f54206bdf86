//! [`CancelOutcome`]: the result of a request to cancel a task.

#[cfg(doc)]
use crate::error::Fault;

/// The result of a request to cancel a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CancelOutcome {
    /// The task is cancelled: it will not run, or not to its end. Its error is [`Fault::Cancelled`].
    Withdrawn,
    /// The task is not cancelled: it is running and will go on.
    StillRunning,
    /// The task was already finished or cancelled.
    Finished,
}
