//! What systems other than Linux report of processes; and what the tests do without there.

use std::path::PathBuf;
use std::process::Child;

use super::TempDir;

#[cfg(unix)]
mod other_unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use other_unix::{children, ends_within, has_children, try_kill};
#[cfg(windows)]
pub(crate) use windows::{
    Event, children, ends_within, generate, has_children, processes_at_console, stop_ignoring_ctrl_c,
    try_kill,
};

/// Returns the pids of what a leader, which may have ended, has started and still runs.
pub(crate) fn processes_of(leader: &Child, _: &TempDir) -> Vec<u32> {
    children(leader.id())
}

/// Returns nothing: shared memory cannot be listed here.
pub(crate) fn shared_memory() -> Vec<PathBuf> {
    Vec::new()
}

/// Does nothing: see [`shared_memory`].
pub(crate) fn assert_no_shared_memory_left(_: &[PathBuf]) {}

/// Returns `None`: open files are not compared here. On Windows `ipc-channel` keeps some (see docs/PLATFORMS.md).
pub(crate) fn open_files() -> Option<usize> {
    None
}

/// Returns `None`: threads are not compared here.
pub(crate) fn threads() -> Option<usize> {
    None
}
