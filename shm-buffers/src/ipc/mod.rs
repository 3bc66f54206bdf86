//! Memory that several processes read and write at the same time.
//!
//! A [`Region`] is accessed as atomic words only, so that a peer that misbehaves can cause wrong values but no undefined
//! behaviour. A [`Layout`] divides a region into [rings](ring), [slots] and [arenas](arena). [Claims](claims) are built on
//! slots.

pub mod arena;
pub mod claims;
mod layout;
mod region;
pub mod ring;
pub mod slots;
mod words;

pub use layout::{Layout, Span};
pub use region::Region;
#[cfg(not(loom))]
pub use region::RegionHandle;
