//! [`Retry`]: how often a task is run again after it has failed, and [`Retried`], an op that does so.

use std::marker::PhantomData;
use std::thread;
use std::time::Duration;

use proc_pool::{BoxError, catch_panic};
use serde::{Deserialize, Serialize};

use super::{Op, Sealed};
use crate::task_context::reset_steps;

/// How often a task is run again after its op has panicked or returned an error, and after which pauses: see
/// [`OpBuilder::retry_panics`](crate::OpBuilder::retry_panics) and [`OpBuilder::retry_errors`](crate::OpBuilder::retry_errors).
///
/// ```
/// use std::time::Duration;
/// use invoker::Retry;
///
/// // Four attempts, with pauses of 100, 200 and 300 ms.
/// let retry = Retry::new(3).backoff(Duration::from_millis(100)).max_pause(Duration::from_millis(300));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[must_use = "pass it to `OpBuilder::retry_panics` or `OpBuilder::retry_errors`"]
pub struct Retry {
    retries: u32,
    backoff: Duration,
    max_pause: Duration,
}

impl Retry {
    /// Runs a task again up to `retries` times, without pauses.
    pub fn new(retries: u32) -> Self {
        Self {
            retries,
            backoff: Duration::ZERO,
            max_pause: Duration::from_secs(60),
        }
    }

    /// Sets the pause before the first retry (default: none). Each further pause is twice as long.
    pub fn backoff(mut self, first: Duration) -> Self {
        self.backoff = first;
        self
    }

    /// Sets the longest pause (default: 60 s).
    pub fn max_pause(mut self, longest: Duration) -> Self {
        self.max_pause = longest;
        self
    }

    /// Returns the pause before retry number `retry`, from 0.
    fn pause(&self, retry: u32) -> Duration {
        let factor = 2_u32.saturating_pow(retry);
        self.backoff.saturating_mul(factor).min(self.max_pause)
    }
}

/// Which outputs are failures.
pub trait Failure<R>: 'static {
    fn is_failure(output: &R) -> bool;
}

/// No output is a failure, only a panic.
#[derive(Debug)]
pub struct Panics;

impl<R> Failure<R> for Panics {
    fn is_failure(_: &R) -> bool {
        false
    }
}

/// An `Err` is a failure, as a panic is.
#[derive(Debug)]
pub struct PanicsAndErrors;

impl<R, E> Failure<Result<R, E>> for PanicsAndErrors {
    fn is_failure(output: &Result<R, E>) -> bool {
        output.is_err()
    }
}

/// An op whose failed tasks are run again.
pub struct Retried<F, K> {
    op: F,
    retry: Retry,
    kind: PhantomData<fn() -> K>,
}

impl<F, K> Retried<F, K> {
    pub(crate) fn new(op: F, retry: Retry) -> Self {
        let kind = PhantomData;
        Self { op, retry, kind }
    }
}

impl<F, K> std::fmt::Debug for Retried<F, K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Retried")
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

impl<F: Clone, K> Clone for Retried<F, K> {
    fn clone(&self) -> Self {
        Self::new(self.op.clone(), self.retry)
    }
}

impl<F, K, M, T, R> Sealed<M, T, R> for Retried<F, K> {}

impl<F, K, M, T, R> Op<M, T, R> for Retried<F, K>
where
    F: Op<M, T, R>,
    K: Failure<R>,
    T: Clone,
{
    type Model = F::Model;
    type State<'m> = F::State<'m>;
    type Functions = F::Functions;
    type Data = (F::Data, Retry);

    fn split(self) -> (F::Functions, Self::Data) {
        let (functions, data) = self.op.split();
        (functions, (data, self.retry))
    }

    fn join(functions: F::Functions, (data, retry): Self::Data) -> Self {
        Self::new(F::join(functions, data), retry)
    }

    fn model(&self, model: M) -> F::Model {
        self.op.model(model)
    }

    fn start<'m>(&self, model: &'m F::Model) -> Result<F::State<'m>, BoxError> {
        self.op.start(model)
    }

    fn run<'m>(&self, model: &'m F::Model, state: &mut F::State<'m>, task: T) -> R {
        for retry in 0..self.retry.retries {
            match catch_panic(|| self.op.run(model, state, task.clone())) {
                Ok(output) if !K::is_failure(&output) => return output,
                // Its drop is user code, and a panic there is one of the task.
                _ => reset_steps(),
            }
            thread::sleep(self.retry.pause(retry));
        }
        self.op.run(model, state, task)
    }

    fn encode_values(&self, into: &mut Vec<u8>) -> Result<(), BoxError> {
        self.op.encode_values(into)
    }

    fn exit<'m>(&self, model: &'m F::Model, state: &mut F::State<'m>) {
        self.op.exit(model, state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let ms = Duration::from_millis;
        let retry = Retry::new(9).backoff(ms(100)).max_pause(ms(350));
        let pauses: Vec<_> = [0, 1, 2, 31, 99].map(|n| retry.pause(n)).into();
        assert_eq!(pauses, [ms(100), ms(200), ms(350), ms(350), ms(350)]);
        assert_eq!(Retry::new(1).pause(7), Duration::ZERO);
    }
}
