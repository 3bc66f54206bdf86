//! Memory that processes share: segments, rings and counters, and one copy of a model for any number of processes.
//!
//! - [`SegmentMut`] → [`Segment`] → [`SegmentHandle`]: memory that one process fills and freezes, and that other
//!   processes attach read-only, or [`CopyOnWrite`].
//! - [`Region`]: memory that several processes write at the same time, divided into [`ring`]s of byte frames, [`slots`]
//!   for numbers, and [`arena`]s for blocks that are too large for a ring. [`claims`]: tasks that were sent can be revoked.
//! - [`limits`] and [`MemoryInfo`]: how much memory the machine, its cgroups and the process's own limits leave.
//!
//! These have few dependencies, and neither a procedural macro nor a C compiler is needed for them. The feature `models`
//! (on by default) adds:
//!
//! - [`Buffer`]: an immutable array, on the heap or in a segment. Models are made of buffers.
//! - [`BufferMut`]: a buffer under construction, in the segment where it will stay.
//! - [`collections`]: strings, lists, sets and maps in buffers ([`Strings`], [`Lists`], [`StringMap`], [`IntMap`]), for models
//!   that have a `Vec<String>` or a `HashMap`.
//! - [`share`] and [`share_move`]: turn a serde model and its buffers into one model [`Image`] in shared memory.
//! - [`Image::save`] and [`Image::load_shared`]: model images on disk. They are safetensors files; files of other programs
//!   ([`load_safetensors`], [`load_npy`]) become buffers by name. Loading copies a file into a segment. Opening
//!   ([`Image::open`], [`open_safetensors`], [`open_npy`]) maps the file, and is `unsafe`: no process may change it then.
//! - [`TensorWriter`]: named tensors, which code of other languages has, as one image.
//! - Features `zstd` (on by default), `ndarray`, `sprs` and `arrow`: compressed images, and n-dimensional arrays, sparse
//!   matrices, Arrow arrays and record batches over buffers. Feature `bytes`: buffers of bytes as `bytes::Bytes`.
//!   Feature `rkyv`: types that derive `rkyv::Archive`, shared as they are.
//!
//! This crate knows nothing of processes, pools, tracing or terminals.
#![cfg_attr(
    not(feature = "models"),
    allow(rustdoc::broken_intra_doc_links, reason = "some lead to models")
)]

// The ground: memory, and what lies in it. `models` uses more of it than the rest.
#[cfg(not(loom))]
mod backing;
#[cfg(not(loom))]
#[cfg_attr(not(feature = "models"), allow(dead_code, reason = "models use the rest"))]
mod copy;
#[cfg(not(loom))]
mod copy_on_write;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
mod handle_text;
mod ipc;
#[cfg(not(loom))]
pub mod limits;
#[cfg(not(loom))]
mod memory_info;
#[cfg(not(loom))]
#[cfg_attr(
    not(feature = "models"),
    allow(dead_code, unused_imports, reason = "models use the rest")
)]
mod os;
#[cfg(not(loom))]
pub mod out_of_band;
#[cfg(not(loom))]
mod parallel;
#[cfg(not(loom))]
#[cfg_attr(not(feature = "models"), allow(dead_code, reason = "models use the rest"))]
mod segment;
mod sync;
mod text;

// The feature `models`.
#[cfg(not(loom))]
mod adopt;
#[cfg(all(feature = "models", not(loom)))]
mod buffer;
#[cfg(all(feature = "models", not(loom)))]
pub mod collections;
#[cfg(all(feature = "models", not(loom)))]
mod mapped;
#[cfg(all(feature = "models", not(loom)))]
mod model;
#[cfg(all(feature = "models", not(loom)))]
mod replace;
#[cfg(all(feature = "models", not(loom)))]
mod tensors;
#[cfg(all(feature = "models", not(loom)))]
mod views;

#[cfg(not(loom))]
pub use adopt::Adoptable;
#[cfg(not(loom))]
pub use backing::{Backing, BackingKind, CoreDump, Pages};
#[cfg(all(feature = "models", not(loom)))]
pub use buffer::{AlignedBytes, Buffer, BufferMut, CastError, MAX_ALIGN, Validated};
/// The crate of [`bytemuck::Pod`], with its derive macros: `#[derive(Pod, Zeroable)]` with `#[bytemuck(crate =
/// "shm_buffers::bytemuck")]` needs no dependency of its own.
#[cfg(all(feature = "models", not(loom)))]
pub use bytemuck;
#[cfg(all(feature = "models", not(loom)))]
pub use collections::{IntMap, IntSet, Lists, StringMap, StringSet, Strings};
#[cfg(not(loom))]
pub use copy_on_write::CopyOnWrite;
#[cfg(not(loom))]
pub use error::{AttachError, CreateError, FreezeError, ParseHandleError};
#[cfg(not(loom))]
pub use ipc::RegionHandle;
pub use ipc::{Layout, Region, Span, arena, claims, ring, slots};
#[cfg(all(feature = "models", not(loom)))]
pub use mapped::{open_npy, open_safetensors, open_safetensors_with};
#[cfg(not(loom))]
pub use memory_info::MemoryInfo;
#[cfg(all(feature = "zstd", not(loom)))]
pub use model::Compression;
#[cfg(all(feature = "models", not(loom)))]
pub use model::{
    FieldMemory, Image, LoadError, LoadOptions, LoadSharedError, ModelMemory, OpenError, SaveOptions,
    ShareError, StageError, TensorWriter, VerifyError, fingerprint, share, share_move, stage, stage_with,
};
#[cfg(not(loom))]
pub use os::descriptors;
#[cfg(not(loom))]
#[doc(hidden)]
pub use os::{copy_into_new, expect_blocks, prefer_huge_pages, return_freed_memory};
#[cfg(all(feature = "models", not(loom)))]
pub use replace::{SaveError, check_replaceable, replace_file};
#[cfg(not(loom))]
pub use segment::{KeptMemory, Segment, SegmentHandle, SegmentMut, remove_orphaned_segments};
#[cfg(all(feature = "models", not(loom)))]
pub use tensors::{
    BufferFileError, FileInfo, Order, Tensor, TensorError, TensorInfo, Tensors, inspect, load_npy,
    load_npy_with, load_safetensors, load_safetensors_with,
};
#[doc(hidden)]
pub use text::assert_said_once;
pub use text::{ByteSize, LineSplitter, OutputLine, Printable, WithCauses, error_chain};
#[cfg(all(feature = "ndarray", not(loom)))]
pub use views::SharedArray;
#[cfg(all(feature = "sprs", not(loom)))]
pub use views::SharedCsMat;
#[cfg(all(feature = "rkyv", not(loom)))]
pub use views::{Archivable, ArchiveError, SharedArchive};
#[cfg(all(feature = "arrow", not(loom)))]
pub use views::{SharedArrow, SharedRecordBatch};

/// The type of a tensor's elements, in files of safetensors' format.
#[cfg(all(feature = "models", not(loom)))]
#[doc(no_inline)]
pub use safetensors::Dtype;

/// Tests the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
