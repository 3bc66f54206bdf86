//! [`ModelWorker`]: the model, the op and its state in one worker; in a worker process, logs and progress too.

use std::marker::PhantomData;
use std::sync::Arc;

use log_bridge::{Filter, WorkerGuard, WorkerLayer};
use proc_pool::{BoxError, Worker, WorkerContext};
use progress::Counters;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shm_buffers::slots::Slots;
use shm_buffers::{Image, SegmentHandle};

use crate::executor::PanicLogs;
use crate::op::Op;
use crate::seed::Seeded;
use crate::task_context::TaskScope;

/// Number of slots per worker: first those of the log bridge, then those of progress.
pub(crate) const SLOTS: usize = log_bridge::SLOTS + progress::SLOTS;

pub(crate) fn log_slots(slots: &Slots) -> Slots {
    slots.part(0..log_bridge::SLOTS)
}

pub(crate) fn progress_slots(slots: &Slots) -> Slots {
    slots.part(log_bridge::SLOTS..SLOTS)
}

/// The initial value of every worker process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Init {
    pub(crate) image: SegmentHandle,
    pub(crate) logs: Filter,
    pub(crate) panic_logs: PanicLogs,
}

/// A worker that runs the op `F` on the model `M`.
pub(crate) struct ModelWorker<F: Op<M, T, R>, M, T, R> {
    model: Arc<M>,
    op: F,
    state: F::State,
    tasks: TaskScope,
    types: PhantomData<fn(T) -> R>,
    /// Sends log events until it is dropped; only in a worker process.
    _logs: Option<WorkerGuard>,
}

impl<F: Op<M, T, R>, M, T, R> ModelWorker<F, M, T, R> {
    pub(crate) fn new(model: Arc<M>, op: F, counters: Counters) -> Result<Self, BoxError> {
        Ok(Self {
            state: op.start(&model)?,
            model,
            op,
            tasks: TaskScope::new(counters),
            types: PhantomData,
            _logs: None,
        })
    }

    #[inline]
    pub(crate) fn call(&mut self, Seeded { seed, task }: Seeded<T>) -> R {
        let Self { model, op, state, .. } = self;
        self.tasks.run(seed, || op.run(model, state, task))
    }
}

impl<F, M, T, R> Worker for ModelWorker<F, M, T, R>
where
    F: Op<M, T, R>,
    M: DeserializeOwned + 'static,
    T: 'static,
    R: 'static,
{
    type Op = F::Functions;
    type Init = Init;
    type Task = Seeded<T>;
    type Output = R;

    fn start(context: &mut WorkerContext, functions: F::Functions, init: Init) -> Result<Self, BoxError> {
        // Only the leader draws, even if an op builds an invoker with progress.
        progress::disable_drawing();
        let logs = context.take_user_ring().map(|side| {
            let layer = WorkerLayer::builder(side, log_slots(context.slots()));
            layer.filter(init.logs).install()
        });
        let logs = logs.transpose()?;
        if init.panic_logs == PanicLogs::On {
            log_bridge::log_panics();
        }
        let model = Image::attach(&init.image)?.load()?;
        let counters = Counters::new(progress_slots(context.slots()));
        let worker = Self::new(Arc::new(model), F::from_functions(functions), counters)?;
        Ok(Self {
            _logs: logs,
            ..worker
        })
    }

    fn run(&mut self, task: Seeded<T>) -> R {
        self.call(task)
    }
}
