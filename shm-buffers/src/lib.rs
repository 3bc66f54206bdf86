//! Shared buffers: one copy of a model for any number of processes.
//!
//! - [`SegmentMut`] → [`Segment`] → [`SegmentHandle`]: memory that one process fills and freezes, and that other
//!   processes attach read-only.
//! - [`Buffer`]: an immutable array, on the heap or in a segment. Models are made of buffers.
//! - [`BufferMut`]: a buffer under construction, in the segment where it will stay.
//! - [`share`] and [`share_move`]: turn a serde model and its buffers into one model [`Image`] in shared memory.
//! - [`Image::save`] and [`Image::load_shared`]: model images on disk. They are safetensors files; files of other programs
//!   ([`load_safetensors`], [`load_npy`]) become buffers by name. Loading copies a file into a segment. Opening
//!   ([`Image::open`], [`open_safetensors`], [`open_npy`]) maps the file, and is `unsafe`: no process may change it then.
//! - [`Region`]: memory that several processes write at the same time, divided into [`ring`]s of byte frames, [`slots`]
//!   for numbers, and [`arena`]s for blocks that are too large for a ring. [`claims`]: tasks that were sent can be revoked.
//! - [`limits`] and [`MemoryInfo`]: how much memory the machine, its cgroups and the process's own limits leave.
//! - Features `ndarray`, `sprs` and `arrow`: n-dimensional arrays, sparse matrices and Arrow arrays over buffers.
//!
//! This crate knows nothing of processes, pools, tracing or terminals.

#[cfg(not(loom))]
mod backing;
#[cfg(not(loom))]
mod buffer;
#[cfg(not(loom))]
mod copy;
#[cfg(not(loom))]
mod error;
mod ipc;
#[cfg(not(loom))]
pub mod limits;
#[cfg(not(loom))]
mod mapped;
#[cfg(not(loom))]
mod memory_info;
#[cfg(not(loom))]
mod model;
#[cfg(not(loom))]
mod os;
#[cfg(not(loom))]
mod parallel;
#[cfg(not(loom))]
mod replace;
#[cfg(not(loom))]
mod segment;
mod sync;
#[cfg(not(loom))]
mod tensors;
mod text;
#[cfg(not(loom))]
mod views;

#[cfg(not(loom))]
pub use backing::{Backing, BackingKind, CoreDump, Pages};
#[cfg(not(loom))]
pub use buffer::{Buffer, BufferMut, MAX_ALIGN};
#[cfg(not(loom))]
pub use error::{AttachError, CreateError, FreezeError, LoadError, ShareError};
#[cfg(not(loom))]
pub use ipc::RegionHandle;
pub use ipc::{Layout, Region, Span, arena, claims, ring, slots};
#[cfg(not(loom))]
pub use mapped::{open_npy, open_safetensors, open_safetensors_with};
#[cfg(not(loom))]
pub use memory_info::MemoryInfo;
#[cfg(all(feature = "zstd", not(loom)))]
pub use model::Compression;
#[cfg(not(loom))]
pub use model::{
    Image, LoadOptions, LoadSharedError, OpenError, SaveOptions, VerifyError, share, share_move,
};
#[cfg(not(loom))]
pub use os::descriptors;
#[cfg(not(loom))]
pub use replace::{SaveError, check_replaceable, replace_file};
#[cfg(not(loom))]
pub use segment::{Segment, SegmentHandle, SegmentMut};
#[cfg(not(loom))]
pub use tensors::{
    FileInfo, Order, Tensor, TensorError, TensorInfo, Tensors, inspect, load_npy, load_npy_with,
    load_safetensors, load_safetensors_with,
};
#[doc(hidden)]
pub use text::assert_said_once;
pub use text::{ByteSize, LineSplitter, OutputLine, Printable, WithCauses, error_chain};
#[cfg(all(feature = "ndarray", not(loom)))]
pub use views::SharedArray;
#[cfg(all(feature = "arrow", not(loom)))]
pub use views::SharedArrow;
#[cfg(all(feature = "sprs", not(loom)))]
pub use views::SharedCsMat;
