//! Ways to die, on systems other than Linux: the fenced home of what no safe program does.
#![allow(unsafe_code)]

use proc_pool::Cause;

/// What an op does to its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Crash {
    Panic,
    PanicWithANumber,
    PanicWithABomb,
    Exit0,
    Exit3,
    Abort,
    Segfault,
    StackOverflow,
    KillSelf,
    /// Tells its pid and waits to be killed.
    KilledFromOutside,
}

pub(crate) const CRASHES: [Crash; 10] = [
    Crash::Panic,
    Crash::PanicWithANumber,
    Crash::PanicWithABomb,
    Crash::Exit0,
    Crash::Exit3,
    Crash::Abort,
    Crash::Segfault,
    Crash::StackOverflow,
    Crash::KillSelf,
    Crash::KilledFromOutside,
];

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the payload's drop panics, too");
    }
}

impl Crash {
    /// What a worker is said to have died of; `None` if it lives on.
    pub(crate) fn cause(self) -> Option<Cause> {
        let (number, name, code, exception) = match self {
            Self::Panic | Self::PanicWithANumber | Self::PanicWithABomb => return None,
            Self::Exit0 => return Some(Cause::Exited { code: 0 }),
            Self::Exit3 => return Some(Cause::Exited { code: 3 }),
            Self::Abort => (6, "SIGABRT", 0xC000_0409, "STATUS_STACK_BUFFER_OVERRUN"),
            Self::Segfault => (11, "SIGSEGV", 0xC000_0005, "STATUS_ACCESS_VIOLATION"),
            // Rust's handler says so and aborts, on Unix.
            Self::StackOverflow => (6, "SIGABRT", 0xC000_00FD, "STATUS_STACK_OVERFLOW"),
            Self::KillSelf | Self::KilledFromOutside if cfg!(windows) => {
                return Some(Cause::Exited { code: 1 });
            }
            Self::KillSelf | Self::KilledFromOutside => (9, "SIGKILL", 0, ""),
        };
        Some(match cfg!(windows) {
            true => Cause::Exception {
                code,
                name: exception.to_owned(),
            },
            false => Cause::Signal {
                number,
                name: name.to_owned(),
            },
        })
    }

    /// Does it; `ear` is where those that want to be killed tell their pid.
    pub(crate) fn suffer(self, ear: &str) -> ! {
        match self {
            Self::Panic => panic!("as asked"),
            Self::PanicWithANumber => std::panic::panic_any(42),
            Self::PanicWithABomb => std::panic::panic_any(Bomb),
            Self::Exit0 => std::process::exit(0),
            Self::Exit3 => std::process::exit(3),
            Self::Abort => std::process::abort(),
            Self::Segfault => {
                let nowhere = std::ptr::without_provenance::<u8>(64);
                // SAFETY: it is not sound, and meant not to be: the first page is never mapped.
                let byte = unsafe { nowhere.read_volatile() };
                panic!("read {byte} from nowhere")
            }
            Self::StackOverflow => {
                deeper(1);
                panic!("there was an end")
            }
            Self::KillSelf => {
                kill(std::process::id());
                crate::support::hang()
            }
            Self::KilledFromOutside => {
                crate::support::tell(ear, std::process::id());
                crate::support::hang()
            }
        }
    }
}

fn deeper(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 512]);
    match frame[0] {
        0 => 0,
        depth => deeper(depth + 1) + frame[511],
    }
}

#[cfg(windows)]
mod process {
    use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
    use std::time::{Duration, Instant};

    use windows_sys::Win32::Foundation::{INVALID_HANDLE_VALUE, WAIT_OBJECT_0};
    use windows_sys::Win32::System::Console::{
        CTRL_BREAK_EVENT, CTRL_C_EVENT, GenerateConsoleCtrlEvent, GetConsoleProcessList,
        SetConsoleCtrlHandler,
    };
    use windows_sys::Win32::System::Diagnostics::ToolHelp::{
        CreateToolhelp32Snapshot, PROCESSENTRY32W, Process32FirstW, Process32NextW, TH32CS_SNAPPROCESS,
    };
    use windows_sys::Win32::System::Threading::{
        OpenProcess, PROCESS_SYNCHRONIZE, PROCESS_TERMINATE, TerminateProcess, WaitForSingleObject,
    };

