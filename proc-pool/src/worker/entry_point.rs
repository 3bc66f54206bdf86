//! [`EntryPoint`]: the description of what the workers of a pool run. `pool::builder` starts a pool from it, and `registry`
//! names it; `routine` has its functions.

use std::ffi::OsString;
use std::marker::PhantomData;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::BoxError;
use crate::wire::codec::Codec;
use crate::wire::entry::TypeNames;
use crate::wire::native::Native;
use crate::worker::routine::Routine;
use crate::worker::service::{PlainOp, Service, StatefulOp, Worker, WorkerContext};

/// Describes what the workers of a pool run: an op, an op with state, a [`Worker`] or a [`Service`], of this program or of a
/// separate worker program.
///
/// | constructor | the workers run | initial value |
/// |---|---|---|
/// | [`op`](EntryPoint::op) | a function | `()` |
/// | [`op_with_state`](EntryPoint::op_with_state) | a function with state | the argument of the function that makes the state |
/// | [`worker`](EntryPoint::worker) | a [`Worker`] | [`Worker::Init`] |
/// | [`service`](EntryPoint::service) | a [`Service`] | bytes |
/// | [`named`](EntryPoint::named) | an op or worker that another program has [registered](crate::Registry) | as registered |
/// | [`named_service`](EntryPoint::named_service) | a [`Service`] that another program has registered | bytes |
///
/// [`Builder::build`](crate::Builder::build) starts a pool that runs it; [`Registry::add`](crate::Registry::add) registers it
/// under a name. Tasks and outputs are encoded with [`Native`] unless [`codecs`](Self::codecs) selects other codecs.
///
/// `K` is the kind of entry point, which follows from the constructor. Code that must name the type can return an
/// `impl` [`Runnable`](crate::Runnable) or an `impl` [`OwnEntryPoint`].
///
/// ```no_run
/// use proc_pool::{Builder, EntryPoint, Pod, PodVec};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let powers = |base: f64| (0..1000).map(|n| base.powi(n)).collect();
/// let pool = Builder::new().build(EntryPoint::op(powers).codecs(Pod, PodVec), &())?;
/// let powers: Vec<f64> = pool.map([1.5]).next().ok_or("one task, one output")??;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use = "an entry point does nothing until a pool is built with it"]
pub struct EntryPoint<K, CT = Native, CR = Native> {
    pub(crate) kind: K,
    codecs: PhantomData<fn(CT) -> CR>,
}

/// The kind of an [`EntryPoint`] for a [`Worker`] of this program.
#[derive(Debug, Clone)]
pub struct OwnWorker<W: Worker> {
    op: W::Op,
}

/// The kind of an [`EntryPoint`] for a [`Service`] of this program.
#[derive(Debug, Clone)]
pub struct OwnService<S>(PhantomData<fn() -> S>);

/// The kind of an [`EntryPoint`] for an op or worker that another program has registered, with initial value `I`, tasks `T`
/// and outputs `R`.
#[derive(Debug, Clone)]
pub struct NamedWorker<I, T, R> {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) name: String,
    types: PhantomData<fn(I, T) -> R>,
}

/// The kind of an [`EntryPoint`] for a [`Service`] that another program has registered.
#[derive(Debug, Clone)]
pub struct NamedService {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) name: String,
}

impl<K> EntryPoint<K> {
    fn of(kind: K) -> Self {
        Self {
            kind,
            codecs: PhantomData,
        }
    }
}

impl EntryPoint<()> {
    /// Makes an entry point from a plain `fn`, or from a closure that captures nothing.
    ///
    /// A closure that captures values is not a `fn`: a worker process has its code, but not the values. Put such values into
    /// the task, or into the initial value of an [op with state](Self::op_with_state).
    ///
    /// ```compile_fail,E0308
    /// let factor = 3;
    /// let entry_point = proc_pool::EntryPoint::op(move |n: u64| factor * n);
    /// ```
    pub fn op<T: 'static, R: 'static>(op: fn(T) -> R) -> EntryPoint<OwnWorker<PlainOp<T, R>>> {
        EntryPoint::of(OwnWorker { op })
    }

