//! [`Backing`]: where the memory of a segment comes from.

use std::fmt;
use std::path::PathBuf;

/// Where the memory of a segment is wanted. An explicit choice never falls back to another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backing {
    /// The first that works of anonymous, named, and a file in the system's temporary directory. What was chosen
    /// is told by [`Segment::backing`](crate::Segment::backing).
    #[default]
    Auto,
    /// Memory without a name (`memfd`): nothing to leak, not bound by the size of `/dev/shm`, sealed when
    /// frozen. Linux.
    Anonymous,
    /// Shared memory with a random name, through the `shared_memory` crate. Every platform.
    Named,
    /// A memory-mapped file in this directory: for models larger than memory.
    File(PathBuf),
}

/// Where the memory of a segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BackingKind {
    /// Memory without a name.
    Anonymous,
    /// Named shared memory.
    Named,
    /// A memory-mapped file.
    File,
}

impl BackingKind {
    /// Its name: `anonymous`, `named` or `file`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Named => "named",
            Self::File => "file",
        }
    }
}

impl fmt::Display for BackingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
