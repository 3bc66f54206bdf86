//! [`Op`]: what is run for each task.

use std::marker::PhantomData;

use proc_pool::BoxError;

/// What an invoker runs: a plain `fn(&Model, Task) -> Output` or a closure of that type that captures nothing; or a
/// [`WithState`]. Only these.
pub trait Op<M, T, R>: sealed::Sealed<M, T, R> + Copy + Send + Sync + 'static {
    /// What a worker keeps between its tasks.
    #[doc(hidden)]
    type State: Send + 'static;

    #[doc(hidden)]
    fn start(self, model: &M) -> Result<Self::State, BoxError>;

    #[doc(hidden)]
    fn run(self, model: &M, state: &mut Self::State, task: T) -> R;
}

mod sealed {
    pub trait Sealed<M, T, R> {}
}

impl<F, M, T, R> sealed::Sealed<M, T, R> for F where F: Fn(&M, T) -> R {}

impl<F, M, T, R> Op<M, T, R> for F
where
    F: Fn(&M, T) -> R + Copy + Send + Sync + 'static,
{
    type State = ();

    fn start(self, _: &M) -> Result<(), BoxError> {
        Ok(())
    }

    #[inline]
    fn run(self, model: &M, (): &mut (), task: T) -> R {
        self(model, task)
    }
}

/// An op with a state of its worker's: see [`Invoker::builder_with_state`](crate::Invoker::builder_with_state).
pub struct WithState<A, F, S> {
    start: A,
    op: F,
    state: PhantomData<fn() -> S>,
}

impl<A, F, S> WithState<A, F, S> {
    pub(crate) fn new(start: A, op: F) -> Self {
        let state = PhantomData;
        Self { start, op, state }
    }
}

impl<A, F, S> std::fmt::Debug for WithState<A, F, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WithState").finish_non_exhaustive()
    }
}

impl<A: Copy, F: Copy, S> Clone for WithState<A, F, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A: Copy, F: Copy, S> Copy for WithState<A, F, S> {}

impl<A, F, S, M, T, R> sealed::Sealed<M, T, R> for WithState<A, F, S> where F: Fn(&M, &mut S, T) -> R {}

impl<A, F, S, M, T, R> Op<M, T, R> for WithState<A, F, S>
where
    A: Fn(&M) -> Result<S, BoxError> + Copy + Send + Sync + 'static,
    F: Fn(&M, &mut S, T) -> R + Copy + Send + Sync + 'static,
    S: Send + 'static,
{
    type State = S;

    fn start(self, model: &M) -> Result<S, BoxError> {
        (self.start)(model)
    }

    #[inline]
    fn run(self, model: &M, state: &mut S, task: T) -> R {
        (self.op)(model, state, task)
    }
}
