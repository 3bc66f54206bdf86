//! [`run_batches`]: a thread that runs one batch after the other in the node's pool.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_nats::jetstream::AckKind;
use crossbeam_channel::Receiver;
use proc_pool::{BytePool, Bytes, Fault, TaskError};
use tokio::task::JoinHandle;

use super::state::{Held, NodeShared, Stop};
use crate::hidden_thread::run_on;
use crate::report::ServeEnd;
use crate::wire::{self, Answer, Blob, Body, Grant, Outcome, Request, Task, task_hash};

/// Time between two answers to a batch.
const ANSWER: Duration = Duration::from_millis(50);
/// Bytes of outcomes after which an answer is sent.
const ANSWER_BYTES: usize = 256 << 10;
/// The work that a node announces to the leader before it starts it: the tasks that count as started if the node is lost.
const ANNOUNCED: Duration = Duration::from_millis(20);
/// Answers on their way to the server.
const SENDING: usize = 4;

/// Runs batches until the channel is closed. Returns their number.
pub(super) fn run_batches(
    node: &Arc<NodeShared>,
    pool: &BytePool,
    batches: &Receiver<Held>,
    count: &(dyn Fn(&Result<Bytes, TaskError>) + Sync),
) -> u64 {
    let mut number = 0;
    for held in batches {
        number += u64::from(run_batch(node, pool, &held, count));
        node.held().remove(&held.batch);
        node.room.add_permits(1);
    }
    number
}

/// A task of a batch, on its way through the pool.
struct Input<'a> {
    index: u64,
    encoded: &'a [u8],
}

impl AsRef<[u8]> for Input<'_> {
    fn as_ref(&self) -> &[u8] {
        self.encoded
    }
}

/// Runs a batch, or gives it back. Returns whether tasks of it were run.
fn run_batch(
    node: &Arc<NodeShared>,
    pool: &BytePool,
    held: &Held,
    count: &(dyn Fn(&Result<Bytes, TaskError>) + Sync),
) -> bool {
    let gate = || node.gate.read().unwrap_or_else(PoisonError::into_inner);
    let alone = || node.gate.write().unwrap_or_else(PoisonError::into_inner);
    let _guards = match held.alone {
        true => (None, Some(alone())),
        false => (Some(gate()), None),
    };
    let tasks: Result<Vec<Task<'_>>, _> = wire::items(&held.contents).collect();
    let Ok(tasks) = tasks else {
        acknowledge(node, held, AckKind::Term);
        return false;
    };
    let step = announced(node, pool);
    let may_go_on = node.manifest.node_losses > 0 && !held.redelivered && !held.alone;
    let begin = |upto: usize| {
        let (node_here, batch) = (node.clone(), held.batch);
        let upto = u32::try_from(upto).unwrap_or(u32::MAX);
        run_on(&node.handle, async move {
            node_here.begin(batch, upto, may_go_on).await
        })
    };
    let granted = match node.stopped() {
        Some(_) => None,
        None => begin(step),
    };
    let positions: Vec<usize> = match granted {
        None => {
            // It stops: another node runs the batch.
            acknowledge(node, held, AckKind::Nak(None));
            return false;
        }
        Some(Grant::Drop) => {
            acknowledge(node, held, AckKind::Ack);
            return false;
        }
        Some(Grant::All) => (0..tasks.len()).collect(),
        Some(Grant::Only(open)) => open
            .into_iter()
            .map(|at| at as usize)
            .filter(|at| *at < tasks.len())
            .collect(),
    };
    let mut begun = step;
    let inputs = positions.iter().map_while(|&at| {
        if is_over(node) {
            return None;
        }
        if at >= begun {
            begun = at + announced(node, pool);
            if matches!(begin(begun), None | Some(Grant::Drop)) {
                return None;
            }
        }
        let Task {
            index,
            encoded: Blob(encoded),
        } = tasks[at];
        Some(Input { index, encoded })
    });
    let mut answers = Answers::new(node, held.job);
    let mut answered = 0;
    for (input, output) in pool.map_unordered(inputs).with_inputs() {
        if let Err(TaskError {
            fault: Fault::Pool(error),
            ..
        }) = &output
        {
            if pool.interrupted().is_none() {
                node.stop(Stop::Failed(error.clone()));
            }
            continue;
        }
        count(&output);
        node.count(output.is_ok());
        answers.add(&input, output);
        answered += 1;
        if is_over(node) {
            break;
        }
    }
    let Some(sequence) = answers.finish() else {
        return true;
    };
    let (node_id, batch) = (node.join.node, held.batch);
    let request = match answered == positions.len() {
        true => Request::Finish {
            node: node_id,
            batch,
            sequence,
        },
        false => Request::Release {
            node: node_id,
            batch,
            sequence,
        },
    };
    let (link, object) = (node.link.clone(), held.object.clone());
    run_on(&node.handle, async move {
        // A leader that has died sends the batch again.
        let _ = link.ask(&request).await;
        if let Some(object) = object {
            link.delete_object(&object).await;
        }
    });
    acknowledge(node, held, AckKind::Ack);
    true
}

