//! The errors of segments and models: one type per operation.

use std::io;
use std::path::PathBuf;

use crate::backing::BackingKind;

/// Why no memory was created.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The memory or disk space that is left does not suffice. Nothing was touched.
    #[error("{needed} bytes of {backing} memory are needed, {available} are available; {hint}")]
    NoSpace {
        /// Bytes asked for.
        needed: u64,
        /// Bytes that are left.
        available: u64,
        /// The kind of memory.
        backing: BackingKind,
        /// The remedy.
        hint: &'static str,
    },
    /// This backing does not exist on this platform.
    #[error("{backing} memory does not exist on this platform; choose `Backing::Auto`")]
    Unsupported {
        /// The requested backing.
        backing: BackingKind,
    },
    /// The operating system refused.
    #[error("cannot {step} {len} bytes of {backing} memory")]
    Os {
        /// The operation that failed, such as `map`.
        step: &'static str,
        /// Bytes asked for.
        len: usize,
        /// The kind of memory.
        backing: BackingKind,
        /// The reason.
        source: io::Error,
    },
    /// No file can be created in the directory of a file-backed segment.
    #[error("cannot create a segment file in {}; choose a writable directory", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

impl CreateError {
    pub(crate) fn os(step: &'static str, len: usize, backing: BackingKind, source: io::Error) -> Self {
        Self::Os {
            step,
            len,
            backing,
            source,
        }
    }
}

/// Why memory could not be made read-only permanently.
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
        /// The memory that the handle leads to.
        what: String,
        /// The reason.
        source: io::Error,
    },
    /// The handle leads to other memory: its owner has exited, and the descriptor or name was reused.
    #[error("{what} is no longer the memory that the handle was made for")]
    Replaced {
        /// The memory that the handle leads to.
        what: String,
    },
    /// The memory is not sealed: its owner could change it, or truncate it while it is read.
    #[error("{what} is not sealed; its owner must freeze it before it makes a handle")]
    Unsealed {
        /// The memory that the handle leads to.
        what: String,
    },
    /// The memory exists but cannot be mapped.
    #[error("cannot map {len} bytes of {what}")]
    Map {
        /// The memory that the handle leads to.
        what: String,
        /// Bytes.
        len: usize,
        /// The reason.
        source: io::Error,
    },
    /// The limit on this process's address space does not allow the mapping.
    #[error(
        "cannot map {what}: {needed} bytes of address space are needed, {available} are available; {hint}"
    )]
    AddressSpace {
        /// The memory or file that the handle leads to.
        what: String,
        /// Bytes.
        needed: u64,
        /// Bytes that the limit leaves.
        available: u64,
        /// The remedy.
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
    /// The header of the image could not be written.
    #[error("cannot lay out the image: {0}")]
    Layout(String),
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

crate::debug_with_causes!(CreateError, FreezeError, AttachError, ShareError, LoadError);
