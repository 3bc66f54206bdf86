//! The traits of the code that runs in a worker: [`Service`] turns bytes into bytes, [`Worker`] values into values. The
//! main loop runs services; adapters turn workers and functions into services.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use shm_buffers::out_of_band::{Received, restore};
use shm_buffers::ring;
use shm_buffers::slots::Slots;

use crate::error::{BoxError, WorkerId};
use crate::metrics::PhaseTimes;
use crate::wire::apart::{encode_apart, may_have_buffers};
use crate::wire::bytes::{BuffersIn, OutputBuf};
use crate::wire::codec::Codec;
use crate::wire::encoding::decode;
use crate::wire::owned_bytes::OwnedBytes;
use crate::wire::worker_values::{WorkerValue, WorkerValueError};
use crate::worker::op::{ErasedOp, Op};

/// Describes a worker and its pool to the worker's code when that starts.
#[derive(Debug)]
pub struct WorkerContext {
    pub(crate) worker: WorkerId,
    pub(crate) workers: usize,
    pub(crate) generation: u32,
    pub(crate) user_ring: Option<ring::Producer>,
    pub(crate) slots: Slots,
    /// The op of a [`Worker`].
    pub(crate) op: ErasedOp,
    /// The values that the leader has made for this process.
    pub(crate) values: Vec<WorkerValue>,
    /// `now_ns` of the last call of `mark_attached`.
    pub(crate) attached_ns: Option<u64>,
}

impl WorkerContext {
    /// Returns this worker's index in the pool.
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// Returns the number of workers that the pool had when this process was started.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Returns how many processes this worker had before this one: 0 for the first, 1 for its replacement, and so on. Processes that
    /// failed to start count.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Returns the producer of the user ring, at the first call; later calls return `None`.
    ///
    /// The ring carries byte frames to the pool's [`Observer`](crate::Observer). Its memory survives this process. See
    /// [`Builder::user_ring`](crate::Builder::user_ring) for its size.
    pub fn take_user_ring(&mut self) -> Option<ring::Producer> {
        self.user_ring.take()
    }

    /// Returns the user slots: numbers that the pool's [`Observer`](crate::Observer) can read at any time. See
    /// [`Builder::slots`](crate::Builder::slots) for their number.
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Records that the worker has attached what it shares with other processes. [`Times`](crate::Times) reports this apart from the
    /// rest of the worker's start, in which it makes its own state.
    pub fn mark_attached(&mut self) {
        self.attached_ns = Some(crate::os::now_ns());
    }

    /// Returns the value of type `V` that the leader has made for this process: see
    /// [`Builder::worker_value`](crate::Builder::worker_value). Each call decodes it again.
    ///
    /// ```
    /// use proc_pool::{BoxError, EntryPoint, WorkerContext};
    ///
    /// let start = |context: &mut WorkerContext, (): ()| -> Result<u32, BoxError> { Ok(context.worker_value::<u32>()?) };
    /// let entry_point = EntryPoint::op_with_state(start, |seed: &mut u32, n: u32| *seed ^ n);
    /// ```
    ///
    /// # Errors
    /// [`WorkerValueError`] if the leader made no value of this type, or if it cannot be decoded. If `start` returns this error, the
    /// pool makes no second attempt.
    pub fn worker_value<V: DeserializeOwned>(&self) -> Result<V, WorkerValueError> {
        WorkerValue::find(&self.values)
    }
}

/// Why a worker's code cannot start with what the leader has sent; it would not at another attempt either.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UnfitWorker(pub(crate) String);

/// Why a service has no output for a task. The text becomes part of the task's error.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError {
    /// The task could not be decoded.
    Task(String),
    /// The output could not be encoded.
    Output(String),
}