    /// `None` if there is no such process.
    fn open(pid: u32, rights: u32) -> Option<OwnedHandle> {
        // SAFETY: any number may be asked for.
        let process = unsafe { OpenProcess(rights, 0, pid) };
        if process.is_null() {
            return None;
        }
        // SAFETY: a new handle that nobody else closes.
        Some(unsafe { OwnedHandle::from_raw_handle(process) })
    }

    /// Kills a process as the task manager would.
    pub(crate) fn kill(pid: u32) -> bool {
        let Some(process) = open(pid, PROCESS_TERMINATE) else {
            return false;
        };
        // SAFETY: the handle is open.
        unsafe { TerminateProcess(process.as_raw_handle(), 1) != 0 }
    }

    /// Waits until the processes have ended, or `ms` milliseconds; `false` if one lives.
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

    /// What the process, which may be dead, has started and still runs.
    pub(crate) fn children(parent: u32) -> Vec<u32> {
        // SAFETY: no preconditions; it makes a new handle or fails.
        let snapshot = unsafe { CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0) };
        assert_ne!(snapshot, INVALID_HANDLE_VALUE, "processes can be listed");
        // SAFETY: a new handle that nobody else closes.
        let snapshot = unsafe { OwnedHandle::from_raw_handle(snapshot) };
        let mut entry = PROCESSENTRY32W {
            dwSize: size_of::<PROCESSENTRY32W>() as u32,
            ..PROCESSENTRY32W::default()
        };
        let mut children = Vec::new();
        // SAFETY: the handle is that of a snapshot, and `entry` tells its size.
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

    /// What a console tells its processes.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Event {
        CtrlC,
        CtrlBreak,
    }

    /// Tells all processes of this one's console.
    pub(crate) fn generate(event: Event) {
        let event = match event {
            Event::CtrlC => CTRL_C_EVENT,
            Event::CtrlBreak => CTRL_BREAK_EVENT,
        };
        // SAFETY: no preconditions; group 0 is all of the console's processes.
        let told = unsafe { GenerateConsoleCtrlEvent(event, 0) };
        assert_ne!(told, 0, "{}", std::io::Error::last_os_error());
    }

    /// Undoes that Ctrl-C is ignored, which is inherited.
    pub(crate) fn heed_ctrl_c() {
        // SAFETY: without a handler, it sets this process's flag.
        let set = unsafe { SetConsoleCtrlHandler(None, 0) };
        assert_ne!(set, 0, "{}", std::io::Error::last_os_error());
    }

    /// How many processes are at this one's console.
    pub(crate) fn at_console() -> usize {
        let mut pids = [0; 64];
        // SAFETY: `pids` is valid for writes of its length.
        let count = unsafe { GetConsoleProcessList(pids.as_mut_ptr(), pids.len() as u32) };
        count as usize
    }
}

#[cfg(unix)]
mod process {
    use std::time::{Duration, Instant};

    use rustix::process::{Pid, Signal, kill_process, test_kill_process};

    fn pid(pid: u32) -> Pid {
        Pid::from_raw(pid.cast_signed()).expect("no pid is 0")
    }

    pub(crate) fn kill(process: u32) -> bool {
        kill_process(pid(process), Signal::KILL).is_ok()
    }

    /// Waits until the processes have ended and were reaped, or `ms` milliseconds; `false` if one lives.
    pub(crate) fn ends_within(pids: &[u32], ms: u64) -> bool {
        let deadline = Instant::now() + Duration::from_millis(ms);
        loop {
            if pids.iter().all(|&it| test_kill_process(pid(it)).is_err()) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What the process, which may be dead, has started and still runs.
    pub(crate) fn children(parent: u32) -> Vec<u32> {
        let parent = parent.to_string();
        let listed = std::process::Command::new("pgrep").args(["-P", &parent]).output();
        let listed = listed.expect("there is pgrep").stdout;
        let pids = String::from_utf8_lossy(&listed).into_owned();
        pids.lines().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// Whether this process has children, dead or alive.
    pub(crate) fn has_children() -> bool {
        let waited = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
        !matches!(waited, Err(rustix::io::Errno::CHILD))
    }
}

#[cfg(windows)]
pub(crate) use process::{Event, at_console, generate, heed_ctrl_c};
pub(crate) use process::{children, ends_within, has_children, kill};
