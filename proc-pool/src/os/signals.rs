//! The process's signal handlers, Unix.
//!
//! A handler that was there before is called after ours. One that is installed after ours may call ours, and go on doing
//! so when no pool listens any more: ours stays under it then, and the next pool's handler is another one (a layer), so
//! that no two handlers call each other without end.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io::{self, PipeReader, PipeWriter};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::OFlags;

use super::Signal;

/// Where the handler writes to; negative when there are no handlers.
static PIPE: AtomicI32 = AtomicI32::new(-1);
/// The process whose handlers they are: a forked child has them, too, and the pipe is its parent's.
static OWNER: AtomicI32 = AtomicI32::new(0);
/// Handlers that run now: the pipe must not be closed (and its number become another file's) under one.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Handlers of ours for one signal, at most.
const LAYERS: usize = 4;
const SIGNALS: usize = 3;

type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut c_void);

/// The handlers, each with one address.
static HANDLERS: [Handler; LAYERS] = [on_signal::<0>, on_signal::<1>, on_signal::<2>, on_signal::<3>];

/// For each signal and layer, the handler that the layer replaced and calls.
static BEFORE: [[Before; LAYERS]; SIGNALS] = [const { [const { Before::new() }; LAYERS] }; SIGNALS];

/// For each signal, the layer that writes to the pipe; [`LAYERS`] for none.
static ACTIVE: [AtomicUsize; SIGNALS] = [const { AtomicUsize::new(LAYERS) }; SIGNALS];

/// Layers that no pool wants any more, under handlers of others.
static LEFT: Mutex<Vec<Layer>> = Mutex::new(Vec::new());

/// The action of a signal before one of our handlers was installed.
struct Before {
    handler: AtomicUsize,
    with_info: AtomicBool,
}

/// One of our handlers, installed.
struct Layer {
    signal: Signal,
    /// Its index.
    layer: usize,
    before: libc::sigaction,
}

/// The handlers that are installed, and what was there before.
pub(crate) struct Handlers {
    installed: Vec<Layer>,
    _pipe: PipeWriter,
}

impl Handlers {
    /// None yet; and where the bytes come that report signals. There may be one such value at a time.
    pub(crate) fn new() -> io::Result<(Self, PipeReader)> {
        let (heard, pipe) = io::pipe()?;
        // A handler that waits for room could wait for the very thread that it interrupted.
        rustix::fs::fcntl_setfl(&pipe, OFlags::NONBLOCK)?;
        if OWNER.swap(own_pid(), Ordering::SeqCst) != own_pid() {
            // What ran in other threads of the parent, when this process was forked, runs in none of this process.
            RUNNING.store(0, Ordering::SeqCst);
        }
        PIPE.store(pipe.as_raw_fd(), Ordering::SeqCst);
        let installed = Vec::new();
        Ok((
            Self {
                installed,
                _pipe: pipe,
            },
            heard,
        ))
    }

    /// Lets `wanted` be told, and no others. A Ctrl-C or SIGTERM that the process ignores (a job in the background of
    /// a shell script) stays ignored.
    pub(crate) fn install(&mut self, wanted: &[Signal]) -> io::Result<()> {
        self.installed
            .extract_if(.., |layer| !wanted.contains(&layer.signal))
            .for_each(Layer::withdraw);
        for &signal in wanted {
            if self.installed.iter().all(|layer| layer.signal != signal) {
                self.installed.extend(Layer::install(signal)?);
            }
        }
        Ok(())
    }
}

impl Drop for Handlers {
    fn drop(&mut self) {
        let _ = self.install(&[]);
        PIPE.store(-1, Ordering::SeqCst);
        wait_for_handlers();
    }
}

/// Each is done in microseconds: it never waits.
fn wait_for_handlers() {
    while RUNNING.load(Ordering::SeqCst) > 0 {
        std::thread::yield_now();
    }
}

