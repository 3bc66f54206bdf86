//! [`run_batches`]: how a node runs batches in its pool.

use std::sync::{PoisonError, TryLockError};
use std::thread;
use std::time::Duration;

use proc_pool::facade::Ready;
use proc_pool::{BytePool, Fault, Map};

use super::answers::{Answers, LastAnswer};
use super::{Disposal, Engine, HeldBatch, NodeState};
use crate::messages::{self, Claim, End, Items, Reply, Request};

/// Time between two questions for the leader.
const ASK: Duration = Duration::from_millis(200);

/// Runs batches in the node's pool, those that may [together](NodeState::has_time_for_another), and publishes the answers to them but the
/// last ones, unless the leader or the end of the node prevents it. Returns what becomes of each. A batch counts until it is dropped.
///
/// Several threads may call this: the tasks of the next batches follow when all of those before are with the workers. `count` is called
/// with the number of tasks with an output, and of those that have failed, for each answer.
pub fn run_batches<E: Engine>(
    node: &NodeState,
    engine: &E,
    pool: &BytePool,
    batches: &[HeldBatch],
    count: &(dyn Fn(u64, u64) + Sync),
) -> Vec<Disposal> {
    let runner = Runner {
        node,
        engine,
        pool,
        count,
    };
    let together = batches.chunk_by(|held, next| !held.batch.alone && !next.batch.alone);
    together
        .flat_map(|batches| runner.run_together(batches))
        .collect()
}

/// The node, engine and pool that a run of batches uses.
struct Runner<'a, E> {
    node: &'a NodeState,
    engine: &'a E,
    pool: &'a BytePool,
    count: &'a (dyn Fn(u64, u64) + Sync),
}

