//! [`Hub`]: the leader's end.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use proc_pool::{ExitCause, Observer, WorkerId};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use shm_buffers::ring::Consumer;
use shm_buffers::slots::Slots;

use super::{KINDS, STACK, STEP, WHOLE};
use crate::codec::Source;
use crate::task;

/// The time between two drains of the rings.
const INTERVAL: Duration = Duration::from_millis(20);
/// The most bytes of records that wait for the leader's handlers. While there are so many, rings are not drained.
const MAX_WAITING: usize = 4 << 20;
/// The most bytes that are kept of a worker that has ended, for the handlers. Further records are counted as dropped.
const MAX_KEPT: usize = 64 << 20;
/// Records of one call of the handlers.
const BATCH: usize = 256;
/// Lines of a worker in the error of the task that it was running.
const LAST_LINES: usize = 16;
/// The first characters of a message that is not a line but the stacks at the deadline.
pub(crate) const STACK_MARK: &str = "\0stack\0";

/// Receives the records of a pool's workers.
#[derive(Clone)]
pub(crate) struct Hub(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// There may be records, or the thread is to stop.
    wake: Condvar,
}

#[derive(Default)]
struct State {
    sources: HashMap<WorkerId, SourceState>,
    waiting: VecDeque<(WorkerId, Vec<u8>)>,
    waiting_bytes: usize,
    /// The counts of workers that have ended.
    ended: Counts,
    delivered: [u64; KINDS],
    /// Dropped by the leader.
    lost: [u64; KINDS],
    stop: bool,
}

struct SourceState {
    consumer: Consumer,
    slots: Slots,
    last_lines: VecDeque<String>,
    stack: Option<String>,
}

#[derive(Default, Clone, Copy)]
struct Counts {
    emitted: [u64; KINDS],
    dropped: [u64; KINDS],
}

/// What became of the records so far: by kind, from debug to error.
#[derive(Default)]
pub(crate) struct LogCounts {
    pub(crate) emitted: [u64; KINDS],
    pub(crate) delivered: [u64; KINDS],
    pub(crate) dropped: [u64; KINDS],
    pub(crate) waiting: u64,
}

impl Counts {
    fn add(&mut self, slots: &Slots) {
        for kind in 0..KINDS {
            self.emitted[kind] += slots.slot(kind).get();
            self.dropped[kind] += slots.slot(KINDS + kind).get();
        }
    }
}

impl State {
    /// Takes the frames of a worker, up to `limit` waiting bytes.
    fn drain(&mut self, worker: WorkerId, limit: usize) {
        let Some(source) = self.sources.get_mut(&worker) else {
            return;
        };
        while self.waiting_bytes < limit {
            let mut frame = Vec::new();
            // A ring that is corrupt stays so: its worker is not trusted with more.
            let Ok(Some(_)) = source.consumer.pop(&mut frame) else {
                break;
            };
            source.note(&frame);
            if frame.first() != Some(&STACK) {
                self.waiting_bytes += frame.len();
                self.waiting.push_back((worker, frame));
            }
        }
    }

    /// Takes all frames of a worker that has ended, and counts those beyond the limit.
    fn drain_last(&mut self, worker: WorkerId) {
        self.drain(worker, MAX_KEPT);
        let Some(source) = self.sources.get_mut(&worker) else {
            return;
        };
        let mut frame = Vec::new();
        while let Ok(Some(_)) = source.consumer.pop(&mut frame) {
            source.note(&frame);
            if let Some(lost) = frame
                .first()
                .and_then(|kind| self.lost.get_mut(usize::from(*kind)))
            {
                *lost += 1;
            }
            frame.clear();
        }
    }
}

impl SourceState {
    /// Keeps the line of a frame for errors.
    fn note(&mut self, frame: &[u8]) {
        let Some((line, rest)) = parts(frame) else {
            return;
        };
        if frame[0] == STACK {
            self.stack = Some(String::from_utf8_lossy(rest).into_owned());
            return;
        }
        if self.last_lines.len() == LAST_LINES {
            self.last_lines.pop_front();
        }
        self.last_lines
            .push_back(String::from_utf8_lossy(line).into_owned());
    }
}

/// Returns the line and the record of a frame.
fn parts(frame: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = frame.get(1..)?.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*len) as usize)
}

impl Observer for Hub {
    fn started(&self, worker: WorkerId, user_ring: Consumer, slots: Slots) {
        let source = SourceState {
            consumer: user_ring,
            slots,
            last_lines: VecDeque::new(),
            stack: None,
        };
        self.state().sources.insert(worker, source);
    }

