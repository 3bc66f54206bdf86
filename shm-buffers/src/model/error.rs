//! The errors of models, model images and tensors in files: one type per operation.

use std::io;
use std::path::PathBuf;

use crate::error::{AttachError, CreateError, FreezeError};

/// Why a model was not shared.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// A part of the model could not be serialized.
    #[error("cannot serialize {}: {reason}", part(path, type_name))]
    Encode {
        /// The path of the part, such as `vocabulary.names`. Empty for the model itself.
        path: String,
        /// The type of the part, without the paths of modules.
        type_name: String,
        /// The reason, and the remedy if it is known.
        reason: String,
    },
    /// The header of the image could not be written.
    #[error("cannot lay out the image: {0}")]
    Layout(String),
    /// The segment of a buffer, which would stay there, has no handle for other processes.
    #[error("cannot refer to the segment of a buffer")]
    Handle(#[source] io::Error),
    /// The image's segment could not be created.
    #[error("cannot create the image's segment")]
    Create(#[from] CreateError),
    /// The segment could not be made read-only.
    #[error("cannot freeze the image")]
    Freeze(#[from] FreezeError),
}

/// Why a model was not loaded from an image.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A segment of the image cannot be attached.
    #[error("cannot attach the image")]
    Attach(#[from] AttachError),
    /// The bytes are not a model image.
    #[error("not a model image: {0}")]
    Format(String),
    /// The header exceeds the limit: parsing takes many times its length.
    #[error(
        "the image has a header of {len} bytes, which exceeds the limit of {limit}; raise `LoadOptions::max_header_bytes` for a source that you trust"
    )]
    HeaderTooLarge {
        /// Bytes of the header.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The image is not one of the requested type.
    #[error("cannot rebuild {model} from the image: {reason}")]
    Decode {
        /// The requested type.
        model: &'static str,
        /// The difference.
        reason: String,
    },
}

/// Why a file was not opened.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file can't be opened.
    #[error("cannot open {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The file can't be mapped, or was replaced at the same time.
    #[error("cannot map {}", path.display())]
    Map {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: AttachError,
    },
    /// The file has another format.
    #[error("{what} is not a valid {wanted}: {reason}")]
    Format {
        /// The file, or the segment.
        what: String,
        /// The expected format.
        wanted: &'static str,
        /// The difference.
        reason: String,
    },
    /// The header exceeds the limit: parsing takes many times its length.
    #[error(
        "{what} has a header of {len} bytes, which exceeds the limit of {limit}; raise `LoadOptions::max_header_bytes` for a file that you trust"
    )]
    HeaderTooLarge {
        /// The file, or the segment.
        what: String,
        /// Bytes of the header.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The file is compressed, and so can't be mapped.
    #[error("{what} is compressed: load it into memory with `Image::load_shared`")]
    Compressed {
        /// The file, or the segment.
        what: String,
    },
    /// The numbers are big-endian. They are used in place, so they can't be converted.
    #[error("{what} has big-endian elements ({descr}); save it again in little-endian order")]
    BigEndian {
        /// The file, or the segment.
        what: String,
        /// NumPy's name of the type.
        descr: String,
    },
    /// The elements are not plain numbers. A buffer can hold no other types.
    #[error("{what} has elements {descr}, which no buffer can hold")]
    Unsupported {
        /// The file, or the segment.
        what: String,
        /// NumPy's name of the type.
        descr: String,
    },
}

/// Why the bytes of an image are not known to be as they were saved.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The bytes are not a model image.
    #[error("not a model image: {0}")]
    Format(String),
    /// The image has no checksum: it was never saved, or another program saved it.
    #[error("the image has no checksum; saving it adds one")]
    NoChecksum,
    /// The bytes have changed since the image was saved.
    #[error("the image is damaged: its checksum is {computed:016x}, the saved one was {stored:016x}")]
    Mismatch {
        /// The saved checksum.
        stored: u64,
        /// The checksum of the bytes.
        computed: u64,
    },
}

/// Why an image was not loaded into memory.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum LoadSharedError {
    /// The file can't be opened, or has another format.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The segment could not be created.
    #[error("cannot create the image's segment")]
    Create(#[from] CreateError),
    /// The segment could not be made read-only.
    #[error("cannot freeze the image")]
    Freeze(#[from] FreezeError),
    /// The file can't be read, or was truncated while it was read.
    #[error("cannot read {what}")]
    Read {
        /// The file.
        what: String,
        /// The reason.
        source: io::Error,
    },
    /// The content, decompressed, exceeds the limit.
    #[error(
        "{what} holds {needed} bytes, which exceeds the limit of {limit}; raise `LoadOptions::max_bytes` for a file that you trust"
    )]
    TooLarge {
        /// The file, or the block.
        what: String,
        /// Bytes of the content.
        needed: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The bytes have changed since the image was saved.
    #[error("{what} is damaged")]
    Verify {
        /// The file.
        what: String,
        /// The checksums.
        source: VerifyError,
    },
    /// A compressed image has no valid index of its frames.
    #[error("{what} is not a seekable zstd file: {reason}")]
    Index {
        /// The file, or the segment.
        what: String,
        /// The difference.
        reason: String,
    },
    /// A frame of a compressed image can't be decoded, or differs from the index.
    #[error("frame {frame} of {what} is damaged")]
    Frame {
        /// The file, or the segment.
        what: String,
        /// The number of the frame, counted from 0.
        frame: usize,
        /// The decoder's error.
        source: io::Error,
    },
    /// Compressed images need the feature `zstd`.
    #[error("{what} is compressed, and this program was built without the feature `zstd`")]
    NoZstd {
        /// The file, or the segment.
        what: String,
    },
}

/// Names a part of a model.
fn part(path: &str, type_name: &str) -> String {
    match path {
        "" => format!("the model ({type_name})"),
        path => format!("`{path}` of the model ({type_name})"),
    }
}

crate::debug_with_causes!(ShareError, LoadError, OpenError, VerifyError, LoadSharedError);
