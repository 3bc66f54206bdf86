//! [`OpBuilder`]: the op of an invoker, before its model is set.

use std::marker::PhantomData;

use proc_pool::BoxError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shm_buffers::Image;

use crate::builder::Builder;
use crate::invoker::Invoker;
use crate::model_source::ModelSource;
use crate::op::{
    ExitFn, Folded, InContext, Op, Panics, PanicsAndErrors, PlainOp, Retried, Retry, View, WithContext,
    WithExit, WithState, WithView,
};

impl<M, T, R> Invoker<M, T, R>
where
    M: Send + Sync + 'static,
    T: Serialize + DeserializeOwned + Send + 'static,
    R: Serialize + DeserializeOwned + Send + 'static,
{
    /// Starts building an invoker from its op: a plain `fn(&M, T) -> R`, or a closure that captures nothing.
    ///
    /// A closure that captures is not a `fn`: a worker process has its code, but not the captured values. Put those into the
    /// model or into the task.
    ///
    /// ```compile_fail,E0308
    /// let factor = 3.0;
    /// let builder = invoker::Invoker::builder(move |scale: &f64, n: f64| factor * scale * n).model(2.0);
    /// ```
    pub fn builder(op: fn(&M, T) -> R) -> OpBuilder<PlainOp<M, T, R>, M, T, R> {
        OpBuilder::new(op)
    }

    /// Like [`builder`](Self::builder), for an op with state per worker: buffers to reuse, a cache, a connection. Each worker
    /// calls `state` once, with the model; `state` and `op` are plain `fn`s or closures that capture nothing.
    ///
    /// A worker is a process, a thread, or the calling thread (concurrent callers have a state each). The state lives as long
    /// as its worker; a process that replaces another one starts with a new state. After a panic, the state is as the op left
    /// it. So an output should not depend on what the state has been used for.
    ///
    /// ```
    /// use invoker::{Executor, Invoker};
    ///
    /// let state = |_: &Vec<f64>| Ok(Vec::new());
    /// let median = |model: &Vec<f64>, sorted: &mut Vec<f64>, most: f64| {
    ///     sorted.clear(); // keeps its allocation
    ///     sorted.extend(model.iter().filter(|value| **value <= most));
    ///     sorted.sort_by(f64::total_cmp);
    ///     sorted.get(sorted.len() / 2).copied()
    /// };
    /// let builder = Invoker::builder_with_state(state, median).model(vec![3.0, 1.0, 2.0]);
    /// let invoker = builder.executor(Executor::Threads).build()?;
    /// let medians: Vec<Option<f64>> = invoker.map([3.0, 1.0, 0.0]).collect::<Result<_, _>>()?;
    /// assert_eq!(medians, [Some(2.0), Some(1.0), None]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder_with_state<S: Send + 'static>(
        state: fn(&M) -> Result<S, BoxError>,
        op: fn(&M, &mut S, T) -> R,
    ) -> OpBuilder<WithState<M, S, T, R>, M, T, R> {
        OpBuilder::new(WithState::new(state, op))
    }

    /// Like [`builder`](Self::builder), for an op with a [`View`] of the model, which borrows from it: a parsed header, a validated
    /// archive, an index over the model's bytes. Each worker makes its view once, when it starts, and keeps it for its whole life. So
    /// no task parses or validates the model again.
    ///
    /// What [`builder_with_state`](Self::builder_with_state) says of states holds for views, too.
    ///
    /// ```
    /// use invoker::{BoxError, Buffer, Executor, Invoker, View};
    ///
    /// /// The lines of a text, found once per worker.
    /// struct Lines;
    ///
    /// impl View<Buffer<u8>> for Lines {
    ///     type Of<'m> = Vec<&'m str>;
    ///
    ///     fn view(text: &Buffer<u8>) -> Result<Vec<&str>, BoxError> {
    ///         Ok(std::str::from_utf8(text)?.lines().collect())
    ///     }
    /// }
    ///
    /// let length = |_: &Buffer<u8>, lines: &mut Vec<&str>, line: usize| lines.get(line).map(|line| line.len());
    /// let builder = Invoker::builder_with_view::<Lines>(length).model(b"one\nthree".to_vec().into());
    /// let invoker = builder.executor(Executor::Threads).build()?;
    /// let lengths: Vec<Option<usize>> = invoker.map(0..3).collect::<Result<_, _>>()?;
    /// assert_eq!(lengths, [Some(3), Some(5), None]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// The op works for any lifetime of the model, so neither the view nor the model can leave it:
    ///
    /// ```compile_fail,E0521
    /// # use invoker::{BoxError, Invoker, View};
    /// # struct Text;
    /// # impl View<String> for Text {
    /// #     type Of<'m> = &'m str;
    /// #     fn view(text: &String) -> Result<&str, BoxError> { Ok(text) }
    /// # }
    /// static KEPT: std::sync::Mutex<&str> = std::sync::Mutex::new("");
    /// fn keep<'m>(_: &'m String, text: &mut &'m str, _: u32) {
    ///     *KEPT.lock().unwrap() = *text;
    /// }
    /// Invoker::builder_with_view::<Text>(keep);
    /// ```
    ///
    /// Nor can an output borrow from them:
    ///
    /// ```compile_fail,E0308
    /// # use invoker::{BoxError, Invoker, View};
    /// # struct Text;
    /// # impl View<String> for Text {
    /// #     type Of<'m> = &'m str;
    /// #     fn view(text: &String) -> Result<&str, BoxError> { Ok(text) }
    /// # }
    /// fn text<'m>(_: &'m String, text: &mut &'m str, _: u32) -> &'m str {
    ///     text
    /// }
    /// Invoker::builder_with_view::<Text>(text);
    /// ```
    pub fn builder_with_view<V: View<M>>(
        op: for<'m, 'v> fn(&'m M, &'v mut V::Of<'m>, T) -> R,
    ) -> OpBuilder<WithView<V, M, T, R>, M, T, R> {
        OpBuilder::new(WithView::new(op))
    }
}

