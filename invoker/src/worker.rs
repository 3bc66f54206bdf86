//! What runs in a worker process: the model attached, logs and progress connected, the op called.

use std::marker::PhantomData;

use log_bridge::{Filter, WorkerLayer};
use proc_pool::{BoxError, Worker, WorkerContext};
use progress::Counters;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shm_buffers::slots::Slots;
use shm_buffers::{Image, SegmentHandle};

use crate::step::Tasks;

/// A worker's slots: the log bridge's, then progress's.
pub(crate) const SLOTS: usize = log_bridge::SLOTS + progress::SLOTS;

pub(crate) fn log_slots(slots: &Slots) -> Slots {
    slots.part(0..log_bridge::SLOTS)
}

pub(crate) fn progress_slots(slots: &Slots) -> Slots {
    slots.part(log_bridge::SLOTS..SLOTS)
}

/// What every worker is made from.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Init {
    pub(crate) image: SegmentHandle,
    pub(crate) logs: Filter,
}

/// A worker process of an [`Invoker`](crate::Invoker): `F` is its op, on a model `M`.
pub(crate) struct ModelWorker<F, M, T, R> {
    model: M,
    op: F,
    tasks: Tasks,
    types: PhantomData<fn(T) -> R>,
}

impl<F, M, T, R> Worker for ModelWorker<F, M, T, R>
where
    F: Fn(&M, T) -> R + Copy + 'static,
    M: DeserializeOwned + 'static,
    T: Serialize + DeserializeOwned + 'static,
    R: Serialize + DeserializeOwned + 'static,
{
    type Op = F;
    type Init = Init;
    type Task = T;
    type Output = R;

    fn start(context: &mut WorkerContext, op: F, init: Init) -> Result<Self, BoxError> {
        if let Some(side) = context.take_side() {
            let layer = WorkerLayer::builder(side, log_slots(context.slots())).filter(init.logs);
            layer.install()?;
        }
        let model = Image::attach(&init.image)?.load()?;
        let tasks = Tasks::new(Counters::new(progress_slots(context.slots())));
        Ok(Self {
            model,
            op,
            tasks,
            types: PhantomData,
        })
    }

    fn run(&mut self, task: T) -> R {
        let Self { model, op, tasks, .. } = self;
        tasks.run(|| op(model, task))
    }
}
