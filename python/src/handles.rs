//! Tasks that were submitted one by one: [`Handle`], and [`Completions`], which calls a function when a task has ended.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use proc_pool::{CancelOutcome, PoolError, TaskError};
use pyo3::exceptions::{PyRuntimeError, PyTimeoutError};
use pyo3::prelude::*;
use pyo3::sync::MutexExt;

use crate::ending::detached;
use crate::faults::{pool_error, task_error};
use crate::task::Reply;

/// How long a wait lasts at most before signals are handled.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);

type Inner = proc_pool::Handle<Reply>;

/// A task that was submitted.
#[pyclass(frozen, module = "invokerpool._core")]
pub(crate) struct Handle {
    /// `None` once its output was taken, or while a thread waits for it.
    inner: Mutex<Option<Inner>>,
}

impl Handle {
    pub(crate) fn new(inner: Inner) -> Self {
        Self {
            inner: Mutex::new(Some(inner)),
        }
    }
}

fn value(py: Python<'_>, output: Result<Reply, TaskError>) -> PyResult<Py<PyAny>> {
    match output {
        Ok(reply) => reply.into_result(),
        Err(error) => Err(task_error(py, &error)),
    }
}

#[pymethods]
impl Handle {
    /// Waits for the output and returns it, once.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        let deadline =
            timeout.map(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX));
        let deadline = deadline.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut slot = self
            .inner
            .lock_py_attached(py)
            .unwrap_or_else(PoisonError::into_inner);
        let mut handle = slot
            .take()
            .ok_or_else(|| PyRuntimeError::new_err("the output of this task was taken before"))?;
        loop {
            let left = deadline.map_or(SIGNAL_CHECK, |at| at.saturating_duration_since(Instant::now()));
            match detached(py, || handle.wait_timeout(left.min(SIGNAL_CHECK))) {
                Ok(output) => return value(py, output),
                Err(waiting) => handle = waiting,
            }
            let interrupt = py.check_signals().err();
            let late = deadline.is_some_and(|at| at <= Instant::now());
            if interrupt.is_some() || late {
                *slot = Some(handle);
                return Err(
                    interrupt.unwrap_or_else(|| PyTimeoutError::new_err("the task has not ended yet"))
                );
            }
        }
    }

    /// Returns whether the output is available.
    fn done(&self, py: Python<'_>) -> bool {
        let slot = self
            .inner
            .lock_py_attached(py)
            .unwrap_or_else(PoisonError::into_inner);
        slot.as_ref().is_none_or(Inner::is_finished)
    }

    /// Withdraws the task if no worker has started it. Returns whether it was withdrawn.
    fn cancel(&self, py: Python<'_>) -> bool {
        let slot = self
            .inner
            .lock_py_attached(py)
            .unwrap_or_else(PoisonError::into_inner);
        slot.as_ref()
            .is_some_and(|handle| handle.cancel() == CancelOutcome::Withdrawn)
    }

    /// Withdraws the task, and kills its worker if that has started it. Returns whether it was withdrawn.
    fn kill(&self, py: Python<'_>) -> bool {
        let slot = self
            .inner
            .lock_py_attached(py)
            .unwrap_or_else(PoisonError::into_inner);
        slot.as_ref()
            .is_some_and(|handle| handle.kill() == CancelOutcome::Withdrawn)
    }
}

enum Message {
    New(u64, Box<Inner>, Py<PyAny>),
    Woken(u64),
    Cancel {
        task: u64,
        kill: bool,
        answer: Sender<bool>,
    },
    IsRunning {
        task: u64,
        answer: Sender<bool>,
    },
    /// `call`: whether the functions of the tasks that have not ended are called.
    Stop {
        call: bool,
    },
}

/// Wakes the thread for a task.
struct TaskWaker {
    task: u64,
    thread: Sender<Message>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        // The thread ends before its tasks only at the end of the pool.
        let _ = self.thread.send(Message::Woken(self.task));
    }
}

/// A thread that calls a function with the output of each task that was added, as soon as that is available.
#[pyclass(frozen, module = "invokerpool._core")]
pub(crate) struct Completions {
    thread: Sender<Message>,
    joined: Mutex<Option<JoinHandle<()>>>,
    /// The process that has the thread.
    pid: u32,
}

#[pymethods]
impl Completions {
    #[new]
    fn new() -> PyResult<Self> {
        let (thread, messages) = unbounded();
        let waker = thread.clone();
        let started = std::thread::Builder::new()
            .name("invokerpool completions".into())
            .spawn(move || run(&messages, &waker))?;
        Ok(Self {
            thread,
            joined: Mutex::new(Some(started)),
            pid: std::process::id(),
        })
    }

