//! Models: serde types whose big parts are [`Buffer`](crate::Buffer)s, shared as one image, in memory and on disk.

mod checksum;
pub(crate) mod error;
pub(crate) mod file;
pub(crate) mod header;
pub(crate) mod image;
mod names;
pub(crate) mod options;
mod outside;
mod path;
mod save;
pub(crate) mod scope;
#[cfg(feature = "zstd")]
mod seekable;
pub(crate) mod source;
mod spread;

pub use error::{LoadSharedError, OpenError, VerifyError};
pub use image::{Image, share, share_move};
pub use options::{LoadOptions, SaveOptions};
#[cfg(feature = "zstd")]
pub use seekable::Compression;
