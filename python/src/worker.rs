//! The worker: a Python interpreter whose first statement is [`serve`].

#[cfg(target_os = "linux")]
use std::fs::File;
use std::time::{Duration, Instant};

use proc_pool::{BoxError, CallError, EntryPoint, OutputBuf, Registry, Service, WorkerContext};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use shm_buffers::slots::Slots;

use crate::call::{call_one, call_two};
use crate::codec::Source;
#[cfg(target_os = "linux")]
use crate::faults::value_error;
use crate::logs::{LogSink, STEP, WHOLE};
#[cfg(target_os = "linux")]
use crate::stacks::Watch;
use crate::task;

/// The name under which the service is registered.
pub(crate) const SERVICE: &str = "python";

/// Runs the tasks of the leader that started this process, and never returns.
///
/// It must be the first statement of the program: `python -c "from invokerpool._core import serve; serve()"`.
#[pyfunction]
pub(crate) fn serve(py: Python<'_>) {
    py.detach(|| {
        Registry::new()
            .add(SERVICE, EntryPoint::service::<PythonOp>())
            .serve()
    })
}

/// An op with what it is called with.
struct PythonOp {
    op: Py<PyAny>,
    /// The arguments before the task: the model, the state.
    first: Vec<Py<PyAny>>,
    /// Called when the worker ends.
    finish: Py<PyAny>,
    /// Called with the seed of a task.
    set_seed: Py<PyAny>,
    slots: Slots,
    turns: Turns,
    /// With a deadline.
    #[cfg(target_os = "linux")]
    watch: Option<Watch>,
}

impl Service for PythonOp {
    fn start(context: &mut WorkerContext, init: &[u8]) -> Result<Self, BoxError> {
        Python::attach(|py| {
            let made = start(py, context, init);
            // The error's text is all that reaches the leader.
            made.map_err(|error| describe(py, &error).into())
        })
    }

    fn call(&mut self, task: &[u8], output: &mut OutputBuf) -> Result<(), CallError> {
        #[cfg(target_os = "linux")]
        if let Some(watch) = &self.watch {
            watch.task_starts();
            let called = self.call_unwatched(task, output);
            if let Some(watch) = &self.watch {
                watch.task_ends();
            }
            return called;
        }
        self.call_unwatched(task, output)
    }

    fn run_tasks(tasks: impl FnOnce()) {
        // Attaching again for each task would take longer than a small task.
        Python::attach(|_| tasks());
    }

    fn wait<T: Send>(wait: impl FnOnce() -> T + Send) -> T {
        // Threads of the op run while this one waits.
        Python::attach(|py| py.detach(wait))
    }
}

/// Maximum number of calls between two readings of the clock.
const CALLS_PER_READING: u32 = 16;
/// How long these calls should take at most.
const READING: Duration = Duration::from_millis(1);
/// After this time, other threads have their turn. It is longer than Python's switch interval of 5 ms: only a thread that has waited for so
/// long without an offer is certain to get the lock. One that is offered the lock more often wakes each time after it was taken back.
const TURN: Duration = Duration::from_millis(8);

/// When other threads of the op have their turn while there are tasks. An op in Python gives way by itself; one in C may not.
struct Turns {
    calls: u32,
    calls_left: u32,
    /// The last reading of the clock.
    read: Instant,
    /// When the last turn of other threads was over.
    began: Instant,
}

impl Turns {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            calls: CALLS_PER_READING,
            calls_left: CALLS_PER_READING,
            read: now,
            began: now,
        }
    }

    #[inline]
    fn called(&mut self, py: Python<'_>) {
        self.calls_left -= 1;
        if self.calls_left == 0 {
            self.read_clock(py);
        }
    }

    #[cold]
    fn read_clock(&mut self, py: Python<'_>) {
        let mut now = Instant::now();
        let took = now.duration_since(self.read).as_nanos().max(1);
        let fitting = u128::from(self.calls) * READING.as_nanos() / took;
        self.calls = fitting.clamp(1, CALLS_PER_READING.into()) as u32;
        if now.duration_since(self.began) >= TURN {
            py.detach(|| ());
            now = Instant::now();
            self.began = now;
        }
        (self.read, self.calls_left) = (now, self.calls);
    }
}

