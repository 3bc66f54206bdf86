//! The process's signal handlers, on Unix. `pool::signals` reads the pipe into which they write.
//!
//! A handler of this module calls the handler that was installed before it. A handler that other code installs later may call
//! this module's in the same way, and may continue to do so when no pool listens any more. Then this module's handler stays
//! installed under it, and the next pool installs another one (the next layer), so that two handlers never call each other
//! endlessly.
#![allow(unsafe_code, reason = "installs signal handlers")]

use std::ffi::c_void;
use std::io::{self, PipeReader, PipeWriter};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::OFlags;

use super::Signal;

/// The descriptor to which the handlers write; negative if no handlers are installed.
static PIPE: AtomicI32 = AtomicI32::new(-1);
/// The process that has installed the handlers. A forked child has them as well, but the pipe belongs to its parent.
static OWNER: AtomicI32 = AtomicI32::new(0);
/// Number of handlers that run now. While one runs the pipe must not be closed, because its number could become that of another
/// file.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Maximum number of handlers of this module for one signal.
const LAYERS: usize = 4;
const SIGNALS: usize = 3;

type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut c_void);

/// The handlers of the layers, each with an address of its own.
static HANDLERS: [Handler; LAYERS] = [on_signal::<0>, on_signal::<1>, on_signal::<2>, on_signal::<3>];

/// For each signal and layer, the handler that the layer has replaced, and that it calls.
static BEFORE: [[Before; LAYERS]; SIGNALS] = [const { [const { Before::new() }; LAYERS] }; SIGNALS];

/// For each signal, the layer that writes to the pipe; [`LAYERS`] for none.
static ACTIVE: [AtomicUsize; SIGNALS] = [const { AtomicUsize::new(LAYERS) }; SIGNALS];

/// Layers that no pool needs any more, but which are installed under handlers of other code.
static LEFT: Mutex<Vec<Layer>> = Mutex::new(Vec::new());

/// The action of a signal before a handler of this module was installed.
struct Before {
    handler: AtomicUsize,
    with_info: AtomicBool,
}

/// An installed handler of this module.
struct Layer {
    signal: Signal,
    /// The index of the layer.
    layer: usize,
    before: libc::sigaction,
}

/// The installed handlers, with the actions that they have replaced.
pub(crate) struct Handlers {
    installed: Vec<Layer>,
    _pipe: PipeWriter,
}

impl Handlers {
    /// Makes a value without handlers. Returns the pipe from which one byte for each signal can be read. At most one such value
    /// may exist at a time.
    pub(crate) fn new() -> io::Result<(Self, PipeReader)> {
        let (pipe_reader, pipe) = io::pipe()?;
        // A handler must not wait for room in the pipe: it could wait for the very thread that it has interrupted.
        rustix::fs::fcntl_setfl(&pipe, OFlags::NONBLOCK)?;
        if OWNER.swap(own_pid(), Ordering::SeqCst) != own_pid() {
            // The count comes from other threads of the parent, at the time when this process was forked. No such thread runs
            // in this process.
            RUNNING.store(0, Ordering::SeqCst);
        }
        PIPE.store(pipe.as_raw_fd(), Ordering::SeqCst);
        let installed = Vec::new();
        Ok((
            Self {
                installed,
                _pipe: pipe,
            },
            pipe_reader,
        ))
    }

