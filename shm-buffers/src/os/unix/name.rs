//! The name of a segment, in the name space of shared memory or in a file system.

use std::path::PathBuf;

/// A name that is removed when this is dropped, by the process that made it: in a forked child the drop of a copy leaves
/// it alone.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) place: Place,
    maker: u32,
}

#[derive(Debug)]
pub(super) enum Place {
    Shm(String),
    #[cfg_attr(
        target_os = "linux",
        allow(dead_code, reason = "Linux finds unlinked files by descriptor")
    )]
    Path(PathBuf),
}

impl Name {
    pub(super) fn new(place: Place) -> Self {
        let maker = std::process::id();
        Self { place, maker }
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if self.maker != std::process::id() {
            return;
        }
        // It may be gone already: no error.
        match &self.place {
            Place::Shm(name) => drop(rustix::shm::unlink(&**name)),
            Place::Path(path) => drop(std::fs::remove_file(path)),
        }
    }
}
