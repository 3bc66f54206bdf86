//! Faults within the pool's own code, injected without its help: pages and system calls at which a worker crashes, and
//! resources that run out.
#![allow(unsafe_code, reason = "injects faults by system calls")]

use std::ffi::c_void;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use rustix::process::{Resource, Rlimit};

use super::Crash;

/// The crash that happens at the next trap, as an index into [`IN_HANDLERS`].
static ARMED: AtomicU8 = AtomicU8::new(0);
/// The protected pages: their address and length.
static START: AtomicUsize = AtomicUsize::new(0);
static LENGTH: AtomicUsize = AtomicUsize::new(0);

/// The crashes that work in a signal handler, where nothing can unwind.
const IN_HANDLERS: [Crash; 8] = [
    Crash::Exit0,
    Crash::Exit3,
    Crash::Abort,
    Crash::KillSelf,
    Crash::Segfault,
    Crash::StopSelf,
    Crash::CloseFilesThenDie,
    Crash::AllocationFailure,
];

/// What happens at the next access to the protected pages.
#[derive(Debug, Clone)]
pub(crate) enum Trap {
    Crash(Crash),
    /// The process stops. When it is continued, the access has happened.
    Stop,
    /// The access happens, and the process crashes at the next access to other pages.
    Then(Range<usize>, Crash),
}

const CRASH: u8 = 0;
const STOP: u8 = 1;
const PROTECT_OTHERS: u8 = 2;

/// The kind of the trap, one of the above.
static KIND: AtomicU8 = AtomicU8::new(CRASH);
/// The pages to protect next: their address and length.
static NEXT_START: AtomicUsize = AtomicUsize::new(0);
static NEXT_LENGTH: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_trap(_: libc::c_int) {
    match KIND.swap(CRASH, Ordering::Relaxed) {
        STOP => {
            protect(libc::PROT_READ | libc::PROT_WRITE);
            // SAFETY: no preconditions; it may be called in a handler.
            unsafe { libc::raise(libc::SIGSTOP) };
            return;
        }
        PROTECT_OTHERS => {
            protect(libc::PROT_READ | libc::PROT_WRITE);
            START.store(NEXT_START.load(Ordering::Relaxed), Ordering::Relaxed);
            LENGTH.store(NEXT_LENGTH.load(Ordering::Relaxed), Ordering::Relaxed);
            protect(libc::PROT_NONE);
            return;
        }
        _ => {}
    }
    for signal in [libc::SIGSEGV, libc::SIGSYS] {
        // SAFETY: the default action needs no handler.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    protect(libc::PROT_READ | libc::PROT_WRITE);
    IN_HANDLERS[usize::from(ARMED.load(Ordering::Relaxed))].run("")
}

fn protect(how: libc::c_int) {
    let start = std::ptr::with_exposed_provenance_mut::<c_void>(START.load(Ordering::Relaxed));
    // SAFETY: whole pages of the shared region or of an output, or none; they are mapped until they were touched at least. Code
    // that touches protected pages raises a signal: that is their purpose.
    unsafe { libc::mprotect(start, LENGTH.load(Ordering::Relaxed), how) };
}

fn arm(crash: Crash) {
    let index = IN_HANDLERS.iter().position(|it| *it == crash);
    let index = index.expect("this crash works in a handler");
    ARMED.store(index as u8, Ordering::Relaxed);
    for signal in [libc::SIGSEGV, libc::SIGSYS] {
        let handler: extern "C" fn(libc::c_int) = on_trap;
        // SAFETY: the handler interrupts only the accesses and calls set up here, at which no lock is held.
        unsafe { libc::signal(signal, handler as *const () as libc::sighandler_t) };
    }
}

/// Makes this process crash when it touches a whole page within these bytes of the shared region.
pub(crate) fn crash_on_access(range: Range<usize>, crash: Crash) {
    trap(in_region(range), Trap::Crash(crash));
}

/// Returns the addresses of these bytes of the shared region.
pub(crate) fn in_region(range: Range<usize>) -> Range<usize> {
    let region = super::shared_words().as_ptr().expose_provenance();
    region + range.start..region + range.end
}

/// Sets a trap for the next access to a whole page within these addresses.
pub(crate) fn trap(addresses: Range<usize>, trap: Trap) {
    let pages = |range: Range<usize>| {
        const PAGE: usize = 4096;
        let start = range.start.next_multiple_of(PAGE);
        (start, range.end / PAGE * PAGE - start)
    };
    let (kind, crash) = match trap {
        Trap::Crash(crash) => (CRASH, crash),
        Trap::Stop => (STOP, Crash::StopSelf),
        Trap::Then(next, crash) => {
            let (start, length) = pages(next);
            NEXT_START.store(start, Ordering::Relaxed);
            NEXT_LENGTH.store(length, Ordering::Relaxed);
            (PROTECT_OTHERS, crash)
        }
    };
    KIND.store(kind, Ordering::Relaxed);
    arm(crash);
    let (start, length) = pages(addresses);
    START.store(start, Ordering::Relaxed);
    LENGTH.store(length, Ordering::Relaxed);
    protect(libc::PROT_NONE);
}

/// Makes this process crash when this thread makes the system call `number`.
pub(crate) fn crash_on_call(number: libc::c_long, crash: Crash) {
    arm(crash);
    filter(&[number], libc::SECCOMP_RET_TRAP, Reach::Thread);
}

/// The threads for which a system call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// This thread, and the threads that it starts.
    Thread,
    /// All threads of the process.
    Process,
}

