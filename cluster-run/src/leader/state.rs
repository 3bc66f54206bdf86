//! [`LeaderState`]: the state of a leader, which its callers and the engine have in common.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use invoker::facade;
use log_bridge::relay::Records;
use proc_pool::Fault;
use progress::{Bar, Outcome};

use super::receiver::{Decoded, Output, Receiver, decode};
use crate::accounting::{Accounting, Action};
use crate::batcher::{Batcher, MAX_TASKS};
use crate::messages::{self, Answer, Answers, Batch, BatchId, Items, Manifest, Reply, Request};
use crate::report::ClusterReport;
use crate::value::Value;

/// An outcome that an earlier leader of the run received, and its bytes.
type Found = (messages::Outcome, Bytes);

/// Open batches for each node.
const BATCHES: usize = 3;
/// The same if they are short, and have less than this number of bytes for each node.
const SHORT_BATCHES: usize = 80;
const SHORT_BYTES: usize = 1 << 20;

/// How large a batch may be.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Limits {
    /// The most bytes of a message, unless a single task has more: the engine must move such a message, too.
    pub message_bytes: usize,
    /// The most tasks of a batch.
    pub batch_tasks: usize,
}

impl Limits {
    /// Messages of at most this size, with up to 65,536 tasks.
    pub fn new(message_bytes: usize) -> Self {
        Self {
            message_bytes,
            batch_tasks: MAX_TASKS,
        }
    }
}

/// Everything behind one lock.
pub(super) struct Core {
    pub(super) accounting: Accounting,
    pub(super) batcher: Batcher,
    pub(super) jobs: HashMap<u32, Arc<dyn Receiver>>,
    next_job: u32,
    /// Answers to tasks that no job has taken from its input yet.
    found: HashMap<(u32, u64), Found>,
    /// The checksum of the first node's model.
    checksum: Option<u64>,
    /// The number of nodes that the bar shows.
    shown_nodes: usize,
    /// Nodes are to leave.
    ending: bool,
    ended: bool,
}

/// The answers of a message, those of jobs that have not ended.
struct DecodedAnswers {
    /// The number of jobs when they were decoded.
    next_job: u32,
    answers: Vec<Option<Box<dyn Decoded>>>,
}

/// The state of a leader, which its callers (through [`Jobs`](crate::Jobs)) and the engine have in common: shared by an `Arc`, and used
/// from any thread.
pub struct LeaderState {
    core: Mutex<Core>,
    changed: Condvar,
    /// How many more batches may be open, to look at without the lock.
    room: AtomicUsize,
    pub(super) manifest: Manifest,
    /// The most bytes of a message.
    pub(super) max_message: usize,
    /// Called with each batch that the engine is to send.
    send: Box<dyn Fn(BatchId) + Send + Sync>,
    pub(super) bar: Bar,
    started: Instant,
}

impl fmt::Debug for LeaderState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaderState({:?})", self.manifest)
    }
}

/// The calls of the engine.
impl LeaderState {
    /// Begins a run, or goes on with one.
    ///
    /// `first_number` must be higher than the number of any batch of an earlier leader of this session, as the time is. The bar counts
    /// outcomes, and shows the number of nodes. `send` is called for each batch that the engine must send: with a lock held, so that it must
    /// hand the id to a thread.
    pub fn new(
        manifest: Manifest,
        first_number: u64,
        limits: Limits,
        bar: Bar,
        send: impl Fn(BatchId) + Send + Sync + 'static,
    ) -> Self {
        let accounting = Accounting::new(manifest.node_losses, manifest.ack_wait, first_number);
        let core = Core {
            accounting,
            batcher: Batcher::new(limits.batch_tasks),
            jobs: HashMap::new(),
            next_job: 0,
            found: HashMap::new(),
            checksum: None,
            shown_nodes: 0,
            ending: false,
            ended: false,
        };
        Self {
            core: Mutex::new(core),
            changed: Condvar::new(),
            room: AtomicUsize::new(2),
            manifest,
            max_message: limits.message_bytes,
            send: Box::new(send),
            bar,
            started: Instant::now(),
        }
    }

    /// Returns the description of the run.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns the message with a batch, and a name that no other message of the run has: an engine can recognize by it what it has
    /// taken already. Returns `None` if the batch was answered or abandoned in the meantime.
    pub fn message(&self, id: &BatchId) -> Option<(String, Bytes)> {
        let mut core = self.core();
        // A number of its own for each time that it is sent again.
        let name = format!("{}-{}", id.number, core.accounting.report.resent);
        let batch = core.accounting.batch(id)?;
        let message = Batch {
            session: self.manifest.session,
            id: *id,
            alone: batch.alone,
            lengths: batch.tasks.lengths.clone(),
        };
        Some((name, messages::encode(&message, &batch.tasks.encoded)))
    }

