//! [`Op`]: the code that runs for each task.

use proc_pool::{BoxError, ByRef};

/// The code that runs for each task: a [`PlainOp`] (`fn(&Model, Task) -> Output`) or a [`WithState`]. The trait is
/// sealed.
///
/// Plain functions, and closures that capture nothing, coerce to function pointers.
pub trait Op<M, T, R>: sealed::Sealed<M, T, R> + Copy + Send + Sync + 'static {
    /// The state that a worker keeps between tasks.
    #[doc(hidden)]
    type State: Send + 'static;

    /// The function pointers that are sent to a worker process.
    #[doc(hidden)]
    type Functions: proc_pool::Op;

    #[doc(hidden)]
    fn functions(self) -> Self::Functions;

    #[doc(hidden)]
    fn from_functions(functions: Self::Functions) -> Self;

    #[doc(hidden)]
    fn start(self, model: &M) -> Result<Self::State, BoxError>;

    #[doc(hidden)]
    fn run(self, model: &M, state: &mut Self::State, task: T) -> R;
}

mod sealed {
    pub trait Sealed<M, T, R> {}
}

/// An op without state: see [`Invoker::builder`](crate::Invoker::builder).
pub type PlainOp<M, T, R> = fn(&M, T) -> R;

impl<M, T, R> sealed::Sealed<M, T, R> for PlainOp<M, T, R> {}

impl<M: 'static, T: 'static, R: 'static> Op<M, T, R> for PlainOp<M, T, R> {
    type State = ();
    type Functions = Self;

    fn functions(self) -> Self {
        self
    }

    fn from_functions(functions: Self) -> Self {
        functions
    }

    fn start(self, _: &M) -> Result<(), BoxError> {
        Ok(())
    }

    #[inline]
    fn run(self, model: &M, (): &mut (), task: T) -> R {
        self(model, task)
    }
}

/// An op with state per worker: see [`Invoker::builder_with_state`](crate::Invoker::builder_with_state).
pub struct WithState<M, S, T, R> {
    start: fn(&M) -> Result<S, BoxError>,
    op: fn(&M, &mut S, T) -> R,
}

impl<M, S, T, R> WithState<M, S, T, R> {
    pub(crate) fn new(start: fn(&M) -> Result<S, BoxError>, op: fn(&M, &mut S, T) -> R) -> Self {
        Self { start, op }
    }
}

impl<M, S, T, R> std::fmt::Debug for WithState<M, S, T, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WithState").finish_non_exhaustive()
    }
}

impl<M, S, T, R> Clone for WithState<M, S, T, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M, S, T, R> Copy for WithState<M, S, T, R> {}

impl<M, S, T, R> sealed::Sealed<M, T, R> for WithState<M, S, T, R> {}

impl<M, S, T, R> Op<M, T, R> for WithState<M, S, T, R>
where
    M: 'static,
    S: Send + 'static,
    T: 'static,
    R: 'static,
{
    type State = S;
    type Functions = (ByRef<M, Result<S, BoxError>>, fn(&M, &mut S, T) -> R);

    fn functions(self) -> Self::Functions {
        (ByRef(self.start), self.op)
    }

    fn from_functions((ByRef(start), op): Self::Functions) -> Self {
        Self { start, op }
    }

    fn start(self, model: &M) -> Result<S, BoxError> {
        (self.start)(model)
    }

    #[inline]
    fn run(self, model: &M, state: &mut S, task: T) -> R {
        (self.op)(model, state, task)
    }
}
