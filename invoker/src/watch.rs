//! What the leader hears of its worker processes: logs and printed lines to the bridge's collector, counts to the
//! progress bar.

use std::collections::HashMap;
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
/// How long the last records of a dead worker may take to be fetched.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Watches the workers of a pool.
#[derive(Debug)]
pub(crate) struct Watch {
    logs: CollectorHandle,
    bar: Bar,
    sources: Mutex<HashMap<WorkerId, progress::Source>>,
}

impl Watch {
    /// Replays into this thread's current subscriber, counts in `bar`.
    pub(crate) fn new(bar: Bar) -> Result<Arc<Self>, Error> {
        let logs = Collector::new().spawn(FETCH);
        let logs = logs.map_err(|source| Error::Os {
            step: "start a thread for logs",
            source,
        })?;
        Ok(Arc::new(Self {
            logs,
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

    /// What became of all log records.
    pub(crate) fn tally(&self) -> Tally {
        // What workers have written up to now is worth a moment.
        let _ = self.logs.flush(LAST_WORDS);
        self.logs.tally()
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
        self.logs
            .remove(worker.0.into(), LAST_WORDS)
            .map_or(Vec::new(), |departed| departed.records)
    }

    fn printed(&self, worker: WorkerId, stream: Stream, line: &str) {
        let stdio = match stream {
            Stream::Stdout => Stdio::Stdout,
            Stream::Stderr => Stdio::Stderr,
        };
        self.logs.lines(Source::new(worker.0.into()), stdio).line(line);
    }
}
