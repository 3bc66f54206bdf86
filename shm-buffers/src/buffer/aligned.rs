//! [`AlignedBytes`]: bytes on the heap that are aligned as those of an image are.

use std::fmt;
use std::io::{self, Write};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};

use super::memory::HeapMemory;
use super::{Buffer, MAX_ALIGN};

/// As many bytes as the strictest alignment.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; MAX_ALIGN]);

/// Bytes on the heap that start at a multiple of 64 bytes ([`MAX_ALIGN`]). They become a `Buffer<u8>` without a copy.
///
/// Formats that are read in place (rkyv archives, usearch indexes, tables of automata) need an alignment, which a
/// `Vec<u8>` does not have. Every buffer of an image has it, so a buffer of these bytes is aligned in the
/// process that made it and in all others.
///
/// ```
/// use std::io::Write;
///
/// use shm_buffers::{AlignedBytes, Backing, Buffer, share};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut index = AlignedBytes::new();
/// index.write_all(b"an index of another crate")?;
/// let index: Buffer<u8> = index.into();
/// assert_eq!(index.as_ptr().addr() % 64, 0);
///
/// let theirs: Buffer<u8> = share(&index, &Backing::Auto)?.load()?; // in this or another process
/// assert_eq!(theirs.as_ptr().addr() % 64, 0);
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
pub struct AlignedBytes {
    lines: Vec<Line>,
    len: usize,
}

impl AlignedBytes {
    /// Creates an empty array.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates an empty array with capacity for `bytes` bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            lines: Vec::with_capacity(bytes.div_ceil(MAX_ALIGN)),
            len: 0,
        }
    }

    /// Creates an array of `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        Self {
            lines: vec![Line::zeroed(); len.div_ceil(MAX_ALIGN)],
            len,
        }
    }

    /// Appends a copy of `bytes`.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        let start = self.len;
        self.resize(start + bytes.len());
        self[start..].copy_from_slice(bytes);
    }

    /// Changes the length to `len` bytes. New bytes are zero.
    pub fn resize(&mut self, len: usize) {
        if len < self.len {
            // The rest of the last line must be zero if the array grows again.
            let end = self.len.min(len.next_multiple_of(MAX_ALIGN));
            self[len..end].fill(0);
        }
        self.lines.resize(len.div_ceil(MAX_ALIGN), Line::zeroed());
        self.len = len;
    }
}

impl Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

/// Appends. It never fails.
impl Write for AlignedBytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl From<&[u8]> for AlignedBytes {
    /// Copies the bytes.
    fn from(bytes: &[u8]) -> Self {
        let mut aligned = Self::zeroed(bytes.len());
        aligned.copy_from_slice(bytes);
        aligned
    }
}

impl fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl HeapMemory for AlignedBytes {
    fn bytes(&self) -> &[u8] {
        self
    }

    fn exclusive(&mut self) -> Option<&mut [u8]> {
        Some(self)
    }
}

/// Takes the memory over, without a copy.
impl From<AlignedBytes> for Buffer<u8> {
    fn from(bytes: AlignedBytes) -> Self {
        Self::on_heap(Arc::new(bytes))
    }
}