/// Code that turns bytes into bytes: started once in each worker process, then called for each task, one after another.
pub trait Service: Sized + 'static {
    /// Makes the service's state from the initial value.
    ///
    /// # Errors
    /// Any error ends this process. The pool tries a few more times, and then fails with the error's text.
    fn start(context: &mut WorkerContext, init: &[u8]) -> Result<Self, BoxError>;

    /// Runs one task and appends its output to the empty buffer `output`. A panic becomes the task's error.
    ///
    /// # Errors
    /// When the task can't be decoded, or the output can't be encoded.
    fn call(&mut self, task: &[u8], output: &mut OutputBuf) -> Result<(), CallError>;

    /// Does the same as [`call`](Self::call), for one of the few tasks that are sampled, and reports to `phases` when the task
    /// was decoded and when it was run. Without these reports, all of the time counts as running.
    ///
    /// # Errors
    /// The same as those of [`call`](Self::call).
    fn call_timed(
        &mut self,
        task: &[u8],
        output: &mut OutputBuf,
        phases: &mut PhaseTimes,
    ) -> Result<(), CallError> {
        let _ = phases;
        self.call(task, output)
    }

    /// Calls `tasks`, which runs all tasks of this process. A service whose calls need a lock of the whole process, such as that of an
    /// interpreter, takes it here once, and releases it in [`wait`](Self::wait).
    fn run_tasks(tasks: impl FnOnce()) {
        tasks();
    }

    /// Calls `wait`, which waits for the leader, and returns what that returns.
    fn wait<T: Send>(wait: impl FnOnce() -> T + Send) -> T {
        wait()
    }
}

/// Code that turns values into values: started once in each worker process, then called for each task, one after another.
/// Values are encoded with [`Native`](crate::Native), unless the [`EntryPoint`](crate::EntryPoint) chooses other [`Codec`]s.
pub trait Worker: Sized + 'static {
    /// The code that the leader sends: a function pointer, a pair of them, or `()` for none. See [`Op`].
    type Op: Op;
    /// The initial value, from which the state of each worker process is made.
    type Init: Serialize + DeserializeOwned;
    /// The type of a task.
    type Task: 'static;
    /// The type of its output.
    type Output: 'static;

    /// Makes the worker's state from the initial value.
    ///
    /// # Errors
    /// Any error ends this process. The pool tries a few more times, and then fails with the error's text.
    fn start(context: &mut WorkerContext, op: Self::Op, init: Self::Init) -> Result<Self, BoxError>;

    /// Runs one task. A panic becomes the task's error.
    fn run(&mut self, task: Self::Task) -> Self::Output;
}

/// The code that the main loop runs: a [`Service`], or a [`Worker`] with its codecs.
pub(crate) trait Runner: Sized {
    fn start(context: &mut WorkerContext, init: &[u8]) -> Result<Self, BoxError>;

    /// Returns the alignment of the memory into which large tasks are received.
    fn alignment() -> usize;

    /// Runs one task, and reports to `phases` if it is sampled.
    fn call(
        &mut self,
        task: &mut TaskBytes<'_>,
        output: &mut OutputBuf,
        phases: Option<&mut PhaseTimes>,
    ) -> Result<(), CallError>;

    /// See [`Service::run_tasks`].
    fn run_tasks(tasks: impl FnOnce()) {
        tasks();
    }

    /// See [`Service::wait`].
    fn wait<T: Send>(wait: impl FnOnce() -> T + Send) -> T {
        wait()
    }
}

