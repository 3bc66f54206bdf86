//! [`Recorder`]: the tasks of one run that workers have, and what they answered.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proc_pool::Fault;

use crate::OpenJournal;
use crate::error::JournalError;
use crate::format::Kind;
use crate::index::RunIndex;
use crate::options::JournalFaults;
use crate::writer::Finished;

/// Writes the outputs of one run into the journal, as they arrive.
#[derive(Debug)]
pub struct Recorder {
    journal: Arc<OpenJournal>,
    run: u64,
    workers: u64,
    sent: Mutex<Sent>,
}

/// The tasks that were sent to the workers, by their numbers there, whose outputs were not returned.
#[derive(Debug, Default)]
struct Sent {
    /// The number of the first one.
    base: u64,
    tasks: VecDeque<Option<SentTask>>,
}

/// A task that runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SentTask {
    /// The index in the input.
    pub(crate) task: u64,
    pub(crate) hash: u64,
    /// [`Kind::Again`] if the journal has a record of it.
    pub(crate) kind: Kind,
}

impl Recorder {
    /// Starts a run whose tasks are cut into chunks for this number of workers. Returns what the journal has of it, too.
    pub(crate) fn start(journal: &Arc<OpenJournal>, workers: usize) -> (Arc<Self>, Arc<RunIndex>) {
        let (run, index) = journal.start_run();
        let recorder = Self {
            journal: journal.clone(),
            run,
            workers: workers as u64,
            sent: Mutex::default(),
        };
        (Arc::new(recorder), index)
    }

    pub(crate) fn journal(&self) -> &OpenJournal {
        &self.journal
    }

    fn sent(&self) -> MutexGuard<'_, Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the next task that is sent to the workers.
    pub(crate) fn add(&self, task: SentTask) {
        self.sent().tasks.push_back(Some(task));
    }

    /// Writes an encoded output. `number` counts the tasks that were sent.
    #[inline]
    pub fn record(&self, number: u64, encoded: &[u8]) {
        let found = {
            let sent = self.sent();
            let position = number.checked_sub(sent.base).map(|position| position as usize);
            position
                .and_then(|position| sent.tasks.get(position).copied())
                .flatten()
        };
        if let Some(task) = found {
            self.append(task, task.kind, encoded);
        }
    }

    /// Waits, for at most `timeout`, until the disk has caught up, so that [`record`](Self::record) of an output of `len` bytes need not
    /// wait. Returns whether that is so. For callers that hold a lock which they can release here.
    pub fn wait_for_room(&self, len: usize, timeout: Duration) -> bool {
        self.journal.writer.wait_for_room(len, timeout)
    }

    fn append(&self, task: SentTask, kind: Kind, bytes: &[u8]) {
        self.journal.writer.append(Finished {
            run: self.run,
            workers: self.workers,
            task: task.task,
            hash: task.hash,
            kind,
            bytes,
        });
    }

    /// Removes a task whose output is returned, and returns its index in the input.
    pub(crate) fn finish(&self, number: u64, fault: Option<&Fault>) -> Option<u64> {
        let mut sent = self.sent();
        let position = usize::try_from(number.checked_sub(sent.base)?).ok()?;
        let task = sent.tasks.get_mut(position)?.take()?;
        while let Some(None) = sent.tasks.front() {
            sent.tasks.pop_front();
            sent.base += 1;
        }
        drop(sent);
        if let Some(fault) = fault
            && self.journal.faults == JournalFaults::Keep
            && is_of_task(fault)
        {
            self.append(task, Kind::Fault, fault.to_string().as_bytes());
        }
        Some(task.task)
    }

    /// Returns why the run must end, if the journal could not be written.
    #[inline]
    pub(crate) fn failure(&self) -> Option<JournalError> {
        match self.journal.writer.has_failed() {
            false => None,
            true => self.journal.writer.error(),
        }
    }

    /// Counts an output that was read from the journal.
    pub(crate) fn count_read(&self) {
        self.journal.read.fetch_add(1, Ordering::Relaxed);
    }
}

/// Returns whether a fault is the answer to a task, and not to an interruption.
fn is_of_task(fault: &Fault) -> bool {
    !matches!(fault, Fault::Cancelled | Fault::Pool(_) | Fault::Other(_))
}
