//! What can go wrong: one type per verb.

use std::io;
use std::path::PathBuf;

use crate::backing::BackingKind;

/// Why no memory was made.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// It does not fit. Nothing was touched.
    #[error("{needed} bytes of {backing} memory are needed, {available} are available; {hint}")]
    NoSpace {
        /// Bytes asked for.
        needed: u64,
        /// Bytes that could be had.
        available: u64,
        /// Where they were looked for.
        backing: BackingKind,
        /// What would help.
        hint: &'static str,
    },
    /// This backing does not exist on this platform.
    #[error("{backing} memory does not exist on this platform; choose `Backing::Auto`")]
    Unsupported {
        /// The backing that was asked for.
        backing: BackingKind,
    },
    /// The operating system refused.
    #[error("cannot {step} {len} bytes of {backing} memory")]
    Os {
        /// What was being done.
        step: &'static str,
        /// Bytes asked for.
        len: usize,
        /// Where.
        backing: BackingKind,
        /// Its reason.
        source: io::Error,
    },
    /// The directory for a file-backed segment does not work.
    #[error("cannot create a segment file in {}; choose a writable directory", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// Why memory could not be made read-only for good.
#[derive(thiserror::Error)]
#[error("cannot {step} a segment of {len} bytes")]
pub struct FreezeError {
    pub(crate) step: &'static str,
    pub(crate) len: usize,
    pub(crate) source: io::Error,
}

/// Why a handle could not be attached.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The memory cannot be reached.
    #[error("cannot open {what}; its owner must be alive, run as the same user and be in the same container")]
    Unreachable {
        /// What the handle names.
        what: String,
        /// The reason.
        source: io::Error,
    },
    /// Something else is there: the owner has gone and its descriptor or name was used again.
    #[error("{what} is no longer the memory that the handle was made for")]
    Replaced {
        /// What the handle names.
        what: String,
    },
    /// Its owner could still change it or cut it off under a reader's feet.
    #[error("{what} is not sealed; its owner must freeze it before it makes a handle")]
    Unsealed {
        /// What the handle names.
        what: String,
    },
    /// It is there but cannot be mapped.
    #[error("cannot map {len} bytes of {what}")]
    Map {
        /// What the handle names.
        what: String,
        /// Bytes.
        len: usize,
        /// The reason.
        source: io::Error,
    },
    /// It is there, but this process may not map as much as that.
    #[error(
        "cannot map {what}: {needed} bytes of address space are needed, {available} are available; {hint}"
    )]
    AddressSpace {
        /// The memory or file of the handle.
        what: String,
        /// Bytes.
        needed: u64,
        /// Bytes that the limit leaves.
        available: u64,
        /// What would help.
        hint: &'static str,
        /// The reason.
        source: io::Error,
    },
}

/// Why a model was not shared.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// The model's skeleton could not be serialized.
    #[error("cannot serialize the model: {0}")]
    Encode(String),
    /// The model serialized its buffers differently while it was moved: two serializations must agree.
    #[error("cannot lay out the image: {0}")]
    Layout(String),
    /// No memory for it.
    #[error("cannot create the image's segment")]
    Create(#[from] CreateError),
    /// It could not be made read-only.
    #[error("cannot freeze the image")]
    Freeze(#[from] FreezeError),
}

/// Why an image was not turned back into a model.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The handle leads nowhere.
    #[error("cannot attach the image")]
    Attach(#[from] AttachError),
    /// The bytes are no image.
    #[error("not a model image: {0}")]
    Format(String),
    /// Its header is longer than is parsed without being asked: parsing takes many times its length.
    #[error(
        "the image has a header of {len} bytes, which exceeds the limit of {limit}; raise `LoadOptions::max_header_bytes` for a source that you trust"
    )]
    HeaderTooLarge {
        /// Bytes of its header.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// The image holds something else than the wanted type.
    #[error("cannot rebuild {model} from the image: {reason}")]
    Decode {
        /// The type that was asked for.
        model: &'static str,
        /// What did not fit.
        reason: String,
    },
}

#[cfg(not(loom))]
impl From<crate::model::header::HeaderError> for LoadError {
    fn from(error: crate::model::header::HeaderError) -> Self {
        use crate::model::header::HeaderError;
        match error {
            HeaderError::Format(reason) => Self::Format(reason),
            HeaderError::TooLong { len, limit } => Self::HeaderTooLarge { len, limit },
        }
    }
}

crate::debug_with_causes!(CreateError, FreezeError, AttachError, ShareError, LoadError);
