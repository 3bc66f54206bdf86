//! [`Outputs`]: the iterator over the outputs of a pool.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proc_pool::facade::Taken;
use proc_pool::{Fault, Map, TaskError, TryNext};
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyInt, PyIterator};
use run_journal::{JournalError, SharedInput};

use crate::ending::detached;
use crate::faults::{journal_error, task_error};
use crate::journal::JournaledRun;
use crate::logs::Hub;
use crate::task::{self, Encoded, Reply};

/// How long a wait lasts at most before signals are handled: Ctrl-C takes effect after this time at most.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);
/// How often progress is reported.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);
/// Outputs between two readings of the clock.
const OUTPUTS_PER_READING: u64 = 64;

/// What becomes of a task's error.
#[derive(Clone, Copy, PartialEq)]
enum OnError {
    Raise,
    Return,
}

/// The iterator over the outputs of tasks.
#[pyclass(frozen, module = "invokerpool._core")]
pub(crate) struct Outputs {
    /// `None` once it has ended or was closed.
    run: Mutex<Option<Run>>,
    input: Arc<Input>,
    on_error: OnError,
    counts: Counts,
    /// The [number](this_thread) of the thread that is in `__next__`, or 0: the input may call back.
    inside: AtomicUsize,
}

struct Run {
    /// Outputs that come next.
    ready: VecDeque<Reply>,
    map: Map<'static, Source, Reply>,
    journaled: Option<Box<JournaledRun>>,
    progress: Option<Progress>,
}

/// Calls a function with the numbers of outputs and errors, and the parts of the running tasks that are done, from time to time.
struct Progress {
    report: Py<PyAny>,
    hub: Hub,
    last: Instant,
}

#[derive(Default)]
struct Counts {
    done: AtomicU64,
    failed: AtomicU64,
}

/// The errors of the input and of its tasks, for the iterator.
#[derive(Default)]
pub(crate) struct Input {
    /// The exception that has ended the input.
    error: Mutex<Option<PyErr>>,
    /// Whether that is not an `Exception`: it is raised immediately then.
    urgent: AtomicBool,
    /// The exceptions of tasks that could not be encoded, by the index of the task.
    not_encoded: Mutex<BTreeMap<u64, PyErr>>,
}