    /// Calls `function(value, exception)` when the task has ended. `task` is a number that identifies it for `cancel`.
    fn add(&self, py: Python<'_>, task: u64, handle: &Handle, function: Py<PyAny>) -> PyResult<()> {
        if self.pid != std::process::id() {
            return Err(PyRuntimeError::new_err(
                "the thread belongs to the process of which this one is a forked copy",
            ));
        }
        let mut slot = handle
            .inner
            .lock_py_attached(py)
            .unwrap_or_else(PoisonError::into_inner);
        let inner = slot.take();
        let inner =
            inner.ok_or_else(|| PyRuntimeError::new_err("the output of this task was taken before"))?;
        let sent = self.thread.send(Message::New(task, Box::new(inner), function));
        sent.map_err(|_| PyRuntimeError::new_err("the executor was shut down"))
    }

    /// Withdraws a task that was added, if no worker has started it or, with `kill`, together with its worker. Returns whether it was
    /// withdrawn: its function is not called then.
    fn cancel(&self, py: Python<'_>, task: u64, kill: bool) -> bool {
        let (answer, answered) = crossbeam_channel::bounded(1);
        if self.pid != std::process::id() || self.thread.send(Message::Cancel { task, kill, answer }).is_err()
        {
            return false;
        }
        detached(py, || answered.recv()).unwrap_or(false)
    }

    /// Returns whether a worker has started a task that was added, and has not answered it.
    fn is_running(&self, py: Python<'_>, task: u64) -> bool {
        let (answer, answered) = crossbeam_channel::bounded(1);
        if self.pid != std::process::id() || self.thread.send(Message::IsRunning { task, answer }).is_err() {
            return false;
        }
        detached(py, || answered.recv()).unwrap_or(false)
    }

    /// Ends the thread, and waits for that. With `call`, the functions of tasks that have not ended are called with the exception of a
    /// closed pool.
    fn stop(&self, py: Python<'_>, call: bool) {
        if self.pid != std::process::id() {
            return;
        }
        let _ = self.thread.send(Message::Stop { call });
        let thread = self
            .joined
            .lock_py_attached(py)
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // A function that it calls may be what stops it.
            if thread.thread().id() != std::thread::current().id() {
                let _ = detached(py, || thread.join());
            }
        }
    }
}

/// Runs the thread until it is stopped.
fn run(messages: &Receiver<Message>, thread: &Sender<Message>) {
    let mut tasks: HashMap<u64, (Pin<Box<Inner>>, Py<PyAny>)> = HashMap::new();
    while let Ok(first) = messages.recv() {
        let mut batch = vec![first];
        batch.extend(messages.try_iter());
        // Fails at the end of the interpreter, when no function can be called any more.
        let attached = Python::try_attach(|py| {
            let mut stop = None;
            for message in batch.drain(..) {
                let task = match message {
                    Message::New(task, handle, function) => {
                        tasks.insert(task, (Box::into_pin(handle), function));
                        task
                    }
                    Message::Woken(task) => task,
                    Message::Cancel { task, kill, answer } => {
                        let outcome = tasks.get(&task).map(|(handle, _)| match kill {
                            true => handle.kill(),
                            false => handle.cancel(),
                        });
                        let withdrawn = outcome == Some(CancelOutcome::Withdrawn);
                        if withdrawn {
                            tasks.remove(&task);
                        }
                        let _ = answer.send(withdrawn);
                        continue;
                    }
                    Message::IsRunning { task, answer } => {
                        let running = tasks.get(&task).is_some_and(|(handle, _)| handle.is_running());
                        let _ = answer.send(running);
                        continue;
                    }
                    Message::Stop { call } => {
                        stop = Some(call);
                        break;
                    }
                };
                let Some((handle, _)) = tasks.get_mut(&task) else {
                    continue;
                };
                let waker = Waker::from(Arc::new(TaskWaker {
                    task,
                    thread: thread.clone(),
                }));
                if let Poll::Ready(output) = handle.as_mut().poll(&mut Context::from_waker(&waker))
                    && let Some((_, function)) = tasks.remove(&task)
                {
                    call(py, &function, value(py, output));
                }
            }
            if stop == Some(true) {
                for (_, (mut handle, function)) in tasks.drain() {
                    let output = match handle.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                        Poll::Ready(output) => value(py, output),
                        Poll::Pending => Err(pool_error(py, &PoolError::ShutDown)),
                    };
                    call(py, &function, output);
                }
            }
            stop
        });
        match attached {
            Some(None) => {}
            Some(Some(_)) | None => break,
        }
    }
    // Dropped while attached where that is possible. Otherwise the objects are left to the end of the process.
    if Python::try_attach(|_| tasks.clear()).is_none() {
        std::mem::forget(tasks);
    }
}

fn call(py: Python<'_>, function: &Py<PyAny>, output: PyResult<Py<PyAny>>) {
    let called = match output {
        Ok(value) => function.bind(py).call1((value, py.None())),
        Err(error) => function.bind(py).call1((py.None(), error.into_value(py))),
    };
    if let Err(error) = called {
        error.write_unraisable(py, Some(function.bind(py)));
    }
}
