//! [`Op`]: the code that runs for each task.

mod context;
mod exit;
mod fold;
mod plain;
mod retry;
mod view;
mod with_state;

use std::marker::PhantomData;

use proc_pool::{BoxError, Family};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use context::{InContext, WithContext};
pub(crate) use exit::ExitFn;
pub use exit::WithExit;
pub use fold::Folded;
pub use plain::PlainOp;
pub(crate) use retry::{Panics, PanicsAndErrors};
pub use retry::{Retried, Retry};
pub use view::{View, WithView};
pub use with_state::WithState;

/// The code that runs for each task of an invoker whose builder has a model of type `M`: a [`PlainOp`] (`fn(&Model, Task) ->
/// Output`), a [`WithState`] or a [`WithView`]. The trait is sealed.
///
/// Plain functions, and closures that capture nothing, coerce to function pointers.
pub trait Op<M, T, R>: sealed::Sealed<M, T, R> + Clone + Send + Sync + 'static {
    /// The type that the op gets a reference to: the model.
    #[doc(hidden)]
    type Model: Send + Sync + 'static;

    /// The state that a worker keeps between tasks. It may borrow from the model.
    #[doc(hidden)]
    type State<'m>: Send;

    /// The function pointers that are sent to a worker process.
    #[doc(hidden)]
    type Functions: proc_pool::Op;

    /// The values that are sent to a worker process.
    #[doc(hidden)]
    type Data: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Splits the op into what a worker process gets.
    #[doc(hidden)]
    fn split(self) -> (Self::Functions, Self::Data);

    #[doc(hidden)]
    fn join(functions: Self::Functions, data: Self::Data) -> Self;

    /// Makes what the op gets from the model of the builder.
    #[doc(hidden)]
    fn model(&self, model: M) -> Self::Model;

    #[doc(hidden)]
    fn start<'m>(&self, model: &'m Self::Model) -> Result<Self::State<'m>, BoxError>;

    #[doc(hidden)]
    fn run<'m>(&self, model: &'m Self::Model, state: &mut Self::State<'m>, task: T) -> R;

    /// Appends the encoded values of which outputs depend: the context, the first value of a fold.
    #[doc(hidden)]
    fn encode_values(&self, into: &mut Vec<u8>) -> Result<(), BoxError> {
        let _ = into;
        Ok(())
    }

    /// Ends the state, before it is dropped.
    #[doc(hidden)]
    fn exit<'m>(&self, model: &'m Self::Model, state: &mut Self::State<'m>) {
        let _ = (model, state);
    }
}

mod sealed {
    pub trait Sealed<M, T, R> {}
}

use sealed::Sealed;

/// The family of the states of an op.
pub struct StateOf<F, M, T, R>(PhantomData<fn(F, M, T) -> R>);

impl<F, M, T, R> Family for StateOf<F, M, T, R>
where
    F: Op<M, T, R>,
    M: 'static,
    T: 'static,
    R: 'static,
{
    type Of<'m> = F::State<'m>;
}
