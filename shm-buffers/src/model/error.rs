//! What can go wrong with images and tensors in files: one type per verb.

use std::io;
use std::path::PathBuf;

use crate::error::{AttachError, CreateError, FreezeError};

/// Why a file was not opened.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It can't be reached.
    #[error("cannot open {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// It can't be mapped, or was replaced at that very moment.
    #[error("cannot map {}", path.display())]
    Map {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: AttachError,
    },
    /// It is something else.
    #[error("{what} is no {wanted}: {reason}")]
    Format {
        /// The file, or the segment.
        what: String,
        /// What it was opened as.
        wanted: &'static str,
        /// What does not fit.
        reason: String,
    },
    /// Its header is longer than is parsed without being asked: parsing takes many times its length.
    #[error(
        "{what} has a header of {len} bytes, which exceeds the limit of {limit}; raise `LoadOptions::max_header_bytes` for a file that you trust"
    )]
    HeaderTooLarge {
        /// The file, or the segment.
        what: String,
        /// Bytes of its header.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// It is compressed, and can't be mapped.
    #[error("{what} is compressed: load it into memory with `Image::load_shared`")]
    Compressed {
        /// The file, or the segment.
        what: String,
    },
    /// Its numbers are big-endian, and mapped memory is used as it is.
    #[error("{what} has big-endian elements ({descr}); save it again in little-endian order")]
    BigEndian {
        /// The file, or the segment.
        what: String,
        /// NumPy's name of the type.
        descr: String,
    },
    /// Its elements are no plain numbers that a buffer could hold.
    #[error("{what} has elements {descr}, which no buffer can hold")]
    Unsupported {
        /// The file, or the segment.
        what: String,
        /// NumPy's name of the type.
        descr: String,
    },
}

/// Why an image's bytes are not what was saved.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// They are no image.
    #[error("not a model image: {0}")]
    Format(String),
    /// There is nothing to compare with: the image was never saved, or by another program.
    #[error("the image carries no checksum; saving it adds one")]
    NoChecksum,
    /// Something has changed.
    #[error("the image is damaged: its checksum is {computed:016x}, saved was {stored:016x}")]
    Mismatch {
        /// What was saved.
        stored: u64,
        /// What the bytes have.
        computed: u64,
    },
}

/// Why an image was not loaded into memory.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum LoadSharedError {
    /// The file can't be reached, or is no image.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// No memory for it.
    #[error("cannot create the image's segment")]
    Create(#[from] CreateError),
    /// It could not be made read-only.
    #[error("cannot freeze the image")]
    Freeze(#[from] FreezeError),
    /// Reading it failed, or the file became shorter during that.
    #[error("cannot read {what}")]
    Read {
        /// The file.
        what: String,
        /// The reason.
        source: io::Error,
    },
    /// It has more bytes, decompressed, than are loaded without being asked.
    #[error(
        "{what} holds {needed} bytes, which exceeds the limit of {limit}; raise `LoadOptions::max_bytes` for a file that you trust"
    )]
    TooLarge {
        /// The file, or the block.
        what: String,
        /// Bytes of its content.
        needed: u64,
        /// The limit.
        limit: u64,
    },
    /// Its bytes are not what was saved.
    #[error("{what} is damaged")]
    Verify {
        /// The file.
        what: String,
        /// The numbers.
        source: VerifyError,
    },
    /// A compressed image has no valid index of its frames.
    #[error("{what} is no seekable zstd file: {reason}")]
    Index {
        /// The file, or the segment.
        what: String,
        /// What does not fit.
        reason: String,
    },
    /// A frame of a compressed image can't be decoded to what the index promises.
    #[error("frame {frame} of {what} is damaged")]
    Frame {
        /// The file, or the segment.
        what: String,
        /// Counted from 0.
        frame: usize,
        /// What the decoder says.
        source: io::Error,
    },
    /// Compressed images need the feature `zstd`.
    #[error("{what} is compressed, and this program was built without the feature `zstd`")]
    NoZstd {
        /// The file, or the segment.
        what: String,
    },
}

crate::debug_with_causes!(OpenError, VerifyError, LoadSharedError);
