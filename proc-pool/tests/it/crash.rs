//! Ways to die, and worse: the fenced home of what no safe program does.
#![allow(unsafe_code)]

use proc_pool::Cause;
use serde::{Deserialize, Serialize};

use crate::support;

/// What an op does to its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Crash {
    Panic,
    PanicWithANumber,
    PanicWithABomb,
    Exit0,
    Exit3,
    Abort,
    KillSelf,
    Segfault,
    /// Tells its pid and waits to be killed.
    KilledFromOutside,
    /// The same; it is stopped first.
    StoppedThenKilled,
    /// Stops itself, as SIGTSTP or a debugger would.
    StopSelf,
    /// Loses its files first and then its life, as a process does that is killed.
    DieSlowly,
    /// Asks for more memory than there is.
    AllocationFailure,
}

pub(crate) const CRASHES: [Crash; 10] = [
    Crash::Panic,
    Crash::PanicWithANumber,
    Crash::PanicWithABomb,
    Crash::Exit0,
    Crash::Exit3,
    Crash::Abort,
    Crash::KillSelf,
    Crash::Segfault,
    Crash::KilledFromOutside,
    Crash::StoppedThenKilled,
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
        let (number, name) = match self {
            Self::Panic | Self::PanicWithANumber | Self::PanicWithABomb => return None,
            Self::Exit0 => return Some(Cause::Exited { code: 0 }),
            Self::Exit3 => return Some(Cause::Exited { code: 3 }),
            Self::Abort | Self::AllocationFailure => (6, "SIGABRT"),
            Self::Segfault => (11, "SIGSEGV"),
            Self::KillSelf
            | Self::KilledFromOutside
            | Self::StoppedThenKilled
            | Self::StopSelf
            | Self::DieSlowly => (9, "SIGKILL"),
        };
        let name = name.to_owned();
        Some(Cause::Signal { number, name })
    }

    /// Does it; `socket` is where those that want to be killed tell their pid.
    pub(crate) fn suffer(self, socket: &str) -> ! {
        match self {
            Self::Panic => panic!("as asked"),
            Self::PanicWithANumber => std::panic::panic_any(42),
            Self::PanicWithABomb => std::panic::panic_any(Bomb),
            Self::Exit0 => std::process::exit(0),
            Self::Exit3 => std::process::exit(3),
            Self::Abort => std::process::abort(),
            Self::KillSelf => {
                let own = rustix::process::getpid();
                let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
                support::hang()
            }
            Self::Segfault => {
                let nowhere = std::ptr::without_provenance::<u8>(64);
                // SAFETY: it is not sound, and meant not to be: the first page is never mapped.
                let byte = unsafe { nowhere.read_volatile() };
                panic!("read {byte} from nowhere")
            }
            Self::KilledFromOutside | Self::StoppedThenKilled => {
                support::tell(socket, std::process::id());
                support::hang()
            }
            Self::StopSelf => {
                support::signal(std::process::id(), rustix::process::Signal::STOP);
                support::hang()
            }
            Self::DieSlowly => {
                // SAFETY: nobody uses a descriptor of this process any more: this thread is the only one that works.
                unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
                std::thread::sleep(std::time::Duration::from_millis(100));
                Self::KillSelf.suffer(socket)
            }
            Self::AllocationFailure => {
                let much = Vec::<u8>::with_capacity(isize::MAX as usize / 2);
                panic!("got {} bytes", much.capacity())
            }
        }
    }
}

/// Runs before everything else, even before `init`.
extern "C" fn before_init() {
    if let Ok(code) = std::env::var("IT_EXIT_BEFORE_INIT") {
        let code = code.parse().unwrap_or(99);
        if support::is_worker_before_init() {
            // SAFETY: _exit has no preconditions.
            unsafe { libc::_exit(code) };
        }
    }
    if std::env::var_os("IT_NO_THREADS").is_some() && support::is_worker_before_init() {
        crate::trip::no_more_threads();
    }
    crate::matrix::before_init();
    crate::hostile::before_init();
    if std::env::var_os("IT_STOP_BEFORE_INIT").is_some() && support::is_worker_before_init() {
        crate::leaders::stop_before_init();
    }
}

#[used]
#[unsafe(link_section = ".init_array.00200")]
static BEFORE_INIT: extern "C" fn() = before_init;

/// The memory that this worker shares with its leader, as words.
pub(crate) fn shared_words() -> &'static [std::sync::atomic::AtomicU64] {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps are readable");
    // Pages that are taken away for a while make several lines of one mapping.
    let mut region: Option<(&str, usize, usize)> = None;
    for line in maps.lines().filter(|line| line.contains("memfd:shm-buffers")) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if !["rw-s", "---s"].contains(&fields[1]) {
            continue;
        }
        let (start, end) = fields[0].split_once('-').expect("a range");
        let start = usize::from_str_radix(start, 16).expect("an address");
        let end = usize::from_str_radix(end, 16).expect("an address");
        region = match region {
            None => Some((fields[4], start, end)),
            Some((inode, first, last)) if inode == fields[4] && last == start => Some((inode, first, end)),
            other => other,
        };
    }
    let (_, start, end) = region.expect("the region is mapped");
    let words = std::ptr::with_exposed_provenance(start);
    // SAFETY: a shared mapping of this process that it keeps to its end; page-aligned, and accessed atomically
    // only, here and by its owner.
    unsafe { std::slice::from_raw_parts(words, (end - start) / 8) }
}

