//! [`Invoke`]: iterators of tasks that end in an invoker.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::invoker::Invoker;
use crate::outputs::Outputs;

/// Methods of every iterator that run its items as tasks, at the end of a chain of adapters.
///
/// ```no_run
/// use invoker::{Invoke, Invoker};
///
/// fn root(_: &(), n: f64) -> f64 {
///     n.sqrt()
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # invoker::init();
/// let invoker = Invoker::builder(root).model(()).build()?;
/// for root in (0..10).map(f64::from).invoke(&invoker) {
///     println!("{}", root?);
/// }
/// # Ok(()) }
/// ```
pub trait Invoke: Iterator + Sized {
    /// Runs the op for every task, in order: [`Invoker::map`].
    fn invoke<M, R>(self, invoker: &Invoker<M, Self::Item, R>) -> Outputs<'_, Self::Item, R, Self>
    where
        M: Send + Sync + 'static,
        Self::Item: Serialize + DeserializeOwned + Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        invoker.map(self)
    }

    /// Runs the op for every task, with outputs as they complete: [`Invoker::map_unordered`].
    fn invoke_unordered<M, R>(self, invoker: &Invoker<M, Self::Item, R>) -> Outputs<'_, Self::Item, R, Self>
    where
        M: Send + Sync + 'static,
        Self::Item: Serialize + DeserializeOwned + Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        invoker.map_unordered(self)
    }
}

impl<I: Iterator> Invoke for I {}
