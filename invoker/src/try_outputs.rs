//! [`TryOutputs`]: the outputs of a run up to the first error.

use std::iter::FusedIterator;

use proc_pool::TaskError;

use crate::outputs::Outputs;
use crate::whole_input::{Watched, WholeInput};

/// An iterator over the outputs of a run whose op returns a `Result`, up to the first error: see
/// [`Invoker::try_map`](crate::Invoker::try_map).
#[must_use = "iterators are lazy: tasks run while outputs are taken"]
pub struct TryOutputs<'a, T, R, E, I: Iterator<Item = T>> {
    /// `None` after the first error.
    outputs: Option<Outputs<'a, T, Result<R, E>, Watched<I>>>,
    whole: WholeInput,
    returned: u64,
}

impl<'a, T, R, E, I: Iterator<Item = T>> TryOutputs<'a, T, R, E, I> {
    pub(crate) fn new(outputs: Outputs<'a, T, Result<R, E>, Watched<I>>, whole: WholeInput) -> Self {
        Self {
            outputs: Some(outputs),
            whole,
            returned: 0,
        }
    }
}

impl<T, R, E, I> TryOutputs<'_, T, R, E, I>
where
    T: Send + 'static,
    R: Send + 'static,
    E: Send + 'static,
    I: Iterator<Item = T>,
{
    /// Limits the number of tasks in flight: see [`Outputs::max_in_flight`].
    pub fn max_in_flight(mut self, tasks: usize) -> Self {
        self.outputs = self.outputs.map(|outputs| outputs.max_in_flight(tasks));
        self
    }
}

impl<T, R, E, I: Iterator<Item = T>> std::fmt::Debug for TryOutputs<'_, T, R, E, I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TryOutputs")
            .field("outputs", &self.outputs)
            .field("returned", &self.returned)
            .finish_non_exhaustive()
    }
}

impl<T, R, E, I> Iterator for TryOutputs<'_, T, R, E, I>
where
    T: Send + 'static,
    R: Send + 'static,
    E: From<TaskError> + Send + 'static,
    I: Iterator<Item = T>,
{
    type Item = Result<R, E>;

    fn next(&mut self) -> Option<Result<R, E>> {
        let output = match self.outputs.as_mut()?.next() {
            Some(Ok(output)) => output,
            Some(Err(error)) => Err(error.into()),
            None => {
                self.outputs = None;
                return self
                    .whole
                    .check(self.returned)
                    .err()
                    .map(|error| Err(error.into()));
            }
        };
        self.returned += 1;
        if output.is_err() {
            // Withdraws the tasks that no worker has started.
            self.outputs = None;
        }
        Some(output)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.outputs {
            None => (0, Some(0)),
            // At the end of an interrupted run there is an error.
            Some(outputs) => (0, outputs.size_hint().1.map(|most| most.saturating_add(1))),
        }
    }
}

impl<T, R, E, I> FusedIterator for TryOutputs<'_, T, R, E, I>
where
    T: Send + 'static,
    R: Send + 'static,
    E: From<TaskError> + Send + 'static,
    I: Iterator<Item = T>,
{
}
