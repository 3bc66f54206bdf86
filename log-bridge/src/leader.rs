//! What replays: runs in the leader.
//!
//! Imports run down this list: `handle` and `lines`, `collector`, `replay`, `source`, `tally`. `collector` also
//! needs `open`, which needs none of these; `emission_time` needs only
//! `replay`.

pub(crate) mod collector;
pub(crate) mod emission_time;
pub(crate) mod handle;
pub(crate) mod lines;
pub(crate) mod open;
pub(crate) mod replay;
mod source;
pub(crate) mod tally;

pub use source::reader::SourceError;
