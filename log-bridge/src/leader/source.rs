//! The state of each source: the reading end of its ring, the callsites that it has numbered, its counts.
//!
//! No code here calls a subscriber or logger, so none of it waits for one. Imports run down this list: `set`, `state`,
//! `reader`, `text`, `definitions`; `state` also needs `counts`.

pub(super) mod counts;
pub(super) mod definitions;
pub(super) mod reader;
pub(super) mod set;
pub(super) mod state;
pub(super) mod text;
