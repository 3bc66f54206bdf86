//! Faults within the pool's own code, without its help: pages and system calls that a worker runs into, and resources
//! that it runs out of.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use rustix::process::{Resource, Rlimit};

use crate::crash::Crash;

/// What happens to whoever trips.
static WAITING: AtomicU8 = AtomicU8::new(0);
/// The pages that nobody may touch: their address and length.
static START: AtomicUsize = AtomicUsize::new(0);
static LENGTH: AtomicUsize = AtomicUsize::new(0);

/// Crashes that work in a signal's handler, where nothing can unwind.
const IN_HANDLERS: [Crash; 8] = [
    Crash::Exit0,
    Crash::Exit3,
    Crash::Abort,
    Crash::KillSelf,
    Crash::Segfault,
    Crash::StopSelf,
    Crash::DieSlowly,
    Crash::AllocationFailure,
];

extern "C" fn tripped(_: libc::c_int) {
    for signal in [libc::SIGSEGV, libc::SIGSYS] {
        // SAFETY: the default action needs no handler.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    protect(libc::PROT_READ | libc::PROT_WRITE);
    IN_HANDLERS[usize::from(WAITING.load(Ordering::Relaxed))].suffer("")
}

fn protect(how: libc::c_int) {
    let start = std::ptr::with_exposed_provenance_mut::<c_void>(START.load(Ordering::Relaxed));
    // SAFETY: whole pages of the shared region, or none, which is mapped for as long as this process lives. Who
    // touches them meanwhile gets a signal, which is what this is for.
    unsafe { libc::mprotect(start, LENGTH.load(Ordering::Relaxed), how) };
}

fn set(crash: Crash) {
    let place = IN_HANDLERS.iter().position(|it| *it == crash);
    let place = place.expect("nothing unwinds from a handler");
    WAITING.store(place as u8, Ordering::Relaxed);
    for signal in [libc::SIGSEGV, libc::SIGSYS] {
        let handler: extern "C" fn(libc::c_int) = tripped;
        // SAFETY: the handler interrupts only the accesses and calls set up here, at which no lock is held.
        unsafe { libc::signal(signal, handler as *const () as libc::sighandler_t) };
    }
}

/// Whoever touches a whole page within these bytes of the shared region suffers `crash`.
pub(crate) fn on_bytes(range: std::ops::Range<usize>, crash: Crash) {
    const PAGE: usize = 4096;
    set(crash);
    let start = range.start.next_multiple_of(PAGE);
    let length = range.end / PAGE * PAGE - start;
    let region = crate::crash::shared_words().as_ptr().expose_provenance();
    START.store(region + start, Ordering::Relaxed);
    LENGTH.store(length, Ordering::Relaxed);
    protect(libc::PROT_NONE);
}

/// This thread suffers `crash` when it makes this system call.
pub(crate) fn on_call(number: libc::c_long, crash: Crash) {
    set(crash);
    filter(&[number], libc::SECCOMP_RET_TRAP, Reach::Thread);
}

/// Which threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// This one, and those that it starts.
    Thread,
    /// All of the process.
    Process,
}

/// These system calls fail from now on.
fn fail_calls(numbers: &[libc::c_long], errno: i32, reach: Reach) {
    filter(numbers, libc::SECCOMP_RET_ERRNO | errno as u32, reach);
}

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
    let alone = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: `program` and the statements that it points to live until the call returns; the kernel copies them.
    let set = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &program) };
    assert_eq!((alone, set), (0, 0), "filters of system calls can be set");
}

/// Nothing can be opened any more.
pub(crate) fn no_more_files() {
    limit(Resource::Nofile, 3);
}

/// No more memory than there is can be had.
pub(crate) fn no_more_memory() {
    let stat = std::fs::read_to_string("/proc/self/statm").expect("it is readable");
    let pages = stat.split(' ').next().and_then(|pages| pages.parse::<u64>().ok());
    limit(Resource::As, pages.expect("a number") * 4096);
}

fn limit(resource: Resource, current: u64) {
    let current = Some(current);
    let limits = rustix::process::getrlimit(resource);
    rustix::process::setrlimit(resource, Rlimit { current, ..limits }).expect("less is allowed");
}

/// This thread can start no other one, as when its user has too many.
pub(crate) fn no_more_threads() {
    fail_calls(&[libc::SYS_clone, libc::SYS_clone3], libc::EAGAIN, Reach::Thread);
}

/// Memory that can be shared needs space, and gets none.
pub(crate) fn no_space_for_memory(reach: Reach) {
    fail_calls(&[libc::SYS_ftruncate, libc::SYS_fallocate], libc::ENOSPC, reach);
}

/// Pairs of sockets need space, and get none.
pub(crate) fn no_space_for_sockets(reach: Reach) {
    fail_calls(&[libc::SYS_socketpair], libc::ENOSPC, reach);
}

/// A connection can be kept, and nothing else.
pub(crate) fn no_file_for_an_introduction() {
    limit(Resource::Nofile, 4);
}

/// Sends random bytes, and few of them at a time, to the leader of this process, through `socket`.
pub(crate) fn say_anything(socket: libc::c_int, seed: u64) {
    let mut random = crate::support::random(seed);
    loop {
        let len = random() as usize % 40;
        let bytes: Vec<u8> = (0..len).map(|_| (random() >> (random() % 64)) as u8).collect();
        say(socket, &bytes);
        std::thread::sleep(std::time::Duration::from_micros(random() % 2000));
    }
}

/// Sends these bytes to the leader of this process, without waiting; `false` if there was no room for them.
pub(crate) fn say(socket: libc::c_int, bytes: &[u8]) -> bool {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: `bytes` are valid for reads; a descriptor that is no socket is refused.
    let sent = unsafe { libc::send(socket, bytes.as_ptr().cast(), bytes.len(), flags) };
    sent == bytes.len() as isize
}

/// A worker's socket to its leader: the first descriptor that a process of these tests has beside its standard streams.
pub(crate) const LEADER: libc::c_int = 3;

/// Sends these bytes to the leader of this process with as many descriptors as a message may have.
pub(crate) fn say_with_descriptors(socket: libc::c_int, bytes: &[u8]) {
    use std::io::IoSlice;
    use std::mem::MaybeUninit;
    use std::os::fd::{AsFd, BorrowedFd};

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    let null = std::fs::File::open("/dev/null").expect("it is there");
    let fds = [null.as_fd(); 200];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(200))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    // SAFETY: it is borrowed for one call, which refuses what is no socket.
    let leader = unsafe { BorrowedFd::borrow_raw(socket) };
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let _ = sendmsg(leader, &[IoSlice::new(bytes)], &mut control, flags);
}
