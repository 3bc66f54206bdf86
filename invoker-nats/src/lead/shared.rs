//! [`Shared`]: the state of a leader, which its callers and the hidden thread have in common.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proc_pool::Fault;
use progress::{Bar, Outcome};
use tokio::sync::mpsc::UnboundedSender;

use crate::accounting::{Accounting, Action};
use crate::batcher::{Batcher, DraftTask};
use crate::wire::{self, Manifest};

/// A request of a caller to the hidden thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Send(u64),
}

/// An answer that an earlier leader of the run received: the hash of the task, and the encoded output or fault.
pub(super) type Found = (u64, Result<Bytes, Bytes>);

/// Everything behind one lock.
pub(super) struct Core {
    pub(super) accounting: Accounting,
    pub(super) batcher: Batcher,
    pub(super) jobs: HashMap<u32, Arc<dyn Receiver>>,
    next_job: u32,
    /// Answers to tasks that no job has taken from its input yet.
    pub(super) found: HashMap<(u32, u64), Found>,
    /// The number of the last answer that was read.
    pub(super) read: u64,
    /// The checksum of the first node's model, or the expected one.
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
    pub(super) commands: UnboundedSender<Command>,
    pub(super) bar: Bar,
}

/// A job as the hidden thread sees it: it decodes outcomes and keeps those that are the first of their tasks.
pub(super) trait Receiver: Send + Sync {
    /// Takes in outcomes of a node. It locks `shared`, and returns the lock for what follows.
    fn receive<'a>(
        &self,
        shared: &'a Shared,
        node: u64,
        outcomes: &mut dyn Iterator<Item = wire::Outcome<'_>>,
    ) -> MutexGuard<'a, Core>;

    fn fail(&self, index: u64, fault: Fault);
}

impl Shared {
    pub(super) fn new(
        accounting: Accounting,
        batcher: Batcher,
        checksum: Option<u64>,
        manifest: Manifest,
        resumable: bool,
        commands: UnboundedSender<Command>,
        bar: Bar,
    ) -> Self {
        let core = Core {
            accounting,
            batcher,
            jobs: HashMap::new(),
            next_job: 0,
            found: HashMap::new(),
            read: 0,
            checksum,
            ended: false,
        };
        let (core, changed, open) = (Mutex::new(core), Condvar::new(), AtomicUsize::new(0));
        let nodes = AtomicUsize::new(0);
        Self {
            core,
            changed,
            open,
            nodes,
            manifest,
            resumable,
            commands,
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

    /// Opens tasks of a job and has them sent.
    pub(super) fn open(&self, job: u32, encoded: Vec<u8>, tasks: &[DraftTask]) {
        let mut core = self.core();
        let batch = core.accounting.open(job, encoded, tasks);
        self.changed(core);
        let _ = self.commands.send(Command::Send(batch));
    }

    /// Does what the accounting asks for.
    pub(super) fn perform(&self, core: &Core, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(batch) => {
                    let _ = self.commands.send(Command::Send(batch));
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
            core = receiver.receive(self, node, &mut outcomes);
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
            let _ = self.commands.send(Command::Send(batch));
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
    pub(super) fn add_job(&mut self, receiver: impl FnOnce(u32) -> Arc<dyn Receiver>) -> u32 {
        let job = self.next_job;
        self.next_job += 1;
        self.jobs.insert(job, receiver(job));
        job
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
