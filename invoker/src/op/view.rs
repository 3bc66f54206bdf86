//! [`View`]: a state that borrows from the model, and [`WithView`], an op with one.

use std::marker::PhantomData;

use proc_pool::{BoxError, ByView, Family};

use super::{Op, Sealed};

/// A view of the model `M`, which borrows from it: an index over its bytes, an archive that was validated, a parsed header. Each
/// worker makes it once and keeps it, beside the model, for its whole life: see
/// [`Invoker::builder_with_view`](crate::Invoker::builder_with_view).
///
/// The implementing type stands for the view's type, which has a lifetime parameter:
///
/// ```
/// use invoker::{BoxError, Buffer, View};
///
/// /// Text that was checked once.
/// struct Text;
///
/// impl View<Buffer<u8>> for Text {
///     type Of<'m> = &'m str;
///
///     fn view(bytes: &Buffer<u8>) -> Result<&str, BoxError> {
///         Ok(std::str::from_utf8(bytes)?)
///     }
/// }
/// ```
pub trait View<M: 'static>: 'static {
    /// The type of a view that borrows from the model for `'m`.
    type Of<'m>: Send;

    /// Makes a view of the model.
    ///
    /// # Errors
    /// Any error, for example that the model is invalid. The invoker's [`build`](crate::Builder::build) fails with it.
    fn view<'m>(model: &'m M) -> Result<Self::Of<'m>, BoxError>;
}

/// The family of the views of a [`View`].
pub struct ViewFamily<V, M>(PhantomData<fn(V, M)>);

impl<M: 'static, V: View<M>> Family for ViewFamily<V, M> {
    type Of<'m> = V::Of<'m>;
}

/// An op with a view of the model: see [`Invoker::builder_with_view`](crate::Invoker::builder_with_view).
pub struct WithView<V: View<M>, M: 'static, T, R>(ByView<M, ViewFamily<V, M>, T, R>);

impl<V: View<M>, M: 'static, T, R> WithView<V, M, T, R> {
    pub(crate) fn new(op: for<'m, 'v> fn(&'m M, &'v mut V::Of<'m>, T) -> R) -> Self {
        Self(ByView::<M, ViewFamily<V, M>, T, R>(op))
    }
}

impl<V: View<M>, M: 'static, T, R> std::fmt::Debug for WithView<V, M, T, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WithView").finish_non_exhaustive()
    }
}

impl<V: View<M>, M: 'static, T, R> Clone for WithView<V, M, T, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V: View<M>, M: 'static, T, R> Copy for WithView<V, M, T, R> {}

impl<V: View<M>, M: 'static, T, R> Sealed<M, T, R> for WithView<V, M, T, R> {}

impl<V, M, T, R> Op<M, T, R> for WithView<V, M, T, R>
where
    V: View<M>,
    M: Send + Sync + 'static,
    T: 'static,
    R: 'static,
{
    type Model = M;
    type State<'m> = V::Of<'m>;
    type Functions = ByView<M, ViewFamily<V, M>, T, R>;
    type Data = ();

    fn split(self) -> (Self::Functions, ()) {
        (self.0, ())
    }

    fn join(functions: Self::Functions, (): ()) -> Self {
        Self(functions)
    }

    fn model(&self, model: M) -> M {
        model
    }

    fn start<'m>(&self, model: &'m M) -> Result<V::Of<'m>, BoxError> {
        V::view(model)
    }

    #[inline]
    fn run<'m>(&self, model: &'m M, view: &mut V::Of<'m>, task: T) -> R {
        (self.0.0)(model, view, task)
    }
}
