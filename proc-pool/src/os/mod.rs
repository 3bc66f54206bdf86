//! Operating system calls of the pool, one module a platform, with one face.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub(crate) use unix::{
    ReceiverSet, cause, check_executable, check_writable, die_with, end_with_us, exit_now,
    ignore_broken_pipes, image_of_program, is_kill, is_no_program, now_ns, pipes, program, same_image,
    without_sigpipe,
};
#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub(crate) use windows::{
    ReceiverSet, cause, check_executable, check_writable, die_with, end_with_us, exit_now,
    ignore_broken_pipes, image_of_program, is_kill, is_no_program, now_ns, pipes, program, same_image,
    without_sigpipe,
};

/// How a worker finds its leader: one-shot servers of `ipc-channel`.
#[cfg(any(windows, target_os = "macos"))]
#[path = "names.rs"]
pub(crate) mod servers;
#[cfg(not(any(windows, target_os = "macos")))]
#[path = "sockets.rs"]
pub(crate) mod servers;

/// How a leader wakes a worker, and tells it to end.
#[cfg(target_os = "linux")]
#[path = "futex.rs"]
pub(crate) mod doorbell;
#[cfg(not(target_os = "linux"))]
#[path = "bytes.rs"]
pub(crate) mod doorbell;

#[cfg(unix)]
mod signals;
#[cfg(unix)]
pub(crate) use signals::{Handlers, leave_interrupts_to_leader, raise};
#[cfg(windows)]
mod console;
#[cfg(windows)]
pub(crate) use console::{Handlers, leave_interrupts_to_leader, raise};

#[cfg(all(feature = "stacks", target_os = "linux"))]
pub(crate) mod stack;

mod fork;
pub(crate) use fork::Origin;

mod oom;
pub(crate) use oom::OomKills;

mod memory;
pub use memory::Memory;
pub(crate) use memory::own_memory;

use std::io;

use serde::{Deserialize, Serialize};

/// What a process may be told from outside, by whatever means the system has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// The terminal's Ctrl-C.
    Interrupt,
    /// To end soon: SIGTERM; a console that is closed.
    Terminate,
    /// To tell what it is doing: SIGUSR1; Ctrl-Break.
    Dump,
}

/// The identity of an executable: what tells whether two processes run the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Image {
    pub(crate) file: (u64, u64),
    pub(crate) len: u64,
    /// Nanoseconds since the Unix epoch.
    pub(crate) modified: u128,
}

impl Image {
    /// The executable of this process, looked up once, early: it may be replaced later.
    pub(crate) fn own() -> io::Result<Self> {
        static OWN: std::sync::OnceLock<Image> = std::sync::OnceLock::new();
        if let Some(image) = OWN.get() {
            return Ok(*image);
        }
        let image = image_of_program()?;
        Ok(*OWN.get_or_init(|| image))
    }

    #[cfg(test)]
    pub(crate) fn other() -> Self {
        Self {
            file: (0, 0),
            len: 0,
            modified: 0,
        }
    }
}
