//! [`Observer`]: who watches the workers' side rings and slots, and what they print.

use shm_buffers::ring::Consumer;
use shm_buffers::slots::Slots;

use crate::error::{Cause, WorkerId};
use crate::printed::Stream;

/// Is told of every worker process's begin and end. But for [`printed`](Self::printed), all calls come from one thread
/// of the pool, which does nothing else meanwhile but keep processes: an observer that blocks delays restarts, not
/// tasks.
pub trait Observer: Send + Sync {
    /// A process is being started in `worker`'s place. `side` and `slots` are its: fresh memory, that stays
    /// readable after its end.
    fn started(&self, worker: WorkerId, side: Consumer, slots: Slots);

    /// The process in `worker`'s place has ended; gives the last things it had to say, oldest first, for the error
    /// of the task that it was running.
    fn ended(&self, worker: WorkerId, cause: &Cause) -> Vec<String>;

    /// The process in `worker`'s place has printed a line to a stream that is [captured](crate::Redirect::Capture):
    /// without its end, bytes that are not UTF-8 replaced, and beyond 16 KiB only counted. Text after a carriage return
    /// replaces the text before it, as on a terminal. Comes between
    /// [`started`](Self::started) and [`ended`](Self::ended), with everything that the process had printed before
    /// its end, however it ended.
    ///
    /// Calls come from a thread of the pool that does nothing else: an observer that is slow here slows workers that
    /// print a lot, and one that takes a second for a worker's last lines loses the rest of the promise.
    fn printed(&self, worker: WorkerId, stream: Stream, line: &str) {
        let _ = (worker, stream, line);
    }
}

/// The last a worker had to say.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastWords {
    pub(crate) logs: Vec<String>,
    pub(crate) printed: Vec<String>,
    /// The panics that ended it.
    pub(crate) panics: Vec<String>,
    /// Of the task that it was stuck in.
    pub(crate) stack: Option<String>,
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
