//! One-shot servers whose names are no paths, and which leave nothing behind: named pipes, Mach ports.

use std::io;
use std::path::Path;

/// Longest path of a socket, in bytes: there are none.
pub(crate) const MAX_SOCKET_PATH: Option<usize> = None;

/// Says that the server's leader lives, while it is held.
#[derive(Debug)]
pub(crate) struct Mark;

impl Mark {
    /// There is nothing to mark.
    pub(crate) fn new(_name: &Path) -> io::Result<Option<Self>> {
        Ok(None)
    }
}

/// Whether somebody could connect to the server: connecting tells.
pub(crate) fn is_open(_name: &Path) -> bool {
    true
}

/// There is nothing to remove.
pub(crate) fn remove_server(_name: &Path) {}

/// There is nothing to remove.
pub(crate) fn sweep(_dir: &Path) {}
