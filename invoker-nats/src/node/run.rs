//! [`run_batches`]: a thread that fetches batches and runs one after the other in the node's pool.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::AckKind;
use proc_pool::{BytePool, Fault};
use tokio::task::JoinHandle;

use super::fetch;
use super::state::{Held, NodeShared, Stop};
use crate::link::{Puller, TASKS};
use crate::wire::{self, Answer, Grant, Outcome, Outcomes, Request, Tasks, task_hash};

/// Time between two answers to a batch.
const ANSWER: Duration = Duration::from_millis(100);
/// Bytes of outcomes after which an answer is sent.
const ANSWER_BYTES: usize = 256 << 10;
/// The work that a node announces to the leader before it starts it: the tasks that count as started if the node is lost.
const ANNOUNCED: Duration = Duration::from_millis(50);
/// Answers on their way to the server.
const SENDING: usize = 4;

/// Runs batches until the node stops. Returns their number.
pub(super) fn run_batches(node: &Arc<NodeShared>, pool: &BytePool, count: &(dyn Fn(u64, u64) + Sync)) -> u64 {
    // The client's subscriptions end in its runtime, also those that are dropped here.
    let _entered = node.handle.enter();
    let mut tasks = Puller::new(TASKS, 1);
    let mut number = 0;
    while let Some(held) = node.handle.block_on(fetch::next(node, &mut tasks)) {
        number += u64::from(run_batch(node, pool, &held, count));
        node.held().remove(&held.batch);
    }
    number
}

