//! [`OwnedName`]: the name of a segment, in the namespace of shared memory or in a file system.

use std::path::PathBuf;

/// A name that is removed when this is dropped in the process that created it. In a forked child, dropping a copy does not
/// remove the name.
#[derive(Debug)]
pub(super) struct OwnedName {
    pub(super) name: Name,
    creator: u32,
}

#[derive(Debug)]
pub(super) enum Name {
    Shm(String),
    Path(PathBuf),
}

impl OwnedName {
    pub(super) fn new(name: Name) -> Self {
        let creator = std::process::id();
        Self { name, creator }
    }
}

impl Drop for OwnedName {
    fn drop(&mut self) {
        if self.creator != std::process::id() {
            return;
        }
        // It is no error if it is removed already.
        match &self.name {
            Name::Shm(name) => drop(rustix::shm::unlink(&**name)),
            Name::Path(path) => drop(std::fs::remove_file(path)),
        }
    }
}
