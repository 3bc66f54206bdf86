//! Models: serde types whose large parts are [`Buffer`](crate::Buffer)s, as one model image in memory and on disk.

mod checksum;
pub(crate) mod error;
mod external_segments;
pub(crate) mod header;
pub(crate) mod image;
mod load;
mod names;
pub(crate) mod options;
mod path;
pub(crate) mod plain;
mod save;
#[cfg(feature = "zstd")]
mod seekable;
mod share;
pub(crate) mod source;

pub use error::{LoadError, LoadSharedError, OpenError, ShareError, VerifyError};
pub use image::Image;
pub use options::{LoadOptions, SaveOptions};
#[cfg(feature = "zstd")]
pub use seekable::Compression;
pub use share::{share, share_move};
