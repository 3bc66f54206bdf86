//! The guide, in chapters that can be read alone:
//!
//! 1. [Processes or threads](processes_or_threads): which executor, and when not to use this crate at all.
//! 2. [Models](models): how to make one of buffers, by value, by reference, as a file.
//! 3. [Memory](memory): where the one copy is, what counts, what to do when there is no room.
//! 4. [Failures](failures): the table of faults, deadlines, retries, interruption.
//! 5. [Logs](logs): what ops log and print.
//! 6. [Progress](progress): bars, lines, and steps within a task.
//! 7. [Containers](containers): small `/dev/shm`, limits, process 1, signals.
//! 8. [Signals](signals): Ctrl-C, SIGTERM and Ctrl-Z; what becomes of programs that ops start.
//! 9. [Tests](tests): of your own ops.
//! 10. [From other Rust crates](from_rust): rayon and procspawn.
//! 11. [From Python](from_python): a table of equivalents.
//!
//! Programs to start from are in the crate's `examples`.

#[doc = include_str!("../guide/processes_or_threads.md")]
pub mod processes_or_threads {}

#[doc = include_str!("../guide/models.md")]
pub mod models {}

#[doc = include_str!("../guide/memory.md")]
pub mod memory {}

#[doc = include_str!("../guide/failures.md")]
pub mod failures {}

#[doc = include_str!("../guide/logs.md")]
pub mod logs {}

#[doc = include_str!("../guide/progress.md")]
pub mod progress {}

#[doc = include_str!("../guide/containers.md")]
pub mod containers {}

#[doc = include_str!("../guide/signals.md")]
pub mod signals {}

#[doc = include_str!("../guide/tests.md")]
pub mod tests {}

#[doc = include_str!("../guide/from_rust.md")]
pub mod from_rust {}

#[doc = include_str!("../guide/from_python.md")]
pub mod from_python {}
