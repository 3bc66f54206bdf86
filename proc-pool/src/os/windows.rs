//! Windows.

pub(crate) mod pipes;
pub(crate) mod servers;

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitStatus;
use std::time::UNIX_EPOCH;

use super::Image;
use crate::error::Cause;

/// What to execute to run this program again.
pub(crate) fn program() -> io::Result<OsString> {
    Ok(std::env::current_exe()?.into())
}

/// Whether `path` may be a program.
pub(crate) fn check_executable(path: &Path) -> io::Result<()> {
    match std::fs::metadata(path)?.is_file() {
        true => Ok(()),
        false => Err(io::Error::other("it is not a file")),
    }
}

/// No files are made in it here.
pub(crate) fn check_writable(_path: &Path) -> io::Result<()> {
    Ok(())
}

/// Whether the system refused to execute a file because of what is in it.
pub(crate) fn is_no_program(error: &io::Error) -> bool {
    const ERROR_BAD_EXE_FORMAT: i32 = 193;
    error.raw_os_error() == Some(ERROR_BAD_EXE_FORMAT)
}

pub(crate) fn image_of_program() -> io::Result<Image> {
    let meta = std::fs::metadata(program()?)?;
    let modified = meta
        .modified()?
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos());
    Ok(Image {
        file: (0, 0),
        len: meta.len(),
        modified,
    })
}

/// Entries come from statically linked code here.
pub(crate) fn same_image(_one: usize, _other: usize) -> bool {
    true
}

/// Ends this process.
pub(crate) fn exit_now(code: i32) -> ! {
    std::process::exit(code)
}

/// The liveness channel ends a worker with its leader.
pub(crate) fn die_with(_leader: u32) -> bool {
    true
}

/// Nanoseconds of a clock that all processes of the machine read alike.
pub(crate) fn now_ns() -> u64 {
    std::time::SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64)
}

/// Channels are named pipes here, without a path.
pub(crate) const MAX_SOCKET_PATH: Option<usize> = None;

/// There are no such signals here.
pub(crate) fn ignore_broken_pipes() {}

/// There are no such signals here.
pub(crate) fn without_sigpipe<R>(send: impl FnOnce() -> R) -> R {
    send()
}

/// Whether a process ended the way one ends that we kill: `TerminateProcess` with status 1.
pub(crate) fn is_kill(status: ExitStatus) -> bool {
    status.code() == Some(1)
}

pub(crate) fn cause(status: ExitStatus) -> Cause {
    status
        .code()
        .map_or(Cause::Unknown, |code| Cause::Exited { code })
}