impl PythonOp {
    fn call_unwatched(&mut self, task: &[u8], output: &mut OutputBuf) -> Result<(), CallError> {
        Python::attach(|py| {
            let (seed, start) = task::seed(task);
            let seeded = match seed {
                None => Ok(()),
                Some(seed) => self.set_seed.bind(py).call1((seed,)).map(drop),
            };
            let decoded = seeded.and_then(|()| task::decode_from(py, Source::Borrowed(task), start));
            let task = decoded.map_err(|e| CallError::Task(describe(py, &e)))?;
            let ran = self.run(py, task);
            // The task counts as a whole soon.
            if self.slots.slot(STEP).get() != 0 {
                self.slots.slot(STEP).set(0);
            }
            match ran {
                Ok(value) => task::encode(&value, output).or_else(|error| {
                    // The leader gets the exception itself, and which output it was.
                    let _ = error
                        .value(py)
                        .call_method1("add_note", ("The output of the task cannot be pickled.",));
                    output.clear();
                    task::encode_raised(py, &error, output)
                }),
                Err(error) => task::encode_raised(py, &error, output),
            }
            .map_err(|error| CallError::Output(describe(py, &error)))
            .inspect(|()| self.turns.called(py))
        })
    }

    fn run<'py>(&self, py: Python<'py>, task: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let op = self.op.bind(py);
        match &*self.first {
            [] => call_one(op, &task),
            [model] => call_two(op, model.bind(py), &task),
            [model, state] => op.call1((model.bind(py), state.bind(py), task)),
            more => {
                let arguments = more.iter().map(|it| it.bind(py)).chain([&task]);
                op.call1(PyTuple::new(py, arguments.collect::<Vec<_>>())?)
            }
        }
    }
}

impl Drop for PythonOp {
    /// Runs what the interpreter runs at its end. The process then exits without finalizing the interpreter.
    fn drop(&mut self) {
        Python::attach(|py| {
            if let Err(error) = self.finish.bind(py).call0() {
                error.print(py);
            }
        });
    }
}

fn start(py: Python<'_>, context: &mut WorkerContext, init: &[u8]) -> PyResult<PythonOp> {
    let init = task::decode(py, Source::Borrowed(init))?;
    let identity = (context.worker().0, context.workers(), context.generation());
    let slots = context.slots().clone();
    let own = slots.clone();
    let sink = context.take_user_ring().map(|ring| LogSink::new(ring, slots));
    #[cfg(target_os = "linux")]
    let stacks = sink.as_ref().map(LogSink::stacks);
    let started = py
        .import("invokerpool._worker")?
        .call_method1("start", (init, identity, sink, Steps(own.clone())))?;
    let (op, first, finish, set_seed, deadline): (_, _, _, _, Option<(f64, i32, i32)>) = started
        .extract()
        .map_err(|_| PyRuntimeError::new_err("invokerpool._worker.start returned something else"))?;
    #[cfg(target_os = "linux")]
    let watch = match (deadline, stacks) {
        (Some((seconds, file, signal)), Some(writer)) => {
            let deadline = Duration::try_from_secs_f64(seconds).map_err(value_error)?;
            let file = File::open(format!("/proc/self/fd/{file}"))?;
            Some(Watch::start(deadline, file, signal, writer)?)
        }
        _ => None,
    };
    #[cfg(not(target_os = "linux"))]
    let _ = deadline;
    context.mark_attached();
    Ok(PythonOp {
        op,
        first,
        finish,
        set_seed,
        slots: own,
        turns: Turns::new(),
        #[cfg(target_os = "linux")]
        watch,
    })
}

/// Returns the traceback of an exception, its message last.
fn describe(py: Python<'_>, error: &PyErr) -> String {
    let format = || {
        let lines = py
            .import("traceback")?
            .call_method1("format_exception", (error.clone_ref(py).into_value(py),))?;
        let text = pyo3::types::PyString::new(py, "").call_method1("join", (lines,))?;
        text.extract::<String>()
    };
    format().unwrap_or_else(|_| error.to_string())
}

/// Returns the initial value of workers: a payload.
pub(crate) fn initial_value(settings: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let mut bytes = Vec::new();
    task::encode(settings, &mut bytes)?;
    Ok(bytes)
}

/// Where a worker writes which part of its task is done.
#[pyclass(frozen, module = "invokerpool._core")]
pub(crate) struct Steps(Slots);

#[pymethods]
impl Steps {
    /// Sets the part, from 0 to 1.
    fn set(&self, part: f64) {
        // Numbers outside of this are cut to it, and no number is 0.
        self.0
            .slot(STEP)
            .set((part.clamp(0.0, 1.0) * WHOLE as f64) as u64);
    }
}

/// Returns the value of a payload, for tests of the encoding.
#[pyfunction]
pub(crate) fn roundtrip<'py>(
    value: &Bound<'py, PyAny>,
) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyAny>)> {
    let mut bytes = Vec::new();
    task::encode(value, &mut bytes)?;
    let encoded = PyBytes::new(value.py(), &bytes);
    Ok((encoded, task::decode_owned(value.py(), bytes)?))
}
