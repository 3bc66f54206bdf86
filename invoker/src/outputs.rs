//! [`Outputs`]: the iterator over what the ops give, whichever executor runs them.

use proc_pool::{LocalMap, Map, TaskError};

use crate::journal::Journal;
use crate::seed::{Seeded, Seeds};
use crate::watch::Watch;

/// In which order outputs come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Ordered,
    AsCompleted,
}

/// The outputs of a run, as they become available: `Ok`, or what happened to that task.
///
/// Tasks are taken from the input as there is room for them. Dropping it withdraws the tasks that no worker has started;
/// the others go on, and their outputs are dropped.
pub struct Outputs<'a, T, R, I: Iterator<Item = T>> {
    run: Run<'a, T, R, I>,
    journal: &'a Journal,
    /// With worker processes.
    watch: Option<&'a Watch>,
    /// Outputs yet to come, if their number is known.
    left: Option<usize>,
    logs: Logs,
}

/// Whether everything that was logged for the outputs up to now has been replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Logs {
    Flushed,
    Pending,
}

pub(crate) enum Run<'a, T, R, I: Iterator<Item = T>> {
    Processes(Map<'a, Seeds<I>, R>),
    Local(LocalMap<'a, Seeded<T>, R, Seeds<I>>),
}

impl<'a, T, R, I: Iterator<Item = T>> Outputs<'a, T, R, I> {
    /// `total`: the number of outputs, if that is known.
    pub(crate) fn new(
        run: Run<'a, T, R, I>,
        journal: &'a Journal,
        watch: Option<&'a Watch>,
        total: Option<usize>,
    ) -> Self {
        Self {
            run,
            journal,
            watch,
            left: total,
            logs: Logs::Flushed,
        }
    }

    /// The program may exit after this.
    fn flush(&mut self) {
        if self.logs == Logs::Pending
            && let Some(watch) = self.watch
        {
            watch.run_ended();
        }
        self.logs = Logs::Flushed;
    }
}

impl<T, R, I: Iterator<Item = T>> std::fmt::Debug for Outputs<'_, T, R, I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outputs").finish_non_exhaustive()
    }
}

impl<T: Send + 'static, R: Send + 'static, I: Iterator<Item = T>> Iterator for Outputs<'_, T, R, I> {
    type Item = Result<R, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        let output = match &mut self.run {
            Run::Processes(run) => run.next(),
            Run::Local(run) => run.next(),
        };
        match &output {
            Some(output) => {
                self.journal.count(output);
                self.logs = Logs::Pending;
                self.left = self.left.map(|left| left.saturating_sub(1));
                if self.left == Some(0) {
                    self.flush();
                }
            }
            None => {
                self.flush();
                self.journal.rest();
            }
        }
        output
    }
}

impl<T, R, I: Iterator<Item = T>> Drop for Outputs<'_, T, R, I> {
    fn drop(&mut self) {
        self.flush();
        self.journal.rest();
    }
}
