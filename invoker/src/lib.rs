//! One large read-only model, a million small tasks, isolated worker processes.
//!
//! An [`Invoker`] runs `op(&model, task)` for every task, in worker processes that share one copy of the model. An op may
//! panic, crash, exit or be killed: its task gets an error with the cause, the worker is replaced, and all other tasks are
//! unaffected.
//!
//! - [`init`] is the first line of `main`.
//! - The model is any serde type whose large parts are [`Buffer`]s. What it needs is here, too: [`bytemuck`] for its structs,
//!   [`shm_buffers`] for files of other programs, and arrays behind features (`ndarray`, `sprs`, `arrow`).
//! - The op is a plain `fn`, or a closure that captures nothing.
//! - [`Invoker::map`] returns an iterator over the outputs, [`Invoker::try_map`] ends at the first error, [`Invoker::submit`] runs one
//!   task, and `Invoker::stream` (feature `stream`) serves async programs.
//! - [`OpBuilder::fold`] adds up millions of tiny tasks within the workers.
//! - [`Builder`] has the settings, and [`Processes`] the options of worker processes: deadlines, retries, memory limits,
//!   environment, logs. [`Builder::settings`] returns the effective settings.
//! - Another [`Executor`] runs the same op in threads, or on the calling thread, with the same outputs and errors.
//! - Workers can have their own state ([`Invoker::builder_with_state`]), which may borrow from the model
//!   ([`Invoker::builder_with_view`]), and tasks a seed ([`task_seed`]).
//! - One model, also one in a file, serves many runs, each with its own [context](OpBuilder::context). An op can ask which
//!   [`worker`] runs it.
//! - With a [journal](Builder::journal), a run goes on where its leader ended.
//! - [`Invoker::finish`] returns a [`Report`].
//!
//! The [guide] has a chapter for each question, from the quick start to tuning, async programs and deployment.
//!
//! This crate puts together crates that can be used alone: `shm_buffers` (memory), `proc_pool` (processes), `log_bridge`
//! (logs) and `progress`.

mod builder;
mod chunks;
mod copies;
mod doctor;
mod error;
mod executor;
#[doc(hidden)]
pub mod facade;
#[cfg(any(doc, doctest))]
pub mod guide;
mod invoke;
mod invoker;
mod isolated;
mod journal;
mod model_source;
mod op;
mod op_builder;
mod outputs;
#[cfg(doctest)]
mod readme;
pub mod report;
mod run_progress;
mod runner;
mod seed;
mod settings;
mod task_context;
mod try_outputs;
mod verify;
#[cfg(test)]
#[path = "../../proc-pool/tests/it/support/watchdog.rs"]
mod watchdog;
mod whole_input;

pub use builder::Builder;
pub use bytemuck;
pub use chunks::{Chunks, Items};
pub use copies::{COPIES_VARIABLE, CopiedError, Copies, ParseCopiesError};
pub use doctor::{Advice, Diagnosis, Finding, Verdict, doctor};
pub use error::Error;
pub use executor::{Executor, ExecutorOptions, ParseExecutorError, Processes};
pub use invoke::Invoke;
pub use invoker::Invoker;
pub use isolated::{IsolatedError, run_isolated};
pub use log_bridge::{Filter, SetFilterError};
pub use op::{
    Folded, InContext, Op, PlainOp, Retried, Retry, View, WithContext, WithExit, WithState, WithView,
};
pub use op_builder::OpBuilder;
pub use outputs::Outputs;
#[cfg(feature = "stream")]
pub use proc_pool::OutputStream;
pub use proc_pool::{
    BoxError, CancelOutcome, ExitCause, Fault, Handle, Interrupt, Interrupter, KillReason, NativeThreads,
    OnInterrupt, ParseWorkersError, PoolError, Redirect, Snapshot, TaskError, Timing, WorkerId, Workers,
    init, init_in_tests,
};
pub use progress::{BarWriter, Render, Reporter, StartError as ProgressError, Total};
pub use report::Report;
pub use run_journal::{
    Journal, JournalError, JournalFaults, JournalInfo, JournalRun, OnWriteError, Salvage, Salvaged,
};
pub use settings::{EXECUTOR_VARIABLE, Origin, PROGRESS_VARIABLE, Setting, Settings, WORKERS_VARIABLE};
#[cfg(feature = "ndarray")]
pub use shm_buffers::SharedArray;
#[cfg(feature = "sprs")]
pub use shm_buffers::SharedCsMat;
pub use shm_buffers::{
    self, AlignedBytes, Backing, BackingKind, Buffer, BufferMut, FieldMemory, Image, IntMap, IntSet, Lists,
    LoadOptions, ModelMemory, SaveOptions, StageError, StringMap, StringSet, Strings, share, share_move,
    stage,
};
#[cfg(feature = "rkyv")]
pub use shm_buffers::{ArchiveError, SharedArchive};
#[cfg(feature = "arrow")]
pub use shm_buffers::{SharedArrow, SharedRecordBatch};
pub use task_context::{WorkerInfo, step, task_seed, worker};
pub use try_outputs::TryOutputs;
pub use verify::Verification;
