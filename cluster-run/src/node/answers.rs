//! [`Answers`]: the outcomes of a batch, gathered into messages.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proc_pool::Fault;

use super::{Engine, NodeState};
use crate::messages::{self, Answer, Answers as Message, BatchId, End, Outcome, Outcomes, task_hash};

/// Time between two answers to a batch.
const ANSWER: Duration = Duration::from_millis(200);
/// Bytes of outputs after which an answer is sent.
const ANSWER_BYTES: usize = 256 << 10;
/// About the bytes of an outcome besides its output.
const OUTCOME: usize = 16;
/// Answers on their way to the engine.
const SENDING: usize = 4;

/// The answers to one batch.
pub(super) struct Answers<'a, E: Engine> {
    node: &'a NodeState,
    engine: &'a E,
    /// The next one, and its outputs.
    answer: Answer,
    outputs: Vec<u8>,
    failed: u64,
    count: &'a (dyn Fn(u64, u64) + Sync),
    since: Instant,
    sending: VecDeque<E::Sending>,
}

impl<'a, E: Engine> Answers<'a, E> {
    pub(super) fn new(
        node: &'a NodeState,
        engine: &'a E,
        batch: BatchId,
        count: &'a (dyn Fn(u64, u64) + Sync),
    ) -> Self {
        let answer = Answer {
            batch,
            took_ns: 0,
            end: None,
            outcomes: Outcomes::default(),
        };
        Self {
            node,
            engine,
            answer,
            outputs: Vec::new(),
            failed: 0,
            count,
            since: Instant::now(),
            sending: VecDeque::new(),
        }
    }

    pub(super) fn add(&mut self, at: u32, task: &[u8], output: Result<&[u8], Fault>) {
        // Only a pool's failure does not serialize, and it was handled before.
        let fault = output
            .as_ref()
            .err()
            .map(|fault| postcard::to_allocvec(fault).unwrap_or_default());
        let bytes = fault.as_deref().or(output.ok()).unwrap_or_default();
        let outcomes = self.answer.outcomes.len();
        let most = ANSWER_BYTES.min(self.engine.max_message());
        if outcomes > 0 && self.outputs.len() + OUTCOME * outcomes + bytes.len() > most {
            self.send();
        }
        self.failed += u64::from(fault.is_some());
        self.outputs.extend_from_slice(bytes);
        self.answer.outcomes.push(Outcome {
            at,
            hash: task_hash(task),
            is_fault: fault.is_some(),
            len: bytes.len() as u32,
        });
    }

    /// Sends what there is, if it has waited for long enough. Returns the time until then.
    pub(super) fn send_if_due(&mut self) -> Duration {
        match ANSWER.checked_sub(self.since.elapsed()) {
            Some(left) if !left.is_zero() => left,
            _ => {
                if self.answer.outcomes.len() > 0 {
                    self.send();
                }
                ANSWER
            }
        }
    }

    fn send(&mut self) {
        self.close();
        let (id, message) = self.node.answers([(&self.answer, &self.outputs[..])]);
        self.answer.outcomes.clear();
        self.outputs.clear();
        self.sending.push_back(self.engine.publish(id, message));
        self.wait_for_most(SENDING - 1);
    }

    /// Counts the outcomes of the next answer, before it is sent.
    fn close(&mut self) {
        let (tasks, failed) = (
            self.answer.outcomes.len() as u64,
            std::mem::take(&mut self.failed),
        );
        self.answer.took_ns = self.since.elapsed().as_nanos() as u64;
        self.since = Instant::now();
        if let Some(task_ns) = self.answer.took_ns.checked_div(tasks) {
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

    /// Returns the last answer when all others are in the stream.
    pub(super) fn finish(mut self, end: End) -> LastAnswer {
        self.wait_for_most(0);
        self.answer.end = Some(end);
        self.close();
        LastAnswer {
            answer: self.answer,
            outputs: self.outputs,
        }
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
