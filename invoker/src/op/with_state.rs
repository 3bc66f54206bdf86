//! [`WithState`]: an op with state per worker.

use proc_pool::{BoxError, ByRef};

use super::{Op, Sealed};

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

impl<M, S, T, R> Sealed<M, T, R> for WithState<M, S, T, R> {}

impl<M, S, T, R> Op<M, T, R> for WithState<M, S, T, R>
where
    M: Send + Sync + 'static,
    S: Send + 'static,
    T: 'static,
    R: 'static,
{
    type Model = M;
    type State<'m> = S;
    type Functions = (ByRef<M, Result<S, BoxError>>, fn(&M, &mut S, T) -> R);
    type Data = ();

    fn split(self) -> (Self::Functions, ()) {
        ((ByRef(self.start), self.op), ())
    }

    fn join((ByRef(start), op): Self::Functions, (): ()) -> Self {
        Self { start, op }
    }

    fn model(&self, model: M) -> M {
        model
    }

    fn start(&self, model: &M) -> Result<S, BoxError> {
        (self.start)(model)
    }

    #[inline]
    fn run(&self, model: &M, state: &mut S, task: T) -> R {
        (self.op)(model, state, task)
    }
}