impl<E: Engine> Runner<'_, E> {
    /// Runs batches as one: either a single one, or several of which none must run alone.
    fn run_together(&self, batches: &[HeldBatch]) -> Vec<Disposal> {
        let node = self.node;
        let is_alone = batches.iter().any(|held| held.batch.alone);
        let gate = || node.gate.read().unwrap_or_else(PoisonError::into_inner);
        let alone = || node.gate.write().unwrap_or_else(PoisonError::into_inner);
        let _guards = match is_alone {
            true => (None, Some(alone())),
            false => (Some(gate()), None),
        };
        // While the leader is away, nodes go on with the batches that they have, unless a task might then run twice.
        let is_again = batches.iter().any(|held| held.is_again);
        let may_go_on = node.manifest.node_losses > 0 && !is_again && !is_alone;
        let begin = |claims| self.may_begin(claims, may_go_on);
        // While the tasks of other batches go to the workers, these are only claimed, unless all are short.
        let mut turn = match node.turn.try_lock() {
            Ok(turn) => Some(turn),
            Err(TryLockError::Poisoned(turn)) => Some(turn.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        // Those that run alone are announced one by one: the node that dies names the culprit.
        let announced = match is_alone {
            true => 1,
            false => node.announced(self.pool),
        };
        let begun_at_once = match turn.is_some() || !is_alone && node.is_short() {
            true => announced,
            false => 0,
        };
        let Some(may) = begin(batches.iter().map(|held| held.claim(0, begun_at_once)).collect()) else {
            return batches.iter().map(|_| Disposal::GiveBack).collect();
        };
        let wanted = batches.iter().zip(&may).filter(|(_, may)| **may);
        let wanted: Vec<_> = wanted
            .map(|(held, _)| (held, held.tasks().unwrap_or(Items::Each(Vec::new()))))
            .collect();
        let mut last_answers = Vec::new().into_iter();
        if !wanted.is_empty() {
            turn.get_or_insert_with(|| node.turn.lock().unwrap_or_else(PoisonError::into_inner));
            let mut batches = wanted.iter();
            let (mut batch, mut at, mut begun) = (batches.next(), 0, begun_at_once);
            let inputs = std::iter::from_fn(|| {
                loop {
                    let Some((held, tasks)) = batch else {
                        // All of the tasks are with the workers: those of the next batches follow.
                        turn = None;
                        return None;
                    };
                    if at == tasks.len() {
                        (batch, at, begun) = (batches.next(), 0, begun_at_once);
                        continue;
                    }
                    if at >= begun {
                        begun = at + announced;
                        let from = if is_alone { at } else { 0 };
                        if begin(vec![held.claim(from, begun)]) != Some(vec![true]) {
                            batch = None;
                            continue;
                        }
                    }
                    at += 1;
                    return Some(tasks.get(at - 1));
                }
            });
            let mut outputs = self.pool.map_unordered(inputs);
            if is_alone {
                outputs.set_max_in_flight(1);
            }
            last_answers = self.answer(outputs, &wanted).into_iter();
        }
        may.into_iter()
            .map(|may| match may {
                true => last_answers.next().map_or(Disposal::GiveBack, Disposal::Done),
                false => Disposal::Unwanted,
            })
            .collect()
    }

    /// Takes the outputs of batches that run together, and answers. Returns the last answer to each.
    fn answer<I: Iterator, O>(
        &self,
        mut outputs: Map<'_, I, O>,
        batches: &[(&HeldBatch, Items<'_>)],
    ) -> Vec<LastAnswer> {
        let Self {
            node,
            engine,
            pool,
            count,
        } = *self;
        let mut answers = Answers::new(node, engine, batches.iter().map(|(held, _)| held.id()), count);
        // The tasks of one batch follow those of the other.
        let ends = batches.iter().scan(0, |end, (_, tasks)| {
            *end += tasks.len();
            Some(*end)
        });
        let ends: Vec<usize> = ends.collect();
        let mut answered = vec![0; batches.len()];
        loop {
            let mut ended = vec![0; batches.len()];
            // Returns the batch of a task, the position in it, and how many tasks follow.
            let locate = |task: u64| {
                let batch = ends.partition_point(|end| *end <= task as usize);
                let left = ends[batch] - task as usize;
                (batch, batches[batch].1.len() - left, left)
            };
            let taken = outputs.take_ready(|ready| match ready {
                Ready::Run(run) => {
                    let mut rest = Some(run);
                    while let Some(run) = rest {
                        let (batch, at, left) = locate(run.first);
                        let (run, next) = run.split(left);
                        answers.add_run(batch, at, &batches[batch].1, run);
                        ended[batch] += run.len();
                        answered[batch] += run.len();
                        rest = next;
                    }
                }
                Ready::One(task, output) => {
                    let (batch, at, _) = locate(task);
                    ended[batch] += 1;
                    match output {
                        Err(Fault::Pool(error)) if pool.interrupted().is_none() => engine.fail(error),
                        Err(Fault::Pool(_)) => {}
                        output => {
                            answers.add(batch, at, batches[batch].1.get(at), output);
                            answered[batch] += 1;
                        }
                    }
                }
            });
            for ((held, _), ended) in batches.iter().zip(ended) {
                held.occupied.end_tasks(ended);
            }
            if taken.is_none() || engine.is_over() {
                break;
            }
            let due = answers.send_if_due();
            if taken == Some(0) {
                outputs.wait(due);
            }
        }
        drop(outputs);
        answers.finish(|batch| match answered[batch] == batches[batch].1.len() {
            true => End::Done,
            false => End::Released,
        })
    }

    /// Asks the leader for permission to run tasks. Returns `None` if the node stops before there is a reply.
    fn may_begin(&self, claims: Vec<Claim>, may_go_on: bool) -> Option<Vec<bool>> {
        let asked = claims.len();
        let node = self.node.join.node;
        let request = messages::encode(&Request::Begin { node, claims }, &[]);
        while !self.engine.stops() {
            match self.engine.ask(&request) {
                Some(Reply::Begin(may)) if may.len() == asked => return Some(may),
                None if may_go_on => return Some(vec![true; asked]),
                // The leader does not know the node yet, or is away.
                _ => thread::sleep(ASK),
            }
        }
        None
    }
}
