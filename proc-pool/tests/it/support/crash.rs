//! The ways in which an op ends, or stops, its worker's process.
#![allow(unsafe_code, reason = "crashes on purpose")]

use proc_pool::ExitCause;
use serde::{Deserialize, Serialize};

use super::{hang, report, try_kill};

/// A way in which an op ends or stops its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Crash {
    Panic,
    /// Panics with a payload that is no string.
    PanicWithNumber,
    /// Panics with a payload whose drop panics.
    PanicWithBomb,
    Exit0,
    Exit3,
    Abort,
    KillSelf,
    Segfault,
    /// Overflows the stack.
    #[cfg(not(target_os = "linux"))]
    StackOverflow,
    /// Reports its pid and waits until the test kills it.
    KilledFromOutside,
    /// Reports its pid and waits until the test first stops it and then kills it.
    #[cfg(target_os = "linux")]
    StoppedThenKilled,
    /// Stops itself, as SIGTSTP or a debugger would.
    #[cfg(target_os = "linux")]
    StopSelf,
    /// Closes its files first and dies later, as a process does that the kernel kills.
    #[cfg(target_os = "linux")]
    CloseFilesThenDie,
    /// Asks for more memory than the machine has.
    #[cfg(target_os = "linux")]
    AllocationFailure,
}

/// The crashes of a task that a pool must survive without a deadline or a limit.
pub(crate) const CRASHES: [Crash; 10] = [
    Crash::Panic,
    Crash::PanicWithNumber,
    Crash::PanicWithBomb,
    Crash::Exit0,
    Crash::Exit3,
    Crash::Abort,
    Crash::KillSelf,
    Crash::Segfault,
    #[cfg(not(target_os = "linux"))]
    Crash::StackOverflow,
    Crash::KilledFromOutside,
    #[cfg(target_os = "linux")]
    Crash::StoppedThenKilled,
];

/// A panic's payload whose drop panics.
pub(crate) struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the payload's drop panics, too");
    }
}

impl Crash {
    /// Returns what the pool must report as the cause of the worker's death; `None` if the worker survives.
    pub(crate) fn cause(self) -> Option<ExitCause> {
        let (number, name, code, exception) = match self {
            Self::Panic | Self::PanicWithNumber | Self::PanicWithBomb => return None,
            Self::Exit0 => return Some(ExitCause::Exited { code: 0 }),
            Self::Exit3 => return Some(ExitCause::Exited { code: 3 }),
            Self::Abort => (6, "SIGABRT", 0xC000_0409, "STATUS_STACK_BUFFER_OVERRUN"),
            Self::Segfault => (11, "SIGSEGV", 0xC000_0005, "STATUS_ACCESS_VIOLATION"),
            // On Unix, Rust's handler of stack overflows aborts.
            #[cfg(not(target_os = "linux"))]
            Self::StackOverflow => (6, "SIGABRT", 0xC000_00FD, "STATUS_STACK_OVERFLOW"),
            Self::KillSelf | Self::KilledFromOutside if cfg!(windows) => {
                return Some(ExitCause::Exited { code: 1 });
            }
            Self::KillSelf | Self::KilledFromOutside => (9, "SIGKILL", 0, ""),
            #[cfg(target_os = "linux")]
            Self::StoppedThenKilled | Self::StopSelf | Self::CloseFilesThenDie => (9, "SIGKILL", 0, ""),
            #[cfg(target_os = "linux")]
            Self::AllocationFailure => (6, "SIGABRT", 0, ""),
        };
        Some(match cfg!(windows) {
            true => ExitCause::Exception {
                code,
                name: exception.to_owned(),
            },
            false => ExitCause::Signal {
                number,
                name: name.to_owned(),
            },
        })
    }

    /// Crashes. `rendezvous` is the address to which the crashes from outside report their pid.
    pub(crate) fn run(self, rendezvous: &str) -> ! {
        match self {
            Self::Panic => panic!("as asked"),
            Self::PanicWithNumber => std::panic::panic_any(42),
            Self::PanicWithBomb => std::panic::panic_any(Bomb),
            Self::Exit0 => std::process::exit(0),
            Self::Exit3 => std::process::exit(3),
            Self::Abort => std::process::abort(),
            Self::KillSelf => {
                try_kill(std::process::id());
                hang()
            }
            Self::Segfault => {
                let nowhere = std::ptr::without_provenance::<u8>(64);
                // SAFETY: it is not sound, and meant not to be: the first page is never mapped.
                let byte = unsafe { nowhere.read_volatile() };
                panic!("read {byte} from nowhere")
            }
            #[cfg(not(target_os = "linux"))]
            Self::StackOverflow => {
                recurse(1);
                panic!("the recursion ended")
            }
            Self::KilledFromOutside => {
                report(rendezvous, std::process::id());
                hang()
            }
            #[cfg(target_os = "linux")]
            Self::StoppedThenKilled => Self::KilledFromOutside.run(rendezvous),
            #[cfg(target_os = "linux")]
            Self::StopSelf => {
                super::signal(std::process::id(), rustix::process::Signal::STOP);
                hang()
            }
            #[cfg(target_os = "linux")]
            Self::CloseFilesThenDie => {
                super::close_all_files();
                std::thread::sleep(std::time::Duration::from_millis(100));
                Self::KillSelf.run(rendezvous)
            }
            #[cfg(target_os = "linux")]
            Self::AllocationFailure => {
                let much = Vec::<u8>::with_capacity(isize::MAX as usize / 2);
                panic!("got {} bytes", much.capacity())
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn recurse(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 512]);
    match frame[0] {
        0 => 0,
        depth => recurse(depth + 1) + frame[511],
    }
}