    fn ended(&self, worker: WorkerId, _: &ExitCause) -> Vec<String> {
        let mut state = self.state();
        state.drain_last(worker);
        let Some(source) = state.sources.remove(&worker) else {
            return Vec::new();
        };
        state.ended.add(&source.slots);
        drop(state);
        self.0.wake.notify_all();
        let stack = source.stack.map(|stack| format!("{STACK_MARK}{stack}"));
        source.last_lines.into_iter().chain(stack).collect()
    }
}

impl Hub {
    /// Starts the thread that calls `deliver` with lists of workers and records. It ends when `stop` is called.
    pub(crate) fn start(deliver: Py<PyAny>) -> std::io::Result<(Self, JoinHandle<()>)> {
        let hub = Self(Arc::new(Shared {
            state: Mutex::default(),
            wake: Condvar::new(),
        }));
        let theirs = hub.clone();
        let thread = std::thread::Builder::new()
            .name("invokerpool logs".into())
            .spawn(move || theirs.run(deliver))?;
        Ok((hub, thread))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is locked.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, deliver: Py<PyAny>) {
        let mut deliver = Some(deliver);
        loop {
            let mut state = self.state();
            let workers: Vec<WorkerId> = state.sources.keys().copied().collect();
            for worker in workers {
                state.drain(worker, MAX_WAITING);
            }
            if state.waiting.is_empty() {
                if state.stop {
                    break;
                }
                drop(self.0.wake.wait_timeout(state, INTERVAL));
                continue;
            }
            let count = state.waiting.len().min(BATCH);
            let batch: Vec<(WorkerId, Vec<u8>)> = state.waiting.drain(..count).collect();
            state.waiting_bytes -= batch.iter().map(|(_, frame)| frame.len()).sum::<usize>();
            drop(state);
            let mut delivered = [0; KINDS];
            let mut lost = [0; KINDS];
            let attached = Python::try_attach(|py| {
                if let Some(deliver) = &deliver {
                    call(py, deliver, &batch, (&mut delivered, &mut lost));
                }
            });
            let mut state = self.state();
            for kind in 0..KINDS {
                state.delivered[kind] += delivered[kind];
                state.lost[kind] += lost[kind];
            }
            if attached.is_none() {
                // The interpreter has ended.
                break;
            }
        }
        let deliver = deliver.take();
        if Python::try_attach(|_| ()).is_none() {
            std::mem::forget(deliver);
        }
    }

    /// Makes the thread end when everything is delivered.
    pub(crate) fn stop(&self) {
        self.state().stop = true;
        self.0.wake.notify_all();
    }

    /// Returns the parts of the running tasks that are done, from 0 to 1, of the workers in their order.
    pub(crate) fn steps(&self) -> Vec<f64> {
        let state = self.state();
        let sources = state.sources.iter();
        let mut parts: Vec<(WorkerId, u64)> = sources
            .map(|(worker, source)| (*worker, source.slots.slot(STEP).get().min(WHOLE)))
            .collect();
        parts.sort_unstable();
        parts
            .into_iter()
            .map(|(_, part)| part as f64 / WHOLE as f64)
            .collect()
    }

    /// Returns what became of the records so far.
    pub(crate) fn counts(&self) -> LogCounts {
        let state = self.state();
        let mut counts = state.ended;
        for source in state.sources.values() {
            counts.add(&source.slots);
        }
        let mut dropped = counts.dropped;
        for (dropped, lost) in dropped.iter_mut().zip(state.lost) {
            *dropped += lost;
        }
        LogCounts {
            emitted: counts.emitted,
            delivered: state.delivered,
            dropped,
            waiting: state.waiting.len() as u64,
        }
    }
}

/// Calls `deliver` with the records of a batch.
fn call(
    py: Python<'_>,
    deliver: &Py<PyAny>,
    batch: &[(WorkerId, Vec<u8>)],
    (delivered, lost): (&mut [u64; KINDS], &mut [u64; KINDS]),
) {
    let list = PyList::empty(py);
    for (worker, frame) in batch {
        let kind = usize::from(frame.first().copied().unwrap_or_default()).min(KINDS - 1);
        let record = parts(frame).map(|(_, record)| task::decode(py, Source::Borrowed(record)));
        let added = record.and_then(|record| list.append((worker.0, record.ok()?)).ok());
        match added {
            Some(()) => delivered[kind] += 1,
            None => lost[kind] += 1,
        }
    }
    if let Err(error) = deliver.bind(py).call1((list,)) {
        error.write_unraisable(py, Some(deliver.bind(py)));
    }
}

impl LogCounts {
    pub(crate) fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (name, counts) in [
            ("emitted", self.emitted),
            ("delivered", self.delivered),
            ("dropped", self.dropped),
        ] {
            dict.set_item(name, counts.to_vec())?;
        }
        dict.set_item("waiting", self.waiting)?;
        Ok(dict)
    }
}
