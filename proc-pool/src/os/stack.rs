//! Captures the stack of a worker that is stuck in a task, on Linux. The leader sends a signal; the handler in the worker walks
//! the stack and writes the addresses into shared memory. `process::stack` reads them and finds their names.
#![allow(unsafe_code, reason = "walks the stack in a signal handler")]

use std::io;
use std::sync::OnceLock;

use shm_buffers::slots::Slots;

/// Maximum number of frames of a stack.
pub(crate) const FRAMES: usize = 64;
/// Index of the slot with the number of frames so far.
pub(crate) const SEEN: usize = 0;
/// Index of the slot that is 1 when the capture is complete.
pub(crate) const DONE: usize = 1;
/// Index of the slot of the first frame.
pub(crate) const FRAMES_AT: usize = 2;
/// Number of slots that a capture takes.
pub(crate) const SLOTS: usize = FRAMES_AT + FRAMES;

/// The slots into which the handler writes.
static CAPTURE: OnceLock<Slots> = OnceLock::new();

/// Returns the number of the signal: one that neither the system nor, usually, a library uses.
fn number() -> libc::c_int {
    libc::SIGRTMAX() - 5
}

/// Installs the handler, which captures the stack of this process into `slots` once, when the leader requests it.
pub(crate) fn capture_into(slots: Slots) -> io::Result<()> {
    CAPTURE.get_or_init(|| slots);
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all-zero is a valid sigaction: no flags, an empty mask.
    let action = unsafe { action.assume_init_mut() };
    action.sa_sigaction = on_request as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `action` is valid, and `on_request` takes a signal number.
    match unsafe { libc::sigaction(number(), action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Walks the stack on which it runs, and only writes addresses to memory that is mapped already. Strictly, the unwinder is not
/// async-signal-safe, because it may take the dynamic loader's lock. So the leader waits only a moment for the capture, and
/// kills this process in any case.
extern "C" fn on_request(_: libc::c_int) {
    let Some(slots) = CAPTURE.get() else { return };
    if slots.slot(SEEN).get() > 0 {
        return;
    }
    let mut seen = 0;
    let mut on_frame = |frame: &backtrace::Frame| {
        slots.slot(FRAMES_AT + seen).set(frame.ip() as u64);
        seen += 1;
        slots.slot(SEEN).store_release(seen as u64);
        seen < FRAMES
    };
    // SAFETY: the function must not run in two threads at the same time. The leader sends the signal only once, and only to
    // the main thread; a second signal finds the first one's frames and returns. (Because no names of addresses are looked
    // up here, no state is shared at all.)
    unsafe { backtrace::trace_unsynchronized(&mut on_frame) };
    slots.slot(DONE).store_release(1);
}

/// Requests a capture from process `pid`, a child that has not been reaped. The signal goes to its main thread, which runs the
/// tasks.
pub(crate) fn request_capture(pid: u32) {
    let pid = pid as libc::pid_t;
    // SAFETY: tgkill has no preconditions. It fails if the process has ended; the leader notices that by other means.
    unsafe { libc::syscall(libc::SYS_tgkill, pid, pid, number()) };
}
