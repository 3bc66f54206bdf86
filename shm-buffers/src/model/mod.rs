//! Models: serde types whose big parts are [`Buffer`](crate::Buffer)s, shared as one image, in memory and on disk.

mod checksum;
pub(crate) mod error;
pub(crate) mod file;
pub(crate) mod header;
mod image;
mod names;
mod outside;
mod path;
pub(crate) mod scope;
#[cfg(feature = "zstd")]
mod seekable;
mod spread;

pub use error::{LoadSharedError, OpenError, SaveError, VerifyError};
pub use file::SaveOptions;
pub use image::{Image, share, share_move};
#[cfg(feature = "zstd")]
pub use seekable::Compression;
