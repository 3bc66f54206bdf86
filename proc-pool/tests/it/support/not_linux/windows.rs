//! Processes and consoles of Windows.
#![allow(unsafe_code, reason = "calls Windows")]

use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::time::{Duration, Instant};

use windows_sys::Win32::Foundation::{INVALID_HANDLE_VALUE, WAIT_OBJECT_0};
use windows_sys::Win32::System::Console::{
    CTRL_BREAK_EVENT, CTRL_C_EVENT, GenerateConsoleCtrlEvent, GetConsoleProcessList, SetConsoleCtrlHandler,
};
use windows_sys::Win32::System::Diagnostics::ToolHelp::{
    CreateToolhelp32Snapshot, PROCESSENTRY32W, Process32FirstW, Process32NextW, TH32CS_SNAPPROCESS,
};
use windows_sys::Win32::System::Threading::{
    OpenProcess, PROCESS_SYNCHRONIZE, PROCESS_TERMINATE, TerminateProcess, WaitForSingleObject,
};

/// Opens a process; returns `None` if there is no such process.
fn open(pid: u32, rights: u32) -> Option<OwnedHandle> {
    // SAFETY: any number may be asked for.
    let process = unsafe { OpenProcess(rights, 0, pid) };
    if process.is_null() {
        return None;
    }
    // SAFETY: a new handle that nothing else closes.
    Some(unsafe { OwnedHandle::from_raw_handle(process) })
}

/// Kills a process as the task manager would; returns `false` if there is no such process.
pub(crate) fn try_kill(pid: u32) -> bool {
    let Some(process) = open(pid, PROCESS_TERMINATE) else {
        return false;
    };
    // SAFETY: the handle is open.
    unsafe { TerminateProcess(process.as_raw_handle(), 1) != 0 }
}

/// Waits until the processes have ended, at most `ms` milliseconds; returns `false` if one still runs.
pub(crate) fn ends_within(pids: &[u32], ms: u64) -> bool {
    let deadline = Instant::now() + Duration::from_millis(ms);
    pids.iter().all(|&pid| {
        let Some(process) = open(pid, PROCESS_SYNCHRONIZE) else {
            return true;
        };
        let left = deadline.saturating_duration_since(Instant::now());
        // SAFETY: the handle is open.
        let waited = unsafe { WaitForSingleObject(process.as_raw_handle(), left.as_millis() as u32) };
        waited == WAIT_OBJECT_0
    })
}

/// Returns the pids of what the process, which may have ended, has started and still runs.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    // SAFETY: no preconditions; it makes a new handle or fails.
    let snapshot = unsafe { CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0) };
    assert_ne!(snapshot, INVALID_HANDLE_VALUE, "processes can be listed");
    // SAFETY: a new handle that nothing else closes.
    let snapshot = unsafe { OwnedHandle::from_raw_handle(snapshot) };
    let mut entry = PROCESSENTRY32W {
        dwSize: size_of::<PROCESSENTRY32W>() as u32,
        ..PROCESSENTRY32W::default()
    };
    let mut children = Vec::new();
    // SAFETY: the handle is that of a snapshot, and `entry` holds its own size.
    let mut more = unsafe { Process32FirstW(snapshot.as_raw_handle(), &raw mut entry) };
    while more != 0 {
        if entry.th32ParentProcessID == parent {
            children.push(entry.th32ProcessID);
        }
        // SAFETY: as above.
        more = unsafe { Process32NextW(snapshot.as_raw_handle(), &raw mut entry) };
    }
    children
}

/// Whether this process has children.
pub(crate) fn has_children() -> bool {
    !children(std::process::id()).is_empty()
}

/// An event that a console sends to its processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    CtrlC,
    CtrlBreak,
}

/// Sends an event to all processes at this process's console.
pub(crate) fn generate(event: Event) {
    let event = match event {
        Event::CtrlC => CTRL_C_EVENT,
        Event::CtrlBreak => CTRL_BREAK_EVENT,
    };
    // SAFETY: no preconditions; group 0 is all of the console's processes.
    let sent = unsafe { GenerateConsoleCtrlEvent(event, 0) };
    assert_ne!(sent, 0, "{}", std::io::Error::last_os_error());
}

/// Undoes that this process ignores Ctrl-C: it may have inherited that.
pub(crate) fn stop_ignoring_ctrl_c() {
    // SAFETY: without a handler, it sets this process's flag.
    let set = unsafe { SetConsoleCtrlHandler(None, 0) };
    assert_ne!(set, 0, "{}", std::io::Error::last_os_error());
}

/// Returns the number of processes at this process's console.
pub(crate) fn processes_at_console() -> usize {
    let mut pids = [0; 64];
    // SAFETY: `pids` is valid for writes of its length.
    let count = unsafe { GetConsoleProcessList(pids.as_mut_ptr(), pids.len() as u32) };
    count as usize
}
