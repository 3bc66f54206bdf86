//! [`Job`]: the outputs of one map, or of all submitted tasks, until their callers take them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use invoker::facade::OneShot;
use proc_pool::Fault;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::shared::{Core, Receiver, Shared};
use crate::wire::Outcome;

/// The output of a task, or its fault: boxed, because it is large, and most tasks have an output.
pub(super) type Output<R> = Result<R, Box<Fault>>;

/// Where outputs go.
pub(super) enum Outputs<R> {
    /// As they come.
    AsCompleted(VecDeque<(u64, Output<R>)>),
    /// In the order of tasks: the first entry is the output of task `next`.
    Ordered {
        next: u64,
        waiting: VecDeque<Option<Output<R>>>,
    },
    /// One by one, to those who wait for them.
    Single(HashMap<u64, Arc<OneShot<R>>>),
}

pub(super) struct Job<R>(Mutex<State<R>>);

struct State<R> {
    outputs: Outputs<R>,
    /// Outputs that were received and not taken.
    buffered: usize,
    bytes: usize,
}

impl<R> Job<R> {
    pub(super) fn new(outputs: Outputs<R>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            outputs,
            buffered: 0,
            bytes: 0,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State<R>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of outputs that wait, and their bytes as they were encoded.
    pub(super) fn buffered(&self) -> (usize, usize) {
        let state = self.state();
        (state.buffered, state.bytes)
    }

    /// Moves all outputs that can be delivered.
    pub(super) fn take(&self, into: &mut VecDeque<(u64, Output<R>)>) {
        let mut state = self.state();
        let before = into.len();
        match &mut state.outputs {
            Outputs::AsCompleted(ready) => into.append(ready),
            Outputs::Ordered { next, waiting } => {
                while let Some(Some(_)) = waiting.front() {
                    into.extend(waiting.pop_front().flatten().map(|output| (*next, output)));
                    *next += 1;
                }
            }
            Outputs::Single(_) => {}
        }
        let taken = into.len() - before;
        state.bytes -= state.bytes.min(taken * state.bytes / state.buffered.max(1));
        state.buffered -= taken;
    }

    pub(super) fn put(&self, index: u64, output: Output<R>) {
        self.put_all([(index, output, 0)]);
    }

    /// Puts outputs with their indices and sizes in bytes.
    fn put_all(&self, outputs: impl IntoIterator<Item = (u64, Output<R>, usize)>) {
        let mut guard = self.state();
        let state = &mut *guard;
        let mut ended = Vec::new();
        for (index, output, bytes) in outputs {
            match &mut state.outputs {
                Outputs::AsCompleted(ready) => ready.push_back((index, output)),
                Outputs::Ordered { next, waiting } => {
                    let at = (index - *next) as usize;
                    if waiting.len() <= at {
                        waiting.resize_with(at + 1, || None);
                    }
                    waiting[at] = Some(output);
                }
                Outputs::Single(tasks) => {
                    ended.extend(tasks.remove(&index).map(|one_shot| (one_shot, output)));
                    continue;
                }
            }
            state.buffered += 1;
            state.bytes += bytes;
        }
        drop(guard);
        for (one_shot, output) in ended {
            finish(&one_shot, output);
        }
    }

    /// Adds a task with the place of its output.
    pub(super) fn expect(&self, index: u64, one_shot: Arc<OneShot<R>>) {
        if let Outputs::Single(tasks) = &mut self.state().outputs {
            tasks.insert(index, one_shot);
        }
    }

    /// Ends the waits for all outputs that have not come.
    pub(super) fn end(&self, fault: &Fault) {
        let tasks = match &mut self.state().outputs {
            Outputs::Single(tasks) => std::mem::take(tasks),
            _ => return,
        };
        for one_shot in tasks.into_values() {
            finish(&one_shot, Err(Box::new(fault.clone())));
        }
    }
}

/// Ends the wait for an output, unless it was cancelled.
pub(super) fn finish<R>(one_shot: &OneShot<R>, output: Output<R>) {
    if one_shot.begin() {
        one_shot.finish(output.map_err(|fault| *fault));
    }
}

/// Decodes the outcome of a task.
pub(super) fn decode<R: Serialize + DeserializeOwned>(
    result: Result<&[u8], &[u8]>,
) -> Result<Output<R>, String> {
    match result {
        Ok(output) => invoker::facade::decode_output(output)
            .map(Ok)
            .map_err(|e| e.to_string()),
        Err(fault) => match postcard::take_from_bytes(fault) {
            Ok((fault, [])) => Ok(Err(Box::new(fault))),
            _ => Err("its fault is malformed".to_owned()),
        },
    }
}

impl<R: Serialize + DeserializeOwned + Send + 'static> Receiver for Job<R> {
    fn receive<'a>(
        &self,
        shared: &'a Shared,
        (node, job): (u64, u32),
        outcomes: &mut dyn Iterator<Item = Outcome<'_>>,
    ) -> MutexGuard<'a, Core> {
        let (mut decoded, mut malformed) = (Vec::with_capacity(outcomes.size_hint().0), Vec::new());
        for Outcome { index, hash, result } in outcomes {
            let bytes = result.map_or_else(<[u8]>::len, <[u8]>::len);
            match decode(result) {
                Ok(output) => decoded.push((index, hash, Some(output), bytes)),
                Err(reason) => malformed.push((index, hash, reason)),
            }
        }
        let mut core = shared.core();
        let mut first = Vec::with_capacity(decoded.len());
        let answers = decoded.iter().map(|(index, hash, ..)| (*index, *hash));
        core.accounting.answer(node, job, answers, |at| first.push(at));
        let (mut done, mut failed) = (0, 0);
        self.put_all(first.into_iter().filter_map(|at| {
            let (index, _, output, bytes) = &mut decoded[at];
            let output = output.take()?;
            match output {
                Ok(_) => done += 1,
                Err(_) => failed += 1,
            }
            Some((*index, output, *bytes))
        }));
        // Whether a hostile node sent it, or the type's own code is wrong, is known after a second time.
        for (index, hash, reason) in malformed {
            let (fails, actions) = core.accounting.undecodable(job, index, hash);
            shared.perform(&core, actions);
            if fails {
                failed += 1;
                self.put(index, Err(Box::new(Fault::Output(reason))));
            }
        }
        shared.count(progress::Outcome::Done, done);
        shared.count(progress::Outcome::Failed, failed);
        core
    }

    fn fail(&self, index: u64, fault: Fault) {
        self.put(index, Err(Box::new(fault)));
    }
}
