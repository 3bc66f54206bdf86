//! A process pool that isolates tasks: a worker that panics, crashes, hangs or is killed costs only the task that it was
//! running.
//!
//! ```no_run
//! use proc_pool::Builder;
//!
//! fn slow_square(n: u64) -> u64 {
//!     n * n
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     proc_pool::init(); // the first line of main
//!     let pool = Builder::new().workers(2).build_op(slow_square)?;
//!     for square in pool.map(0..1000) {
//!         println!("{}", square?);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! The task of a worker that dies gets a [`TaskError`] with the cause. The pool replaces the worker, and runs all other tasks.
//!
//! # Two programs
//!
//! A pool involves two kinds of processes, which usually run the same program:
//!
//! - The *leader* is the process that builds a [`Pool`] and has the tasks. It starts the workers, sends them tasks, and
//!   watches them.
//! - A *worker* is a process that runs tasks for its leader, one after another. The leader starts it by executing its own
//!   program again, never by `fork`. The call of [`init`] turns the new process into a worker and never returns there;
//!   in the leader, it returns immediately. So everything before that call runs in every worker, and everything after it only
//!   in the leader.
//!
//! Workers can also run a separate program, which registers its ops by name: see [`Registry`].
//!
//! Leader and worker exchange tasks and outputs through rings in shared memory. There is no system call while both are awake.
//!
//! # Features of the pool
//!
//! | you want | see |
//! |---|---|
//! | to run a function, a function with state, or a service on bytes | [`EntryPoint`], [`Worker`], [`Service`] |
//! | the outputs of many tasks, in order or as they complete | [`Pool::map`], [`Pool::map_unordered`] |
//! | one task: to wait for it, await it or cancel it | [`Pool::submit`], [`Handle`] |
//! | deadlines, retries, memory limits, new processes from time to time | [`Builder`] |
//! | to stop early, at Ctrl-C or by a call | [`OnInterrupt`], [`Interrupter`], [`Interrupt`] |
//! | to see what workers are doing, and where their time goes | [`Pool::snapshot`], [`Pool::history`] |
//! | a value or environment of its own for each worker, such as a GPU's index | [`Builder::worker_value`], [`Builder::worker_env`] |
//! | the tasks that have failed, with their errors | [`Map::with_inputs`] |
//! | to capture what workers print | [`Redirect`], [`Observer`] |
//! | to limit the threads of numeric libraries in workers | [`NativeThreads`] |
//! | another encoding of values than [`Native`] | [`Codec`], [`Postcard`], [`Pod`], [`PodVec`] |
//!
//! Tasks are sent to workers in advance, so that a worker never waits for its next one. A slow worker does not delay them:
//! the leader recalls tasks that a worker has not started, and sends them to an idle one.
//!
//! # With rayon
//!
//! *Within a worker*, an op may use rayon like any other code: each worker process has a global pool of its own, which rayon starts at
//! its first use. By default that would be one thread for each core in each worker. Therefore [`NativeThreads`] sets
//! `RAYON_NUM_THREADS` (and `OMP_NUM_THREADS` and the like) to each worker's share of the cores. Few workers with more threads suit
//! large tasks:
//!
//! ```no_run
//! use proc_pool::{Builder, NativeThreads};
//! use rayon::prelude::*;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # proc_pool::init();
//! let norm = |row: Vec<f64>| row.par_iter().map(|x| x * x).sum::<f64>().sqrt();
//! let pool = Builder::new().workers(2).native_threads(NativeThreads::Count(4)).build_op(norm)?;
//! // Rayon's threads in the leader make the rows and use the norms.
//! let rows = (1..1000).map(|len| vec![1.0; len]);
//! let sum: f64 = pool.map(rows).par_bridge().filter_map(Result::ok).sum();
//! # Ok(()) }
//! ```
//!
//! A panic on one of rayon's threads reaches the op, and is that task's error; an abort ends the worker and costs that task.
//!
//! *In the leader*, rayon's threads may use the same pool: it is `Sync`, and any number of threads may call [`Pool::submit`] and
//! [`Pool::map`]. A [`Map`] can be bridged into a parallel iterator, as above. A thread of rayon that waits for an output runs no other job
//! during that time. The leader's rayon and the workers share the cores: give the pool fewer [`workers`](Builder::workers) if both are busy at
//! the same time.
//!
//! # For contributors
//!
//! Each layer imports only the layers below it; `leader` and `worker` never import each other.
//!
//! | layer | contents |
//! |---|---|
//! | `pool` | the public interface of the leader: builder, pools, iterators, handles |
//! | `process` | worker processes: start, supervision, kill, and reading what they print |
//! | `leader` | scheduler, event loop, and the leader's end of each worker's rings |
//! | `worker` | the program in a worker process: start, main loop, the user's code. Only `pool` imports it |
//! | `metrics` | the times of tasks and processes, written by workers and read by the leader |
//! | `wire` | the protocol of both sides: handshake, memory layout, frames, encoding |
//! | `observer` | the interface for code that watches workers |
//! | `os` | calls to the operating system, with one implementation for each system |
//! | `error`, `message`, `panics`, `last_panics`, `spin` | used by all layers |

mod error;
#[doc(hidden)]
pub mod facade;
#[cfg(all(unix, any(fuzzing, test)))]
pub mod fuzzing;
mod last_panics;
mod leader;
mod message;
mod metrics;
mod observer;
mod os;
mod panics;
mod pool;
mod process;
mod spin;
mod wire;
mod worker;

pub use error::{BoxError, ExitCause, Fault, KillReason, PoolError, Shared, TaskError, WorkerId};
pub use leader::interrupt::Interrupt;
pub use leader::snapshot::{RunningTask, Snapshot, WorkerSnapshot, WorkerState};
pub use leader::stats::Stats;
pub use leader::withdrawal::CancelOutcome;
pub use metrics::{ExitKind, History, Latency, PhaseTimes, ProcessHistory, Sample, Stopwatch, Times, Timing};
pub use observer::{Observer, Redirect, Stream};
pub use os::ProcessMemory;
pub use panics::{Panic, catch_panic};
pub use pool::builder::{Builder, Runnable};
pub use pool::handle::Handle;
pub use pool::interrupt::{Interrupter, OnInterrupt};
pub use pool::map::{Map, TryNext};
#[cfg(feature = "stream")]
pub use pool::stream::OutputStream;
pub use pool::system_info::{FILES_PER_WORKER, SystemInfo};
pub use pool::with_inputs::WithInputs;
pub use pool::workers::{MAX_WORKERS, ParseWorkersError, Workers};
pub use pool::{BytePool, Pool};
pub use process::threads::NativeThreads;
pub use wire::bytes::{Bytes, OutputBuf};
pub use wire::codec::{Codec, Pod, PodVec, Postcard};
pub use wire::handshake::Inherited;
pub use wire::native::Native;
pub use wire::owned_bytes::OwnedBytes;
pub use wire::worker_values::WorkerValueError;
pub use worker::entry_point::{EntryPoint, OwnEntryPoint};
pub use worker::init::init;
pub use worker::op::{ByRef, ByView, EndView, Family, Op};
pub use worker::registry::Registry;
pub use worker::service::{CallError, Service, Worker, WorkerContext};

/// The example of the README is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
