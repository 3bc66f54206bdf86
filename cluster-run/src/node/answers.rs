//! [`Answers`]: the outcomes of a batch, gathered into messages.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proc_pool::Fault;
use proc_pool::facade::ReadyRun;

use super::{Engine, NodeState};
use crate::messages::{self, Answer, Answers as Message, BatchId, End, Items, Outcome, Outcomes, task_hash};

/// Time between two answers to a batch.
const ANSWER: Duration = Duration::from_millis(200);
/// Bytes of outputs after which an answer is sent.
const ANSWER_BYTES: usize = 256 << 10;
/// About the bytes of an outcome besides its output.
const OUTCOME: usize = 16;
/// Answers on their way to the engine.
const SENDING: usize = 4;

/// The answers to batches that run together.
pub(super) struct Answers<'a, E: Engine> {
    node: &'a NodeState,
    engine: &'a E,
    /// The next answer to each batch.
    next: Vec<Next>,
    /// The outcomes in all of them.
    outcomes: usize,
    count: &'a (dyn Fn(u64, u64) + Sync),
    since: Instant,
    sending: VecDeque<E::Sending>,
}

/// An answer, and its outputs.
struct Next {
    answer: Answer,
    outputs: Vec<u8>,
    failed: u64,
}

impl<'a, E: Engine> Answers<'a, E> {
    pub(super) fn new(
        node: &'a NodeState,
        engine: &'a E,
        batches: impl IntoIterator<Item = BatchId>,
        count: &'a (dyn Fn(u64, u64) + Sync),
    ) -> Self {
        let next = |batch| Next {
            answer: Answer {
                batch,
                took_ns: 0,
                end: None,
                outcomes: Outcomes::default(),
            },
            outputs: Vec::new(),
            failed: 0,
        };
        Self {
            node,
            engine,
            next: batches.into_iter().map(next).collect(),
            outcomes: 0,
            count,
            since: Instant::now(),
            sending: VecDeque::new(),
        }
    }

    /// Adds the outcome of a task of the batch number `batch`.
    pub(super) fn add(&mut self, batch: usize, at: usize, task: &[u8], output: Result<&[u8], Fault>) {
        // Only a pool's failure does not serialize, and it was handled before.
        let fault = output
            .as_ref()
            .err()
            .map(|fault| postcard::to_allocvec(fault).unwrap_or_default());
        let bytes = fault.as_deref().or(output.ok()).unwrap_or_default();
        let next = self.with_room(batch, 1, bytes.len());
        next.failed += u64::from(fault.is_some());
        next.outputs.extend_from_slice(bytes);
        next.answer.outcomes.push(Outcome {
            at: at as u32,
            hash: task_hash(task),
            is_fault: fault.is_some(),
            len: bytes.len() as u32,
        });
    }

    /// Adds the outputs of these tasks of the batch number `batch`. The first one is at `at`.
    pub(super) fn add_run(&mut self, batch: usize, mut at: usize, tasks: &Items<'_>, run: ReadyRun<'_>) {
        let most = (self.most_bytes() / 2 / (OUTCOME + run.output_len())).max(1);
        let mut rest = Some(run);
        while let Some(run) = rest {
            let (run, left) = run.split(most);
            let (count, len) = (run.len(), run.output_len());
            let next = self.with_room(batch, count, count * len);
            run.copy_to(&mut next.outputs);
            let hashes = (at..at + count).map(|at| task_hash(tasks.get(at)));
            next.answer.outcomes.push_run(at as u32, len as u32, hashes);
            (at, rest) = (at + count, left);
        }
    }

    fn most_bytes(&self) -> usize {
        ANSWER_BYTES.min(self.engine.max_message())
    }

    /// Returns the next answer to a batch, with room for further outcomes.
    fn with_room(&mut self, batch: usize, outcomes: usize, bytes: usize) -> &mut Next {
        let next = &self.next[batch];
        let before = next.answer.outcomes.len();
        if before > 0 && next.outputs.len() + OUTCOME * (before + outcomes - 1) + bytes > self.most_bytes() {
            self.send(batch);
        }
        self.outcomes += outcomes;
        &mut self.next[batch]
    }