/// Runs a batch, or gives it back. Returns whether tasks of it were run.
fn run_batch(
    node: &Arc<NodeShared>,
    pool: &BytePool,
    held: &Held,
    count: &(dyn Fn(u64, u64) + Sync),
) -> bool {
    let gate = || node.gate.read().unwrap_or_else(PoisonError::into_inner);
    let alone = || node.gate.write().unwrap_or_else(PoisonError::into_inner);
    let _guards = match held.alone {
        true => (None, Some(alone())),
        false => (Some(gate()), None),
    };
    let decoded = wire::decode::<Tasks<'_>>(&held.contents);
    let tasks: Vec<(u64, &[u8])> = match decoded.as_ref().map(Tasks::items) {
        Ok(Ok(tasks)) => tasks.collect(),
        _ => {
            acknowledge(node, held, AckKind::Term);
            return false;
        }
    };
    let may_go_on = node.manifest.node_losses > 0 && !held.redelivered && !held.alone;
    let begin = |from: usize, upto: usize| {
        let asking = node.begin(held.batch, from as u32, upto as u32, may_go_on);
        node.handle.block_on(asking)
    };
    let granted = match node.stopped() {
        Some(_) => None,
        None => begin(0, 0),
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
    let mut turn = Some(node.turn.lock().unwrap_or_else(PoisonError::into_inner));
    let mut begun = 0;
    let inputs = positions.iter().map_while(|&at| {
        if node.is_over() {
            return None;
        }
        if at >= begun {
            // Those that run alone are announced one by one: the node that dies names the culprit.
            let (from, tasks) = match held.alone {
                true => (at, 1),
                false => (0, announced(node, pool)),
            };
            begun = at + tasks;
            if matches!(begin(from, begun), None | Some(Grant::Drop)) {
                return None;
            }
        }
        Some(tasks[at].1)
    });
    // When all of its tasks are with the workers, those of the next batch follow.
    let inputs = inputs.chain(std::iter::from_fn(|| {
        turn = None;
        None
    }));
    let mut answers = Answers::new(node, held.job, count);
    let mut answered = 0;
    let mut outputs = pool.map_unordered(inputs);
    if held.alone {
        outputs.set_max_in_flight(1);
    }
    loop {
        let taken = outputs.take_ready(|number, output| match output {
            Err(Fault::Pool(error)) if pool.interrupted().is_none() => node.stop(Stop::Failed(error)),
            Err(Fault::Pool(_)) => {}
            output => {
                let (index, task) = tasks[positions[number as usize]];
                answers.add(index, task, output);
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
    let Some(sequence) = answers.finish() else {
        return true;
    };
    let request = Request::Finish {
        node: node.join.node,
        batch: held.batch,
        sequence,
        released: answered < positions.len(),
    };
    node.handle.block_on(async {
        // A leader that has died sends the batch again.
        let _ = node.link.ask(&request).await;
        if let Some(object) = &held.object {
            node.link.delete_object(object).await;
        }
    });
    acknowledge(node, held, AckKind::Ack);
    true
}

/// Returns how many tasks the node announces at a time.
fn announced(node: &NodeShared, pool: &BytePool) -> usize {
    let task_ns = node.task_ns.load(Ordering::Relaxed);
    let tasks = (ANNOUNCED.as_nanos() as u64).checked_div(task_ns).unwrap_or(0);
    // A few for each worker, so that none waits for the leader's reply.
    (tasks as usize).max(4 * pool.workers())
}

fn acknowledge(node: &NodeShared, held: &Held, how: AckKind) {
    let message = node.held().remove(&held.batch);
    if let Some(message) = message {
        let _ = node.handle.block_on(message.ack_with(how));
    }
}

/// The answers to one batch.
struct Answers<'a> {
    node: &'a Arc<NodeShared>,
    job: u32,
    outcomes: Outcomes<'static>,
    failed: u64,
    count: &'a (dyn Fn(u64, u64) + Sync),
    since: Instant,
    sending: Vec<JoinHandle<Option<u64>>>,
    /// The highest sequence number of those that are in the stream.
    last: u64,
    lost: bool,
}

impl<'a> Answers<'a> {
    fn new(node: &'a Arc<NodeShared>, job: u32, count: &'a (dyn Fn(u64, u64) + Sync)) -> Self {
        Self {
            node,
            job,
            outcomes: Outcomes::default(),
            failed: 0,
            count,
            since: Instant::now(),
            sending: Vec::new(),
            last: 0,
            lost: false,
        }
    }

    fn add(&mut self, index: u64, task: &[u8], output: Result<&[u8], Fault>) {
        let fault;
        let result = match output {
            Ok(bytes) => Ok(bytes),
            Err(error) => {
                self.failed += 1;
                // Only a pool's failure does not serialize, and it was handled before.
                fault = postcard::to_allocvec(&error).unwrap_or_default();
                Err(&fault[..])
            }
        };
        let len = result.map_or_else(<[u8]>::len, <[u8]>::len);
        let most = ANSWER_BYTES.min(self.node.link.max_inline());
        if self.outcomes.len() > 0 && self.outcomes.bytes() + len > most {
            self.send();
        }
        let hash = task_hash(task);
        self.outcomes.push(Outcome { index, hash, result });
    }

    /// Sends what there is, if it has waited for long enough. Returns the time until then.
    fn send_if_due(&mut self) -> Duration {
        match ANSWER.checked_sub(self.since.elapsed()) {
            Some(left) if !left.is_zero() => left,
            _ => {
                self.send();
                ANSWER
            }
        }
    }

    fn send(&mut self) {
        let (tasks, took) = (self.outcomes.len() as u64, self.since.elapsed());
        if tasks == 0 {
            return;
        }
        let body = wire::encode(&std::mem::take(&mut self.outcomes));
        let took_ns = took.as_nanos() as u64;
        self.node.task_ns.store(took_ns / tasks, Ordering::Relaxed);
        let failed = std::mem::take(&mut self.failed);
        self.node.count(tasks - failed, failed);
        (self.count)(tasks - failed, failed);
        self.since = Instant::now();
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
        match self.node.handle.block_on(first) {
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
    let over = || node.is_over();
    let id = node.answer_id();
    let body = node.link.body(format!("answer-{id}"), body, over).await?;
    let answer = wire::encode(&Answer {
        session: node.manifest.session,
        node: node.join.node,
        job,
        took_ns,
        body,
    });
    node.link.publish("answers", &id, answer.into(), over).await
}
