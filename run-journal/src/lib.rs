//! The journal of a run: a file with its outputs, so that a run goes on after its leader has ended.
//!
//! It is the common part of the journals of `invoker` and of the Python package `invokerpool`, which have the documentation for users.
//! A facade describes its job as an [`Identity`], opens a [`Journal`] for it as an [`OpenJournal`], and for each run
//! [starts](JournalInput::start) an input: the tasks without a stored output go to the workers, a [`Recorder`] writes what they
//! answer, and [`Replayed`] merges that with the outputs of the file.
//!
//! | module | duty |
//! |---|---|
//! | `options` | what users set |
//! | `format` | the file: records as blocks, and back |
//! | `hash` | hashes of tasks, and checksums |
//! | `scan`, `index` | the intact blocks of a file, and the place of each output |
//! | `lock` | one leader for each file |
//! | `identity` | the job that a journal belongs to |
//! | `open` | a journal that a leader has open |
//! | `writer` | the thread that appends and syncs |
//! | `input`, `recorder`, `replay` | one run: the tasks without a stored output, the outputs of the workers, and those of the file |
//! | `tool` | lists journals, and copies their intact blocks |

mod error;
mod format;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod hash;
mod identity;
mod index;
mod input;
mod lock;
mod open;
mod options;
mod order;
mod recorder;
mod replay;
mod scan;
#[cfg(test)]
mod tests;
mod tool;
mod writer;

pub use error::JournalError;
pub use hash::task_hash;
pub use identity::{Identity, Remedies};
pub use input::{JournalInput, SharedInput, TaskRules};
pub use open::OpenJournal;
pub use options::{Journal, JournalFaults, OnWriteError};
pub use order::Order;
pub use recorder::Recorder;
pub use replay::Replayed;
pub use tool::{JournalInfo, JournalRun, Salvage, Salvaged};