/// Returns whether the run has ended, or the leader is lost: running tasks are then of no use.
pub(super) fn is_over(node: &NodeShared) -> bool {
    matches!(
        node.stopped(),
        Some(Stop::Ended(ServeEnd::RunEnded | ServeEnd::LeaderLost) | Stop::Failed(_))
    )
}

/// Returns how many tasks the node announces at a time.
fn announced(node: &NodeShared, pool: &BytePool) -> usize {
    let task_ns = node.task_ns.load(Ordering::Relaxed);
    let tasks = match task_ns {
        0 => 0,
        task_ns => (ANNOUNCED.as_nanos() as u64 / task_ns) as usize,
    };
    // A few for each worker, so that none waits for the leader's reply.
    tasks.max(4 * pool.workers())
}

fn acknowledge(node: &Arc<NodeShared>, held: &Held, how: AckKind) {
    let message = node.held().remove(&held.batch);
    if let Some(message) = message {
        run_on(&node.handle, async move {
            let _ = message.ack_with(how).await;
        });
    }
}

/// The answers to one batch.
struct Answers<'a> {
    node: &'a Arc<NodeShared>,
    job: u32,
    body: Vec<u8>,
    tasks: u64,
    since: Instant,
    sending: Vec<JoinHandle<Option<u64>>>,
    /// The highest sequence number of those that are in the stream.
    last: u64,
    lost: bool,
}

impl<'a> Answers<'a> {
    fn new(node: &'a Arc<NodeShared>, job: u32) -> Self {
        Self {
            node,
            job,
            body: Vec::new(),
            tasks: 0,
            since: Instant::now(),
            sending: Vec::new(),
            last: 0,
            lost: false,
        }
    }

    fn add(&mut self, input: &Input<'_>, output: Result<Bytes, TaskError>) {
        let (bytes, failed) = match output {
            Ok(bytes) => (bytes.into_vec(), false),
            // Only a pool's failure does not serialize, and it was handled before.
            Err(error) => (postcard::to_allocvec(&error.fault).unwrap_or_default(), true),
        };
        let most = ANSWER_BYTES.min(self.node.link.max_inline());
        if !self.body.is_empty() && self.body.len() + bytes.len() > most {
            self.send();
        }
        let result = match failed {
            false => Ok(Blob(&bytes)),
            true => Err(Blob(&bytes)),
        };
        let outcome = Outcome {
            index: input.index,
            hash: task_hash(input.encoded),
            result,
        };
        self.body = wire::push_item(&outcome, std::mem::take(&mut self.body));
        self.tasks += 1;
        if self.since.elapsed() >= ANSWER {
            self.send();
        }
    }

    fn send(&mut self) {
        let body = std::mem::take(&mut self.body);
        let took = self.since.elapsed();
        if body.is_empty() {
            return;
        }
        let took_ns = took.as_nanos() as u64;
        self.node
            .task_ns
            .store(took_ns / self.tasks.max(1), Ordering::Relaxed);
        (self.since, self.tasks) = (Instant::now(), 0);
        let (node, job) = (self.node.clone(), self.job);
        self.sending.push(
            self.node
                .handle
                .spawn(async move { publish(&node, job, took_ns, &body).await }),
        );
        if self.sending.len() >= SENDING {
            self.wait_for_first();
        }
    }

    fn wait_for_first(&mut self) {
        let first = self.sending.remove(0);
        match run_on(&self.node.handle, first) {
            Ok(Some(sequence)) => self.last = self.last.max(sequence),
            _ => self.lost = true,
        }
    }

    /// Waits until all answers are in the stream. Returns the last one's sequence number, or `None` if the node stops before.
    fn finish(mut self) -> Option<u64> {
        self.send();
        while !self.sending.is_empty() {
            self.wait_for_first();
        }
        (!self.lost).then_some(self.last)
    }
}

async fn publish(node: &NodeShared, job: u32, took_ns: u64, body: &[u8]) -> Option<u64> {
    let over = || is_over(node);
    let id = node.answer_id();
    let stored = match body.len() > node.link.max_inline() {
        true => Some(node.link.put(format!("answer-{id}"), body, over).await?),
        false => None,
    };
    let body = match stored {
        Some(name) => Body::Stored(name),
        None => Body::Inline(Blob(body)),
    };
    let (session, node_id) = (node.manifest.session, node.join.node);
    let answer = wire::encode(&Answer {
        session,
        node: node_id,
        job,
        took_ns,
        body,
    });
    node.link.publish("answers", &id, answer.into(), over).await
}
