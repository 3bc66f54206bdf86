//! [`WithContext`]: a model and the context of a run, and [`InContext`], an op that gets both.

use proc_pool::{BoxError, Codec, Native};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Op, Sealed};

/// A model, and a small value that configures one invoker: what an op gets whose builder has a
/// [`context`](crate::OpBuilder::context). The model may be a file that many programs use, each with its own context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WithContext<M, C> {
    /// The model, which all workers share.
    pub model: M,
    /// The context, of which each worker process has a copy.
    pub context: C,
}

/// An op whose model has a context: see [`OpBuilder::context`](crate::OpBuilder::context).
#[derive(Debug, Clone, Copy)]
pub struct InContext<F, C> {
    op: F,
    context: C,
}

impl<F, C> InContext<F, C> {
    pub(crate) fn new(op: F, context: C) -> Self {
        Self { op, context }
    }
}

impl<F, C, M, T, R> Sealed<M, T, R> for InContext<F, C> {}

impl<F, C, M, T, R> Op<M, T, R> for InContext<F, C>
where
    F: Op<WithContext<M, C>, T, R>,
    C: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    M: 'static,
{
    type Model = F::Model;
    type State<'m> = F::State<'m>;
    type Functions = F::Functions;
    type Data = (F::Data, C);

    fn split(self) -> (F::Functions, (F::Data, C)) {
        let (functions, data) = self.op.split();
        (functions, (data, self.context))
    }

    fn join(functions: F::Functions, (data, context): (F::Data, C)) -> Self {
        let op = F::join(functions, data);
        Self { op, context }
    }

    fn model(&self, model: M) -> F::Model {
        let context = self.context.clone();
        self.op.model(WithContext { model, context })
    }

    fn start<'m>(&self, model: &'m F::Model) -> Result<F::State<'m>, BoxError> {
        self.op.start(model)
    }

    #[inline]
    fn run<'m>(&self, model: &'m F::Model, state: &mut F::State<'m>, task: T) -> R {
        self.op.run(model, state, task)
    }

    fn encode_values(&self, into: &mut Vec<u8>) -> Result<(), BoxError> {
        self.op.encode_values(into)?;
        Native::encode(&self.context, into)
    }

    fn exit<'m>(&self, model: &'m F::Model, state: &mut F::State<'m>) {
        self.op.exit(model, state);
    }
}
