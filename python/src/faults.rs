//! Turns the errors of tasks and of pools into the exceptions of the Python module `_errors`.

use proc_pool::{ExitCause, Fault, PoolError, TaskError};
use pyo3::exceptions::{PyMemoryError, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyDict};
use run_journal::JournalError;
use shm_buffers::WithCauses;

use crate::logs::STACK_MARK;

pub(crate) fn value_error(error: impl ToString) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// Returns the exception of a call of the system that has failed.
pub(crate) fn os_error(error: &(dyn std::error::Error + 'static)) -> PyErr {
    PyOSError::new_err(format!("{:#}", WithCauses(error)))
}

/// Returns the exception of memory that could not be created.
pub(crate) fn memory_error(error: &(dyn std::error::Error + 'static)) -> PyErr {
    PyMemoryError::new_err(format!("{:#}", WithCauses(error)))
}

/// Returns the exception of a task that has failed, other than by an exception of its op.
pub(crate) fn task_error(py: Python<'_>, error: &TaskError) -> PyErr {
    let message = format!("{:#}", WithCauses(error));
    make(py, || {
        let fields = PyDict::new(py);
        fields.set_item("task", error.task)?;
        let kind = match &error.fault {
            Fault::WorkerDied {
                worker,
                pid,
                cause,
                deaths,
                last_logs,
                last_printed,
                ..
            } => {
                fields.set_item("worker", worker.0)?;
                fields.set_item("pid", pid)?;
                fields.set_item("cause", cause.to_string())?;
                let (signal, code) = match cause {
                    ExitCause::Signal { number, .. } => (Some(*number), None),
                    ExitCause::Exited { code } => (None, Some(*code)),
                    _ => (None, None),
                };
                fields.set_item("signal", signal)?;
                fields.set_item("exitcode", code)?;
                fields.set_item("deaths", deaths)?;
                fields.set_item("last_logs", split_stack(last_logs).1)?;
                fields.set_item("last_printed", last_printed)?;
                "WorkerDied"
            }
            Fault::TimedOut {
                worker,
                pid,
                deadline,
                deaths,
                last_logs,
                last_printed,
                ..
            } => {
                fields.set_item("worker", worker.0)?;
                fields.set_item("pid", pid)?;
                fields.set_item("deadline", deadline.as_secs_f64())?;
                fields.set_item("deaths", deaths)?;
                let (stack, last_logs) = split_stack(last_logs);
                fields.set_item("stack", stack)?;
                fields.set_item("last_logs", last_logs)?;
                fields.set_item("last_printed", last_printed)?;
                "TimedOut"
            }
            Fault::Task(_) | Fault::Output(_) => "Unpicklable",
            Fault::Cancelled => "Cancelled",
            Fault::Pool(error) => pool_kind(error),
            _ => "TaskFailed",
        };
        let errors = py.import("invokerpool._errors")?;
        errors.getattr("make")?.call1((kind, &message, fields))
    })
}

/// Returns the exception of a pool that could not be built, or stopped working.
pub(crate) fn pool_error(py: Python<'_>, error: &PoolError) -> PyErr {
    let message = format!("{:#}", WithCauses(error));
    make(py, || {
        let errors = py.import("invokerpool._errors")?;
        let fields = [("task", py.None())].into_py_dict(py)?;
        errors
            .getattr("make")?
            .call1((pool_kind(error), &message, fields))
    })
}

/// Returns the exception of a journal that cannot be used.
pub(crate) fn journal_error(py: Python<'_>, error: &JournalError) -> PyErr {
    let message = format!("{:#}", WithCauses(error));
    // The tool of the Rust crate is not in the package.
    let message = message.replace("`invoker-journal ", "`python -m invokerpool.journal ");
    make(py, || {
        let fields = PyDict::new(py);
        let kind = match error {
            JournalError::InUse { pid, .. } => {
                fields.set_item("pid", (*pid != 0).then_some(*pid))?;
                "JournalInUse"
            }
            JournalError::Differs {
                what,
                stored,
                current,
                ..
            } => {
                fields.set_item("what", what)?;
                fields.set_item("stored", stored)?;
                fields.set_item("current", current)?;
                "JournalDiffers"
            }
            JournalError::TaskDiffers {
                first,
                last,
                stored,
                found,
                ..
            } => {
                fields.set_item("first", first)?;
                fields.set_item("last", last)?;
                fields.set_item("stored", stored)?;
                fields.set_item("found", found)?;
                "TasksDiffer"
            }
            JournalError::InputEnds { tasks, stored, .. } => {
                fields.set_item("first", tasks)?;
                fields.set_item("last", stored)?;
                fields.set_item("stored", py.None())?;
                fields.set_item("found", py.None())?;
                "TasksDiffer"
            }
            JournalError::Write { source, .. } => {
                fields.set_item("errno", source.raw_os_error())?;
                "JournalWriteFailed"
            }
            JournalError::Damaged { offset, .. } => {
                fields.set_item("offset", offset)?;
                "JournalDamaged"
            }
            _ => "JournalError",
        };
        let errors = py.import("invokerpool._errors")?;
        errors.getattr("make")?.call1((kind, &message, fields))
    })
}

/// Returns the name of the exception class of a pool's error.
fn pool_kind(error: &PoolError) -> &'static str {
    match error {
        PoolError::ShutDown => "PoolClosed",
        PoolError::Forked { .. } => "PoolForked",
        PoolError::Interrupted => "PoolInterrupted",
        PoolError::Start { .. } | PoolError::Refused { .. } | PoolError::NotAWorker { .. } => "StartFailed",
        _ => "PoolError",
    }
}

fn make<'py>(py: Python<'py>, exception: impl FnOnce() -> PyResult<Bound<'py, PyAny>>) -> PyErr {
    match exception() {
        Ok(exception) => PyErr::from_value(exception),
        // `_errors` is a part of this package.
        Err(error) => {
            let wrapped = PyRuntimeError::new_err("the package invokerpool is damaged; install it again");
            wrapped.set_cause(py, Some(error));
            wrapped
        }
    }
}

/// Returns the stacks at the deadline, if the worker wrote them, and the other messages.
fn split_stack(messages: &[String]) -> (Option<&str>, Vec<&str>) {
    let (stacks, lines): (Vec<&str>, Vec<&str>) = messages
        .iter()
        .map(String::as_str)
        .partition(|message| message.starts_with(STACK_MARK));
    (
        stacks.first().and_then(|stack| stack.strip_prefix(STACK_MARK)),
        lines,
    )
}
