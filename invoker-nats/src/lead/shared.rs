//! [`Shared`]: the state of a leader, which its callers and the hidden thread have in common.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proc_pool::Fault;
use progress::{Bar, Outcome};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::UnboundedSender;

use super::job::{self, Output};
use crate::accounting::{Accounting, Action};
use crate::batcher::{Batcher, Draft};
use crate::wire::{self, Manifest};

/// An answer that an earlier leader of the run received: the encoded output or fault.
type Found = Result<Bytes, Bytes>;

/// Everything behind one lock.
pub(super) struct Core {
    pub(super) accounting: Accounting,
    pub(super) batcher: Batcher,
    pub(super) jobs: HashMap<u32, Arc<dyn Receiver>>,
    next_job: u32,
    /// Answers to tasks that no job has taken from its input yet, with the hashes of the tasks.
    found: HashMap<(u32, u64), (u64, Found)>,
    /// The number of the last answer that was read.
    pub(super) read: u64,
    /// The checksum of the first node's model.
    pub(super) checksum: Option<u64>,
    pub(super) ended: bool,
}

pub(super) struct Shared {
    core: Mutex<Core>,
    changed: Condvar,
    /// The number of ranges with open tasks, to look at without the lock.
    open: AtomicUsize,
    /// The number of nodes that are present.
    nodes: AtomicUsize,
    pub(super) manifest: Manifest,
    pub(super) resumable: bool,
    /// Batches that the hidden thread is to send.
    pub(super) to_send: UnboundedSender<u64>,
    pub(super) bar: Bar,
}

/// A job as the hidden thread sees it: it decodes outcomes and keeps those that are the first of their tasks.
pub(super) trait Receiver: Send + Sync {
    /// Takes in outcomes of a node, to tasks of this job. It locks `shared`, and returns the lock for what follows.
    fn receive<'a>(
        &self,
        shared: &'a Shared,
        answer: (u64, u32),
        outcomes: &mut dyn Iterator<Item = wire::Outcome<'_>>,
    ) -> MutexGuard<'a, Core>;

    fn fail(&self, index: u64, fault: Fault);
}

impl Shared {
    pub(super) fn new(
        accounting: Accounting,
        batcher: Batcher,
        manifest: Manifest,
        resumable: bool,
        to_send: UnboundedSender<u64>,
        bar: Bar,
    ) -> Self {
        let core = Core {
            accounting,
            batcher,
            jobs: HashMap::new(),
            next_job: 0,
            found: HashMap::new(),
            read: 0,
            checksum: None,
            ended: false,
        };
        Self {
            core: Mutex::new(core),
            changed: Condvar::new(),
            open: AtomicUsize::new(0),
            nodes: AtomicUsize::new(0),
            manifest,
            resumable,
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

    /// Ends a change: wakes those who wait.
    pub(super) fn changed(&self, core: MutexGuard<'_, Core>) {
        self.open.store(core.accounting.open_ranges(), Ordering::Relaxed);
        let nodes = core.accounting.present_nodes();
        if self.nodes.swap(nodes, Ordering::Relaxed) != nodes {
            self.bar.set_message(format!("{nodes} nodes"));
        }
        drop(core);
        self.changed.notify_all();
    }

    pub(super) fn open_ranges(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub(super) fn nodes(&self) -> usize {
        self.nodes.load(Ordering::Relaxed)
    }

    /// Opens the tasks of a draft and has them sent.
    pub(super) fn open(&self, mut core: MutexGuard<'_, Core>, job: u32, draft: Draft) {
        let batch = core.accounting.open(job, draft);
        self.changed(core);
        let _ = self.to_send.send(batch);
    }

    /// Adds a task to a draft, unless its output is known: it cannot be encoded, or `found` returns what an earlier leader has received for
    /// this encoding.
    pub(super) fn add<T, R>(
        &self,
        draft: &mut Draft,
        index: u64,
        task: T,
        found: impl FnOnce(&[u8]) -> Option<Found>,
    ) -> Option<Output<R>>
    where
        T: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        let start = draft.encoded.len();
        let encoded = invoker::facade::encode_task(self.manifest.seed, index, task, &mut draft.encoded);
        let known = match encoded {
            Err(error) => Some(Err(Box::new(Fault::Task(error.to_string())))),
            Ok(()) => found(&draft.encoded[start..])
                .and_then(|it| job::decode(it.as_ref().map(|it| &it[..]).map_err(|it| &it[..])).ok()),
        };
        match &known {
            None => draft.end_task(),
            Some(output) => {
                draft.encoded.truncate(start);
                let outcome = if output.is_ok() {
                    Outcome::Done
                } else {
                    Outcome::Failed
                };
                self.count(outcome, 1);
            }
        }
        known
    }

    /// Does what the accounting asks for.
    pub(super) fn perform(&self, core: &Core, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(batch) => {
                    let _ = self.to_send.send(batch);
                }
                Action::Fail {
                    job,
                    index,
                    node,
                    losses,
                } => {
                    if let Some(job) = core.jobs.get(&job) {
                        job.fail(index, Fault::NodeLost { node, losses });
                        self.count(Outcome::Failed, 1);
                    }
                }
            }
        }
    }

