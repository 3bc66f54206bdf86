//! Raw bytes on a worker's connection to its leader, past the pool's own code.
#![allow(unsafe_code, reason = "reads an inherited descriptor")]

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// The connection of a worker that has not called `init`: its standard input.
pub(crate) const BEFORE_INIT: i32 = 0;

/// Returns the connection of a worker that is ready: the only socket among its descriptors.
pub(crate) fn to_leader() -> i32 {
    static CONNECTION: OnceLock<i32> = OnceLock::new();
    let is_socket = |fd: &i32| {
        let target = std::fs::read_link(format!("/proc/self/fd/{fd}"));
        target.is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
    };
    *CONNECTION.get_or_init(|| (3..1000).find(is_socket).expect("a worker has a connection"))
}

/// Sends these bytes without waiting; returns `false` if there was no room for them.
pub(crate) fn send(connection: i32, bytes: &[u8]) -> bool {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: `bytes` are valid for reads; a descriptor that is no socket is refused.
    let sent = unsafe { libc::send(connection, bytes.as_ptr().cast(), bytes.len(), flags) };
    sent == bytes.len() as isize
}

/// Sends short sequences of random bytes, without an end.
pub(crate) fn send_random_bytes(connection: i32, seed: u64) -> ! {
    let mut random = super::random(seed);
    loop {
        let len = random() as usize % 40;
        let bytes: Vec<u8> = (0..len).map(|_| (random() >> (random() % 64)) as u8).collect();
        send(connection, &bytes);
        std::thread::sleep(Duration::from_micros(random() % 2000));
    }
}

/// Sends these bytes with 200 descriptors.
pub(crate) fn send_descriptors(connection: i32, bytes: &[u8]) {
    let null = std::fs::File::open("/dev/null").expect("/dev/null can be opened");
    let fds = [null.as_fd(); 200];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(200))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    // SAFETY: it is borrowed for one call, which refuses what is no socket.
    let connection = unsafe { BorrowedFd::borrow_raw(connection) };
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let _ = sendmsg(connection, &[IoSlice::new(bytes)], &mut control, flags);
}
