//! Runs that end at the first error, and runs of chunks.

use proc_pool::{Codec, Native, TaskError};
use run_journal::Order;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Invoker;
use crate::chunks::{Chunks, CutTasks};
use crate::outputs::Outputs;
use crate::try_outputs::TryOutputs;
use crate::whole_input::WholeInput;

impl<M, T, R> Invoker<M, T, R>
where
    M: Send + Sync + 'static,
    T: Serialize + DeserializeOwned + Send + 'static,
    R: Serialize + DeserializeOwned + Send + 'static,
{
    /// Cuts the tasks of an op that takes chunks, such as a [fold](crate::OpBuilder::fold) or an op on a range, runs the chunks, and
    /// returns an iterator over their outputs, in order. The size of chunks adapts to the number of tasks.
    ///
    /// ```
    /// use std::ops::Range;
    /// use invoker::{Executor, Invoker};
    ///
    /// let primes = |_: &(), range: Range<u32>| range.filter(|n| *n > 1 && (2..*n).all(|d| n % d != 0)).count();
    /// let invoker = Invoker::builder(primes).model(()).executor(Executor::Threads).build()?;
    /// assert_eq!(invoker.map_chunks(0..1000).sum::<Result<usize, _>>()?, 168);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map_chunks<S>(&self, tasks: S) -> Outputs<'_, T, R, impl Iterator<Item = T> + use<S, M, T, R>>
    where
        S: Chunks<Chunk = T>,
    {
        let workers = self.workers_for_chunks();
        self.run_as(CutTasks::new(tasks, workers), Order::Ordered, None, workers)
    }

    /// Returns the number of workers for which tasks are cut into chunks: with a journal, that of the run that wrote it, because other
    /// chunks would be other tasks.
    fn workers_for_chunks(&self) -> usize {
        let journal = self.report_base.journal.as_ref();
        let stored = journal.and_then(|journal| journal.workers_of_next_run());
        stored.unwrap_or_else(|| self.workers())
    }

    /// Runs all tasks in [chunks](Self::map_chunks), and combines the outputs of the chunks on this thread, in order. Returns `None` if
    /// there are no tasks. `combine` must be associative, because the chunks depend on the number of workers.
    ///
    /// [`OpBuilder::fold`](crate::OpBuilder::fold) is for ops on single tasks; this one takes ranges:
    ///
    /// ```
    /// use std::ops::Range;
    /// use invoker::{Executor, Invoker};
    ///
    /// let sum = |weights: &Vec<f64>, range: Range<usize>| weights[range].iter().sum::<f64>();
    /// let builder = Invoker::builder(sum).model(vec![0.5; 1000]);
    /// let invoker = builder.executor(Executor::Threads).build()?;
    /// assert_eq!(invoker.reduce(0..1000, |one, other| one + other)?, Some(500.0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// That of the first chunk that failed; its `task` is the position of the chunk. The chunks that no worker has started are withdrawn
    /// then. An [interrupted](Self::interrupter) run is an error, too.
    pub fn reduce<S>(&self, tasks: S, mut combine: impl FnMut(R, R) -> R) -> Result<Option<R>, TaskError>
    where
        S: Chunks<Chunk = T>,
    {
        let workers = self.workers_for_chunks();
        let (tasks, whole) = WholeInput::of(CutTasks::new(tasks, workers));
        let mut chunks = 0;
        let mut sum = None;
        for output in self.run_as(tasks, Order::Ordered, None, workers) {
            let output = output?;
            chunks += 1;
            sum = Some(match sum {
                None => output,
                Some(sum) => combine(sum, output),
            });
        }
        whole.check(chunks)?;
        Ok(sum)
    }
}

impl<M, T, R, E> Invoker<M, T, Result<R, E>>
where
    M: Send + Sync + 'static,
    T: Serialize + DeserializeOwned + Send + 'static,
    R: Serialize + DeserializeOwned + Send + 'static,
    E: Serialize + DeserializeOwned + Send + 'static,
{
    /// Like [`map`](Self::map), for ops that return a `Result`: returns an iterator that ends at the first error, whether the op has
    /// returned it or the task has failed. The tasks that no worker has started are withdrawn then.
    ///
    /// An [interrupted](Self::interrupter) run ends with an error as well. So all outputs are there if there is no error:
    ///
    /// ```
    /// use invoker::{Executor, Invoker};
    ///
    /// let parse = |_: &(), text: String| text.parse::<u32>().map_err(|error| format!("{text:?}: {error}"));
    /// let invoker = Invoker::builder(parse).model(()).executor(Executor::Threads).build()?;
    /// let parse = |texts: [&str; 2]| invoker.try_map(texts.map(str::to_owned)).collect::<Result<Vec<_>, _>>();
    /// assert_eq!(parse(["1", "2"])?, [1, 2]);
    /// assert_eq!(parse(["1", "x"]), Err("\"x\": invalid digit found in string".to_owned()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// With a [journal](crate::Builder::journal), the tasks whose op has returned an error run again the next time.
    ///
    /// The op's error must be able to hold a [`TaskError`]. A `String` can; another type implements `From<TaskError>`.
    pub fn try_map<I: IntoIterator<Item = T>>(&self, tasks: I) -> TryOutputs<'_, T, R, E, I::IntoIter>
    where
        E: From<TaskError>,
    {
        let (tasks, whole) = WholeInput::of(tasks.into_iter());
        let workers = self.workers();
        let outputs = self.run_as(tasks, Order::Ordered, Some(is_error::<R, E>), workers);
        TryOutputs::new(outputs, whole)
    }
}

/// Returns whether an encoded output is an error.
fn is_error<R, E>(encoded: &[u8]) -> bool
where
    R: Serialize + DeserializeOwned,
    E: Serialize + DeserializeOwned,
{
    matches!(<Native as Codec<Result<R, E>>>::decode(encoded), Ok(Err(_)))
}