/// An encoded task.
pub(crate) enum TaskBytes<'a> {
    Small(&'a [u8]),
    /// Its memory may be taken.
    Large(&'a mut OwnedBytes),
    /// The encoding leaves out these buffers.
    Apart(&'a [u8], &'a mut Vec<Received>),
}

/// The adapter from a [`Service`].
pub(crate) struct ByteRunner<S>(S);

impl<S: Service> Runner for ByteRunner<S> {
    fn start(context: &mut WorkerContext, init: &[u8]) -> Result<Self, BoxError> {
        S::start(context, init).map(Self)
    }

    fn alignment() -> usize {
        1
    }

    fn call(
        &mut self,
        task: &mut TaskBytes<'_>,
        output: &mut OutputBuf,
        phases: Option<&mut PhaseTimes>,
    ) -> Result<(), CallError> {
        let task: &[u8] = match task {
            TaskBytes::Small(task) => task,
            TaskBytes::Large(task) => task,
            TaskBytes::Apart(..) => {
                let reason = "the leader has left out buffers of a task that is read as bytes";
                return Err(CallError::Task(reason.to_owned()));
            }
        };
        match phases {
            None => self.0.call(task, output),
            Some(phases) => self.0.call_timed(task, output, phases),
        }
    }

    fn run_tasks(tasks: impl FnOnce()) {
        S::run_tasks(tasks);
    }

    fn wait<T: Send>(wait: impl FnOnce() -> T + Send) -> T {
        S::wait(wait)
    }
}

/// The adapter from a [`Worker`], with codecs for tasks and outputs.
pub(crate) struct TypedRunner<W, CT, CR>(W, PhantomData<fn(CT) -> CR>);

impl<W, CT, CR> Runner for TypedRunner<W, CT, CR>
where
    W: Worker,
    CT: Codec<W::Task>,
    CR: Codec<W::Output>,
{
    fn start(context: &mut WorkerContext, init: &[u8]) -> Result<Self, BoxError> {
        let unfit = |reason: String| UnfitWorker(reason);
        let op = context.op.downcast().map_err(|e| unfit(e.to_string()))?;
        let init = decode(init).map_err(|e| unfit(format!("cannot decode the initial value: {e}")))?;
        let worker = W::start(context, op, init)?;
        Ok(Self(worker, PhantomData))
    }

    fn alignment() -> usize {
        CT::alignment()
    }

    #[inline]
    fn call(
        &mut self,
        task: &mut TaskBytes<'_>,
        output: &mut OutputBuf,
        phases: Option<&mut PhaseTimes>,
    ) -> Result<(), CallError> {
        let task = match task {
            TaskBytes::Small(task) => CT::decode(task),
            TaskBytes::Large(task) => CT::decode_owned(task),
            TaskBytes::Apart(encoding, buffers) => restore(std::mem::take(buffers), || CT::decode(encoding)),
        };
        let task = task.map_err(|e| CallError::Task(e.to_string()))?;
        let value = match phases {
            None => self.0.run(task),
            Some(phases) => {
                phases.decoded();
                let value = self.0.run(task);
                phases.ran();
                value
            }
        };
        match CR::into_owned(value) {
            Ok(owned) => output.give(owned),
            Err(value) => encode_output::<W::Output, CR>(&value, output)
                .map_err(|e| CallError::Output(e.to_string()))?,
        }
        Ok(())
    }
}

/// Encodes an output. Its large buffers may be left out, to travel apart.
#[inline]
fn encode_output<R, C: Codec<R>>(value: &R, output: &mut OutputBuf) -> Result<(), BoxError> {
    if output.buffers == BuffersIn::Output || !may_have_buffers::<R>() {
        return C::encode(value, output);
    }
    let buffers = encode_apart::<R, C>(value, output)?;
    if !buffers.is_empty() {
        output.leave_out(buffers);
    }
    Ok(())
}

/// The adapter from a function to a [`Worker`].
pub struct PlainOp<T, R>(fn(T) -> R);

impl<T: 'static, R: 'static> Worker for PlainOp<T, R> {
    type Op = fn(T) -> R;
    type Init = ();
    type Task = T;
    type Output = R;

    fn start(_: &mut WorkerContext, op: fn(T) -> R, (): ()) -> Result<Self, BoxError> {
        Ok(Self(op))
    }

    fn run(&mut self, task: T) -> R {
        (self.0)(task)
    }
}

/// A function that makes a worker's state from the initial value.
pub(crate) type StartFn<I, S> = fn(&mut WorkerContext, I) -> Result<S, BoxError>;

/// The adapter from two functions, of which the first makes the state for the second, to a [`Worker`].
pub struct StatefulOp<I, S, T, R> {
    state: S,
    op: fn(&mut S, T) -> R,
    types: PhantomData<fn(I)>,
}

impl<I, S, T, R> Worker for StatefulOp<I, S, T, R>
where
    I: Serialize + DeserializeOwned + 'static,
    S: 'static,
    T: 'static,
    R: 'static,
{
    type Op = (StartFn<I, S>, fn(&mut S, T) -> R);
    type Init = I;
    type Task = T;
    type Output = R;

    fn start(context: &mut WorkerContext, (start, op): Self::Op, init: I) -> Result<Self, BoxError> {
        Ok(Self {
            state: start(context, init)?,
            op,
            types: PhantomData,
        })
    }

    fn run(&mut self, task: T) -> R {
        (self.op)(&mut self.state, task)
    }
}
