//! [`run`]: runs a batch in the node's pool, and publishes the answers to it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::AckKind;
use bytes::Bytes;
use proc_pool::{BytePool, Fault};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Node;
use crate::wire::{self, Answer, Batch, End, Outcome, Reply, Request, task_hash};

/// Time between two answers to a batch.
const ANSWER: Duration = Duration::from_millis(100);
/// Bytes of outputs after which an answer is sent.
const ANSWER_BYTES: usize = 256 << 10;
/// About the bytes of an outcome besides its output.
const OUTCOME: usize = 16;
/// The work that a node announces to the leader before it starts it: the tasks that count as started if the node is lost.
const ANNOUNCED: Duration = Duration::from_millis(50);
/// Answers on their way to the server.
const SENDING: usize = 4;

/// A batch that the node has.
pub(super) struct Held {
    pub(super) batch: Batch,
    /// The message: its end are the tasks.
    contents: Bytes,
    tasks: usize,
    /// Whether it was delivered before.
    is_again: bool,
}

impl Held {
    /// Returns `None` if a message has no batch of this run.
    pub(super) fn new(contents: Bytes, session: u64, is_again: bool) -> Option<Self> {
        let (batch, tasks) = wire::decode::<Batch>(&contents)?;
        let tasks = tasks.len();
        let held = Self {
            batch,
            tasks: contents.len() - tasks,
            contents,
            is_again,
        };
        (held.batch.session == session && held.tasks().is_some()).then_some(held)
    }

    fn tasks(&self) -> Option<Vec<&[u8]>> {
        wire::split(&self.contents[self.tasks..], self.batch.lengths.iter().copied())
    }
}

/// Runs a batch, unless the leader or the end of the node prevents it. Returns whether tasks of it were run, and how to acknowledge it.
pub(super) fn run(
    node: &Arc<Node>,
    pool: &BytePool,
    held: &Held,
    count: &(dyn Fn(u64, u64) + Sync),
) -> (bool, AckKind) {
    let Held { batch, is_again, .. } = held;
    let gate = || node.gate.read().unwrap_or_else(PoisonError::into_inner);
    let alone = || node.gate.write().unwrap_or_else(PoisonError::into_inner);
    let _guards = match batch.alone {
        true => (None, Some(alone())),
        false => (Some(gate()), None),
    };
    // While the leader is away, nodes go on with the batches that they have, unless a task might then run twice.
    let may_go_on = node.manifest.node_losses > 0 && !is_again && !batch.alone;
    let begin = |from: usize, upto: usize| {
        let request = Request::Begin {
            node: node.join.node,
            batch: batch.id,
            from: from as u32,
            upto: upto as u32,
        };
        node.handle.block_on(may_begin(node, &request, may_go_on))
    };
    match begin(0, 0) {
        Some(true) => {}
        Some(false) => return (false, AckKind::Ack),
        // It stops: another node runs the batch.
        None => return (false, AckKind::Nak(None)),
    }
    let tasks = held.tasks().unwrap_or_default();
    let mut turn = Some(node.turn.lock().unwrap_or_else(PoisonError::into_inner));
    let mut begun = 0;
    let inputs = tasks.iter().enumerate().map_while(|(at, task)| {
        if at >= begun {
            // Those that run alone are announced one by one: the node that dies names the culprit.
            let (from, tasks) = match batch.alone {
                true => (at, 1),
                false => (0, announced(node, pool)),
            };
            begun = at + tasks;
            if begin(from, begun) != Some(true) {
                return None;
            }
        }
        Some(*task)
    });
    // When all of its tasks are with the workers, those of the next batch follow.
    let inputs = inputs.chain(std::iter::from_fn(|| {
        turn = None;
        None
    }));
    let mut answers = Answers::new(node, batch, count);
    let mut answered = 0;
    let mut outputs = pool.map_unordered(inputs);
    if batch.alone {
        outputs.set_max_in_flight(1);
    }
    loop {
        let taken = outputs.take_ready(|at, output| match output {
            Err(Fault::Pool(error)) if pool.interrupted().is_none() => node.stop(Err(error)),
            Err(Fault::Pool(_)) => {}
            output => {
                answers.add(at as u32, tasks[at as usize], output);
                answered += 1;
            }
        });
        if taken.is_none() || node.is_over() {
            break;
        }
        let due = answers.send_if_due();
        if taken == Some(0) {
            outputs.wait(due);
        }
    }
    drop(outputs);
    answers.finish(match answered == tasks.len() {
        true => End::Done,
        false => End::Released,
    });
    (true, AckKind::Ack)
}

