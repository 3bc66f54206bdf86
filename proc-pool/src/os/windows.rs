//! Windows.
#![allow(unsafe_code)]

pub(crate) mod doorbell;
pub(crate) mod introduction;
mod job;
mod kept;
mod listener;
pub(crate) mod pipes;

use std::ffi::OsString;
use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::path::Path;
use std::process::ExitStatus;
use std::sync::OnceLock;

use windows_sys::Win32::System::Diagnostics::Debug::{
    SEM_FAILCRITICALERRORS, SEM_NOGPFAULTERRORBOX, SetErrorMode,
};
use windows_sys::Win32::System::Performance::{QueryPerformanceCounter, QueryPerformanceFrequency};
use windows_sys::Win32::System::ProcessStatus::{
    K32GetProcessMemoryInfo, PROCESS_MEMORY_COUNTERS, PROCESS_MEMORY_COUNTERS_EX,
};
use windows_sys::Win32::System::Threading::{
    GetCurrentProcess, OpenProcess, PROCESS_QUERY_LIMITED_INFORMATION, TerminateProcess,
};

use crate::error::Cause;

pub(crate) use job::Group;
pub(crate) use kept::Kept;
pub(crate) use listener::{Listener, Notes, Waker};

/// What to execute to run this program again.
pub(crate) fn program() -> io::Result<OsString> {
    Ok(std::env::current_exe()?.into())
}

/// The arguments to run this program again with, its own name first.
pub(crate) fn arguments() -> std::env::ArgsOs {
    std::env::args_os()
}

/// Whether `path` may be a program.
pub(crate) fn check_executable(path: &Path) -> io::Result<()> {
    match std::fs::metadata(path)?.is_file() {
        true => Ok(()),
        false => Err(io::Error::other("it is not a file")),
    }
}

/// Whether the system refused to execute a file because of what is in it.
pub(crate) fn is_no_program(error: &io::Error) -> bool {
    const ERROR_BAD_EXE_FORMAT: i32 = 193;
    error.raw_os_error() == Some(ERROR_BAD_EXE_FORMAT)
}

/// Ends this process, at once and without any clean-up that could hang.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: it has no preconditions.
    let own = unsafe { GetCurrentProcess() };
    // SAFETY: a process may end itself.
    unsafe { TerminateProcess(own, code.cast_unsigned()) };
    // Not reached.
    std::process::abort()
}

/// Ends this worker; the leader's end has ended the job that the worker is in, with what it has started.
pub(crate) fn end_group(code: i32) -> ! {
    exit_now(code)
}

/// A job of the leader's ends a worker with its leader, and the liveness channel does. A worker must end immediately when it
/// crashes: nobody is there to answer a dialog.
pub(crate) fn die_with(_leader: u32) -> bool {
    // SAFETY: it has no preconditions.
    unsafe { SetErrorMode(SEM_FAILCRITICALERRORS | SEM_NOGPFAULTERRORBOX) };
    true
}

/// Nanoseconds of a clock that all processes of the machine read alike, and that nobody sets.
pub(crate) fn now_ns() -> u64 {
    static FREQUENCY: OnceLock<u64> = OnceLock::new();
    let frequency = *FREQUENCY.get_or_init(|| {
        let mut frequency = 0;
        // SAFETY: `frequency` is valid for writes.
        unsafe { QueryPerformanceFrequency(&raw mut frequency) };
        frequency.max(1).cast_unsigned()
    });
    let mut count = 0;
    // SAFETY: `count` is valid for writes.
    unsafe { QueryPerformanceCounter(&raw mut count) };
    let ns = u128::from(count.cast_unsigned()) * 1_000_000_000 / u128::from(frequency);
    ns as u64
}

/// Bytes of a process.
pub(super) struct Usage {
    pub(super) resident: u64,
    /// The most that was resident at once.
    pub(super) peak: u64,
    /// Its alone, committed.
    pub(super) private: u64,
}

