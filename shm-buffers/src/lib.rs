//! Shared buffers: one copy of a model for any number of processes.

mod buffer;
mod layout;
mod region;
pub mod ring;
pub mod slots;
mod sync;

pub use buffer::Buffer;
pub use layout::{Layout, Span};
pub use region::Region;
