//! The guide. Each chapter can be read alone; the order is that of a new user's questions.
//!
//! 1. [Quick start](quick_start): a first job, its errors and its report.
//! 2. Your model: [how to store it](models), and [where its memory is](memory).
//! 3. [Configuration](configuration): executors, settings in code, environment variables.
//! 4. [Failures](failures): what each one looks like, deadlines, retries, ending early.
//! 5. [Tuning](tuning): task size, workers, threads of native libraries, large payloads, recycling.
//! 6. [Logs](logs): what ops log and print.
//! 7. [Progress](progress): bars, lines, and steps within a task.
//! 8. [Async and tokio](async_tokio): where `init` goes, and what blocks.
//! 9. [Signals](signals): Ctrl-C, SIGTERM and Ctrl-Z, and programs that ops start.
//! 10. [Containers](containers): limits, `/dev/shm`, process 1.
//! 11. [Deployment](deployment): services, updates, permissions, what to log; and [tests] of your ops.
//! 12. [From other Rust crates](from_rust): rayon and procspawn.
//! 13. [From Python](from_python): a table of equivalents.
//!
//! The crate's `examples` are programs to start from.

#[doc = include_str!("../guide/quick_start.md")]
pub mod quick_start {}

#[doc = include_str!("../guide/models.md")]
pub mod models {}

#[doc = include_str!("../guide/memory.md")]
pub mod memory {}

#[doc = include_str!("../guide/configuration.md")]
pub mod configuration {}

#[doc = include_str!("../guide/failures.md")]
pub mod failures {}

#[doc = include_str!("../guide/tuning.md")]
pub mod tuning {}

#[doc = include_str!("../guide/logs.md")]
pub mod logs {}

#[doc = include_str!("../guide/progress.md")]
pub mod progress {}

#[doc = include_str!("../guide/async_tokio.md")]
pub mod async_tokio {}

#[doc = include_str!("../guide/signals.md")]
pub mod signals {}

#[doc = include_str!("../guide/containers.md")]
pub mod containers {}

#[doc = include_str!("../guide/deployment.md")]
pub mod deployment {}

#[doc = include_str!("../guide/tests.md")]
pub mod tests {}

#[doc = include_str!("../guide/from_rust.md")]
pub mod from_rust {}

#[doc = include_str!("../guide/from_python.md")]
pub mod from_python {}
