//! [`ModelWorker`]: the model, the op and its state in one worker; in a worker process, logs and progress too.

use std::sync::Arc;

use log_bridge::{Filter, WorkerGuard, WorkerLayer};
use proc_pool::facade::guarded;
use proc_pool::{BoxError, Worker, WorkerContext};
use progress::Counters;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shm_buffers::slots::Slots;
use shm_buffers::{SegmentHandle, Validated};

use super::attach::attach;
use super::beside_model::BesideModel;
use crate::executor::PanicLogs;
use crate::op::{Op, StateOf};
use crate::seed::Seeded;
use crate::task_context::{TaskScope, WorkerInfo};

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
#[serde(bound = "D: Serialize + DeserializeOwned")]
pub(crate) struct Init<D> {
    pub(crate) image: SegmentHandle,
    /// The archives that the leader has validated.
    pub(crate) validated: Validated,
    pub(crate) logs: Filter,
    pub(crate) panic_logs: PanicLogs,
    /// The values of the op.
    pub(crate) data: D,
}

/// A worker that runs the op `F` on a model.
pub(crate) struct ModelWorker<F, M, T, R>
where
    F: Op<M, T, R>,
    M: 'static,
    T: 'static,
    R: 'static,
{
    /// Dropped first: what the drop of the state logs is still sent.
    state: BesideModel<F::Model, StateOf<F, M, T, R>>,
    op: F,
    tasks: TaskScope,
    /// Sends log events until it is dropped; only in a worker process.
    _logs: Option<WorkerGuard>,
}

impl<F, M, T, R> ModelWorker<F, M, T, R>
where
    F: Op<M, T, R>,
    M: 'static,
    T: 'static,
    R: 'static,
{
    pub(crate) fn new(
        model: Arc<F::Model>,
        op: F,
        counters: Counters,
        worker: WorkerInfo,
    ) -> Result<Self, BoxError> {
        let mut tasks = TaskScope::new(counters, worker);
        let state = tasks.run_uncounted(|| BesideModel::new(model, |model| op.start(model)))?;
        Ok(Self {
            state,
            op,
            tasks,
            _logs: None,
        })
    }

    #[inline]
    pub(crate) fn call(&mut self, Seeded { seed, task }: Seeded<T>) -> R {
        let Self { op, state, tasks, .. } = self;
        tasks.run(seed, || state.with(|model, state| op.run(model, state, task)))
    }
}

impl<F, M, T, R> Drop for ModelWorker<F, M, T, R>
where
    F: Op<M, T, R>,
    M: 'static,
    T: 'static,
    R: 'static,
{
    /// Calls the op's function for the end of the state. A panic of it is printed, and otherwise ignored.
    fn drop(&mut self) {
        let Self { op, state, tasks, .. } = self;
        let exit = || state.with(|model, state| op.exit(model, state));
        let _ = guarded(|| tasks.run_uncounted(exit));
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
    type Init = Init<F::Data>;
    type Task = Seeded<T>;
    type Output = R;

    fn start(
        context: &mut WorkerContext,
        functions: F::Functions,
        init: Init<F::Data>,
    ) -> Result<Self, BoxError> {
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
        let op = F::join(functions, init.data);
        let model = op.model(attach(&init.image, &init.validated)?);
        context.mark_attached();
        let counters = Counters::new(progress_slots(context.slots()));
        let index = context.worker().0 as usize;
        let worker = WorkerInfo::new(index, context.workers(), context.generation());
        let mut worker = Self::new(Arc::new(model), op, counters, worker)?;
        worker._logs = logs;
        Ok(worker)
    }

    fn run(&mut self, task: Seeded<T>) -> R {
        self.call(task)
    }
}
