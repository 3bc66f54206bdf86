//! What records: runs in the worker.
//!
//! Imports run down this list: `builder`, `layer`, `filter_watch`, `shared`; `layer` also needs `encoder` (with
//! `callsites`, `span_values` and `values`), and `shared` needs `ring_writer` (with `summaries`). `panics` stands alone.

pub(crate) mod builder;
mod callsites;
mod encoder;
pub(crate) mod filter_watch;
pub(crate) mod layer;
pub(crate) mod panics;
pub(crate) mod rate_limit;
pub(crate) mod ring_writer;
mod shared;
mod span_values;
mod summaries;
mod values;
