//! [`PlainOp`]: an op without state.

use proc_pool::BoxError;

use super::{Op, Sealed};

/// An op without state: see [`Invoker::builder`](crate::Invoker::builder).
pub type PlainOp<M, T, R> = fn(&M, T) -> R;

impl<M, T, R> Sealed<M, T, R> for PlainOp<M, T, R> {}

impl<M: Send + Sync + 'static, T: 'static, R: 'static> Op<M, T, R> for PlainOp<M, T, R> {
    type Model = M;
    type State<'m> = ();
    type Functions = Self;
    type Data = ();

    fn split(self) -> (Self, ()) {
        (self, ())
    }

    fn join(functions: Self, (): ()) -> Self {
        functions
    }

    fn model(&self, model: M) -> M {
        model
    }

    fn start(&self, _: &M) -> Result<(), BoxError> {
        Ok(())
    }

    #[inline]
    fn run(&self, model: &M, (): &mut (), task: T) -> R {
        self(model, task)
    }
}
