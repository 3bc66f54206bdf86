//! Replays the records of workers: as events of a subscriber, or into the logger of the `log` crate.
//!
//! Imports run down this list: `stream`, `spans`, `event`, `values` and `bridge_events`, `callsites`, `registry`. `stream`
//! also needs `sink`, and `log_crate` if that is where records go; `event` and `log_crate` need `origin`.

pub(crate) mod bridge_events;
mod callsites;
mod event;
#[cfg(feature = "log")]
pub(crate) mod log_crate;
pub(crate) mod origin;
mod registry;
pub(crate) mod sink;
mod spans;
pub(crate) mod stream;
mod values;