/// Asks the leader for permission to run tasks. Returns `None` if the node stops before there is a reply.
async fn may_begin(node: &Node, request: &Request, may_go_on: bool) -> Option<bool> {
    while node.stopped().is_none() {
        match node.link.ask(request).await {
            Ok(Reply::Yes) => return Some(true),
            Ok(Reply::No) => return Some(false),
            Err(_) if may_go_on => return Some(true),
            // Or the leader does not know the node yet.
            _ => sleep(super::ASK).await,
        }
    }
    None
}

/// Returns how many tasks the node announces at a time.
fn announced(node: &Node, pool: &BytePool) -> usize {
    let task_ns = node.task_ns.load(Ordering::Relaxed);
    let tasks = (ANNOUNCED.as_nanos() as u64).checked_div(task_ns).unwrap_or(0);
    // A few for each worker, so that none waits for the leader's reply.
    (tasks as usize).max(4 * pool.workers())
}

/// The answers to one batch.
struct Answers<'a> {
    node: &'a Arc<Node>,
    /// The next one, and its outputs.
    answer: Answer,
    outputs: Vec<u8>,
    failed: u64,
    count: &'a (dyn Fn(u64, u64) + Sync),
    since: Instant,
    sending: JoinSet<bool>,
}

impl<'a> Answers<'a> {
    fn new(node: &'a Arc<Node>, batch: &Batch, count: &'a (dyn Fn(u64, u64) + Sync)) -> Self {
        let answer = Answer {
            session: node.manifest.session,
            node: node.join.node,
            batch: batch.id,
            took_ns: 0,
            end: None,
            outcomes: Vec::new(),
        };
        Self {
            node,
            answer,
            outputs: Vec::new(),
            failed: 0,
            count,
            since: Instant::now(),
            sending: JoinSet::new(),
        }
    }

    fn add(&mut self, at: u32, task: &[u8], output: Result<&[u8], Fault>) {
        // Only a pool's failure does not serialize, and it was handled before.
        let fault = output
            .as_ref()
            .err()
            .map(|fault| postcard::to_allocvec(fault).unwrap_or_default());
        let bytes = fault.as_deref().or(output.ok()).unwrap_or_default();
        let outcomes = self.answer.outcomes.len();
        let most = ANSWER_BYTES.min(self.node.link.max_inline());
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
    fn send_if_due(&mut self) -> Duration {
        match ANSWER.checked_sub(self.since.elapsed()) {
            Some(left) if !left.is_zero() => left,
            _ => {
                if !self.answer.outcomes.is_empty() {
                    self.send();
                }
                ANSWER
            }
        }
    }

    fn send(&mut self) {
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
        let message = wire::encode(&self.answer, &self.outputs);
        self.answer.outcomes.clear();
        self.outputs.clear();
        let number = self.node.next_answer.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:016x}-{number}", self.answer.node);
        let node = self.node.clone();
        let publish = async move {
            node.link
                .publish("answers", &id, message, || node.is_over())
                .await
        };
        self.sending.spawn_on(publish, &self.node.handle);
        self.wait_for_most(SENDING - 1);
    }

    /// Waits until at most this number of answers are on their way.
    fn wait_for_most(&mut self, sending: usize) {
        while self.sending.len() > sending {
            self.node.handle.block_on(self.sending.join_next());
        }
    }

    /// Sends the last answer when all others are in the stream, and waits until it is.
    fn finish(mut self, end: End) {
        self.wait_for_most(0);
        self.answer.end = Some(end);
        self.send();
        self.wait_for_most(0);
    }
}
