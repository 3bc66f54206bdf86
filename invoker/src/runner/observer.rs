//! [`WorkerObserver`]: connects worker processes with the leader's logs and progress bar.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log_bridge::{Collector, CollectorHandle, Filter, SetFilterError, Source, StdStream, Tally};
use proc_pool::{ExitCause, Observer, Stream, WorkerId};
use progress::Bar;
use shm_buffers::ring::Consumer;
use shm_buffers::slots::Slots;

use super::worker::{log_slots, progress_slots};
use crate::error::Error;

/// Time between two reads of the workers' log records.
const POLL_INTERVAL: Duration = Duration::from_millis(25);
/// Maximum wait for the subscriber to take the last records, at the end of a worker and at the output of a single task.
const TASK_FLUSH: Duration = Duration::from_millis(100);
/// The same at the end of a run.
const RUN_FLUSH: Duration = Duration::from_secs(1);
/// The same at the end of the invoker.
const FINAL_FLUSH: Duration = Duration::from_secs(2);

/// Forwards log records and printed lines of worker processes to the collector, and their counts to the progress bar.
#[derive(Debug)]
pub(crate) struct WorkerObserver {
    logs: CollectorHandle,
    /// Whether the last wait for the subscriber timed out.
    behind: AtomicBool,
    bar: Bar,
    sources: Mutex<HashMap<WorkerId, progress::Source>>,
}

impl WorkerObserver {
    /// Replays logs into this thread's current subscriber, and counts in `bar`. Without a filter, workers send the levels
    /// that subscribers enable.
    pub(crate) fn new(bar: Bar, filter: Option<&Filter>) -> Result<Arc<Self>, Error> {
        let logs = match filter {
            Some(_) => Collector::new(),
            None => Collector::new().follow_subscribers(),
        };
        let logs = logs.spawn(POLL_INTERVAL).map_err(|source| Error::Os {
            step: "start a thread for logs",
            source,
        })?;
        Ok(Arc::new(Self {
            logs,
            behind: AtomicBool::new(false),
            bar,
            sources: Mutex::default(),
        }))
    }

    fn sources(&self) -> MutexGuard<'_, HashMap<WorkerId, progress::Source>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_filter(&self, filter: &Filter) -> Result<(), SetFilterError> {
        self.logs.set_filter(filter)
    }

    /// Waits until the subscriber has taken everything that workers have logged so far: a program that exits then loses
    /// nothing. The wait is bounded. While the subscriber is behind, only the end of a run waits.
    fn flush(&self, within: Duration) {
        let behind = self.logs.flush(within).is_err();
        self.behind.store(behind, Ordering::Relaxed);
    }

    fn is_behind(&self) -> bool {
        self.behind.load(Ordering::Relaxed)
    }

    /// Called after the last output of a run.
    pub(crate) fn flush_run(&self) {
        match self.is_behind() {
            true => self.flush(TASK_FLUSH),
            false => self.flush(RUN_FLUSH),
        }
    }

    /// Called after the output of a submitted task.
    pub(crate) fn flush_task(&self) {
        if !self.is_behind() {
            self.flush(TASK_FLUSH);
        }
    }

    /// Returns the current counts of all log records.
    pub(crate) fn tally(&self) -> Tally {
        self.logs.tally()
    }

    /// Returns the final counts. Records that the subscriber has not taken within a bounded time are dropped.
    pub(crate) fn finish(&self) -> Tally {
        match self.logs.flush(FINAL_FLUSH) {
            Ok(()) => self.logs.tally(),
            Err(_) => self.logs.abandon(),
        }
    }
}

impl Observer for WorkerObserver {
    fn started(&self, worker: WorkerId, side: Consumer, slots: Slots) {
        // It fails only for a ring that is not a log ring.
        let _ = self
            .logs
            .add(Source::new(worker.0.into()), side, log_slots(&slots));
        let source = self.bar.add_source(progress_slots(&slots));
        if let Some(previous) = self.sources().insert(worker, source) {
            previous.retire();
        }
    }

    fn ended(&self, worker: WorkerId, _: &ExitCause) -> Vec<String> {
        if let Some(source) = self.sources().remove(&worker) {
            source.retire();
        }
        let within = match self.is_behind() {
            true => Duration::ZERO,
            false => TASK_FLUSH,
        };
        let Ok(removed) = self.logs.remove(worker.0.into(), within) else {
            return Vec::new();
        };
        if removed.tally.total().waiting() > 0 {
            self.behind.store(true, Ordering::Relaxed);
        }
        removed.last_records
    }

    fn printed(&self, worker: WorkerId, stream: Stream, line: &str) {
        let stream = match stream {
            Stream::Stdout => StdStream::Stdout,
            Stream::Stderr => StdStream::Stderr,
        };
        let source = Source::new(worker.0.into());
        self.logs.line_logger(source, stream).log(line);
    }
}
