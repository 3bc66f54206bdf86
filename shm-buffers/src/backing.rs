//! [`Backing`]: the kind of memory that a segment is created in.

use std::fmt;
use std::path::PathBuf;

/// The kind of memory in which a segment is created. Only [`Auto`](Self::Auto) falls back to another kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backing {
    /// The first that works: anonymous memory, named memory, or a file in the system's temporary directory.
    /// [`Segment::backing`](crate::Segment::backing) returns the choice.
    #[default]
    Auto,
    /// Memory without a name (`memfd`): it can't leak, is not bounded by the size of `/dev/shm`, and is sealed when frozen.
    /// Linux only.
    Anonymous,
    /// Like [`Anonymous`](Self::Anonymous), on huge pages if the system grants any: fewer page faults while a model is filled,
    /// and fewer page table entries in every worker. Memory is rounded up to whole huge pages.
    /// [`Segment::pages`](crate::Segment::pages) returns the kind of pages that were granted. Linux only.
    HugePages,
    /// Shared memory with a random name, on every platform: POSIX shared memory through the `shared_memory` crate (on Linux with
    /// the feature `named`, which is on by default), or on Windows a mapping of the paging file that exists until the last
    /// process closes it.
    ///
    /// POSIX shared memory outlives a process that is killed before it drops its segments. Later named segments of the same
    /// user remove what was left behind, and so does
    /// [`remove_orphaned_segments`](crate::remove_orphaned_segments).
    Named,
    /// A memory-mapped file in this directory, for models that are larger than memory.
    File(PathBuf),
}

impl Backing {
    /// Returns the kind of memory, or `None` if it is chosen later.
    pub(crate) fn kind(&self) -> Option<BackingKind> {
        match self {
            Self::Anonymous | Self::HugePages => Some(BackingKind::Anonymous),
            Self::Named => Some(BackingKind::Named),
            Self::File(_) => Some(BackingKind::File),
            Self::Auto => None,
        }
    }
}

/// The kind of memory that a segment is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "models", derive(serde::Serialize, serde::Deserialize))]
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
    /// Returns `anonymous`, `named` or `file`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Named => "named",
            Self::File => "file",
        }
    }
}

impl fmt::Display for BackingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whether the core dump of a crashed process contains a segment.
///
/// On Linux, segments are excluded in each process that maps them: otherwise a crashed worker would leave a core as large as
/// the model. (The kernel's default, `coredump_filter` 0x33, includes memory without a name, such as the `memfd`s of
/// [`Backing::Anonymous`] and the unlinked files of [`Backing::File`]. It excludes named memory and other files.)
/// [`Segment::core_dump`](crate::Segment::core_dump) changes this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CoreDump {
    /// The core dump contains the segment, if the kernel's filter allows it.
    Include,
    /// The core dump does not contain the segment.
    Exclude,
}

/// The kind of pages that memory consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Pages {
    /// The system's ordinary pages.
    Ordinary,
    /// Transparent huge pages, where the system has free ones and its setting
    /// `/sys/kernel/mm/transparent_hugepage/shmem_enabled` allows them.
    Transparent,
    /// Huge pages that the administrator has reserved (`vm.nr_hugepages`).
    Reserved,
}

impl fmt::Display for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ordinary => "ordinary",
            Self::Transparent => "transparent huge",
            Self::Reserved => "reserved huge",
        })
    }
}
