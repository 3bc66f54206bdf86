//! [`PinnedPath`]: a program or directory that was found once by its path.

use std::io;
use std::path::{Path, PathBuf};

/// A program or a directory, accessed by its absolute path. Windows does not let a file be replaced while it is executed, nor
/// a directory in which a process works.
#[derive(Debug)]
pub(crate) struct PinnedPath(PathBuf);

impl PinnedPath {
    /// Finds a directory.
    ///
    /// # Errors
    /// When the path leads to something else, or does not exist.
    pub(crate) fn directory(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        match std::fs::metadata(&path)?.is_dir() {
            true => Ok(Self(path)),
            false => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// Finds a program.
    ///
    /// # Errors
    /// When it is not a file.
    pub(crate) fn program(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        super::check_executable(&path)?;
        Ok(Self(path))
    }

    /// Returns the absolute path by which it was found.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the path by which a new process can access it.
    pub(crate) fn exec_path(&self) -> PathBuf {
        self.0.clone()
    }
}
