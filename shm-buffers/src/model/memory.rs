//! [`ModelMemory`]: where the bytes of a model are, and what each process rebuilds.

use std::fmt;

use super::image::Image;
use crate::backing::BackingKind;
use crate::text::ByteSize;

/// Where the bytes of a shared model are: what all processes share, and what each of them rebuilds on its own heap.
///
/// Only [`Buffer`](crate::Buffer)s and types made of them are shared. A `Vec`, a `String` or a `HashMap` is serialized into the
/// image, and each process that [loads](Image::load) the model has its own copy, which takes time as well.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use shm_buffers::{Backing, Buffer, share};
///
/// #[derive(serde::Serialize)]
/// struct Model {
///     means: Buffer<f64>,
///     weights: Vec<f32>,
/// }
///
/// let model = Model { means: vec![0.5; 1000].into(), weights: vec![0.5; 1_000_000] };
/// let memory = share(&model, &Backing::Auto)?.memory();
/// assert!(memory.per_process >= 4_000_000);
/// assert_eq!(memory.fields[0].to_string(), "weights: Vec<f32>, 3.8 MiB; use Buffer<f32>");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelMemory {
    /// Bytes in shared memory: the image, and the buffers that stayed in other segments.
    pub shared: u64,
    /// Bytes in mapped files: an image in a file, and buffers of mapped files. Processes share these too, as pages of the file.
    pub mapped: u64,
    /// Bytes of buffers that were copied into the image although they already lay in a segment or in a mapped file: they are there
    /// twice. This happens to buffers in segments of which the model uses less than 64 KiB.
    pub copied: u64,
    /// Bytes of heap memory that each process needs for what it rebuilds.
    ///
    /// This is an estimate from the types and lengths of the model's values, as the standard library stores them: an allocation
    /// counts as its bytes and 8 more, in steps of 16 and 32 at least; a `HashMap` as a power of two of buckets, of which seven
    /// eighths at most are used; a `BTreeMap` as twice its entries. So a `Vec<f32>` is 4 bytes an element, and a
    /// `HashMap<String, Vec<u32>>` of short keys and lists 130 to 200 bytes an entry. Sources of error are other collections,
    /// other allocators, and types whose own `Serialize` writes something else than they store.
    ///
    /// Of an image that was attached or loaded from a file, this is the number of bytes that each process decodes, and so a lower
    /// limit.
    pub per_process: u64,
    /// Bytes of the heap that [`share_move`](crate::share_move) freed, but that may still belong to this process, as free memory of
    /// its allocator: an estimate. 0 on Linux with glibc, where it is returned to the system (`malloc_trim`) after a move of 16
    /// MiB or more, and for a model by reference. Other allocators have calls of their own: `mi_collect` of mimalloc,
    /// `arena.<i>.purge` of jemalloc.
    pub unreturned: u64,
    /// The number of buffers of the model.
    pub buffers: u64,
    /// The fields with the most bytes of `per_process`, from the largest on: 64 at most, of 64 KiB or more each. Empty for an image
    /// that was attached or loaded from a file.
    pub fields: Vec<FieldMemory>,
}

/// A field of a model that each process rebuilds on its heap.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldMemory {
    /// The path from the model, such as `vocabulary.names`. All elements of a sequence, and all values of a map, are `*`. Empty
    /// for the model itself.
    pub path: String,
    /// The type, without the paths of modules: `Vec<f32>`.
    pub type_name: String,
    /// Bytes of heap memory in each process: an estimate, see [`ModelMemory::per_process`].
    pub bytes: u64,
    /// What to use instead, if a type is known that stays in shared memory: `Buffer<f32>`.
    pub suggestion: Option<String>,
}

impl fmt::Display for FieldMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = match &*self.path {
            "" => "the model",
            path => path,
        };
        write!(f, "{path}: {}, {}", self.type_name, ByteSize(self.bytes))?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; use {suggestion}"),
            None => Ok(()),
        }
    }
}

/// The account of a model that this process shared.
#[derive(Debug, Default)]
pub(super) struct SharedFrom {
    pub(super) copied: u64,
    pub(super) per_process: u64,
    pub(super) unreturned: u64,
    pub(super) fields: Vec<FieldMemory>,
}

impl Image {
    /// Returns where the bytes of the model are: what processes share, and an estimate of what each of them rebuilds.
    pub fn memory(&self) -> ModelMemory {
        let mut memory = ModelMemory::default();
        let kind = self.segment.backing();
        let kind = kind.or_else(|| Some(self.segment.handle().ok()?.backing()));
        memory.add(kind, self.segment.len() as u64);
        // Bytes that are not an image have no buffers.
        if let Some(table) = self.table() {
            memory.buffers = table.len() as u64;
            memory.per_process = table.model.len() as u64;
            let kinds = self.external.backings(&table);
            for (number, bytes) in table.external_bytes() {
                // Segments that are refused are not loaded.
                if let Some(kind) = kinds.get(number as usize - 1) {
                    memory.add(Some(*kind), bytes);
                }
            }
        }
        if let Some(known) = &self.shared_from {
            memory.copied = known.copied;
            memory.per_process = known.per_process;
            memory.unreturned = known.unreturned;
            memory.fields.clone_from(&known.fields);
        }
        memory
    }
}

impl ModelMemory {
    fn add(&mut self, kind: Option<BackingKind>, bytes: u64) {
        match kind {
            Some(BackingKind::File) => self.mapped += bytes,
            _ => self.shared += bytes,
        }
    }
}
