//! [`Shared`]: the state of a leader, which its callers and the hidden thread have in common.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use invoker::facade;
use proc_pool::Fault;
use progress::{Bar, Outcome};
use tokio::sync::mpsc::UnboundedSender;

use crate::accounting::{Accounting, Action};
use crate::batcher::Batcher;
use crate::value::Value;
use crate::wire::{self, Answer, BatchId, Manifest};

/// The output of a task, or its fault: boxed, because it is large, and most tasks have an output.
pub(super) type Output<R> = Result<R, Box<Fault>>;

/// Takes the encoded output of a task, or its fault, to the caller of its job. Fails if the output cannot be decoded.
pub(super) type Deliver = Arc<dyn Fn(u64, Result<&[u8], Fault>) -> Result<(), String> + Send + Sync>;

/// Returns what decodes outputs, and calls `put` with the index of the task, its output, and the bytes that this had.
pub(super) fn deliver<R: Value>(put: impl Fn(u64, Output<R>, usize) + Send + Sync + 'static) -> Deliver {
    Arc::new(move |index, result| {
        let len = result.as_ref().map_or(0, |bytes| bytes.len());
        put(index, decode(result)?, len);
        Ok(())
    })
}

fn decode<R: Value>(result: Result<&[u8], Fault>) -> Result<Output<R>, String> {
    match result.map(facade::decode_output) {
        Ok(output) => output.map(Ok).map_err(|error| error.to_string()),
        Err(fault) => Ok(Err(Box::new(fault))),
    }
}

/// An outcome that an earlier leader of the run received, and its bytes.
type Found = (wire::Outcome, Bytes);

/// Everything behind one lock.
#[derive(Default)]
pub(super) struct Core {
    pub(super) accounting: Accounting,
    pub(super) batcher: Batcher,
    pub(super) jobs: HashMap<u32, Deliver>,
    next_job: u32,
    /// Answers to tasks that no job has taken from its input yet.
    found: HashMap<(u32, u64), Found>,
    /// The checksum of the first node's model.
    pub(super) checksum: Option<u64>,
    /// The number of nodes that the bar shows.
    shown_nodes: usize,
    /// Nodes are to leave.
    pub(super) ending: bool,
    pub(super) ended: bool,
}

pub(super) struct Shared {
    core: Mutex<Core>,
    changed: Condvar,
    /// How many more batches may be open, to look at without the lock.
    room: AtomicUsize,
    pub(super) manifest: Manifest,
    /// Batches that the hidden thread is to send.
    to_send: UnboundedSender<BatchId>,
    pub(super) bar: Bar,
}

