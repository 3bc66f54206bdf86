//! System calls of Linux that tests make directly: forks, waits, signal masks, changes of users and groups; and the
//! memory that a worker shares with its leader.
#![allow(unsafe_code, reason = "makes system calls of Linux")]

use std::mem::MaybeUninit;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

/// The number of bytes for blocks in each of the two arenas at the end of the shared memory.
pub(crate) const ARENA: usize = 64 << 20;
/// The number of words before them: a number in a pair of cache lines, and a queue of events. The reader writes them.
pub(crate) const EVENTS: usize = 16 + 2 * 1024;

/// Returns where, in bytes, the blocks of the arena of tasks (0) or outputs (1) are in the shared memory. The first of them lie at the
/// beginning.
pub(crate) fn arena(which: usize) -> std::ops::Range<usize> {
    let end = size_of_val(shared_words()) - (1 - which) * (EVENTS * size_of::<u64>() + ARENA);
    end - ARENA..end
}

/// Returns the memory that this worker shares with its leader, as words.
pub(crate) fn shared_words() -> &'static [AtomicU64] {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc is readable");
    // Pages that are inaccessible for a while split one mapping into several lines.
    let mut region: Option<(&str, usize, usize)> = None;
    for line in maps.lines().filter(|line| line.contains("memfd:shm-buffers")) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if !["rw-s", "---s"].contains(&fields[1]) {
            continue;
        }
        let (start, end) = fields[0].split_once('-').expect("a line starts with a range");
        let start = usize::from_str_radix(start, 16).expect("a range has two addresses");
        let end = usize::from_str_radix(end, 16).expect("a range has two addresses");
        region = match region {
            None => Some((fields[4], start, end)),
            Some((inode, first, last)) if inode == fields[4] && last == start => Some((inode, first, end)),
            other => other,
        };
    }
    let (_, start, end) = region.expect("the region is mapped");
    let words = std::ptr::with_exposed_provenance(start);
    // SAFETY: a shared mapping that this process keeps until it ends; page-aligned, and accessed only atomically, here and
    // by its owner.
    unsafe { std::slice::from_raw_parts(words, (end - start) / 8) }
}

/// Opens the memory that this worker shares with its leader, through a descriptor of the leader.
pub(crate) fn shared_file() -> Option<std::fs::File> {
    let address = format!("{:x}-", shared_words().as_ptr().addr());
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.starts_with(&address))?;
    let inode: u64 = line.split_whitespace().nth(4)?.parse().ok()?;
    let files = std::fs::read_dir(format!("/proc/{}/fd", std::os::unix::process::parent_id())).ok()?;
    let options = std::fs::File::options().read(true).write(true).clone();
    let is_it = |path: &std::path::PathBuf| {
        std::fs::metadata(path).is_ok_and(|it| std::os::unix::fs::MetadataExt::ino(&it) == inode)
    };
    let path = files.flatten().map(|entry| entry.path()).find(is_it)?;
    options.open(path).ok()
}

/// Forbids all writes to an anonymous file; returns whether the system allows that.
pub(crate) fn add_write_seal(file: &std::fs::File) -> bool {
    rustix::fs::fcntl_add_seals(file, rustix::fs::SealFlags::WRITE).is_ok()
}

/// Returns the whole pages of these words of shared memory to the system, in all processes.
pub(crate) fn punch_holes(words: &[AtomicU64]) {
    const PAGE: usize = 4096;
    let start = words.as_ptr().addr().next_multiple_of(PAGE);
    let end = (words.as_ptr().addr() + size_of_val(words)) / PAGE * PAGE;
    let pages = words.as_ptr().cast_mut().with_addr(start).cast();
    // SAFETY: whole pages of a shared mapping that is accessed only atomically, here and by its owner.
    unsafe { libc::madvise(pages, end - start, libc::MADV_REMOVE) };
}

/// Ends this process immediately, without running any of its code.
pub(crate) fn exit_immediately(code: i32) -> ! {
    // SAFETY: no preconditions.
    unsafe { libc::_exit(code) }
}

