//! Shared buffers: one copy of a model for any number of processes.
mod buffer;
pub use buffer::Buffer;