/// An op that still needs its model. Made by [`Invoker::builder`].
#[derive(Debug)]
#[must_use = "call `model`, `model_ref` or `image`"]
pub struct OpBuilder<F, M, T, R> {
    op: F,
    types: PhantomData<fn(&M, T) -> R>,
}

impl<F, M, T, R> OpBuilder<F, M, T, R> {
    fn new(op: F) -> Self {
        let types = PhantomData;
        Self { op, types }
    }

    pub(crate) fn into_op(self) -> F {
        self.op
    }

    /// Sets the model, by value. With worker processes it is moved into shared memory, and its pages are released on the way.
    /// Its large parts should be [`Buffer`](shm_buffers::Buffer)s.
    pub fn model(self, model: M) -> Builder<'static, F, M, T, R> {
        self.with(ModelSource::Value(model))
    }

    /// Sets the model, by reference: [`build`](Builder::build) copies it. The copy needs as much memory as the model, except
    /// for buffers that are in shared memory already.
    ///
    /// ```
    /// use invoker::{Executor, Invoker};
    ///
    /// let scale = 2.0;
    /// let builder = Invoker::builder(|scale: &f64, n: u32| scale * f64::from(n)).model_ref(&scale);
    /// let invoker = builder.executor(Executor::Inline).build()?;
    /// assert_eq!(invoker.map([3]).next().expect("one task, one output")?, 3.0 * scale);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn model_ref(self, model: &M) -> Builder<'_, F, M, T, R> {
        self.with(ModelSource::Reference(model))
    }

    /// Sets the model, as a model image: one that was [shared](crate::share) before, or a file. [`Image::load_shared`] loads a
    /// file, compressed or not; the `unsafe` [`Image::open`] maps it.
    pub fn image(self, image: Image) -> Builder<'static, F, M, T, R> {
        self.with(ModelSource::Image(image))
    }

    /// Adds up the outputs of many tasks within the workers, for millions of tiny tasks: tasks travel in chunks, and each chunk has one
    /// output. It starts from `init`, and `add` adds the output of each of its tasks. [`Invoker::reduce`] runs all tasks, and combines
    /// the outputs of the chunks; [`Invoker::map_chunks`] returns these one by one.
    ///
    /// A chunk is one task in every other respect: a panic, a deadline or the death of its worker costs all of it, and a seed or a
    /// retry is for all of it (those set before this call are for each of its tasks).
    ///
    /// The op and `add` are function pointers, so that they can be sent to another process: calling them costs about two nanoseconds per
    /// task, and the compiler cannot merge the calls of many tasks into vector instructions. If an op takes less than that, let it take
    /// a [range](Invoker::reduce): then its loop is compiled as one.
    ///
    /// ```
    /// use invoker::{Executor, Invoker};
    ///
    /// let collatz = |_: &(), start: u64| {
    ///     let next = |n: &u64| (*n != 1).then(|| if n % 2 == 0 { n / 2 } else { 3 * n + 1 });
    ///     std::iter::successors(Some(start), next).count()
    /// };
    /// let builder = Invoker::builder(collatz).fold(0, |longest, length| *longest = length.max(*longest));
    /// let invoker = builder.model(()).executor(Executor::Threads).build()?;
    /// assert_eq!(invoker.reduce(1..10_000_u64, usize::max)?, Some(262));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fold<C, A>(self, init: A, add: fn(&mut A, R)) -> OpBuilder<Folded<F, T, R, A>, M, C, A>
    where
        C: IntoIterator<Item = T>,
        A: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    {
        OpBuilder::new(Folded::new(self.op, init, add))
    }

    /// Runs a task again whose op has panicked. The error of a task that never succeeds is that of the last attempt.
    ///
    /// The attempts are made by the same worker, one after the other, with its state as the failed attempt left it. A
    /// [deadline](crate::Processes::deadline) is for all attempts and pauses of a task together. A task whose worker process dies is
    /// retried by [`Processes::retries`](crate::Processes::retries) only, and an interrupted invoker waits for the attempts of running
    /// tasks, as it does for running tasks. The report counts a task once.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU32, Ordering};
    /// use invoker::{Executor, Invoker, Retry};
    ///
    /// static CALLS: AtomicU32 = AtomicU32::new(0);
    /// let flaky = |_: &(), n: u32| {
    ///     assert_ne!(CALLS.fetch_add(1, Ordering::Relaxed), 0, "the first call fails");
    ///     n
    /// };
    /// let builder = Invoker::builder(flaky).retry_panics(Retry::new(1)).model(());
    /// let invoker = builder.executor(Executor::Inline).build()?;
    /// assert_eq!(invoker.submit(7).wait()?, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn retry_panics(self, retry: Retry) -> OpBuilder<Retried<F, Panics>, M, T, R>
    where
        T: Clone,
    {
        OpBuilder::new(Retried::new(self.op, retry))
    }

    /// Calls `exit` with the model and the state of each worker that ends in order: at [`Invoker::finish`], when a worker process is
    /// replaced because of its tasks or its memory ([`recycle_after`](crate::Processes::recycle_after)), or when
    /// [`resize`](Invoker::resize) removes it. With threads and inline, also when the invoker is dropped. To write what a cache has
    /// learned, or to close a session. A second call adds a second function.
    ///
    /// Do not rely on it: a worker process that crashes or is killed skips it, and one that ends is killed after five seconds. Threads
    /// have no such limit. A panic of `exit` is printed, and otherwise ignored.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU64, Ordering};
    /// use invoker::{Executor, Invoker};
    ///
    /// static HITS: AtomicU64 = AtomicU64::new(0);
    /// let count = |_: &(), hits: &mut u64, n: u64| *hits += n;
    /// let builder = Invoker::builder_with_state(|_: &()| Ok(0), count).on_exit(|_, hits| {
    ///     HITS.fetch_add(*hits, Ordering::Relaxed);
    /// });
    /// let invoker = builder.model(()).executor(Executor::Threads).build()?;
    /// invoker.for_each(0..100, drop);
    /// invoker.finish()?;
    /// assert_eq!(HITS.load(Ordering::Relaxed), 4950);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_exit(self, exit: ExitFn<F, M, T, R>) -> OpBuilder<WithExit<F, M, T, R>, M, T, R>
    where
        F: Op<M, T, R>,
        M: 'static,
        T: 'static,
        R: 'static,
    {
        OpBuilder::new(WithExit::new(self.op, exit))
    }

    fn with(self, model: ModelSource<'_, M>) -> Builder<'_, F, M, T, R> {
        Builder::new(self.op, model)
    }
}