/// Makes these system calls fail with `errno` from now on.
fn fail_calls(numbers: &[libc::c_long], errno: i32, reach: Reach) {
    filter(numbers, libc::SECCOMP_RET_ERRNO | errno as u32, reach);
}

/// Makes the kernel take `action` at these system calls.
fn filter(numbers: &[libc::c_long], action: u32, reach: Reach) {
    let statement = |code: u32, jt: usize, k: u32| libc::sock_filter {
        code: code as u16,
        jt: jt as u8,
        jf: 0,
        k,
    };
    let mut program = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
    for (index, number) in numbers.iter().enumerate() {
        let to_action = numbers.len() - index;
        program.push(statement(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            to_action,
            *number as u32,
        ));
    }
    for result in [libc::SECCOMP_RET_ALLOW, action] {
        program.push(statement(libc::BPF_RET | libc::BPF_K, 0, result));
    }
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    let flags = match reach {
        Reach::Thread => 0,
        Reach::Process => libc::SECCOMP_FILTER_FLAG_TSYNC,
    };
    // SAFETY: takes numbers only.
    let privileges = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: `program` and the statements that it points to live until the call returns; the kernel copies them.
    let installed =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &program) };
    assert_eq!(
        (privileges, installed),
        (0, 0),
        "a filter of system calls can be installed"
    );
}

/// Makes every attempt to open a file fail with EMFILE.
pub(crate) fn no_more_files() {
    limit(Resource::Nofile, 3);
}

/// Makes every allocation fail that needs more memory from the system.
pub(crate) fn no_more_memory() {
    let stat = std::fs::read_to_string("/proc/self/statm").expect("/proc is readable");
    let pages = stat.split(' ').next().and_then(|pages| pages.parse::<u64>().ok());
    limit(Resource::As, pages.expect("statm starts with a number") * 4096);
}

fn limit(resource: Resource, current: u64) {
    let current = Some(current);
    let limits = rustix::process::getrlimit(resource);
    rustix::process::setrlimit(resource, Rlimit { current, ..limits }).expect("a limit can be lowered");
}

/// Makes this thread unable to start threads, as when its user has too many.
pub(crate) fn no_more_threads() {
    fail_calls(&[libc::SYS_clone, libc::SYS_clone3], libc::EAGAIN, Reach::Thread);
}

/// Makes every creation of shared memory fail with ENOSPC.
pub(crate) fn no_space_for_memory(reach: Reach) {
    fail_calls(&[libc::SYS_ftruncate, libc::SYS_fallocate], libc::ENOSPC, reach);
}

/// Makes every creation of a pair of sockets fail with ENOSPC.
pub(crate) fn no_space_for_sockets(reach: Reach) {
    fail_calls(&[libc::SYS_socketpair], libc::ENOSPC, reach);
}

/// Leaves a worker a descriptor for its connection, and none for the descriptors that its leader sends.
pub(crate) fn no_file_for_the_handshake() {
    limit(Resource::Nofile, 4);
}
