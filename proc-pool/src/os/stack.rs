//! A worker's own look at its stack when its leader asks for it: by a signal, as the worker is stuck in its task.
#![allow(unsafe_code)]

use std::io;
use std::sync::OnceLock;

use shm_buffers::slots::Slots;

use crate::stack::{DONE, FRAMES, FRAMES_AT, SEEN};

/// Where the answer goes.
static ANSWER: OnceLock<Slots> = OnceLock::new();

/// One that neither the system nor, as a rule, a library uses.
fn number() -> libc::c_int {
    libc::SIGRTMAX() - 5
}

/// Lets this process answer into `slots`, once.
pub(crate) fn answer_into(slots: Slots) -> io::Result<()> {
    ANSWER.get_or_init(|| slots);
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all-zero is a valid sigaction: no flags, an empty mask.
    let action = unsafe { action.assume_init_mut() };
    action.sa_sigaction = on_ask as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `action` is valid, and `on_ask` takes a number.
    match unsafe { libc::sigaction(number(), action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Walks the stack that it runs on, and only writes addresses to memory that is there. Strictly, the unwinder is not
/// async-signal-safe (it may take the dynamic loader's lock): who asks waits a moment, and kills this process in any
/// case.
extern "C" fn on_ask(_: libc::c_int) {
    let Some(slots) = ANSWER.get() else { return };
    if slots.slot(SEEN).get() > 0 {
        return;
    }
    let mut seen = 0;
    let mut see = |frame: &backtrace::Frame| {
        slots.slot(FRAMES_AT + seen).set(frame.ip() as u64);
        seen += 1;
        slots.slot(SEEN).publish(seen as u64);
        seen < FRAMES
    };
    // SAFETY: it must not run in two threads at once: the leader asks the main thread alone, once, and a second
    // signal finds the first one's answer. (Where addresses have no names to be looked up, no state is shared at all.)
    unsafe { backtrace::trace_unsynchronized(&mut see) };
    slots.slot(DONE).publish(1);
}

/// Asks process `pid`, a child that was not reaped, in its main thread: that is the one that runs tasks.
pub(crate) fn ask(pid: u32) {
    let pid = pid as libc::pid_t;
    // SAFETY: tgkill has no preconditions; a process that ended is an error that its end tells, too.
    unsafe { libc::syscall(libc::SYS_tgkill, pid, pid, number()) };
}
