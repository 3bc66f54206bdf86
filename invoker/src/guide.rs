//! The guide. Each chapter can be read alone; the order is that of a new user's questions.
//!
//! 1. [Quick start](quick_start): a first job, its errors and its report.
//! 2. [Recipes](recipes): whole programs of twenty lines, for a model in a file, a GPU per worker, a fold.
//! 3. Your model: [how to store it](models), with [strings and maps](strings_and_maps), [bytes that a library reads in
//!    place](byte_formats) or [objects of a library](library_objects); and [where its memory is](memory).
//! 4. [Configuration](configuration): executors, settings in code, environment variables.
//! 5. [Failures](failures): what each one looks like, deadlines, retries, ending early; and the [journal], for runs that outlive their
//!    leader.
//! 6. [Tuning](tuning): task size, workers, threads of native libraries, large payloads, recycling.
//! 7. [Logs](logs): what ops log and print.
//! 8. [Progress](progress): bars, lines, and steps within a task.
//! 9. [Async and tokio](async_tokio): where `init` goes, and what blocks.
//! 10. [Signals](signals): Ctrl-C, SIGTERM and Ctrl-Z, and programs that ops start.
//! 11. [Containers](containers): limits, `/dev/shm`, process 1.
//! 12. [Deployment](deployment): services, updates, permissions, what to log; and [tests] of your ops.
//! 13. [Clusters](clusters): several machines, and what happens when each part dies.
//! 14. [From other Rust crates](from_rust): rayon and procspawn.
//! 15. [From Python](from_python): a table of equivalents.
//!
//! The crate's `examples` are programs to start from.

#[doc = include_str!("../guide/quick_start.md")]
pub mod quick_start {}

#[doc = include_str!("../guide/recipes.md")]
pub mod recipes {}

#[doc = include_str!("../guide/models.md")]
pub mod models {}

#[doc = include_str!("../guide/strings_and_maps.md")]
pub mod strings_and_maps {}

#[doc = include_str!("../guide/byte_formats.md")]
pub mod byte_formats {}

#[doc = include_str!("../guide/library_objects.md")]
pub mod library_objects {}

#[doc = include_str!("../guide/memory.md")]
pub mod memory {}

#[doc = include_str!("../guide/configuration.md")]
pub mod configuration {}

#[doc = include_str!("../guide/failures.md")]
pub mod failures {}

#[doc = include_str!("../guide/journal.md")]
pub mod journal {}

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

#[doc = include_str!("../guide/clusters.md")]
pub mod clusters {}

#[doc = include_str!("../guide/tests.md")]
pub mod tests {}

#[doc = include_str!("../guide/from_rust.md")]
pub mod from_rust {}

#[doc = include_str!("../guide/from_python.md")]
pub mod from_python {}
