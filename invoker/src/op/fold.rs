//! [`Folded`]: an op that runs chunks of tasks, and adds up their outputs in the worker.

use proc_pool::{BoxError, Codec, Native};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Op, Sealed};

/// An op whose tasks are chunks of another op's tasks: see [`OpBuilder::fold`](crate::OpBuilder::fold).
pub struct Folded<F, T, R, A> {
    op: F,
    init: A,
    add: fn(&mut A, R),
    types: std::marker::PhantomData<fn(T)>,
}

impl<F, T, R, A> Folded<F, T, R, A> {
    pub(crate) fn new(op: F, init: A, add: fn(&mut A, R)) -> Self {
        let types = std::marker::PhantomData;
        Self { op, init, add, types }
    }
}

impl<F, T, R, A> std::fmt::Debug for Folded<F, T, R, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Folded").finish_non_exhaustive()
    }
}

impl<F: Clone, T, R, A: Clone> Clone for Folded<F, T, R, A> {
    fn clone(&self) -> Self {
        Self::new(self.op.clone(), self.init.clone(), self.add)
    }
}

impl<F, M, T, R, C, A> Sealed<M, C, A> for Folded<F, T, R, A>
where
    F: Op<M, T, R>,
    C: IntoIterator<Item = T>,
{
}

impl<F, M, T, R, C, A> Op<M, C, A> for Folded<F, T, R, A>
where
    F: Op<M, T, R>,
    C: IntoIterator<Item = T> + 'static,
    T: 'static,
    R: 'static,
    A: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
{
    type Model = F::Model;
    type State<'m> = F::State<'m>;
    type Functions = (F::Functions, fn(&mut A, R));
    type Data = (F::Data, A);

    fn split(self) -> (Self::Functions, Self::Data) {
        let (functions, data) = self.op.split();
        ((functions, self.add), (data, self.init))
    }

    fn join((functions, add): Self::Functions, (data, init): Self::Data) -> Self {
        Self::new(F::join(functions, data), init, add)
    }

    fn model(&self, model: M) -> F::Model {
        self.op.model(model)
    }

    fn start<'m>(&self, model: &'m F::Model) -> Result<F::State<'m>, BoxError> {
        self.op.start(model)
    }

    fn run<'m>(&self, model: &'m F::Model, state: &mut F::State<'m>, tasks: C) -> A {
        let mut sum = self.init.clone();
        for task in tasks {
            (self.add)(&mut sum, self.op.run(model, state, task));
        }
        sum
    }

    fn encode_values(&self, into: &mut Vec<u8>) -> Result<(), BoxError> {
        self.op.encode_values(into)?;
        Native::encode(&self.init, into)
    }

    fn exit<'m>(&self, model: &'m F::Model, state: &mut F::State<'m>) {
        self.op.exit(model, state);
    }
}
