//! [`ProcessGroup`]: a worker and the processes that its ops start, on Unix. The system kills such a group as a whole.
#![allow(unsafe_code, reason = "kills a process group, and dies with the leader")]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::{credentials, exit_now};

/// The process group of a worker. The worker leads it from its first instruction on.
#[derive(Debug)]
pub(crate) struct ProcessGroup(());

impl ProcessGroup {
    /// Makes the process that `command` starts the leader of a new group.
    pub(crate) fn prepare(command: &mut Command) {
        command.process_group(0);
    }

    /// Returns the group of a process that was started by such a command.
    pub(crate) fn of(_: &Child) -> Self {
        Self(())
    }

    /// Kills the worker and all processes of its group. Does nothing after the worker was reaped.
    pub(crate) fn kill(&self, child: &mut Child) {
        // Checked first, because the pid of a process that was reaped may be that of another process by now.
        if matches!(self.try_wait(child), Ok(None)) {
            kill_rest(child);
            // An op may have moved the worker into another group.
            let _ = child.kill();
        }
    }

    /// Reaps the worker if it has ended. The rest of its group is killed first, while the worker's pid can't be the id of
    /// another group.
    pub(crate) fn try_wait(&self, child: &mut Child) -> io::Result<Option<ExitStatus>> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if let Some(pid) = pid(child)
            && matches!(waitid(WaitId::Pid(pid), options), Ok(Some(_)))
        {
            kill_rest(child);
        }
        child.try_wait()
    }
}

fn pid(child: &Child) -> Option<Pid> {
    Pid::from_raw(child.id().cast_signed())
}

/// Kills the group of a worker that was not reaped.
fn kill_rest(child: &Child) {
    if let Some(pid) = pid(child) {
        // It fails if only the ended worker is left in the group.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

/// Ends this worker and all processes of the group that it leads, without any clean-up that could hang.
pub(crate) fn end_group(code: i32) -> ! {
    kill_own_group();
    // Reached if this process is not in that group.
    exit_now(code)
}

/// Async-signal-safe.
fn kill_own_group() {
    // SAFETY: getpid has no preconditions.
    let own = unsafe { libc::getpid() };
    // SAFETY: kill has no preconditions. Only this process can have made a group with its pid as id; if there is no such
    // group, the call fails.
    unsafe { libc::kill(-own, libc::SIGKILL) };
}

/// Asks the system to end this process and its group when the thread of its parent that spawned it ends. Returns whether the
/// parent still is `leader`.
pub(crate) fn die_with_parent(leader: u32) -> bool {
    // Best effort: on all systems, a worker also ends when the leader's socket closes.
    #[cfg(target_os = "linux")]
    let _ = linux::end_group_with_parent();
    credentials::is_parent(leader)
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::mem::MaybeUninit;

    /// Returns the number of the parent-death signal. SIGKILL would end the worker alone; this signal has a handler. Programs
    /// seldom use the number. Its default action also ends a process, so that a program which an op executes in the worker's
    /// process (by `exec`) ends with the leader.
    fn number() -> libc::c_int {
        libc::SIGRTMAX() - 3
    }

    pub(super) fn end_group_with_parent() -> io::Result<()> {
        // SAFETY: all-zero is a valid sigaction: no flags, an empty mask.
        let mut action = unsafe { MaybeUninit::<libc::sigaction>::zeroed().assume_init() };
        action.sa_sigaction = on_parents_death as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_ONSTACK;
        // SAFETY: `action` is valid, and its handler takes a signal number and is async-signal-safe.
        check(unsafe { libc::sigaction(number(), &raw const action, std::ptr::null_mut()) })?;
        // The process may have inherited a mask from the leader. The thread that watches the leader inherits the mask that is
        // set here, so that the signal is delivered even if ops block it in their threads.
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `set` is valid for writes.
        check(unsafe { libc::sigemptyset(set.as_mut_ptr()) })?;
        // SAFETY: the call above has initialised `set`.
        check(unsafe { libc::sigaddset(set.as_mut_ptr(), number()) })?;
        // SAFETY: `set` is initialised, and no old mask is asked for.
        unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), std::ptr::null_mut()) };
        // SAFETY: the option takes a signal number.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, number() as libc::c_ulong) })
    }

    fn check(result: libc::c_int) -> io::Result<()> {
        match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    extern "C" fn on_parents_death(_: libc::c_int) {
        super::end_group(crate::message::ORPHANED)
    }
}
