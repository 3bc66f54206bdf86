//! [`InProcess`]: ops in the caller's thread.

use proc_pool::{TaskError, WorkerId};
use progress::Bar;

use super::call;
use crate::step::Tasks;

type Op<M, T, R> = Box<dyn Fn(&M, T) -> R + Send + Sync>;

/// The caller is the only worker.
pub(crate) struct InProcess<M, T, R> {
    pub(crate) model: M,
    op: Op<M, T, R>,
    bar: Bar,
}

impl<M, T, R> InProcess<M, T, R> {
    pub(crate) fn new(model: M, op: impl Fn(&M, T) -> R + Send + Sync + 'static, bar: Bar) -> Self {
        Self {
            model,
            op: Box::new(op),
            bar,
        }
    }

    pub(crate) fn run<I: Iterator<Item = T>>(&self, tasks: I) -> Run<'_, M, T, R, I> {
        Run {
            executor: self,
            tasks: tasks.enumerate(),
            counted: Tasks::new(self.bar.counters()),
        }
    }
}

/// The outputs, made when they are asked for.
pub(crate) struct Run<'a, M, T, R, I> {
    executor: &'a InProcess<M, T, R>,
    tasks: std::iter::Enumerate<I>,
    counted: Tasks,
}

impl<M, T, R, I: Iterator<Item = T>> Iterator for Run<'_, M, T, R, I> {
    type Item = Result<R, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (index, task) = self.tasks.next()?;
        let InProcess { model, op, .. } = self.executor;
        let output = call(WorkerId(0), || self.counted.run(|| op(model, task)));
        Some(output.map_err(|fault| TaskError {
            task: index as u64,
            fault,
        }))
    }
}