fn left() -> MutexGuard<'static, Vec<Layer>> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Layer {
    /// Installs a handler for the signal; `None` if the process ignores it.
    fn install(signal: Signal) -> io::Result<Option<Self>> {
        let before = current(number(signal))?;
        if before.sa_sigaction == libc::SIG_IGN && signal != Signal::Dump {
            return Ok(None);
        }
        let mut left = left();
        let on_top = |it: &Self| it.signal == signal && address(it.layer) == before.sa_sigaction;
        if let Some(on_top) = left.iter().position(on_top) {
            // The handler that had been installed over it is gone.
            let layer = left.swap_remove(on_top);
            ACTIVE[signal.index()].store(layer.layer, Ordering::SeqCst);
            return Ok(Some(layer));
        }
        let is_free = |layer: &usize| !left.iter().any(|it| it.signal == signal && it.layer == *layer);
        let Some(layer) = (0..LAYERS).find(is_free) else {
            // So many handlers that were installed over ours call it, as far as is known: rely on the last one.
            let last = left.iter().rposition(|it| it.signal == signal);
            let layer = last.map(|last| left.remove(last));
            if let Some(layer) = &layer {
                ACTIVE[signal.index()].store(layer.layer, Ordering::SeqCst);
            }
            return Ok(layer);
        };
        // It is installed nowhere, but may still run since it was.
        wait_for_handlers();
        BEFORE[signal.index()][layer].set(&before);
        ACTIVE[signal.index()].store(layer, Ordering::SeqCst);
        let mut action = before;
        action.sa_sigaction = address(layer);
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        match before.sa_sigaction {
            // Calls that can go on by themselves do.
            libc::SIG_DFL | libc::SIG_IGN => action.sa_flags |= libc::SA_RESTART,
            // As the program expects; the signals that it wants blocked in its handler are blocked in ours.
            _ => action.sa_flags |= before.sa_flags & libc::SA_RESTART,
        }
        // SAFETY: `action` has a valid mask, and its handler takes what SA_SIGINFO passes and is async-signal-safe.
        match unsafe { libc::sigaction(number(signal), &raw const action, std::ptr::null_mut()) } {
            0 => Ok(Some(Self {
                signal,
                layer,
                before,
            })),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Puts back what was there before, unless another handler was installed over this one: that stays.
    fn withdraw(self) {
        let on_top = current(number(self.signal)).is_ok_and(|it| it.sa_sigaction == address(self.layer));
        if on_top {
            // SAFETY: `before` came from sigaction itself; what it refers to is as valid as it was then, because a
            // handler that is installed has to stay valid.
            unsafe { libc::sigaction(number(self.signal), &raw const self.before, std::ptr::null_mut()) };
        }
        ACTIVE[self.signal.index()].store(LAYERS, Ordering::SeqCst);
        if !on_top {
            left().push(self);
        }
    }
}

fn address(layer: usize) -> libc::sighandler_t {
    HANDLERS[layer] as *const () as libc::sighandler_t
}

impl Before {
    const fn new() -> Self {
        Self {
            handler: AtomicUsize::new(libc::SIG_DFL),
            with_info: AtomicBool::new(false),
        }
    }

    fn set(&self, action: &libc::sigaction) {
        self.with_info
            .store(action.sa_flags & libc::SA_SIGINFO != 0, Ordering::SeqCst);
        self.handler.store(action.sa_sigaction, Ordering::SeqCst);
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

/// Only what may be done while any other function is interrupted: atomics, `getpid`, `sigaction` and `write`; and what
/// was there before.
extern "C" fn on_signal<const LAYER: usize>(
    number: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut c_void,
) {
    let Some(signal) = u8::try_from(number).ok().and_then(Signal::of) else {
        return;
    };
    RUNNING.fetch_add(1, Ordering::SeqCst);
    let is_ours =
        own_pid() == OWNER.load(Ordering::SeqCst) && ACTIVE[signal.index()].load(Ordering::SeqCst) == LAYER;
    if is_ours {
        report(number);
    }
    let before = &BEFORE[signal.index()][LAYER];
    let (handler, with_info) = (
        before.handler.load(Ordering::SeqCst),
        before.with_info.load(Ordering::SeqCst),
    );
    RUNNING.fetch_sub(1, Ordering::SeqCst);
    let pointer = std::ptr::with_exposed_provenance::<()>(handler);
    match handler {
        libc::SIG_IGN => {}
        // Unless a handler that was installed over this one has called it.
        libc::SIG_DFL => {
            if !is_ours && current(number).is_ok_and(|it| it.sa_sigaction == address(LAYER)) {
                by_default(number);
            }
        }
        _ if with_info => {
            // SAFETY: the system had this address with SA_SIGINFO: it is a handler of this type, which stays valid.
            let handler = unsafe { std::mem::transmute::<*const (), Handler>(pointer) };
            handler(number, info, context);
        }
        _ => {
            // SAFETY: as above, without SA_SIGINFO.
            let handler = unsafe { std::mem::transmute::<*const (), extern "C" fn(libc::c_int)>(pointer) };
            handler(number);
        }
    }
}

/// Writes the signal into the pipe. Async-signal-safe; called while [`RUNNING`] counts it.
fn report(number: libc::c_int) {
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
        // SAFETY: one byte is valid for reads; the descriptor is open, because `drop` closes it only when no handler
        // runs that may have loaded it (both sides' operations are SeqCst). A full pipe is an error: it has news already.
        unsafe { libc::write(pipe, (&raw const byte).cast(), 1) };
        // SAFETY: as above. The function that was interrupted must find its own.
        unsafe { errno.write(before) };
    }
}

fn number(signal: Signal) -> libc::c_int {
    match signal {
        Signal::Interrupt => libc::SIGINT,
        Signal::Terminate => libc::SIGTERM,
        Signal::Dump => libc::SIGUSR1,
    }
}

impl Signal {
    const ALL: [Self; SIGNALS] = [Self::Interrupt, Self::Terminate, Self::Dump];

    /// The signal that a byte from the pipe reports.
    pub(crate) fn of(byte: u8) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|signal| number(*signal) == libc::c_int::from(byte))
    }

    /// Where it is in [`ALL`](Self::ALL).
    fn index(self) -> usize {
        self as usize
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
    // SAFETY: `action` is valid and its handler ignores the signal or is `do_nothing`.
    match unsafe { libc::sigaction(number, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Does what the signal does by default, if that is what it does now: a handler of the program's has heard of it.
pub(crate) fn raise(signal: Signal) {
    if current(number(signal)).is_ok_and(|action| action.sa_sigaction != libc::SIG_DFL) {
        return;
    }
    let own = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: kill has no preconditions.
    unsafe { libc::kill(own, number(signal)) };
}

extern "C" fn do_nothing(_: libc::c_int) {}

/// Leaves Ctrl-C and SIGTERM that are sent to all processes of a job or a control group to the leader: the leader decides what becomes of tasks in progress. By a handler that does nothing: a program that
/// is started from here has these signals as ever, where it would inherit that they are ignored.
///
/// A worker is in no foreground group of its terminal. To use the terminal must not stop it or its programs, though: no shell would continue them. So they write whatever `stty tostop` says, and to read is an error.
pub(crate) fn leave_signals_to_leader() {
    for number in [libc::SIGINT, libc::SIGTERM] {
        if current(number).is_ok_and(|action| action.sa_sigaction == libc::SIG_DFL) {
            // It can't fail for these.
            let _ = set(number, do_nothing as *const () as libc::sighandler_t);
        }
    }
    for number in [libc::SIGTTIN, libc::SIGTTOU] {
        let _ = set(number, libc::SIG_IGN);
    }
}