    /// Makes an entry point from a function with state, which `start` makes from the initial value once in each worker
    /// process. Both are plain `fn`s, or closures that capture nothing. An error of `start` ends the worker process; the pool
    /// tries a few more times, and then fails with that reason.
    ///
    /// ```no_run
    /// use proc_pool::{Builder, EntryPoint, WorkerContext};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let start = |_: &mut WorkerContext, path: String| Ok(std::fs::read_to_string(path)?);
    /// let count = |text: &mut String, word: String| text.matches(&word).count();
    /// let pool = Builder::new().build(EntryPoint::op_with_state(start, count), &"text.txt".to_owned())?;
    /// for count in pool.map(["one".to_owned(), "two".to_owned()]) {
    ///     println!("{}", count?);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn op_with_state<I, S, T, R>(
        start: fn(&mut WorkerContext, I) -> Result<S, BoxError>,
        op: fn(&mut S, T) -> R,
    ) -> EntryPoint<OwnWorker<StatefulOp<I, S, T, R>>>
    where
        I: Serialize + DeserializeOwned + 'static,
        S: 'static,
        T: 'static,
        R: 'static,
    {
        EntryPoint::of(OwnWorker { op: (start, op) })
    }

    /// Makes an entry point for a [`Worker`]. Each worker process starts it from `op` and the initial value.
    pub fn worker<W: Worker>(op: W::Op) -> EntryPoint<OwnWorker<W>> {
        EntryPoint::of(OwnWorker { op })
    }

    /// Makes an entry point for a [`Service`], which turns bytes into bytes.
    pub fn service<S: Service>() -> EntryPoint<OwnService<S>> {
        EntryPoint::of(OwnService(PhantomData))
    }

    /// Makes an entry point for the op or worker that another program has [registered](crate::Registry) as `name`, with the
    /// same types and codecs. The path `program` is relative to this process's current directory.
    pub fn named<I, T, R>(
        program: impl Into<PathBuf>,
        name: impl Into<String>,
    ) -> EntryPoint<NamedWorker<I, T, R>> {
        EntryPoint::of(NamedWorker {
            program: program.into(),
            args: Vec::new(),
            name: name.into(),
            types: PhantomData,
        })
    }

    /// Makes an entry point for the [`Service`] that another program has [registered](crate::Registry) as `name`. The path
    /// `program` is relative to this process's current directory.
    pub fn named_service(program: impl Into<PathBuf>, name: impl Into<String>) -> EntryPoint<NamedService> {
        EntryPoint::of(NamedService {
            program: program.into(),
            args: Vec::new(),
            name: name.into(),
        })
    }
}

impl<I, T, R, CT, CR> EntryPoint<NamedWorker<I, T, R>, CT, CR> {
    /// Adds arguments to the command line of the worker program, which has none by default: for a program that is a worker only in one
    /// of its modes, or for an interpreter with its script.
    ///
    /// ```
    /// use proc_pool::EntryPoint;
    ///
    /// let square = EntryPoint::named::<(), u64, u64>("/usr/bin/python3", "square").args(["-c", "import worker; worker.serve()"]);
    /// ```
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.kind.args.extend(args.into_iter().map(Into::into));
        self
    }
}

impl<CT, CR> EntryPoint<NamedService, CT, CR> {
    /// Adds arguments to the command line of the worker program, which has none by default.
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.kind.args.extend(args.into_iter().map(Into::into));
        self
    }
}

impl<K, CT, CR> EntryPoint<K, CT, CR> {
    /// Selects the codecs of tasks and outputs. Only the types of the two arguments matter. A [`Service`] has no codecs.
    pub fn codecs<T, R>(self, tasks: T, outputs: R) -> EntryPoint<K, T, R> {
        let _ = (tasks, outputs);
        EntryPoint {
            kind: self.kind,
            codecs: PhantomData,
        }
    }
}

/// An [`EntryPoint`] for code of this program, which [`Registry::add`](crate::Registry::add) accepts. This trait is sealed:
/// other types can't implement it.
pub trait OwnEntryPoint: sealed::Own {}

impl<E: sealed::Own> OwnEntryPoint for E {}

pub(crate) mod sealed {
    use super::{Routine, TypeNames};

    pub trait Own {
        #[doc(hidden)]
        fn own(self) -> (Routine, TypeNames);
    }
}

impl<W, CT, CR> sealed::Own for EntryPoint<OwnWorker<W>, CT, CR>
where
    W: Worker,
    CT: Codec<W::Task>,
    CR: Codec<W::Output>,
{
    fn own(self) -> (Routine, TypeNames) {
        let types = TypeNames::of::<W::Init, W::Task, W::Output, CT, CR>();
        (Routine::worker::<W, CT, CR>(self.kind.op), types)
    }
}

impl<S: Service> sealed::Own for EntryPoint<OwnService<S>> {
    fn own(self) -> (Routine, TypeNames) {
        (Routine::service::<S>(), TypeNames::bytes())
    }
}