    /// Takes in an answer's outcomes, an encoded [`Outcomes`](wire::Outcomes).
    pub(super) fn receive(&self, node: u64, job: u32, took: Duration, contents: &Bytes) {
        let decoded = wire::decode::<wire::Outcomes<'_>>(contents);
        let Ok(Ok((count, mut outcomes))) = decoded.as_ref().map(wire::Outcomes::items) else {
            return self.refuse(false);
        };
        let mut core = self.core();
        core.batcher.observe(count, took);
        if let Some(receiver) = core.jobs.get(&job).cloned() {
            drop(core);
            core = receiver.receive(self, (node, job), &mut outcomes);
        } else if self.resumable && job >= core.next_job {
            let slice = |bytes: &[u8]| contents.slice_ref(bytes);
            for outcome in outcomes {
                let result = outcome.result.map(slice).map_err(slice);
                core.found.insert((job, outcome.index), (outcome.hash, result));
            }
        } else {
            // The job has ended, or never was: counted as duplicate or wrong.
            let answers = outcomes.map(|outcome| (outcome.index, outcome.hash));
            core.accounting.answer(node, job, answers, |_| {});
        }
        self.changed(core);
    }

    /// All answers up to this number were read.
    pub(super) fn read_up_to(&self, sequence: u64) {
        let mut core = self.core();
        core.read = core.read.max(sequence);
        self.changed(core);
    }

    /// Looks for lost batches.
    pub(super) fn tick(&self) {
        let mut core = self.core();
        let read = core.read;
        let actions = core.accounting.tick(Instant::now(), read);
        self.perform(&core, actions);
        self.changed(core);
    }

    /// Sends batches again that were sent before, and that no node has: the server has lost them.
    pub(super) fn resend_unclaimed(&self, before: Instant) {
        let mut core = self.core();
        let lost = core.accounting.unclaimed(before);
        core.accounting.resend(&lost);
        for batch in lost {
            let _ = self.to_send.send(batch);
        }
    }

    pub(super) fn count(&self, outcome: Outcome, tasks: u64) {
        self.bar.add(outcome, tasks);
    }

    /// Counts bytes that are no answer, or the answer of another run.
    pub(super) fn refuse(&self, foreign: bool) {
        let counts = &mut self.core().accounting.counts;
        match foreign {
            true => counts.foreign += 1,
            false => counts.invalid += 1,
        }
    }
}

impl Core {
    pub(super) fn add_job(&mut self, receiver: Arc<dyn Receiver>) -> u32 {
        let job = self.next_job;
        self.next_job += 1;
        self.jobs.insert(job, receiver);
        job
    }

    /// Returns what an earlier leader has received for a task, if it is the same task.
    pub(super) fn take_found(&mut self, job: u32, index: u64, encoded: &[u8]) -> Option<Found> {
        let (hash, found) = self.found.remove(&(job, index))?;
        if hash != wire::task_hash(encoded) {
            self.accounting.counts.invalid += 1;
            return None;
        }
        Some(found)
    }

    /// Returns the job of a batch, whether it runs alone, and the body of its message.
    pub(super) fn message(&self, batch: u64) -> Option<(u32, bool, Vec<u8>)> {
        let (job, alone) = self.accounting.kind(batch)?;
        let body = self.accounting.contents(batch, |tasks| wire::encode(tasks))?;
        Some((job, alone, body))
    }

    pub(super) fn sent(&mut self, batch: u64) {
        self.accounting.sent(batch, Instant::now());
    }
}