impl Shared {
    pub(super) fn new(
        accounting: Accounting,
        manifest: Manifest,
        to_send: UnboundedSender<BatchId>,
        bar: Bar,
    ) -> Self {
        let core = Core {
            accounting,
            ..Core::default()
        };
        Self {
            core: Mutex::new(core),
            changed: Condvar::new(),
            room: AtomicUsize::new(2),
            manifest,
            to_send,
            bar,
        }
    }

    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next change.
    pub(super) fn wait<'a>(&self, core: MutexGuard<'a, Core>) -> MutexGuard<'a, Core> {
        self.changed.wait(core).unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a change: does what the accounting asks for, and wakes those who wait.
    pub(super) fn changed(&self, mut core: MutexGuard<'_, Core>) {
        for action in std::mem::take(&mut core.accounting.actions) {
            match action {
                Action::Send(batch) => drop(self.to_send.send(batch)),
                Action::Fail { job, index, fault } => {
                    if let Some(deliver) = core.jobs.get(&job) {
                        // Only an output can be malformed.
                        let _ = deliver(index, Err(fault));
                        self.bar.add(Outcome::Failed, 1);
                    }
                }
            }
        }
        let (nodes, open) = (core.accounting.present_nodes(), core.accounting.open_batches());
        // Three batches for each node, and two.
        let room = (3 * nodes + 2).saturating_sub(open);
        self.room.store(room, Ordering::Relaxed);
        if std::mem::replace(&mut core.shown_nodes, nodes) != nodes {
            self.bar.set_message(format!("{nodes} nodes"));
        }
        drop(core);
        self.changed.notify_all();
    }

    pub(super) fn update(&self, update: impl FnOnce(&mut Core)) {
        let mut core = self.core();
        update(&mut core);
        self.changed(core);
    }

    /// Returns whether another batch may be opened.
    pub(super) fn has_room(&self) -> bool {
        self.room.load(Ordering::Relaxed) > 0
    }

    /// Encodes a task. Returns its output if that is known: it cannot be encoded, or `found` returns what an earlier leader has received
    /// for this encoding.
    pub(super) fn encode<T: Value, R: Value>(
        &self,
        index: u64,
        task: T,
        into: &mut Vec<u8>,
        found: impl FnOnce(&[u8]) -> Option<Found>,
    ) -> Option<Output<R>> {
        into.clear();
        let output = match facade::encode_task(self.manifest.seed, index, task, into) {
            Err(error) => Err(Box::new(Fault::Task(error.to_string()))),
            Ok(()) => {
                let (outcome, bytes) = found(into)?;
                outcome.result(&bytes).and_then(decode).ok()?
            }
        };
        self.bar
            .add(output.as_ref().map_or(Outcome::Failed, |_| Outcome::Done), 1);
        Some(output)
    }

    /// Takes in an answer.
    pub(super) fn receive(&self, message: &Bytes) {
        let Some((answer, payload)) = wire::decode::<Answer>(message) else {
            return self.refuse(false);
        };
        if answer.session != self.manifest.session {
            return self.refuse(true);
        }
        let Some(items) = wire::split(payload, answer.outcomes.iter().map(|it| it.len)) else {
            return self.refuse(false);
        };
        let mut guard = self.core();
        let core = &mut *guard;
        core.batcher
            .observe(items.len(), Duration::from_nanos(answer.took_ns));
        let job = answer.batch.job;
        if self.manifest.resumable && job >= core.next_job {
            for (outcome, bytes) in answer.outcomes.iter().zip(items) {
                let index = answer.batch.first.saturating_add(outcome.at.into());
                core.found
                    .insert((job, index), (*outcome, message.slice_ref(bytes)));
            }
            return;
        }
        let (deliver, mut failed) = (core.jobs.get(&job), 0);
        let before = core.accounting.report.delivered;
        core.accounting.answer(&answer, |at| {
            let outcome = &answer.outcomes[at];
            let index = answer.batch.first + u64::from(outcome.at);
            // The tasks of a job that has ended are not open.
            let deliver = deliver.ok_or("its job has ended")?;
            deliver(index, outcome.result(items[at])?)?;
            failed += u64::from(outcome.is_fault);
            Ok(())
        });
        let delivered = core.accounting.report.delivered - before;
        self.bar.add(Outcome::Done, delivered - failed);
        self.bar.add(Outcome::Failed, failed);
        self.changed(guard);
    }

    /// Counts bytes that are no answer, or the answer of another run.
    pub(super) fn refuse(&self, foreign: bool) {
        let report = &mut self.core().accounting.report;
        match foreign {
            true => report.foreign += 1,
            false => report.invalid += 1,
        }
    }
}

impl Core {
    pub(super) fn add_job(&mut self, deliver: Deliver) -> u32 {
        let job = self.next_job;
        self.next_job += 1;
        self.jobs.insert(job, deliver);
        job
    }

    /// Returns what an earlier leader has received for a task, if it is the same task.
    pub(super) fn take_found(&mut self, job: u32, index: u64, encoded: &[u8]) -> Option<Found> {
        let found = self.found.remove(&(job, index))?;
        if found.0.hash != wire::task_hash(encoded) {
            self.accounting.report.invalid += 1;
            return None;
        }
        Some(found)
    }
}
