//! [`Outputs`]: the iterator over the outputs of a run, whichever executor runs it.

use std::iter::FusedIterator;

use proc_pool::{TaskError, TryNext};
use run_journal::Replayed;

use crate::run_progress::RunProgress;
use crate::runner::{RunnerMap, WorkerObserver};

/// An iterator over the outputs of a run, as they become available: `Ok`, or the error of that task.
///
/// It takes tasks from the input as workers have room for them, and only while the caller waits for an output. Dropping it
/// withdraws the tasks that no worker has started; workers finish the others, and their outputs are dropped.
///
/// The upper bound of `size_hint` is the number of outputs that remain, if the input knows its length. The lower bound is 0,
/// because an [interrupted](crate::Invoker::interrupter) run ends early.
#[must_use = "iterators are lazy: tasks run while outputs are taken"]
pub struct Outputs<'a, T, R, I: Iterator<Item = T>> {
    map: RunnerMap<'a, T, R, I>,
    /// The outputs of a journal, and those of the map.
    replayed: Option<Box<Replayed<R, I>>>,
    progress: &'a RunProgress,
    /// Only with worker processes.
    observer: Option<&'a WorkerObserver>,
    /// The most outputs that remain, if the input has a bound.
    remaining: Option<usize>,
    logs: Logs,
    ended: bool,
}

/// Whether all events that workers logged for the outputs so far were replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Logs {
    Flushed,
    Pending,
}

impl<'a, T, R, I: Iterator<Item = T>> Outputs<'a, T, R, I> {
    /// `most` is the upper bound of the number of outputs, if the input has one.
    pub(crate) fn new(
        map: RunnerMap<'a, T, R, I>,
        replayed: Option<Box<Replayed<R, I>>>,
        progress: &'a RunProgress,
        observer: Option<&'a WorkerObserver>,
        most: Option<usize>,
    ) -> Self {
        Self {
            map,
            replayed,
            progress,
            observer,
            remaining: most,
            logs: Logs::Flushed,
            ended: false,
        }
    }

    /// Waits for pending logs: the program may exit after this.
    fn flush(&mut self) {
        if self.logs == Logs::Pending
            && let Some(observer) = self.observer
        {
            observer.flush_run();
        }
        self.logs = Logs::Flushed;
    }

    /// Called for each output that is returned.
    #[inline]
    fn returned(&mut self) {
        self.logs = Logs::Pending;
        if let Some(remaining) = &mut self.remaining {
            *remaining = remaining.saturating_sub(1);
            // The caller may stop here, without asking for the end.
            if *remaining == 0 {
                self.flush();
            }
        }
    }

    fn end(&mut self) {
        if !self.ended {
            self.ended = true;
            self.flush();
            self.progress.end_run();
        }
    }
}

impl<T: Send + 'static, R: Send + 'static, I: Iterator<Item = T>> Outputs<'_, T, R, I> {
    /// Limits the tasks that this run has taken from its input, and whose outputs it has not returned (default: no limit; batches
    /// adapt to the duration of tasks). 0 counts as 1. For tasks that hold something scarce: memory, open files, a connection.
    ///
    /// With fewer tasks in flight than about twice the number of workers, workers wait for tasks. In order of the tasks, outputs that
    /// wait for an earlier one count, too.
    ///
    /// ```
    /// use std::cell::Cell;
    /// use invoker::{Executor, Invoker};
    ///
    /// let builder = Invoker::builder(|_: &(), text: String| text.len()).model(());
    /// let invoker = builder.executor(Executor::Threads).build()?;
    /// let taken = Cell::new(0);
    /// let texts = (0..100).inspect(|n| taken.set(n + 1)).map(|n| "large ".repeat(n));
    /// for (returned, length) in invoker.map(texts).max_in_flight(8).enumerate() {
    ///     assert_eq!(length?, 6 * returned);
    ///     assert!(taken.get() <= returned + 8);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn max_in_flight(mut self, tasks: usize) -> Self {
        self.map.set_max_in_flight(tasks);
        self
    }
}

impl<T, R, I: Iterator<Item = T>> std::fmt::Debug for Outputs<'_, T, R, I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outputs")
            .field("remaining", &self.remaining)
            .finish_non_exhaustive()
    }
}

impl<T: Send + 'static, R: Send + 'static, I: Iterator<Item = T>> Iterator for Outputs<'_, T, R, I> {
    type Item = Result<R, TaskError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let output = match &mut self.replayed {
            None => self.map.next(),
            Some(replayed) => {
                let map = &mut self.map;
                let next = replayed.try_next(|| {
                    let output = map.next();
                    (map.last_task(), output.map_or(TryNext::End, TryNext::Output))
                });
                match next {
                    (TryNext::Output(output), is_read) => {
                        if is_read {
                            self.progress.count_read(&output);
                        }
                        Some(output)
                    }
                    // The map waits, so that nothing is pending.
                    (TryNext::Pending | TryNext::End, _) => None,
                }
            }
        };
        // Each is made again instead of returned as it is: an output then is not copied with the room for an error.
        match output {
            Some(Ok(output)) => {
                self.progress.count_done();
                self.returned();
                Some(Ok(output))
            }
            Some(Err(error)) => {
                self.progress.count_failed();
                self.returned();
                Some(Err(error))
            }
            None => {
                self.end();
                None
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self.ended {
            true => (0, Some(0)),
            // The error of the journal may come after all outputs.
            false if self.replayed.is_some() => (0, self.remaining.and_then(|most| most.checked_add(1))),
            false => (0, self.remaining),
        }
    }
}

impl<T: Send + 'static, R: Send + 'static, I: Iterator<Item = T>> FusedIterator for Outputs<'_, T, R, I> {}

impl<T, R, I: Iterator<Item = T>> Drop for Outputs<'_, T, R, I> {
    fn drop(&mut self) {
        self.end();
    }
}
