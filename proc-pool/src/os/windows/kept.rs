//! What a path led to once.

use std::io;
use std::path::{Path, PathBuf};

/// A program or a directory, reached by its absolute path: a file that is executed can't be replaced here, nor can a
/// directory that a process works in.
#[derive(Debug)]
pub(crate) struct Kept(PathBuf);

impl Kept {
    /// A directory.
    ///
    /// # Errors
    /// When the path leads to something else, or nowhere.
    pub(crate) fn directory(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        match std::fs::metadata(&path)?.is_dir() {
            true => Ok(Self(path)),
            false => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// A program that may be executed.
    ///
    /// # Errors
    /// When it is no file.
    pub(crate) fn program(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        super::check_executable(&path)?;
        Ok(Self(path))
    }

    /// What it was found as.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// What leads there.
    pub(crate) fn reach(&self) -> PathBuf {
        self.0.clone()
    }
}
