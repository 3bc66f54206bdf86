//! The handles of tasks that are refused because of the journal.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use proc_pool::facade::TaskSource;
use proc_pool::{CancelOutcome, Fault, Handle, PoolError};
use run_journal::JournalError;

struct Refused(&'static str);

impl Refused {
    fn fault(&self) -> Fault {
        Fault::Other(JournalError::Unsupported(self.0).into())
    }
}

impl<R> TaskSource<R> for Refused {
    fn forked(&self) -> Option<PoolError> {
        None
    }

    fn is_finished(&self) -> bool {
        true
    }

    fn take(&self, _: Option<Instant>) -> Option<Result<R, Fault>> {
        Some(Err(self.fault()))
    }

    fn poll(&self, _: &mut Context<'_>) -> Poll<Result<R, Fault>> {
        Poll::Ready(Err(self.fault()))
    }

    fn withdraw(&self) -> CancelOutcome {
        CancelOutcome::Finished
    }
}

/// Returns the handle of a task that does not run, because `call` does not work with a journal.
pub(crate) fn refused<R: 'static>(task: u64, call: &'static str) -> Handle<R> {
    Handle::from_source(task, Arc::new(Refused(call)))
}
