//! The leader's view of its worker processes: logs and printed lines go to the bridge's collector, counts to the
//! progress bar.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log_bridge::{Collector, CollectorHandle, Filter, SetFilterError, Source, Stdio, Tally};
use proc_pool::{Cause, Observer, Stream, WorkerId};
use progress::Bar;
use shm_buffers::ring::Consumer;
use shm_buffers::slots::Slots;

use crate::error::Error;
use crate::worker::{log_slots, progress_slots};

/// How often workers' log records are fetched.
const FETCH: Duration = Duration::from_millis(25);
/// How long a worker's end, and the output of a single task, wait for the subscriber to take the last records.
const SHORT: Duration = Duration::from_millis(100);
/// How long the end of a run waits for it.
const RUN: Duration = Duration::from_secs(1);
/// How long the end of the invoker waits for it.
const FINISH: Duration = Duration::from_secs(2);

/// Watches the workers of a pool.
#[derive(Debug)]
pub(crate) struct Watch {
    logs: CollectorHandle,
    /// The last wait for the subscriber timed out.
    behind: AtomicBool,
    bar: Bar,
    sources: Mutex<HashMap<WorkerId, progress::Source>>,
}

impl Watch {
    /// Replays into this thread's current subscriber, counts in `bar`. Without a filter of their own, workers send what
    /// subscribers want.
    pub(crate) fn new(bar: Bar, filter: Option<&Filter>) -> Result<Arc<Self>, Error> {
        let logs = match filter {
            Some(_) => Collector::new(),
            None => Collector::new().follow_wanted(),
        };
        let logs = logs.spawn(FETCH).map_err(|source| Error::Os {
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

    /// Waits until the subscriber has taken everything that workers have logged by now, so that a program that exits
    /// loses none of it. A slow subscriber delays a job by a bounded time: nothing waits for one that is behind, except
    /// the end of a run.
    fn flush(&self, within: Duration) {
        let behind = self.logs.flush(within).is_err();
        self.behind.store(behind, Ordering::Relaxed);
    }

    fn is_behind(&self) -> bool {
        self.behind.load(Ordering::Relaxed)
    }

    /// After the last output of a run.
    pub(crate) fn run_ended(&self) {
        match self.is_behind() {
            true => self.flush(SHORT),
            false => self.flush(RUN),
        }
    }

    /// After the output of a task that was submitted alone.
    pub(crate) fn task_ended(&self) {
        match self.is_behind() {
            true => {}
            false => self.flush(SHORT),
        }
    }

    /// The counts of all log records, now.
    pub(crate) fn tally(&self) -> Tally {
        self.logs.tally()
    }

    /// The final counts: records that the subscriber does not take within a bounded time are dropped.
    pub(crate) fn finish(&self) -> Tally {
        match self.logs.flush(FINISH) {
            Ok(()) => self.logs.tally(),
            Err(_) => self.logs.abandon(),
        }
    }
}

impl Observer for Watch {
    fn started(&self, worker: WorkerId, side: Consumer, slots: Slots) {
        // It fails only for a ring that is no log ring; ours is.
        let _ = self
            .logs
            .add(Source::new(worker.0.into()), side, log_slots(&slots));
        let source = self.bar.add_source(progress_slots(&slots));
        if let Some(before) = self.sources().insert(worker, source) {
            before.retire();
        }
    }

    fn ended(&self, worker: WorkerId, _: &Cause) -> Vec<String> {
        if let Some(source) = self.sources().remove(&worker) {
            source.retire();
        }
        let within = match self.is_behind() {
            true => Duration::ZERO,
            false => SHORT,
        };
        let Ok(departed) = self.logs.remove(worker.0.into(), within) else {
            return Vec::new();
        };
        if departed.tally.total().waiting() > 0 {
            self.behind.store(true, Ordering::Relaxed);
        }
        departed.records
    }

    fn printed(&self, worker: WorkerId, stream: Stream, line: &str) {
        let stdio = match stream {
            Stream::Stdout => Stdio::Stdout,
            Stream::Stderr => Stdio::Stderr,
        };
        self.logs.lines(Source::new(worker.0.into()), stdio).line(line);
    }
}