/// Waits until the processes have ended, at most `ms` milliseconds; returns `false` if one still runs.
pub(crate) fn ends_within(pids: &[u32], ms: u64) -> bool {
    let deadline = Instant::now() + Duration::from_millis(ms);
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
        let left = deadline.saturating_duration_since(Instant::now());
        // SAFETY: one valid pollfd.
        let ended = unsafe { libc::poll(&mut poll, 1, left.as_millis() as i32) } == 1;
        // SAFETY: opened above, and not used afterwards.
        unsafe { libc::close(fd as i32) };
        ended
    })
}

/// Closes every descriptor of this process but its standard streams.
pub(crate) fn close_all_files() {
    // SAFETY: no thread of this process uses a descriptor afterwards: the caller is the only one that works, and ends
    // the process next.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
}

/// Resets SIGPIPE to its default action, which ends the process.
pub(crate) fn reset_sigpipe() {
    // SAFETY: the default action needs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Resets SIGINT to its default action: a script's background jobs, and some programs that run tests, inherit that it
/// is ignored, and then a test that sends it would wait forever.
pub(crate) fn reset_sigint() {
    // SAFETY: the default action needs no handler.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
}

/// Blocks all signals that can be blocked, in this thread.
pub(crate) fn block_all_signals() {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `all` is valid for writes.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: sigfillset has initialised `all`, and a null pointer asks for no old mask.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), std::ptr::null_mut()) };
}

/// Changes the effective group of this process, and keeps its real one.
pub(crate) fn set_effective_group(group: u32) {
    // SAFETY: it takes numbers only; this process has no other thread that relies on its group.
    assert_eq!(unsafe { libc::setegid(group) }, 0, "root may have any group");
}

/// Changes the user and the group of this process for good.
pub(crate) fn become_user(user: u32) {
    // SAFETY: takes numbers only.
    let group = unsafe { libc::setresgid(user, user, user) };
    // SAFETY: takes numbers only; the threads of this process become that user's together.
    let user = unsafe { libc::setresuid(user, user, user) };
    assert_eq!((group, user), (0, 0), "root may become any user");
}

/// Forks a child that keeps every descriptor of this process open for four seconds, and exits with 7.
pub(crate) fn exit_leaving_a_fork() -> ! {
    // SAFETY: the child makes only async-signal-safe calls.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: no preconditions.
        unsafe { libc::sleep(4) };
    }
    exit_immediately(7)
}

/// A forked child of this process.
pub(crate) struct Forked(libc::pid_t);

impl Forked {
    /// Runs `child` in a forked child. The child exits with 0 if `child` returns `Ok`, with the code of its `Err`, or with
    /// 99 after a panic. A child that hangs is killed by SIGALRM.
    pub(crate) fn run(child: impl FnOnce() -> Result<(), u8>) -> Self {
        let forked = Self::fork();
        if forked.0 == 0 {
            std::panic::set_hook(Box::new(|_| {}));
            let result = std::panic::catch_unwind(AssertUnwindSafe(child));
            Self::exit(result.map_or(99, |result| result.err().unwrap_or(0)));
        }
        forked
    }

    /// Forks, and returns in the parent and in the child.
    pub(crate) fn fork() -> Self {
        // SAFETY: the child has a copy of this thread alone, and ends by `_exit`. Of the locks that other threads hold at
        // this moment, it takes the allocator's: the C library resets that one. The tests show that it takes no others.
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
        exit_immediately(code.into())
    }

    /// Waits for the end of the child and returns its exit status.
    pub(crate) fn wait(self) -> std::process::ExitStatus {
        let mut status = 0;
        // SAFETY: `status` is valid for writes.
        let reaped = unsafe { libc::waitpid(self.0, &raw mut status, 0) };
        assert_eq!(reaped, self.0, "{}", std::io::Error::last_os_error());
        std::os::unix::process::ExitStatusExt::from_raw(status)
    }
}