    /// Sets the signals that are reported. If the process ignores Ctrl-C or SIGTERM (a background job of a shell script does),
    /// that signal stays ignored.
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

/// Waits until no handler runs. Each takes microseconds, because it never waits.
fn wait_for_handlers() {
    while RUNNING.load(Ordering::SeqCst) > 0 {
        std::thread::yield_now();
    }
}

fn left() -> MutexGuard<'static, Vec<Layer>> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Layer {
    /// Installs a handler for the signal. Returns `None` if the process ignores the signal.
    fn install(signal: Signal) -> io::Result<Option<Self>> {
        let before = current(number(signal))?;
        if before.sa_sigaction == libc::SIG_IGN && signal != Signal::Dump {
            return Ok(None);
        }
        let mut left = left();
        let on_top = |it: &Self| it.signal == signal && address(it.layer) == before.sa_sigaction;
        if let Some(on_top) = left.iter().position(on_top) {
            // The handler that other code had installed over it is gone.
            let layer = left.swap_remove(on_top);
            ACTIVE[signal.index()].store(layer.layer, Ordering::SeqCst);
            return Ok(Some(layer));
        }
        let is_free = |layer: &usize| !left.iter().any(|it| it.signal == signal && it.layer == *layer);
        let Some(layer) = (0..LAYERS).find(is_free) else {
            // All layers are in use, under handlers of other code. As far as is known, those call them: use the last layer.
            let last = left.iter().rposition(|it| it.signal == signal);
            let layer = last.map(|last| left.remove(last));
            if let Some(layer) = &layer {
                ACTIVE[signal.index()].store(layer.layer, Ordering::SeqCst);
            }
            return Ok(layer);
        };
        // The layer is not installed now, but a handler may still run from when it was.
        wait_for_handlers();
        BEFORE[signal.index()][layer].set(&before);
        ACTIVE[signal.index()].store(layer, Ordering::SeqCst);
        let mut action = before;
        action.sa_sigaction = address(layer);
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        match before.sa_sigaction {
            // Restarts interrupted calls, where that is possible.
            libc::SIG_DFL | libc::SIG_IGN => action.sa_flags |= libc::SA_RESTART,
            // Does what the program expects. The mask, too, is the one of the program's handler.
            _ => action.sa_flags |= before.sa_flags & libc::SA_RESTART,
        }
        // SAFETY: `action` has a valid mask. Its handler takes the arguments that SA_SIGINFO passes, and is async-signal-safe.
        match unsafe { libc::sigaction(number(signal), &raw const action, std::ptr::null_mut()) } {
            0 => Ok(Some(Self {
                signal,
                layer,
                before,
            })),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Restores the previous action, unless other code has installed a handler over this one: that handler stays.
    fn withdraw(self) {
        let on_top = current(number(self.signal)).is_ok_and(|it| it.sa_sigaction == address(self.layer));
        if on_top {
            // SAFETY: `before` came from sigaction itself. The handler in it is as valid as it was then, because a handler that is
            // installed must stay valid.
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

/// Performs the default action of the signal. Async-signal-safe.
fn perform_default(number: libc::c_int) {
    // SAFETY: the default action needs no handler, and `signal` may be called in handlers.
    unsafe { libc::signal(number, libc::SIG_DFL) };
    // SAFETY: kill has no preconditions. The signal is delivered when the handler has returned.
    unsafe { libc::kill(own_pid(), number) };
}

/// The handler of a layer. It does only what is allowed while any other function is interrupted: atomics, `getpid`,
/// `sigaction` and `write`. Then it calls the handler that was installed before.
extern "C" fn on_signal<const LAYER: usize>(
    number: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut c_void,
) {
    let Some(signal) = u8::try_from(number).ok().and_then(Signal::of) else {
        return;
    };
    RUNNING.fetch_add(1, Ordering::SeqCst);
    let is_active =
        own_pid() == OWNER.load(Ordering::SeqCst) && ACTIVE[signal.index()].load(Ordering::SeqCst) == LAYER;
    if is_active {
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
        // Not if a handler of other code, installed over this one, has called it.
        libc::SIG_DFL => {
            if !is_active && current(number).is_ok_and(|it| it.sa_sigaction == address(LAYER)) {
                perform_default(number);
            }
        }
        _ if with_info => {
            // SAFETY: the system had this address as a handler, with SA_SIGINFO. So it is a function of this type, and it must
            // stay valid.
            let handler = unsafe { std::mem::transmute::<*const (), Handler>(pointer) };
            handler(number, info, context);
        }
        _ => {
            // SAFETY: as above, but without SA_SIGINFO: a function of this type.
            let handler = unsafe { std::mem::transmute::<*const (), extern "C" fn(libc::c_int)>(pointer) };
            handler(number);
        }
    }
}

/// Writes the signal into the pipe. Async-signal-safe. The caller must be counted in [`RUNNING`].
fn report(number: libc::c_int) {
    let pipe = PIPE.load(Ordering::SeqCst);
    if pipe >= 0 {
        let byte = number as u8;
        #[cfg(target_os = "linux")]
        // SAFETY: the function has no preconditions.
        let errno = unsafe { libc::__errno_location() };
        #[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
        // SAFETY: the function has no preconditions.
        let errno = unsafe { libc::__error() };
        // SAFETY: the address of this thread's errno is valid as long as the thread exists.
        let before = unsafe { errno.read() };
        // SAFETY: one byte is valid for reads. The descriptor is open: `drop` stores -1 and closes the pipe only when no handler
        // runs that may have loaded the descriptor (the operations of both sides are SeqCst). If the pipe is full, the call
        // fails, and the reader has bytes to read anyway.
        unsafe { libc::write(pipe, (&raw const byte).cast(), 1) };
        // SAFETY: as above. The function that was interrupted must find its own value of errno.
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

    /// Returns its index in [`ALL`](Self::ALL).
    fn index(self) -> usize {
        self as usize
    }
}

/// Returns the current action of a signal.
fn current(number: libc::c_int) -> io::Result<libc::sigaction> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: `action` is valid for writes, and without a new action, sigaction only writes the current one there.
    match unsafe { libc::sigaction(number, std::ptr::null(), action.as_mut_ptr()) } {
        // SAFETY: all-zero is a valid sigaction, and the call has written a valid one.
        0 => Ok(unsafe { action.assume_init() }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets the handler of a signal.
fn set(number: libc::c_int, handler: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: all-zero is a valid sigaction: no flags, an empty mask.
    let mut action = unsafe { MaybeUninit::<libc::sigaction>::zeroed().assume_init() };
    action.sa_sigaction = handler;
    // Restarts interrupted calls, where that is possible.
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `action` is valid. Its handler is SIG_IGN or `leave_to_leader`.
    match unsafe { libc::sigaction(number, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Performs the default action of the signal if that is its current action. Otherwise a handler of the program has been called
/// already, and this does nothing.
pub(crate) fn raise(signal: Signal) {
    if current(number(signal)).is_ok_and(|action| action.sa_sigaction != libc::SIG_DFL) {
        return;
    }
    let own = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: kill has no preconditions.
    unsafe { libc::kill(own, number(signal)) };
}

/// The process id of the worker that leaves signals to its leader.
static WORKER: AtomicI32 = AtomicI32::new(0);

/// Does nothing in a worker. A fork of it has the same handlers; there, the signal has its default action.
extern "C" fn leave_to_leader(signal: libc::c_int) {
    if WORKER.load(Ordering::Relaxed) != own_pid() {
        perform_default(signal);
    }
}

/// Leaves Ctrl-C and SIGTERM, which may be sent to all processes of a job or a cgroup, to the leader: it decides what happens to
/// tasks in progress. A worker has a handler that does nothing, instead of ignoring the signals: programs that it starts would
/// inherit that they are ignored. Processes that an op forks without starting a program can be terminated, too.
///
/// A worker is not in the foreground process group of its terminal. The system would stop a background process that uses the
/// terminal, and no shell would continue it. So a worker, and the programs that it starts, ignore SIGTTIN and SIGTTOU: they can
/// write even with `stty tostop`, and reading is an error.
pub(crate) fn leave_signals_to_leader() {
    WORKER.store(own_pid(), Ordering::Relaxed);
    for number in [libc::SIGINT, libc::SIGTERM] {
        if current(number).is_ok_and(|action| action.sa_sigaction == libc::SIG_DFL) {
            // It can't fail for these signals.
            let _ = set(number, leave_to_leader as *const () as libc::sighandler_t);
        }
    }
    for number in [libc::SIGTTIN, libc::SIGTTOU] {
        let _ = set(number, libc::SIG_IGN);
    }
}
