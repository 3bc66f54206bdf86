//! [`WithExit`]: an op whose state is ended by a function.

use proc_pool::{BoxError, EndView};

use super::{Op, Sealed, StateOf};

/// An op with a function for the end of its state: see [`OpBuilder::on_exit`](crate::OpBuilder::on_exit).
pub struct WithExit<F, M, T, R>
where
    F: Op<M, T, R>,
    M: 'static,
    T: 'static,
    R: 'static,
{
    op: F,
    exit: EndView<F::Model, StateOf<F, M, T, R>>,
}

/// The function for the end of the state of the op `F`.
pub(crate) type ExitFn<F, M, T, R> =
    for<'m, 's> fn(&'m <F as Op<M, T, R>>::Model, &'s mut <F as Op<M, T, R>>::State<'m>);

impl<F, M, T, R> WithExit<F, M, T, R>
where
    F: Op<M, T, R>,
{
    pub(crate) fn new(op: F, exit: ExitFn<F, M, T, R>) -> Self {
        let exit = EndView::<F::Model, StateOf<F, M, T, R>>(exit);
        Self { op, exit }
    }
}

impl<F, M, T, R> std::fmt::Debug for WithExit<F, M, T, R>
where
    F: Op<M, T, R>,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WithExit").finish_non_exhaustive()
    }
}

impl<F, M, T, R> Clone for WithExit<F, M, T, R>
where
    F: Op<M, T, R>,
{
    fn clone(&self) -> Self {
        let (op, exit) = (self.op.clone(), self.exit);
        Self { op, exit }
    }
}

impl<F, M, T, R> Sealed<M, T, R> for WithExit<F, M, T, R> where F: Op<M, T, R> {}

impl<F, M, T, R> Op<M, T, R> for WithExit<F, M, T, R>
where
    F: Op<M, T, R>,
{
    type Model = F::Model;
    type State<'m> = F::State<'m>;
    type Functions = (F::Functions, EndView<F::Model, StateOf<F, M, T, R>>);
    type Data = F::Data;

    fn split(self) -> (Self::Functions, F::Data) {
        let (functions, data) = self.op.split();
        ((functions, self.exit), data)
    }

    fn join((functions, exit): Self::Functions, data: F::Data) -> Self {
        let op = F::join(functions, data);
        Self { op, exit }
    }

    fn model(&self, model: M) -> F::Model {
        self.op.model(model)
    }

    fn start<'m>(&self, model: &'m F::Model) -> Result<F::State<'m>, BoxError> {
        self.op.start(model)
    }

    #[inline]
    fn run<'m>(&self, model: &'m F::Model, state: &mut F::State<'m>, task: T) -> R {
        self.op.run(model, state, task)
    }

    fn encode_values(&self, into: &mut Vec<u8>) -> Result<(), BoxError> {
        self.op.encode_values(into)
    }

    fn exit<'m>(&self, model: &'m F::Model, state: &mut F::State<'m>) {
        // That of an earlier call was added first.
        self.op.exit(model, state);
        (self.exit.0)(model, state);
    }
}