    /// Sends what there is, if it has waited for long enough. Returns the time until then.
    pub(super) fn send_if_due(&mut self) -> Duration {
        match ANSWER.checked_sub(self.since.elapsed()) {
            Some(left) if !left.is_zero() => left,
            _ => {
                for batch in 0..self.next.len() {
                    if self.next[batch].answer.outcomes.len() > 0 {
                        self.send(batch);
                    }
                }
                ANSWER
            }
        }
    }

    fn send(&mut self, batch: usize) {
        self.close(batch);
        let next = &mut self.next[batch];
        let (id, message) = self.node.answers([(&next.answer, &next.outputs[..])]);
        next.answer.outcomes.clear();
        next.outputs.clear();
        self.sending.push_back(self.engine.publish(id, message));
        self.wait_for_most(SENDING - 1);
    }

    /// Counts the outcomes of the next answer to a batch, before it is sent.
    fn close(&mut self, batch: usize) {
        let next = &mut self.next[batch];
        let tasks = next.answer.outcomes.len();
        // The outcomes of all batches took the time, one as long as the other.
        let took = match self.outcomes {
            0 => self.since.elapsed(),
            outcomes => self.since.elapsed().mul_f64(tasks as f64 / outcomes as f64),
        };
        self.since += took;
        self.outcomes -= tasks;
        next.answer.took_ns = took.as_nanos() as u64;
        let (tasks, failed) = (tasks as u64, std::mem::take(&mut next.failed));
        if let Some(task_ns) = next.answer.took_ns.checked_div(tasks) {
            self.node.task_ns.store(task_ns, Ordering::Relaxed);
        }
        self.node.failed.fetch_add(failed, Ordering::Relaxed);
        (self.count)(tasks - failed, failed);
    }

    /// Waits until at most this number of answers are on their way.
    fn wait_for_most(&mut self, sending: usize) {
        while self.sending.len() > sending
            && let Some(oldest) = self.sending.pop_front()
        {
            self.engine.wait(oldest);
        }
    }

    /// Returns the last answer to each batch when all others are in the stream. `end` returns how the batch with a number ends.
    pub(super) fn finish(mut self, end: impl Fn(usize) -> End) -> Vec<LastAnswer> {
        self.wait_for_most(0);
        for batch in 0..self.next.len() {
            self.next[batch].answer.end = Some(end(batch));
            self.close(batch);
        }
        let last = |Next { answer, outputs, .. }| LastAnswer { answer, outputs };
        self.next.into_iter().map(last).collect()
    }
}

/// The last answer to a batch. The engine must publish it.
#[derive(Debug)]
pub struct LastAnswer {
    answer: Answer,
    outputs: Vec<u8>,
}

impl LastAnswer {
    /// Returns about the number of bytes that it adds to a message.
    pub fn byte_len(&self) -> usize {
        self.outputs.len() + OUTCOME * self.answer.outcomes.len()
    }
}

impl NodeState {
    /// Returns a message with the last answers to several batches, and an id that no other message with answers has.
    pub fn last_answers<'a>(&self, last: impl IntoIterator<Item = &'a LastAnswer>) -> (String, Bytes) {
        self.answers(last.into_iter().map(|last| (&last.answer, &last.outputs[..])))
    }

    fn answers<'a>(&self, answers: impl IntoIterator<Item = (&'a Answer, &'a [u8])>) -> (String, Bytes) {
        let (answers, outputs): (Vec<_>, Vec<_>) = answers.into_iter().unzip();
        let message = Message {
            session: self.manifest.session,
            node: self.join.node,
            answers,
        };
        let number = self.next_answer.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:016x}-{number}", self.join.node);
        (id, messages::encode_parts(&message, &outputs))
    }
}
