//! Shared buffers: one copy of a model for any number of processes.
//!
//! - [`SegmentMut`] → [`Segment`] → [`SegmentHandle`]: memory that is filled by one process, frozen, and attached
//!   read-only by others.
//! - [`Buffer`]: an immutable array, on the heap or in a segment, that models are made of.
//! - [`BufferMut`]: the same while it is built, in the segment where it will stay.
//! - [`share`] and [`share_move`]: a serde model with its buffers becomes one [`Image`] in shared memory.
//! - [`Image::save`], [`Image::load_shared`]: images on disk; they are safetensors files, and those of other programs
//!   ([`load_safetensors`], [`load_npy`]) are buffers by name. To load copies a file into a segment; to open
//!   ([`Image::open`], [`open_safetensors`], [`open_npy`]) is `unsafe` and maps it: no process may change the file then.
//! - [`Region`], [`ring`] and [`slots`]: memory that several processes write at once, as single-producer rings of
//!   byte frames and as atomic numbers; [`arena`]: blocks that are too large for a ring; [`claims`]: work that was given
//!   may be taken back.
//! - [`limits`] and [`Room`]: what memory limits leave, and the other limits that segments meet.
//! - Features `ndarray`, `sprs` and `arrow`: arrays with any number of axes, sparse matrices and Arrow arrays over buffers.
//!
//! This crate knows nothing of processes, pools, tracing or terminals.

pub mod arena;
#[cfg(not(loom))]
mod backing;
#[cfg(not(loom))]
mod buffer;
#[cfg(not(loom))]
mod buffer_mut;
mod causes;
pub mod claims;
#[cfg(not(loom))]
mod copy;
#[cfg(not(loom))]
mod error;
mod layout;
#[cfg(not(loom))]
pub mod limits;
#[cfg(not(loom))]
mod mapped;
#[cfg(not(loom))]
mod model;
#[cfg(not(loom))]
mod os;
mod printable;
mod region;
#[cfg(not(loom))]
mod replace;
pub mod ring;
#[cfg(not(loom))]
mod room;
#[cfg(not(loom))]
mod segment;
pub mod slots;
mod sync;
#[cfg(not(loom))]
mod tensors;
#[cfg(not(loom))]
mod views;

#[cfg(not(loom))]
pub use backing::{Backing, BackingKind, CoreDump, Pages};
#[cfg(not(loom))]
pub use buffer::{Buffer, MAX_ALIGN};
#[cfg(not(loom))]
pub use buffer_mut::BufferMut;
pub use causes::WithCauses;
#[doc(hidden)]
pub use causes::assert_said_once;
#[cfg(not(loom))]
pub use error::{AttachError, CreateError, FreezeError, LoadError, ShareError};
pub use layout::{Layout, Span};
#[cfg(not(loom))]
pub use mapped::{open_npy, open_safetensors, open_safetensors_with};
#[cfg(all(feature = "zstd", not(loom)))]
pub use model::Compression;
#[cfg(not(loom))]
pub use model::{
    Image, LoadOptions, LoadSharedError, OpenError, SaveOptions, VerifyError, share, share_move,
};
#[cfg(not(loom))]
pub use os::descriptors;
pub use printable::Printable;
pub use region::Region;
#[cfg(not(loom))]
pub use region::RegionHandle;
#[cfg(not(loom))]
pub use replace::{SaveError, check_replaceable, replace_file};
#[cfg(not(loom))]
pub use room::Room;
#[cfg(not(loom))]
pub use segment::{Segment, SegmentHandle, SegmentMut};
#[cfg(not(loom))]
pub use tensors::{
    FileInfo, Order, Tensor, TensorError, TensorInfo, Tensors, inspect, load_npy, load_npy_with,
    load_safetensors, load_safetensors_with,
};
#[cfg(all(feature = "ndarray", not(loom)))]
pub use views::SharedArray;
#[cfg(all(feature = "arrow", not(loom)))]
pub use views::SharedArrow;
#[cfg(all(feature = "sprs", not(loom)))]
pub use views::SharedCsMat;
