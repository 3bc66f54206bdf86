//! The errors of segments and regions: one type per operation.
//!
//! `Display` and `Error` are written by hand, because the crate has no procedural macro without its feature `models`.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::backing::BackingKind;

/// Why no memory was created.
#[non_exhaustive]
pub enum CreateError {
    /// The memory or disk space that is left does not suffice. Nothing was touched.
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
    /// This backing does not exist on this platform, or needs a feature of this crate.
    Unsupported {
        /// The requested backing.
        backing: BackingKind,
    },
    /// The operating system refused.
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

impl fmt::Display for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSpace {
                needed,
                available,
                backing,
                hint,
            } => write!(
                f,
                "{needed} bytes of {backing} memory are needed, {available} are available; {hint}"
            ),
            Self::Unsupported { backing } => write!(
                f,
                "{backing} memory does not exist on this platform, or needs a feature of shm-buffers; choose `Backing::Auto`"
            ),
            Self::Os {
                step, len, backing, ..
            } => write!(f, "cannot {step} {len} bytes of {backing} memory"),
            Self::Directory { dir, .. } => write!(
                f,
                "cannot create a segment file in {}; choose a writable directory",
                dir.display()
            ),
        }
    }
}

impl Error for CreateError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::NoSpace { .. } | Self::Unsupported { .. } => None,
            Self::Os { source, .. } | Self::Directory { source, .. } => Some(source),
        }
    }
}

/// Why memory could not be made read-only permanently.
pub struct FreezeError {
    pub(crate) step: &'static str,
    pub(crate) len: usize,
    pub(crate) source: io::Error,
}

impl fmt::Display for FreezeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} a segment of {} bytes", self.step, self.len)
    }
}

impl Error for FreezeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

/// Why a handle could not be attached.
#[non_exhaustive]
pub enum AttachError {
    /// The memory cannot be reached.
    Unreachable {
        /// The memory that the handle leads to.
        what: String,
        /// The reason.
        source: io::Error,
    },
    /// The handle leads to other memory: its owner has exited, and the descriptor or name was reused.
    Replaced {
        /// The memory that the handle leads to.
        what: String,
    },
    /// The memory is not sealed: its owner could change it, or truncate it while it is read.
    Unsealed {
        /// The memory that the handle leads to.
        what: String,
    },
    /// The memory exists but cannot be mapped.
    Map {
        /// The memory that the handle leads to.
        what: String,
        /// Bytes.
        len: usize,
        /// The reason.
        source: io::Error,
    },
    /// The limit on this process's address space does not allow the mapping.
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

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { what, .. } => write!(
                f,
                "cannot open {what}; its owner must be alive, run as the same user and be in the same container"
            ),
            Self::Replaced { what } => {
                write!(f, "{what} is no longer the memory that the handle was made for")
            }
            Self::Unsealed { what } => write!(
                f,
                "{what} is not sealed; its owner must freeze it before it makes a handle"
            ),
            Self::Map { what, len, .. } => write!(f, "cannot map {len} bytes of {what}"),
            Self::AddressSpace {
                what,
                needed,
                available,
                hint,
                ..
            } => write!(
                f,
                "cannot map {what}: {needed} bytes of address space are needed, {available} are available; {hint}"
            ),
        }
    }
}

impl Error for AttachError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Replaced { .. } | Self::Unsealed { .. } => None,
            Self::Unreachable { source, .. }
            | Self::Map { source, .. }
            | Self::AddressSpace { source, .. } => Some(source),
        }
    }
}

/// Why a text is not a [`SegmentHandle`](crate::SegmentHandle) or a [`RegionHandle`](crate::RegionHandle).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ParseHandleError {
    /// The type of handle that was expected.
    pub(crate) expected: &'static str,
    pub(crate) reason: &'static str,
}

impl fmt::Display for ParseHandleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expected, reason } = self;
        write!(
            f,
            "not the text of a {expected}: {reason}; pass on what the {expected} displays, unchanged"
        )
    }
}

impl Error for ParseHandleError {}

crate::debug_with_causes!(CreateError, FreezeError, AttachError, ParseHandleError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_is_said_once() {
        let source = || io::Error::other("the reason");
        let what = || "shared memory /x".to_owned();
        let (backing, hint) = (BackingKind::Named, "do that");
        let dir = PathBuf::from("dir");
        let errors: [(Box<dyn Error>, bool, &[&str]); 10] = [
            (
                Box::new(CreateError::NoSpace {
                    needed: 71,
                    available: 53,
                    backing,
                    hint,
                }),
                false,
                &["71", "53", "named", hint],
            ),
            (Box::new(CreateError::Unsupported { backing }), false, &["named"]),
            (
                Box::new(CreateError::os("map", 71, backing, source())),
                true,
                &["map 71", "named"],
            ),
            (
                Box::new(CreateError::Directory {
                    dir,
                    source: source(),
                }),
                true,
                &["in dir;"],
            ),
            (
                Box::new(FreezeError {
                    step: "seal",
                    len: 71,
                    source: source(),
                }),
                true,
                &["seal", "71"],
            ),
            (
                Box::new(AttachError::Unreachable {
                    what: what(),
                    source: source(),
                }),
                true,
                &["memory /x"],
            ),
            (
                Box::new(AttachError::Replaced { what: what() }),
                false,
                &["memory /x"],
            ),
            (
                Box::new(AttachError::Unsealed { what: what() }),
                false,
                &["memory /x"],
            ),
            (
                Box::new(AttachError::Map {
                    what: what(),
                    len: 71,
                    source: source(),
                }),
                true,
                &["memory /x", "71"],
            ),
            (
                Box::new(AttachError::AddressSpace {
                    what: what(),
                    needed: 71,
                    available: 53,
                    hint,
                    source: source(),
                }),
                true,
                &["memory /x", "71", "53", hint],
            ),
        ];
        for (error, has_source, parts) in &errors {
            crate::assert_said_once(&**error);
            assert_eq!(error.source().is_some(), *has_source, "{error}");
            assert!(
                parts.iter().all(|part| error.to_string().contains(part)),
                "{error}"
            );
        }
    }
}