pub(super) fn memory(pid: u32) -> Option<Usage> {
    // SAFETY: any number may be asked for.
    let process = unsafe { OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, 0, pid) };
    if process.is_null() {
        return None;
    }
    // SAFETY: a new handle that nobody else closes.
    let process = unsafe { OwnedHandle::from_raw_handle(process) };
    let mut counters = PROCESS_MEMORY_COUNTERS_EX::default();
    let told = (&raw mut counters).cast::<PROCESS_MEMORY_COUNTERS>();
    let size = size_of_val(&counters) as u32;
    // SAFETY: the handle is open; `counters`, whose first fields are those of the smaller structure, is valid for
    // `size` bytes, by which the system tells them apart.
    match unsafe { K32GetProcessMemoryInfo(process.as_raw_handle(), told, size) } {
        0 => None,
        _ => Some(Usage {
            resident: counters.WorkingSetSize as u64,
            peak: counters.PeakWorkingSetSize as u64,
            private: counters.PrivateUsage as u64,
        }),
    }
}

/// There are no such signals here.
pub(crate) fn ignore_broken_pipes() {}

/// A program that is elevated by the user's consent inherits nothing from the one that asked for it: see
/// [`introduction`].
pub(crate) fn is_privileged() -> bool {
    false
}

/// Whether a process ended the way one ends that we kill: `TerminateProcess` with status 1.
pub(crate) fn is_kill(status: ExitStatus) -> bool {
    status.code() == Some(1)
}

pub(crate) fn cause(status: ExitStatus) -> Cause {
    let Some(code) = status.code() else {
        return Cause::Unknown;
    };
    match exception_name(code.cast_unsigned()) {
        Some(name) => Cause::Exception {
            code: code.cast_unsigned(),
            name,
        },
        None => Cause::Exited { code },
    }
}

/// What an exception is called whose code is a process's status; `None` if that is none.
///
/// Who dies of an exception nobody handles has its code as its status. The system's own are of the severities warning
/// and error, and of the facility 0 or its own; a program may pass any number to `exit`, but does not hit those by
/// chance: a small negative number is none of them.
fn exception_name(code: u32) -> Option<String> {
    let known = [
        (0x8000_0001, "STATUS_GUARD_PAGE_VIOLATION"),
        (0x8000_0002, "STATUS_DATATYPE_MISALIGNMENT"),
        (0x8000_0003, "STATUS_BREAKPOINT"),
        (0xC000_0005, "STATUS_ACCESS_VIOLATION"),
        (0xC000_0006, "STATUS_IN_PAGE_ERROR"),
        (0xC000_0017, "STATUS_NO_MEMORY"),
        (0xC000_001D, "STATUS_ILLEGAL_INSTRUCTION"),
        (0xC000_0094, "STATUS_INTEGER_DIVIDE_BY_ZERO"),
        (0xC000_00FD, "STATUS_STACK_OVERFLOW"),
        (0xC000_0135, "STATUS_DLL_NOT_FOUND"),
        (0xC000_0139, "STATUS_ENTRYPOINT_NOT_FOUND"),
        (0xC000_013A, "STATUS_CONTROL_C_EXIT"),
        (0xC000_0142, "STATUS_DLL_INIT_FAILED"),
        (0xC000_0374, "STATUS_HEAP_CORRUPTION"),
        // What `abort` ends with, too.
        (0xC000_0409, "STATUS_STACK_BUFFER_OVERRUN"),
        (0xE06D_7363, "C++ exception"),
    ];
    let name = known.iter().find(|(known, _)| *known == code);
    match name {
        Some((_, name)) => Some((*name).to_owned()),
        None if matches!(code >> 28, 0x8 | 0xC) => Some(format!("{code:#010X}")),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_told_from_an_exception() {
        assert_eq!(
            exception_name(0xC000_0005).as_deref(),
            Some("STATUS_ACCESS_VIOLATION")
        );
        assert_eq!(exception_name(0xC000_FFFF).as_deref(), Some("0xC000FFFF"));
        for code in [0, 1, 3, -1, -127, i32::MAX] {
            assert_eq!(exception_name(code.cast_unsigned()), None, "{code}");
        }
    }

    #[test]
    fn this_process_has_memory() {
        let own = memory(std::process::id()).expect("this process exists");
        assert!(own.resident > 0 && own.peak >= own.resident);
        if std::env::var_os("UNDER_WINE").is_some() {
            println!("not tested under wine: K32GetProcessMemoryInfo tells 0 private bytes of every process");
        } else {
            assert!(own.private > 0);
        }
    }
}
