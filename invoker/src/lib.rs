//! One large read-only model, a million small tasks, isolated worker processes.
//!
//! An [`Invoker`] runs `op(&model, task)` for every task, in processes that share one copy of the model. An op may
//! panic, crash, exit or be killed: its task gets an error that tells why, the worker is replaced, and every other
//! task is done as if nothing had happened.
//!
//! - [`init`] is the first line of `main`.
//! - The model is any serde type whose big parts are [`Buffer`]s.
//! - The op is a plain `fn`, or a closure that captures nothing.
//! - The same op runs in threads or in this process with another [`Executor`], with the same outputs and errors.
//! - Outputs come from [`Invoker::map`], one by one from [`Invoker::submit`], or as a `stream` (feature `stream`).
//! - Workers can have a state of their own ([`Invoker::builder_with_state`]), and tasks a seed ([`task_seed`]).
//! - [`Builder`] says what else there is; [`Builder::settings`] tells what it comes to.
//!
//! The [guide] tells how, chapter by chapter: processes or threads, models, memory, failures, logs, progress, containers,
//! signals, tests, and how to come from other crates or from Python.
//!
//! Everything here is put together from crates that can be used alone: `shm_buffers` (memory), `proc_pool`
//! (processes), `log_bridge` (logs) and `progress`.

mod builder;
mod doctor;
mod error;
mod executor;
mod extension;
#[cfg(any(doc, doctest))]
pub mod guide;
mod invoker;
mod isolated;
mod journal;
mod op;
mod outputs;
mod processes;
#[cfg(doctest)]
mod readme;
mod report;
mod seed;
mod settings;
mod step;
mod verify;
mod watch;
mod worker;

pub use builder::{Builder, OpBuilder};
pub use doctor::{Advice, Diagnosis, Finding, Verdict, doctor};
pub use error::Error;
pub use executor::Executor;
pub use extension::Invoke;
pub use invoker::Invoker;
pub use isolated::{IsolatedError, run_isolated};
pub use log_bridge::{Filter, SetFilterError};
pub use op::{Op, PlainOp, WithState};
pub use outputs::Outputs;
#[cfg(feature = "stream")]
pub use proc_pool::OutputStream;
pub use proc_pool::{
    BoxError, Cancelled, Cause, Fault, Handle, Interrupt, Interrupter, KillReason, OnInterrupt, PoolError,
    Redirect, Snapshot, TaskError, Threads, Timing, WorkerId, Workers, init, init_in_tests,
};
pub use progress::{BarWriter, Render, Reporter, StartError as ProgressError, Total};
pub use report::{Latency, Logs, MemoryUse, Model, ProcessCounts, Report, Tasks, Times, WorkerTimes};
pub use settings::{EXECUTOR_VARIABLE, Origin, PROGRESS_VARIABLE, Setting, Settings, WORKERS_VARIABLE};
pub use shm_buffers::{Backing, BackingKind, Buffer, Image, LoadOptions, share};
pub use step::{step, task_seed};
pub use verify::Verification;