/// What SIGPIPE does in this process.
pub(crate) fn reset_sigpipe() {
    // SAFETY: the default action needs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Waits until process `pid` has ended, or `ms` milliseconds; `false` if it lives.
pub(crate) fn ends_within(pids: &[u32], ms: i32) -> bool {
    let deadline = std::time::Instant::now() + std::time::Duration::from_millis(ms as u64);
    pids.iter().all(|&pid| {
        // SAFETY: pidfd_open takes any pid and makes a descriptor or fails.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return true;
        }
        let mut poll = libc::pollfd {
            fd: fd as i32,
            events: libc::POLLIN,
            revents: 0,
        };
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        // SAFETY: one valid pollfd.
        let ended = unsafe { libc::poll(&mut poll, 1, left.as_millis() as i32) } == 1;
        // SAFETY: ours, and not used afterwards.
        unsafe { libc::close(fd as i32) };
        ended
    })
}

/// Leaves a forked child behind, with every descriptor of this process, and exits with 7. The child ends with the
/// test.
pub(crate) fn fork_and_die() -> ! {
    // SAFETY: the child makes only async-signal-safe calls.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: no preconditions.
        unsafe { libc::sleep(4) };
    }
    // SAFETY: no preconditions.
    unsafe { libc::_exit(7) }
}

/// Gives this process another effective group, and keeps its real one.
pub(crate) fn set_effective_group(group: u32) {
    // SAFETY: it takes numbers only; this process has no other thread that relies on its group.
    assert_eq!(unsafe { libc::setegid(group) }, 0, "root may have any group");
}

/// Makes this process another user's, for good.
pub(crate) fn become_user(user: u32) {
    // SAFETY: takes numbers only.
    let group = unsafe { libc::setresgid(user, user, user) };
    // SAFETY: takes numbers only; the threads of this process become that user's together.
    let user = unsafe { libc::setresuid(user, user, user) };
    assert_eq!((group, user), (0, 0), "root may become any user");
}

/// Keeps this thread from answering a question for its stack.
#[cfg(feature = "stacks")]
pub(crate) fn ignore_questions() {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: `set` is valid for writes.
    unsafe { libc::sigfillset(set.as_mut_ptr()) };
    // SAFETY: sigfillset has initialized it; all signals that can be blocked are, in this thread alone.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) };
}

/// A forked child of this process.
pub(crate) struct Forked(libc::pid_t);

impl Forked {
    /// Runs `child` in a forked child, which ends with 0 if that returns `Ok`, and otherwise with the code, or with 99 after
    /// a panic. A child that hangs is killed by SIGALRM.
    pub(crate) fn run(child: impl FnOnce() -> Result<(), u8>) -> Self {
        // SAFETY: the child has a copy of this thread alone, and ends by `_exit`. Of the locks that other threads hold now,
        // it takes the allocator's, which the C library resets. The tests show that it takes no others.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "{}", std::io::Error::last_os_error());
        if pid == 0 {
            // SAFETY: no preconditions.
            unsafe { libc::alarm(20) };
            std::panic::set_hook(Box::new(|_| {}));
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
            Self::exit(result.map_or(99, |result| result.err().unwrap_or(0)));
        }
        Self(pid)
    }

    /// Forks, and returns in the child, too.
    pub(crate) fn go_on() -> Self {
        // SAFETY: as in `run`.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "{}", std::io::Error::last_os_error());
        if pid == 0 {
            // SAFETY: no preconditions.
            unsafe { libc::alarm(20) };
        }
        Self(pid)
    }

    /// Ends a child.
    pub(crate) fn exit(code: u8) -> ! {
        // SAFETY: no preconditions.
        unsafe { libc::_exit(code.into()) }
    }

    /// Its exit status, once it has ended.
    pub(crate) fn wait(self) -> std::process::ExitStatus {
        let mut status = 0;
        // SAFETY: `status` is valid for writes.
        let reaped = unsafe { libc::waitpid(self.0, &raw mut status, 0) };
        assert_eq!(reaped, self.0, "{}", std::io::Error::last_os_error());
        std::os::unix::process::ExitStatusExt::from_raw(status)
    }
}

/// Resets SIGINT to its default action in this process: where these tests run in the background of a script, or under a
/// program that ignores it, a test of it would wait in vain.
pub(crate) fn reset_interrupts() {
    // SAFETY: the default action needs no handler.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
}

/// Blocks all signals that can be blocked, in this thread.
pub(crate) fn block_all_signals() {
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `all` is valid for writes.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: the call above has initialised `all`, and no old mask is asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), std::ptr::null_mut()) };
}