/// Returns a number that no other living thread has, and that is not 0.
fn this_thread() -> usize {
    thread_local! {
        static MARK: u8 = const { 0 };
    }
    MARK.with(|mark| std::ptr::from_ref(mark).addr())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while one of these is locked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The tasks of a Python iterator, encoded.
pub(crate) struct Tasks {
    iterator: Py<PyIterator>,
    /// The root of the tasks' seeds.
    seed: Option<u64>,
    pub(crate) input: Arc<Input>,
    next: u64,
    buffer: Vec<u8>,
}

/// The tasks of a map that run.
pub(crate) enum Source {
    All(Tasks),
    /// Those without an output in a journal.
    Journaled(SharedInput<Tasks>),
}

impl Iterator for Source {
    type Item = Encoded;

    fn next(&mut self) -> Option<Encoded> {
        match self {
            Self::All(tasks) => tasks.next(),
            Self::Journaled(input) => input.next_for_workers().map(|(_, task)| task),
        }
    }
}

impl Tasks {
    /// Makes the tasks of an iterator, with seeds if there is a root of them.
    pub(crate) fn new(iterator: Bound<'_, PyIterator>, seed: Option<u64>) -> Self {
        Self {
            iterator: iterator.unbind(),
            seed,
            input: Arc::default(),
            next: 0,
            buffer: Vec::new(),
        }
    }
}

impl Iterator for Tasks {
    type Item = Encoded;

    fn next(&mut self) -> Option<Encoded> {
        Python::attach(|py| {
            let task = match self.iterator.bind(py).clone().next()? {
                Ok(task) => task,
                Err(error) => {
                    let urgent = !error.is_instance_of::<PyException>(py);
                    *locked(&self.input.error) = Some(error);
                    self.input.urgent.store(urgent, Ordering::Relaxed);
                    return None;
                }
            };
            let index = self.next;
            self.next += 1;
            if self.seed.is_none()
                && let Ok(int) = task.cast_exact::<PyInt>()
                && let Ok(value) = int.extract()
            {
                return Some(Encoded::Int(value));
            }
            self.buffer.clear();
            if let Some(root) = self.seed {
                task::put_seed(root, index, &mut self.buffer);
            }
            match task::encode(&task, &mut self.buffer) {
                Ok(()) => Some(Encoded::take(&mut self.buffer)),
                Err(error) if error.is_instance_of::<PyException>(py) => {
                    locked(&self.input.not_encoded).insert(index, error);
                    Some(Encoded::Failed)
                }
                Err(error) => {
                    *locked(&self.input.error) = Some(error);
                    self.input.urgent.store(true, Ordering::Relaxed);
                    None
                }
            }
        })
    }
}

impl Outputs {
    /// Makes the iterator of a map over tasks of this input.
    pub(crate) fn new(
        input: Arc<Input>,
        map: Map<'static, Source, Reply>,
        journaled: Option<JournaledRun>,
        return_errors: bool,
        progress: Option<(Py<PyAny>, Hub)>,
    ) -> Self {
        let progress = progress.map(|(report, hub)| Progress {
            report,
            hub,
            last: Instant::now(),
        });
        Self {
            run: Mutex::new(Some(Run {
                ready: VecDeque::new(),
                map,
                journaled: journaled.map(Box::new),
                progress,
            })),
            input,
            on_error: if return_errors {
                OnError::Return
            } else {
                OnError::Raise
            },
            counts: Counts::default(),
            inside: AtomicUsize::new(0),
        }
    }

    /// Ends the iteration. Tasks that no worker has started are withdrawn.
    fn end(&self, py: Python<'_>, run: &mut Option<Run>) {
        if let Some(Run {
            ready,
            map,
            journaled,
            progress,
        }) = run.take()
        {
            drop((ready, map));
            drop(journaled);
            if let Some(progress) = progress {
                progress.report(py, &self.counts, true);
            }
        }
    }

    /// Returns the next output, if the run has one ready.
    #[inline]
    fn next_ready(&self, py: Python<'_>, run: &mut Run) -> PyResult<Option<Py<PyAny>>> {
        let Some(Reply(result)) = run.ready.pop_front() else {
            return Ok(None);
        };
        let counter = match result {
            Ok(_) => &self.counts.done,
            Err(_) => &self.counts.failed,
        };
        let count = counter.load(Ordering::Relaxed) + 1;
        counter.store(count, Ordering::Relaxed);
        if let Some(progress) = &mut run.progress
            && count.is_multiple_of(OUTPUTS_PER_READING)
        {
            progress.report_if_due(py, &self.counts)?;
        }
        match (result, self.on_error) {
            (Err(error), OnError::Return) => Ok(Some(error.into_value(py).into_any())),
            (Err(error), OnError::Raise) => Err(*error),
            (Ok(value), _) => Ok(Some(value)),
        }
    }

    fn next(&self, py: Python<'_>, run: &mut Option<Run>) -> PyResult<Option<Py<PyAny>>> {
        loop {
            let Some(running) = run else {
                return Ok(None);
            };
            if !running.ready.is_empty() {
                return self.next_ready(py, running);
            }
            if let Some(journaled) = &running.journaled
                && !journaled.has_room(Duration::ZERO)
            {
                // The disk is slow.
                detached(py, || journaled.has_room(SIGNAL_CHECK));
                if let Err(interrupt) = py.check_signals() {
                    self.end(py, run);
                    return Err(interrupt);
                }
                continue;
            }
            let taken = self.take(py, running);
            if self.input.urgent.load(Ordering::Relaxed) {
                let error = locked(&self.input.error).take();
                self.input.urgent.store(false, Ordering::Relaxed);
                self.end(py, run);
                return error.map_or(Ok(None), Err);
            }
            match taken {
                Ok(Taken::Outputs(_)) => {}
                Err(error) => {
                    self.end(py, run);
                    return Err(error);
                }
                Ok(Taken::Pending) => {
                    if let Some(progress) = &mut running.progress {
                        progress.report_if_due(py, &self.counts)?;
                    }
                    let map = &mut running.map;
                    detached(py, || map.wait(SIGNAL_CHECK));
                    if let Err(interrupt) = py.check_signals() {
                        self.end(py, run);
                        return Err(interrupt);
                    }
                }
                Ok(Taken::End) => {
                    let closed = running.journaled.as_ref().map_or(Ok(()), |journaled| {
                        let closed = detached(py, || journaled.close());
                        closed.map_err(|error| journal_error(py, &error))?;
                        journaled.log_failure(py)
                    });
                    self.end(py, run);
                    closed?;
                    let error = locked(&self.input.error).take();
                    return error.map_or(Ok(None), Err);
                }
            }
        }
    }

    /// Moves outputs that are available to those that are ready.
    ///
    /// # Errors
    /// If the run ends: its journal has failed.
    fn take(&self, py: Python<'_>, run: &mut Run) -> PyResult<Taken> {
        let Run {
            ready,
            map,
            journaled,
            ..
        } = run;
        let of_task = |error: TaskError| {
            let known = locked(&self.input.not_encoded).remove(&error.task);
            Reply(Err(Box::new(known.unwrap_or_else(|| task_error(py, &error)))))
        };
        let Some(journaled) = journaled else {
            return Ok(map.take_decoded(|output| ready.push_back(output.unwrap_or_else(of_task))));
        };
        let found = journaled.try_next(|| {
            let found = map.try_next();
            (map.last_task(), found)
        });
        match found {
            TryNext::Output(Err(error)) if journaled.replayed.has_failed() => {
                // Not the error of a task.
                return Err(match of_journal(&error) {
                    Some(error) => journal_error(py, error),
                    None => task_error(py, &error),
                });
            }
            TryNext::Output(output) => ready.push_back(output.unwrap_or_else(of_task)),
            TryNext::Pending => return Ok(Taken::Pending),
            TryNext::End => return Ok(Taken::End),
        }
        Ok(Taken::Outputs(1))
    }
}

/// Returns the error of the journal that ended a run.
fn of_journal(error: &TaskError) -> Option<&JournalError> {
    match &error.fault {
        Fault::Other(reason) => reason.downcast_ref(),
        _ => None,
    }
}

impl Progress {
    fn report_if_due(&mut self, py: Python<'_>, counts: &Counts) -> PyResult<()> {
        let now = Instant::now();
        if now.duration_since(self.last) >= REPORT_INTERVAL {
            self.last = now;
            let counts = (
                counts.done.load(Ordering::Relaxed),
                counts.failed.load(Ordering::Relaxed),
            );
            self.report
                .bind(py)
                .call1((counts.0, counts.1, false, self.hub.steps()))?;
        }
        Ok(())
    }

    fn report(&self, py: Python<'_>, counts: &Counts, last: bool) {
        let counts = (
            counts.done.load(Ordering::Relaxed),
            counts.failed.load(Ordering::Relaxed),
        );
        if let Err(error) = self
            .report
            .bind(py)
            .call1((counts.0, counts.1, last, Vec::<f64>::new()))
        {
            error.write_unraisable(py, Some(self.report.bind(py)));
        }
    }
}

#[pymethods]
impl Outputs {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        // Locked by no other thread, nor by a call of this one that reads the input. Nothing here calls Python code.
        if let Ok(mut run) = self.run.try_lock()
            && let Some(run) = &mut *run
            && run.progress.is_none()
            && !run.ready.is_empty()
        {
            return self.next_ready(py, run);
        }
        let here = this_thread();
        if self.inside.load(Ordering::Relaxed) == here {
            return Err(PyValueError::new_err(
                "the input of a map cannot ask for its outputs; read a list or another generator",
            ));
        }
        // Another thread may hold it while it waits for the interpreter.
        let mut run = self
            .run
            .lock_py_attached(py)
            .unwrap_or_else(PoisonError::into_inner);
        // Only this thread can find its own number here, so no order with other memory is needed.
        self.inside.store(here, Ordering::Relaxed);
        let next = self.next(py, &mut run);
        self.inside.store(0, Ordering::Relaxed);
        next
    }

    /// Ends the iteration. Tasks that no worker has started are withdrawn.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if self.inside.load(Ordering::Relaxed) == this_thread() {
            return Err(PyValueError::new_err("the map is executing"));
        }
        let mut run = self
            .run
            .lock_py_attached(py)
            .unwrap_or_else(PoisonError::into_inner);
        self.end(py, &mut run);
        Ok(())
    }

    /// The numbers of outputs and of errors so far.
    #[getter]
    fn counts(&self) -> (u64, u64) {
        (
            self.counts.done.load(Ordering::Relaxed),
            self.counts.failed.load(Ordering::Relaxed),
        )
    }
}
