//! [`Observer`]: who watches the workers' side rings and slots.

use shm_buffers::ring::Consumer;
use shm_buffers::slots::Slots;

use crate::error::{Cause, WorkerId};

/// Is told of every worker process's begin and end. All calls come from one thread of the pool, which does
/// nothing else meanwhile but keep processes: an observer that blocks delays restarts, not tasks.
pub trait Observer: Send + Sync {
    /// A process is about to be started in `worker`'s place. `side` and `slots` are its: fresh memory, that stays
    /// readable after its end.
    fn started(&self, worker: WorkerId, side: Consumer, slots: Slots);

    /// The process in `worker`'s place has ended; gives the last things it had to say, oldest first, for the error
    /// of the task that it was running.
    fn ended(&self, worker: WorkerId, cause: &Cause) -> Vec<String>;
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Nobody;

impl Observer for Nobody {
    fn started(&self, _: WorkerId, _: Consumer, _: Slots) {}

    fn ended(&self, _: WorkerId, _: &Cause) -> Vec<String> {
        Vec::new()
    }
}
