//! A `Buffer<u8>` as [`Bytes`], and back, without a copy.

use std::sync::Arc;

use bytes::Bytes;

use super::Buffer;
use super::memory::HeapMemory;

impl HeapMemory for Bytes {
    fn bytes(&self) -> &[u8] {
        self
    }

    /// Other `Bytes` may share the memory.
    fn exclusive(&mut self) -> Option<&mut [u8]> {
        None
    }
}

/// Keeps the memory, without a copy.
impl From<Bytes> for Buffer<u8> {
    fn from(bytes: Bytes) -> Self {
        Self::on_heap(Arc::new(bytes))
    }
}

/// Shares the memory. The `Bytes` keep it alive.
impl From<Buffer<u8>> for Bytes {
    fn from(buffer: Buffer<u8>) -> Self {
        Self::from_owner(buffer)
    }
}
