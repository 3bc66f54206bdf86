//! Models: serde types whose large parts are [`Buffer`](crate::Buffer)s, as one model image in memory and on disk.

mod account;
mod checksum;
pub(crate) mod error;
mod external_segments;
mod fingerprint;
pub(crate) mod header;
pub(crate) mod image;
mod layout;
mod load;
mod load_path;
mod memory;
mod names;
pub(crate) mod options;
mod path;
pub(crate) mod plain;
mod save;
#[cfg(feature = "zstd")]
mod seekable;
mod share;
pub(crate) mod source;
mod stage;
mod table;
mod tensor_writer;
mod trusted;
mod type_name;
mod version1;

pub use error::{LoadError, LoadSharedError, OpenError, ShareError, VerifyError};
pub use fingerprint::fingerprint;
pub use image::Image;
pub use memory::{FieldMemory, ModelMemory};
pub use options::{LoadOptions, SaveOptions};
#[cfg(feature = "zstd")]
pub use seekable::Compression;
pub use share::{share, share_move};
pub use stage::{StageError, stage, stage_with};
pub use tensor_writer::TensorWriter;