    /// Returns whether a batch is still to be sent.
    pub fn is_wanted(&self, id: &BatchId) -> bool {
        let mut core = self.core();
        !core.ended && core.accounting.batch(id).is_some()
    }

    /// Notes that the engine has taken a batch.
    pub fn sent(&self, id: &BatchId, now: Instant) {
        self.core().accounting.sent(id, now);
    }

    /// Takes in a message with answers of a node. Answers of another run and malformed bytes are counted and ignored.
    pub fn receive(&self, message: &Bytes) {
        let Some((answers, payload)) = messages::decode::<Answers>(message) else {
            return self.count_invalid();
        };
        if answers.session != self.manifest.session {
            return self.core().accounting.report.foreign += 1;
        }
        let Some(split) = answers.split(payload) else {
            return self.count_invalid();
        };
        let mut decoded = self.decode(&split);
        let mut core = self.core();
        // A job may have started since, and the answer may be to tasks of it that an earlier leader sent.
        while decoded.next_job != core.next_job {
            drop(core);
            decoded = self.decode(&split);
            core = self.core();
        }
        for ((answer, items), decoded) in split.iter().zip(&mut decoded.answers) {
            self.receive_answer(
                &mut core,
                answers.node,
                answer,
                items,
                decoded.as_deref_mut(),
                message,
            );
        }
        drop(core);
        let accepted = decoded.answers.into_iter().flatten();
        accepted.for_each(|answer| answer.deliver());
        self.changed(self.core(), true);
    }

