//! One-shot servers are named pipes here, that leave nothing behind.

use std::io;
use std::path::Path;

/// Says that the server's leader lives, while it is held.
#[derive(Debug)]
pub(crate) struct Mark;

impl Mark {
    /// There is no directory to mark.
    pub(crate) fn new(_socket: &Path) -> io::Result<Option<Self>> {
        Ok(None)
    }
}

/// Whether somebody could connect to the server: connecting tells.
pub(crate) fn is_open(_socket: &Path) -> bool {
    true
}

/// There is nothing to remove.
pub(crate) fn remove_server(_socket: &Path) {}

/// There is nothing to remove.
pub(crate) fn sweep(_dir: &Path) {}
