//! What runs in a worker: [`Service`] on bytes, [`Worker`] on values.

use std::error::Error;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use shm_buffers::ring;
use shm_buffers::slots::Slots;

use crate::bytes::OutputBuf;
use crate::codec::Codec;
use crate::error::WorkerId;
use crate::op::{Code, Op};
use crate::timing::Laps;

/// An error of any kind, from a worker's start.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// What a worker is told at its start.
#[derive(Debug)]
pub struct WorkerContext {
    pub(crate) worker: WorkerId,
    pub(crate) workers: usize,
    pub(crate) side: Option<ring::Producer>,
    pub(crate) slots: Slots,
    /// The op, for a [`Worker`].
    pub(crate) code: Code,
}

impl WorkerContext {
    /// This worker's place in the pool.
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// How many workers the pool has.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The side ring's writing end: byte frames for the pool's [`Observer`](crate::Observer), in their own
    /// memory, that survive this process. The first call gets it.
    pub fn take_side(&mut self) -> Option<ring::Producer> {
        self.side.take()
    }

    /// Numbers that the pool's [`Observer`](crate::Observer) can read at any time; as many as the builder was
    /// asked for.
    pub fn slots(&self) -> &Slots {
        &self.slots
    }
}

/// Why a service has no output for a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// The task's bytes make no sense.
    Task(String),
    /// The output can't be turned into bytes.
    Output(String),
}

/// A worker of bytes: made once in each worker process, then called for each task, one after the other.
pub trait Service: Sized + 'static {
    /// Makes the worker's state.
    ///
    /// # Errors
    /// Any error ends this process; the pool tries again a few times and then fails with the error's text.
    fn start(context: &mut WorkerContext, init: &[u8]) -> Result<Self, BoxError>;

    /// Runs one task and appends its output to `output`, which is empty. May panic: that is the task's error.
    ///
    /// # Errors
    /// When task or output can't be decoded or encoded.
    fn call(&mut self, task: &[u8], output: &mut OutputBuf) -> Result<(), CallError>;

    /// As [`call`](Self::call), for one of the few tasks that are timed: tells when it has decoded and when it has run
    /// the task. One that does not tell is running all the time.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    fn call_timed(&mut self, task: &[u8], output: &mut OutputBuf, laps: &mut Laps) -> Result<(), CallError> {
        let _ = laps;
        self.call(task, output)
    }
}

/// A worker of values: made once in each worker process, then called for each task, one after the other. What
/// crosses between processes is encoded with serde and postcard, if no other [`Codec`] is chosen.
pub trait Worker: Sized + 'static {
    /// Code that the leader gives: a function pointer, a pair of them, or `()` for none. See [`Op`].
    type Op: Op;
    /// What every worker is made from.
    type Init: Serialize + DeserializeOwned;
    /// What a task is.
    type Task: 'static;
    /// What comes out of it.
    type Output: 'static;

    /// Makes the worker's state.
    ///
    /// # Errors
    /// Any error ends this process; the pool tries again a few times and then fails with the error's text.
    fn start(context: &mut WorkerContext, op: Self::Op, init: Self::Init) -> Result<Self, BoxError>;

    /// Runs one task. May panic: that is the task's error.
    fn run(&mut self, task: Self::Task) -> Self::Output;
}

/// The [`Service`] that a [`Worker`] is, with codecs for tasks and outputs.
pub(crate) struct Typed<W, CT, CR>(W, PhantomData<fn(CT) -> CR>);

impl<W, CT, CR> Service for Typed<W, CT, CR>
where
    W: Worker,
    CT: Codec<W::Task>,
    CR: Codec<W::Output>,
{
    fn start(context: &mut WorkerContext, init: &[u8]) -> Result<Self, BoxError> {
        let worker = W::start(context, context.code.op()?, decode(init)?)?;
        Ok(Self(worker, PhantomData))
    }

    fn call(&mut self, task: &[u8], output: &mut OutputBuf) -> Result<(), CallError> {
        let task = CT::decode(task).map_err(|e| CallError::Task(e.to_string()))?;
        put::<_, CR>(&self.0.run(task), output)
    }

    fn call_timed(&mut self, task: &[u8], output: &mut OutputBuf, laps: &mut Laps) -> Result<(), CallError> {
        let task = CT::decode(task).map_err(|e| CallError::Task(e.to_string()))?;
        laps.decoded();
        let value = self.0.run(task);
        laps.ran();
        put::<_, CR>(&value, output)
    }
}

#[inline]
fn put<R, CR: Codec<R>>(value: &R, output: &mut OutputBuf) -> Result<(), CallError> {
    if let Some(bytes) = CR::as_bytes(value) {
        output.put(bytes);
        return Ok(());
    }
    CR::encode(value, output).map_err(|e| CallError::Output(e.to_string()))
}

/// The [`Worker`] that a function is.
pub(crate) struct Plain<T, R>(fn(T) -> R);

impl<T: 'static, R: 'static> Worker for Plain<T, R> {
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

/// Makes a worker's state.
pub(crate) type Start<I, S> = fn(&mut WorkerContext, I) -> Result<S, BoxError>;

/// The [`Worker`] that two functions are, one of which makes the other's state.
pub(crate) struct Stateful<I, S, T, R> {
    state: S,
    op: fn(&mut S, T) -> R,
    types: PhantomData<fn(I)>,
}

impl<I, S, T, R> Worker for Stateful<I, S, T, R>
where
    I: Serialize + DeserializeOwned + 'static,
    S: 'static,
    T: 'static,
    R: 'static,
{
    type Op = (Start<I, S>, fn(&mut S, T) -> R);
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

pub(crate) fn encode<T: Serialize + ?Sized>(value: &T, into: &mut Vec<u8>) -> postcard::Result<()> {
    postcard::to_extend(value, Appending(into)).map(drop)
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> postcard::Result<T> {
    postcard::from_bytes(bytes)
}

/// Lets postcard append to a borrowed `Vec`.
struct Appending<'a>(&'a mut Vec<u8>);

impl Extend<u8> for Appending<'_> {
    #[inline]
    fn extend<I: IntoIterator<Item = u8>>(&mut self, bytes: I) {
        self.0.extend(bytes);
    }
}