    /// Decodes answers, while nothing is locked.
    fn decode(&self, answers: &[(&Answer, Items<'_>)]) -> DecodedAnswers {
        let core = self.core();
        let next_job = core.next_job;
        let receivers = answers
            .iter()
            .map(|(answer, _)| core.jobs.get(&answer.batch.job).cloned());
        let receivers: Vec<_> = receivers.collect();
        drop(core);
        let answers = answers.iter().zip(receivers);
        let answers = answers
            .map(|((answer, items), receiver)| receiver.map(|receiver| receiver.decode(answer, items)))
            .collect();
        DecodedAnswers { next_job, answers }
    }

    fn receive_answer(
        &self,
        core: &mut Core,
        node: u64,
        answer: &Answer,
        items: &Items<'_>,
        mut decoded: Option<&mut (dyn Decoded + '_)>,
        message: &Bytes,
    ) {
        core.batcher
            .observe(items.len(), Duration::from_nanos(answer.took_ns));
        let job = answer.batch.job;
        if self.manifest.resumable && job >= core.next_job {
            for (outcome, bytes) in answer.outcomes.iter().zip(items.iter()) {
                let index = answer.batch.first.saturating_add(outcome.at.into());
                core.found
                    .insert((job, index), (outcome, message.slice_ref(bytes)));
            }
            return;
        }
        let mut failed = 0;
        let before = core.accounting.report.delivered;
        core.accounting.answer(node, answer, |at| {
            // The tasks of a job that has ended are not open.
            decoded.as_mut().ok_or("its job has ended")?.accept(at)?;
            failed += u64::from(answer.outcomes.is_fault(at));
            Ok(())
        });
        let delivered = core.accounting.report.delivered - before;
        self.bar.add(Outcome::Done, delivered - failed);
        self.bar.add(Outcome::Failed, failed);
    }

    /// Counts a message that is damaged: that the engine could not read.
    pub fn count_invalid(&self) {
        self.core().accounting.report.invalid += 1;
    }

    /// Returns the reply to a request of a node, or `None` if the request is malformed.
    pub fn reply(&self, request: &[u8], now: Instant) -> Option<Bytes> {
        let Some(request) = messages::decode_all::<Request>(request) else {
            self.count_invalid();
            return None;
        };
        let mut core = self.core();
        let reply = match request {
            Request::Manifest => Reply::Manifest(Box::new(self.manifest.clone())),
            Request::Join(join) if join.session != self.manifest.session => {
                Reply::Refused("it belongs to an earlier run".to_owned())
            }
            Request::Join(join) => {
                let (is, expected) = (join.checksum, *core.checksum.get_or_insert(join.checksum));
                match is == expected {
                    true => {
                        core.accounting.join(join, now);
                        Reply::Yes
                    }
                    false => Reply::Refused(format!(
                        "its model has the checksum {is:016x}, and {expected:016x} is that of the run"
                    )),
                }
            }
            Request::Begin { node, .. } if !core.accounting.is_known(node) => Reply::Unknown,
            Request::Begin { node, claims } => Reply::Begin(
                claims
                    .into_iter()
                    .map(|it| {
                        core.accounting
                            .begin(node, it.batch, it.from as usize..it.upto as usize)
                    })
                    .collect(),
            ),
            Request::Beat { node, counts, leaves } => {
                let is_known = core.accounting.beat(node, Some(counts), now);
                if leaves {
                    core.accounting.leave(node);
                }
                match (is_known, core.ending) {
                    (false, _) => Reply::Unknown,
                    (true, false) => Reply::Yes,
                    (true, true) => Reply::End,
                }
            }
        };
        self.changed(core, false);
        Some(messages::encode(&reply, &[]))
    }

    /// Takes in records of a node's log, and makes events of them.
    pub fn receive_records(&self, message: &[u8]) {
        let Some((node, records)) = messages::decode_all::<(u64, Records)>(message) else {
            return self.count_invalid();
        };
        let counted = self.core().accounting.count_records(node, &records);
        match counted {
            Some((name, missing)) => records.replay(&name, missing),
            None => self.core().accounting.report.foreign += 1,
        }
    }

    /// Looks for lost nodes. To be called a few times in [`ack_wait`](Manifest::ack_wait), but not while nodes cannot be heard.
    pub fn tick(&self, now: Instant) {
        self.update(|core| core.accounting.tick(now));
    }

    /// Sends the batches again that were sent before `since`, and that no node has. To be called when the engine has no batch: it has lost
    /// them.
    pub fn resend_unclaimed(&self, since: Instant) {
        self.update(|core| core.accounting.resend_unclaimed(since));
    }

    /// Returns the number of nodes that are present.
    pub fn nodes(&self) -> usize {
        self.core().accounting.present_nodes()
    }

    /// Asks nodes to leave, in the replies to their next requests.
    pub fn begin_end(&self) {
        self.core().ending = true;
    }

    /// Ends the run for the engine: no batch is wanted any more.
    pub fn end(&self) {
        self.core().ended = true;
    }

    /// Returns whether the run has [ended](Self::end).
    pub fn has_ended(&self) -> bool {
        self.core().ended
    }

    /// Returns the counts of the run so far.
    pub fn report(&self) -> ClusterReport {
        let mut report = self.core().accounting.report.clone();
        report.elapsed = self.started.elapsed();
        report
    }
}

/// What callers and the engine have in common.
impl LeaderState {
    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next change.
    pub(super) fn wait<'a>(&self, core: MutexGuard<'a, Core>) -> MutexGuard<'a, Core> {
        self.changed.wait(core).unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a change: does what the accounting asks for, and wakes callers that wait for outputs or room.
    pub(super) fn changed(&self, mut core: MutexGuard<'_, Core>, mut has_outputs: bool) {
        let mut failed = Vec::new();
        for action in std::mem::take(&mut core.accounting.actions) {
            match action {
                Action::Send(batch) => (self.send)(batch),
                Action::Fail { job, index, fault } => {
                    let receiver = core.jobs.get(&job).cloned();
                    failed.extend(receiver.map(|receiver| (receiver, index, fault)));
                }
            }
        }
        let (nodes, open) = (core.accounting.present_nodes(), core.accounting.open_batches());
        let is_short = core.batcher.is_short() && core.accounting.open_bytes() < nodes * SHORT_BYTES;
        // Some for each node, or two tasks for each worker, and two.
        let most = nodes * if is_short { SHORT_BATCHES } else { BATCHES };
        let most = most.max(core.batcher.batches(2 * core.accounting.present_workers()));
        let room = (most + 2).saturating_sub(open);
        let had_room = self.room.swap(room, Ordering::Relaxed) > 0;
        if std::mem::replace(&mut core.shown_nodes, nodes) != nodes {
            self.bar.set_message(format!("{nodes} nodes"));
        }
        drop(core);
        if !failed.is_empty() {
            self.bar.add(Outcome::Failed, failed.len() as u64);
            for (receiver, index, fault) in failed {
                receiver.fail(index, fault);
            }
            // Callers that have seen no output before wait by now.
            drop(self.core());
            has_outputs = true;
        }
        if has_outputs || room > 0 && !had_room {
            self.changed.notify_all();
        }
    }

    pub(super) fn update(&self, update: impl FnOnce(&mut Core)) {
        let mut core = self.core();
        update(&mut core);
        self.changed(core, false);
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
}

impl Core {
    pub(super) fn add_job(&mut self, receiver: impl Receiver + 'static) -> u32 {
        let job = self.next_job;
        self.next_job += 1;
        self.jobs.insert(job, Arc::new(receiver));
        job
    }

    /// Returns what an earlier leader has received for a task, if it is the same task.
    pub(super) fn take_found(&mut self, job: u32, index: u64, encoded: &[u8]) -> Option<Found> {
        let found = self.found.remove(&(job, index))?;
        if found.0.hash != messages::task_hash(encoded) {
            self.accounting.report.invalid += 1;
            return None;
        }
        Some(found)
    }
}
