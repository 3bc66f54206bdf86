//! [`Report`]: the counts, times and memory use of an invoker.

mod collect;
mod rows;
mod serialize;
mod text;
mod timeline;

pub use rows::{
    JournalCounts, Latency, LogCounts, MemoryUse, ProcessCounts, Report, RunTimes, SharedModel, TaskCounts,
    WorkerTimes,
};

pub(crate) use collect::ReportBase;
pub(crate) use text::bytes;
