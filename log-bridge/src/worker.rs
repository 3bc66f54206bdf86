//! What records: runs in the worker.
//!
//! Imports run down this list: `connect`, `builder`, `guard`, `layer`, `filter_watch`, `shared`; `layer` also needs `encoder` (with
//! `callsites`, `span_values` and `values`), and `shared` needs `leader_watch` and `ring_writer` (with `summaries`). `panics` stands alone.

pub(crate) mod builder;
mod callsites;
pub(crate) mod connect;
mod encoder;
pub(crate) mod filter_watch;
pub(crate) mod guard;
pub(crate) mod layer;
mod leader_watch;
pub(crate) mod panics;
pub(crate) mod rate_limit;
pub(crate) mod ring_writer;
mod shared;
mod span_values;
mod summaries;
mod values;