impl<F, M, T, R, E> OpBuilder<F, M, T, Result<R, E>> {
    /// Like [`retry_panics`](Self::retry_panics), also for tasks whose op returns an `Err`.
    pub fn retry_errors(self, retry: Retry) -> OpBuilder<Retried<F, PanicsAndErrors>, M, T, Result<R, E>>
    where
        T: Clone,
    {
        OpBuilder::new(Retried::new(self.op, retry))
    }
}

impl<F, M, C, T, R> OpBuilder<F, WithContext<M, C>, T, R> {
    /// Sets the context: a small value that configures this invoker, for ops (and states and views) that get a [`WithContext`] instead
    /// of the model alone. The model is set as usual, by value, by reference or as an image, which need not know of the context.
    ///
    /// ```
    /// use invoker::{Backing, Buffer, Executor, Invoker, WithContext, share};
    ///
    /// let above = |run: &WithContext<Buffer<f64>, f64>, start: usize| {
    ///     run.model[start..].iter().filter(|score| **score > run.context).count()
    /// };
    /// let image = share(&Buffer::from(vec![0.1, 0.7, 0.9]), &Backing::Auto)?;
    /// let builder = Invoker::builder(above).context(0.5).image(image);
    /// let invoker = builder.executor(Executor::Threads).build()?;
    /// assert_eq!(invoker.map([0, 2]).collect::<Result<Vec<_>, _>>()?, [2, 1]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// An op that gets a context does not build without one:
    ///
    /// ```compile_fail,E0599
    /// # use invoker::{Invoker, WithContext};
    /// let run = WithContext { model: (), context: 7 };
    /// Invoker::builder(|run: &WithContext<(), u32>, n: u32| run.context * n).model(run).build();
    /// ```
    pub fn context(self, context: C) -> OpBuilder<InContext<F, C>, M, T, R>
    where
        C: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    {
        OpBuilder::new(InContext::new(self.op, context))
    }
}
