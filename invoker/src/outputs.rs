//! [`Outputs`]: the iterator over what the ops give, whichever executor runs them.

use proc_pool::TaskError;

use crate::executor::{InProcessRun, ThreadsRun};
use crate::journal::Journal;

/// In which order outputs come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Ordered,
    AsCompleted,
}

/// The outputs of a run, as they become available: `Ok`, or what happened to that task.
///
/// Tasks are taken from the input as there is room for them. Dropping it forgets the tasks under way.
pub struct Outputs<'a, M, T, R, I: Iterator> {
    run: Run<'a, M, T, R, I>,
    journal: &'a Journal,
}

pub(crate) enum Run<'a, M, T, R, I: Iterator> {
    Processes(proc_pool::Map<'a, I, R>),
    Threads(ThreadsRun<'a, M, T, R, I>),
    InProcess(InProcessRun<'a, M, T, R, I>),
}

impl<'a, M, T, R, I: Iterator> Outputs<'a, M, T, R, I> {
    pub(crate) fn new(run: Run<'a, M, T, R, I>, journal: &'a Journal) -> Self {
        Self { run, journal }
    }
}

impl<M, T, R, I: Iterator> std::fmt::Debug for Outputs<'_, M, T, R, I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outputs").finish_non_exhaustive()
    }
}

impl<M, T, R, I: Iterator<Item = T>> Iterator for Outputs<'_, M, T, R, I> {
    type Item = Result<R, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        let output = match &mut self.run {
            Run::Processes(run) => run.next(),
            Run::Threads(run) => run.next(),
            Run::InProcess(run) => run.next(),
        };
        match &output {
            Some(Ok(_)) => self.journal.done(),
            Some(Err(_)) => self.journal.failed(),
            None => self.journal.rest(),
        }
        output
    }
}

impl<M, T, R, I: Iterator> Drop for Outputs<'_, M, T, R, I> {
    fn drop(&mut self) {
        self.journal.rest();
    }
}
