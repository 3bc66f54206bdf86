//! [`Observer`]: receives the start, end and output of a pool's workers. [`Redirect`] decides where their output goes.

use std::process::Stdio;
use std::sync::Arc;

use shm_buffers::ring::Consumer;
use shm_buffers::slots::Slots;

use crate::error::{ExitCause, WorkerId};
use crate::panics::guarded;

/// Receives the start and the end of every worker process, and its captured output.
///
/// All calls but [`printed`](Self::printed) come from the pool's process manager thread: an observer that blocks delays
/// restarts and deadlines, not tasks.
///
/// Every method has a default that does nothing. For the end of processes alone,
/// [`Builder::on_worker_end`](crate::Builder::on_worker_end) takes a closure.
pub trait Observer: Send + Sync {
    /// Called when a process for `worker` is being started. `user_ring` and `slots` belong to this process: they are fresh memory
    /// that stays readable after the process has ended.
    fn started(&self, worker: WorkerId, user_ring: Consumer, slots: Slots) {
        let _ = (worker, user_ring, slots);
    }

    /// Called when the process of `worker` has ended. Returns the last messages of that process, oldest first, for the error
    /// of the task that it was running.
    fn ended(&self, worker: WorkerId, cause: &ExitCause) -> Vec<String> {
        let _ = (worker, cause);
        Vec::new()
    }

    /// Called for each line that the process of `worker` prints to a [captured](crate::Redirect::Capture) stream.
    ///
    /// The line comes without its line end. Bytes that are not UTF-8 are replaced, and bytes beyond 16 KiB are only counted.
    /// Text after a carriage return replaces the text before it, as on a terminal. Calls for a process come between
    /// [`started`](Self::started) and [`ended`](Self::ended), with everything that the process printed before its end,
    /// however it ended.
    ///
    /// Calls come from a thread of the pool that only reads output. An observer that is slow here slows down workers that
    /// print a lot. If an observer takes more than a second for the last lines of a process, the remaining ones may arrive
    /// after [`ended`](Self::ended) and are missing in the task's error.
    fn printed(&self, worker: WorkerId, stream: Stream, line: &str) {
        let _ = (worker, stream, line);
    }
}

/// Where workers' standard output or standard error goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Redirect {
    /// To the leader's stream of the same name.
    #[default]
    Inherit,
    /// Nowhere.
    Null,
    /// To [`Observer::printed`], line by line. The last lines also become part of the error of a task that kills its worker.
    Capture,
}

/// A standard stream of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Redirect {
    /// Returns what the stream is connected to when a worker is spawned.
    pub(crate) fn stdio(self) -> Stdio {
        match self {
            Self::Inherit => Stdio::inherit(),
            Self::Null => Stdio::null(),
            Self::Capture => Stdio::piped(),
        }
    }
}

/// An observer that does nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct NoopObserver;

impl Observer for NoopObserver {}

/// The user's function that is called at the end of each process.
pub(crate) type OnWorkerEnd = dyn Fn(WorkerId, &ExitCause) -> Vec<String> + Send + Sync;

/// Returns `observer`, extended by functions that are called at the end of each process.
pub(crate) fn observe_ends(
    observer: Arc<dyn Observer>,
    on_worker_end: Vec<Arc<OnWorkerEnd>>,
) -> Arc<dyn Observer> {
    match on_worker_end.is_empty() {
        true => observer,
        false => Arc::new(WithEnds {
            observer,
            on_worker_end,
        }),
    }
}

/// An observer and functions that are called at the end of each process. A panic of one does not keep the others from being called.
struct WithEnds {
    observer: Arc<dyn Observer>,
    on_worker_end: Vec<Arc<OnWorkerEnd>>,
}

impl Observer for WithEnds {
    fn started(&self, worker: WorkerId, user_ring: Consumer, slots: Slots) {
        self.observer.started(worker, user_ring, slots);
    }

    fn ended(&self, worker: WorkerId, cause: &ExitCause) -> Vec<String> {
        let mut messages = guarded(|| self.observer.ended(worker, cause)).unwrap_or_default();
        for on_end in &self.on_worker_end {
            messages.extend(guarded(|| on_end(worker, cause)).unwrap_or_default());
        }
        messages
    }

    fn printed(&self, worker: WorkerId, stream: Stream, line: &str) {
        self.observer.printed(worker, stream, line);
    }
}
