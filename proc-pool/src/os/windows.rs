//! The system calls of Windows: those of one process here, the larger topics in submodules.
#![allow(unsafe_code, reason = "reads clocks and process handles, and exits")]

pub(crate) mod introduction;
mod job;
mod listener;
mod pinned_path;
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

use crate::error::ExitCause;

pub(crate) use job::ProcessGroup;
pub(crate) use listener::{ListenerWaker, MessageListener, MessageReceiver};
pub(crate) use pinned_path::PinnedPath;

/// Returns the path by which to execute this program again.
pub(crate) fn own_executable() -> io::Result<OsString> {
    Ok(std::env::current_exe()?.into())
}

/// Returns the arguments with which to execute this program again, its name first.
pub(crate) fn arguments() -> std::env::ArgsOs {
    std::env::args_os()
}

/// Checks that `path` is a file, which may be a program.
pub(crate) fn check_executable(path: &Path) -> io::Result<()> {
    match std::fs::metadata(path)?.is_file() {
        true => Ok(()),
        false => Err(io::Error::other("it is not a file")),
    }
}

/// Returns whether the system refused to execute a file because of its contents.
pub(crate) fn is_exec_format_error(error: &io::Error) -> bool {
    const ERROR_BAD_EXE_FORMAT: i32 = 193;
    error.raw_os_error() == Some(ERROR_BAD_EXE_FORMAT)
}

/// Ends this process immediately, without any clean-up that could hang.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: GetCurrentProcess has no preconditions.
    let own = unsafe { GetCurrentProcess() };
    // SAFETY: a process may end itself.
    unsafe { TerminateProcess(own, code.cast_unsigned()) };
    // Not reached.
    std::process::abort()
}

/// Ends this worker. The processes that it has started end with the leader, whose end closes the worker's job.
pub(crate) fn end_group(code: i32) -> ! {
    exit_now(code)
}

/// Prepares this worker to end without a dialog if it crashes, because there is no user to answer the dialog. Nothing more is
/// needed here: a worker ends with its leader because its job does, and because the leader's channel closes.
pub(crate) fn die_with_parent(_leader: u32) -> bool {
    // SAFETY: SetErrorMode has no preconditions.
    unsafe { SetErrorMode(SEM_FAILCRITICALERRORS | SEM_NOGPFAULTERRORBOX) };
    true
}

/// Returns the time in nanoseconds, by a monotonic clock that has the same value in all processes of the machine.
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

/// Returns `None`: Windows counts the CPU time of threads in steps of 15 ms.
pub(crate) fn thread_cpu_ns() -> Option<u64> {
    None
}

/// The memory of a process, in bytes.
pub(super) struct Usage {
    pub(super) resident: u64,
    /// The maximum of `resident` so far.
    pub(super) peak: u64,
    /// Committed memory that the process does not share.
    pub(super) private: u64,
}

pub(super) fn memory(pid: u32) -> Option<Usage> {
    // SAFETY: OpenProcess accepts any number.
    let process = unsafe { OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, 0, pid) };
    if process.is_null() {
        return None;
    }
    // SAFETY: the handle is new, and nothing else closes it.
    let process = unsafe { OwnedHandle::from_raw_handle(process) };
    let mut counters = PROCESS_MEMORY_COUNTERS_EX::default();
    let output = (&raw mut counters).cast::<PROCESS_MEMORY_COUNTERS>();
    let size = size_of_val(&counters) as u32;
    // SAFETY: the handle is open. `counters`, whose first fields are those of the smaller structure, is valid for `size`
    // bytes; by the size, the system distinguishes the two structures.
    match unsafe { K32GetProcessMemoryInfo(process.as_raw_handle(), output, size) } {
        0 => None,
        _ => Some(Usage {
            resident: counters.WorkingSetSize as u64,
            peak: counters.PeakWorkingSetSize as u64,
            private: counters.PrivateUsage as u64,
        }),
    }
}

/// Does nothing: Windows has no such signal.
pub(crate) fn ignore_broken_pipes() {}

/// Returns `false`: a program that the user has elevated inherits no handles from the program that started it. See
/// [`introduction`].
pub(crate) fn is_privileged() -> bool {
    false
}

/// Returns whether a process ended in the way of one that this crate kills: by `TerminateProcess` with exit code 1.
pub(crate) fn is_kill(status: ExitStatus) -> bool {
    status.code() == Some(1)
}

/// Converts the status of a process that has ended.
pub(crate) fn exit_cause(status: ExitStatus) -> ExitCause {
    let Some(code) = status.code() else {
        return ExitCause::Unknown;
    };
    match exception_name(code.cast_unsigned()) {
        Some(name) => ExitCause::Exception {
            code: code.cast_unsigned(),
            name,
        },
        None => ExitCause::Exited { code },
    }
}

/// Returns the name of the exception whose code is a process's exit code; `None` if the exit code is not that of an exception.
///
/// The exit code of a process that dies of an unhandled exception is the exception's code. The system's exceptions have the
/// severity warning or error, and the facility 0 or one of the system. A program may pass any number to `exit`, but does not
/// hit such a code by chance: small negative numbers, for example, are not among them.
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
        // Also the exit code of a process that calls `abort`.
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
    fn exit_codes_are_distinguished_from_exceptions() {
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
            println!(
                "not tested under wine: K32GetProcessMemoryInfo reports 0 private bytes for every process"
            );
        } else {
            assert!(own.private > 0);
        }
    }
}
