//! Ways to die, on systems other than Linux: the fenced home of what no safe program does.
#![allow(unsafe_code)]

/// What an op does to its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Crash {
    Exit3,
    Abort,
    Segfault,
    StackOverflow,
    KillSelf,
    /// Tells its pid and waits to be killed.
    KilledFromOutside,
}

impl Crash {
    /// Does it; `ear` is where those that want to be killed tell their pid.
    pub(crate) fn suffer(self, ear: &str) -> ! {
        match self {
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

    use windows_sys::Win32::Foundation::WAIT_OBJECT_0;
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
}

pub(crate) use process::{ends_within, kill};
