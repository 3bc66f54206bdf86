//! [`Backing`]: where the memory of a segment comes from.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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
    /// As [`Anonymous`](Self::Anonymous), on huge pages if the system gives any: fewer page faults to fill a model
    /// and fewer entries in the page tables of every worker. Which pages were got is told by
    /// [`Segment::pages`](crate::Segment::pages); memory is rounded up to whole huge pages. Linux.
    HugePages,
    /// Shared memory with a random name. Every platform: POSIX shared memory through the `shared_memory` crate, or a
    /// mapping of the paging file that goes with the last process that has it open (Windows).
    Named,
    /// A memory-mapped file in this directory: for models larger than memory.
    File(PathBuf),
}

impl Backing {
    /// Where memory of this backing is; `None` where that is chosen later.
    pub(crate) fn kind(&self) -> Option<BackingKind> {
        match self {
            Self::Anonymous | Self::HugePages => Some(BackingKind::Anonymous),
            Self::Named => Some(BackingKind::Named),
            Self::File(_) => Some(BackingKind::File),
            Self::Auto => None,
        }
    }
}

/// Where the memory of a segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
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

/// Whether the core dump of a process that crashes contains a segment.
///
/// Segments are excluded on Linux, in each process that maps them, or a worker that crashes would leave a core as large as
/// the model. (Without that, the kernel's default, `coredump_filter` 0x33, includes memory without a name: `memfd` and files
/// that were unlinked, as [`Backing::Anonymous`] and [`Backing::File`] make them. It leaves out named memory and other
/// files.) [`Segment::core_dump`](crate::Segment::core_dump) changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CoreDump {
    /// The core contains the segment, if the kernel's filter lets it.
    Include,
    /// It does not.
    Exclude,
}

/// The pages that memory is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Pages {
    /// The system's ordinary ones.
    Ordinary,
    /// Huge ones wherever the system finds room for them (transparent huge pages of shared memory: its setting
    /// `/sys/kernel/mm/transparent_hugepage/shmem_enabled` allows them).
    Transparent,
    /// Huge ones that the administrator has reserved (`vm.nr_hugepages`).
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
