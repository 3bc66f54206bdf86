//! A spawn-based process pool that survives everything its workers do.
//!
//! - [`init`] is the first line of `main`.
//! - [`Builder`] starts a [`Pool`] of processes that run a plain function, or a [`Worker`] with state of its own; a
//!   [`BytePool`] of [`Service`]s is the same on bytes.
//! - [`Pool::map`] gives each task's output or its [`TaskError`]: an op that panics, exits or crashes costs its own
//!   task, and nothing else.
//! - [`LocalPool`] is the same in threads, or in the caller: without isolation.
//! - [`Pool::snapshot`] tells what everybody is doing; [`Interrupt`] and [`Builder::on_interrupt`] end maps early.
//!
//! Workers are made by executing the program again, never by `fork`; or another program, which has its ops by name
//! ([`Registry`]). Tasks and outputs travel through rings in
//! shared memory; the system is called only to wake who sleeps.
//!
//! Values cross by serde and postcard, or by another [`Codec`]. Workers get their share of the cores ([`Threads`]), an
//! environment and a directory as the [`Builder`] says, and what they print can be captured ([`Redirect`]).
//!
//! [`Pool::submit`] gives a [`Handle`] to one task: to wait for, to await in any runtime, to cancel. A worker that is slow keeps
//! nobody waiting: tasks that it has not begun go to another one that has nothing to do.
//!
//! This crate knows nothing of models, logs or terminals.
//!
//! ```no_run
//! use proc_pool::{Builder, Workers};
//!
//! fn slow_square(n: u64) -> u64 {
//!     n * n
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     proc_pool::init();
//!     let pool = Builder::new().workers(Workers::Count(2)).build_op(slow_square)?;
//!     let sum: u64 = pool.map_unordered(0..1000).map(|square| square.unwrap_or(0)).sum();
//!     println!("{sum}");
//!     Ok(())
//! }
//! ```

mod awake;
mod batch;
mod builder;
mod bytes;
mod clock;
mod codec;
mod core;
mod decode;
mod driver;
mod entry;
mod error;
#[cfg(all(unix, any(fuzzing, test)))]
pub mod fuzzing;
mod handle;
mod init;
mod interrupt;
mod jobs;
mod keeper;
mod lane;
mod last_panics;
mod launch;
mod ledger;
mod limits;
mod local;
mod map;
mod observer;
mod op;
mod os;
mod panics;
mod payload;
mod pieces;
mod pool;
mod printed;
mod protocol;
mod registry;
mod service;
mod signals;
mod snapshot;
mod spawn;
mod spin;
#[cfg(all(feature = "stacks", target_os = "linux"))]
mod stack;
mod stats;
#[cfg(feature = "stream")]
mod stream;
mod supervisor;
mod surroundings;
mod threads;
mod timing;
mod window;
mod worker;
mod workers;

pub use builder::Builder;
pub use bytes::{Bytes, OutputBuf};
pub use codec::{Codec, Pod, PodVec, Postcard};
pub use error::{Cause, Fault, KillReason, PoolError, Shared, TaskError, WorkerId};
pub use handle::{Cancelled, Handle};
pub use init::init;
pub use interrupt::{Interrupt, Interrupter, OnInterrupt};
pub use local::{LocalMap, LocalPool};
pub use map::Map;
pub use observer::Observer;
pub use op::{ByRef, Op};
pub use os::Memory;
pub use panics::{Panic, catch_panic};
pub use pool::{BytePool, Pool};
pub use printed::{Redirect, Stream};
pub use protocol::Inherited;
pub use registry::Registry;
pub use service::{BoxError, CallError, Service, Worker, WorkerContext};
pub use snapshot::{Running, Snapshot, WorkerSnapshot, WorkerState};
pub use stats::Stats;
#[cfg(feature = "stream")]
pub use stream::OutputStream;
pub use surroundings::{FILES_PER_WORKER, Surroundings};
pub use threads::Threads;
pub use timing::{Chronicle, Ending, Laps, Latency, Life, Sample, Stopwatch, Times, Timing};
pub use workers::{MAX_WORKERS, Workers};
