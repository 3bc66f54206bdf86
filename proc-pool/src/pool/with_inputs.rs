//! [`WithInputs`]: the iterator over tasks and their outputs.

use std::fmt;
use std::iter::FusedIterator;

use crate::error::TaskError;
use crate::pool::map::Map;

impl<'p, I: Iterator, R> Map<'p, I, R> {
    /// Turns the map into an iterator over pairs of a task and its output or error, in the same order. So a task that has failed can be
    /// logged, or tried once more in another way, even if the input cannot be iterated again. ([`TaskError::task`] is the task's
    /// position in the input, which is enough if the input is a slice.)
    ///
    /// ```no_run
    /// # let pool = proc_pool::Builder::new().build_op(|path: String| path.len())?;
    /// # let lines = std::io::stdin().lines().map_while(Result::ok);
    /// let mut failed = Vec::new();
    /// for (path, output) in pool.map(lines).with_inputs() {
    ///     match output {
    ///         Ok(len) => println!("{path}: {len}"),
    ///         Err(error) => failed.push((path, error)),
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// The leader keeps each task itself, not a copy of it, from the moment at which it takes the task from the input until it returns
    /// the output: at most a few tasks for each worker, and up to 32,768 in an ordered map with one task that is much slower than the
    /// others. Besides that memory, it costs one entry in a hash table for each task.
    ///
    /// # Panics
    /// If the map has already taken tasks from its input: call this before the first `next`.
    pub fn with_inputs(mut self) -> WithInputs<'p, I, R> {
        assert!(
            self.keep_tasks(),
            "`Map::with_inputs` was called after `next`; call it on the map that `Pool::map` returned"
        );
        WithInputs(self)
    }
}

/// An iterator over tasks and their outputs: see [`Map::with_inputs`].
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct WithInputs<'p, I: Iterator, R>(Map<'p, I, R>);

impl<I: Iterator, R> fmt::Debug for WithInputs<'_, I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WithInputs").field(&self.0).finish()
    }
}

impl<I: Iterator, R> Iterator for WithInputs<'_, I, R> {
    type Item = (I::Item, Result<R, TaskError>);

    fn next(&mut self) -> Option<Self::Item> {
        let result = self.0.next()?;
        // Each index below `Map::next` has a task, and each output has its own index.
        let task = self.0.take_last_task()?;
        Some((task, result))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<I: Iterator, R> FusedIterator for WithInputs<'_, I, R> {}
