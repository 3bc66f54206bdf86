//! The process's signal handlers, Unix.
#![allow(unsafe_code)]

use std::io::{self, PipeReader, PipeWriter};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use rustix::fs::OFlags;

use super::Signal;

/// Where the handler writes to; negative when there are no handlers.
static PIPE: AtomicI32 = AtomicI32::new(-1);
/// The process whose handlers they are: a forked child has them, too, and the pipe is its parent's.
static OWNER: AtomicI32 = AtomicI32::new(0);
/// Handlers that run now: the pipe must not be closed (and its number become another file's) under one.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// The handlers that are installed, and what was there before.
pub(crate) struct Handlers {
    before: Vec<(Signal, libc::sigaction)>,
    _pipe: PipeWriter,
}

impl Handlers {
    /// None yet; and where the bytes come that tell of signals. There may be one such value at a time.
    pub(crate) fn new() -> io::Result<(Self, PipeReader)> {
        let (heard, pipe) = io::pipe()?;
        // A handler that waits for room could wait for the very thread that it interrupted.
        rustix::fs::fcntl_setfl(&pipe, OFlags::NONBLOCK)?;
        OWNER.store(own_pid(), Ordering::SeqCst);
        PIPE.store(pipe.as_raw_fd(), Ordering::SeqCst);
        let before = Vec::new();
        Ok((Self { before, _pipe: pipe }, heard))
    }

    /// Lets `wanted` be told, and no others. A Ctrl-C or SIGTERM that the process ignores (a job in the background of
    /// a shell script) stays ignored.
    pub(crate) fn install(&mut self, wanted: &[Signal]) -> io::Result<()> {
        self.before.retain(|(signal, before)| {
            let keep = wanted.contains(signal);
            if !keep {
                put_back(*signal, before);
            }
            keep
        });
        for &signal in wanted {
            if self.before.iter().all(|(installed, _)| *installed != signal) {
                let before = current(number(signal))?;
                if before.sa_sigaction != libc::SIG_IGN || signal == Signal::Dump {
                    set(number(signal), on_signal as *const () as libc::sighandler_t)?;
                    self.before.push((signal, before));
                }
            }
        }
        Ok(())
    }
}

impl Drop for Handlers {
    fn drop(&mut self) {
        let _ = self.install(&[]);
        PIPE.store(-1, Ordering::SeqCst);
        // Each is done in microseconds: it never waits.
        while RUNNING.load(Ordering::SeqCst) > 0 {
            std::thread::yield_now();
        }
    }
}

fn own_pid() -> libc::pid_t {
    // SAFETY: getpid has no preconditions.
    unsafe { libc::getpid() }
}

/// Lets the signal do what it does by default. Async-signal-safe.
fn by_default(number: libc::c_int) {
    // SAFETY: the default action needs no handler, and `signal` may be called in handlers.
    unsafe { libc::signal(number, libc::SIG_DFL) };
    // SAFETY: kill has no preconditions. The signal comes when the handler has returned.
    unsafe { libc::kill(own_pid(), number) };
}

/// Only what may be done while any other function is interrupted: atomics, `getpid` and `write`.
extern "C" fn on_signal(number: libc::c_int) {
    if own_pid() != OWNER.load(Ordering::SeqCst) {
        return by_default(number);
    }
    RUNNING.fetch_add(1, Ordering::SeqCst);
    let pipe = PIPE.load(Ordering::SeqCst);
    if pipe >= 0 {
        let byte = number as u8;
        #[cfg(target_os = "linux")]
        // SAFETY: it has no preconditions.
        let errno = unsafe { libc::__errno_location() };
        #[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
        // SAFETY: it has no preconditions.
        let errno = unsafe { libc::__error() };
        // SAFETY: the location of this thread's errno is valid as long as the thread.
        let before = unsafe { errno.read() };
        // SAFETY: one byte is valid for reads; the descriptor is open, because `drop` closes it only when nobody is
        // here who may have loaded it (both sides' operations are SeqCst). A full pipe is an error: it has news already.
        unsafe { libc::write(pipe, (&raw const byte).cast(), 1) };
        // SAFETY: as above. Whoever was interrupted must find his own.
        unsafe { errno.write(before) };
    }
    RUNNING.fetch_sub(1, Ordering::SeqCst);
}

fn number(signal: Signal) -> libc::c_int {
    match signal {
        Signal::Interrupt => libc::SIGINT,
        Signal::Terminate => libc::SIGTERM,
        Signal::Dump => libc::SIGUSR1,
    }
}

impl Signal {
    /// What a byte from the pipe tells.
    pub(crate) fn of(byte: u8) -> Option<Self> {
        [Self::Interrupt, Self::Terminate, Self::Dump]
            .into_iter()
            .find(|signal| number(*signal) == libc::c_int::from(byte))
    }
}

fn current(number: libc::c_int) -> io::Result<libc::sigaction> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: with no new action, sigaction only writes the current one to `action`, which is valid for writes.
    match unsafe { libc::sigaction(number, std::ptr::null(), action.as_mut_ptr()) } {
        // SAFETY: all-zero is a valid sigaction, and the call has written a valid one.
        0 => Ok(unsafe { action.assume_init() }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn set(number: libc::c_int, handler: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: all-zero is a valid sigaction: no flags, an empty mask.
    let mut action = unsafe { MaybeUninit::<libc::sigaction>::zeroed().assume_init() };
    action.sa_sigaction = handler;
    // Calls that can go on by themselves do.
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `action` is valid and its handler one of the two here, which take a number and are async-signal-safe.
    match unsafe { libc::sigaction(number, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Unless somebody else has put a handler there after us: then it is his.
fn put_back(signal: Signal, before: &libc::sigaction) {
    let ours = on_signal as *const () as libc::sighandler_t;
    if current(number(signal)).is_ok_and(|action| action.sa_sigaction == ours) {
        // SAFETY: `before` came from sigaction itself; what it refers to is as valid as it was then, because whoever
        // installs a handler has to keep it.
        unsafe { libc::sigaction(number(signal), before, std::ptr::null_mut()) };
    }
}

/// Sends this process the signal.
pub(crate) fn raise(signal: Signal) {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: kill has no preconditions.
    unsafe { libc::kill(own, number(signal)) };
}

extern "C" fn do_nothing(_: libc::c_int) {}

/// Lets the terminal's Ctrl-C, which goes to all processes of its job, be the leader's affair. By a handler that does
/// nothing: a program that is started from here has Ctrl-C as ever, where it would inherit its being ignored.
pub(crate) fn leave_interrupts_to_leader() {
    if current(libc::SIGINT).is_ok_and(|action| action.sa_sigaction == libc::SIG_DFL) {
        // It can't fail for SIGINT.
        let _ = set(libc::SIGINT, do_nothing as *const () as libc::sighandler_t);
    }
}
