//! The privileges of this process, and the process and user at the other end of a socket.
#![allow(unsafe_code, reason = "reads privileges, and the process behind a socket")]

use std::os::fd::{AsRawFd, BorrowedFd};

/// Returns whether this process may have privileges that its parent lacks: it runs a set-user-ID or set-group-ID program or one
/// with file capabilities, or its real and effective ids differ.
pub(crate) fn is_privileged() -> bool {
    let ids_differ = rustix::process::getuid() != rustix::process::geteuid()
        || rustix::process::getgid() != rustix::process::getegid();
    ids_differ || is_secure_execution()
}

/// Returns whether the system started this program in secure-execution mode, because it gained privileges when it was executed.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_secure_execution() -> bool {
    // SAFETY: getauxval has no preconditions; it returns 0 for an entry that is missing.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn is_secure_execution() -> bool {
    // SAFETY: issetugid has no preconditions.
    unsafe { libc::issetugid() != 0 }
}

/// Returns the pid of the process that made the other end of `socket`, if that process has the same user. The pid is 0 where a
/// pid namespace hides the process.
pub(crate) fn peer_of_our_user(socket: BorrowedFd<'_>) -> Option<u32> {
    let peer = peer(socket)?;
    let same_user = peer
        .user
        .is_none_or(|user| user == rustix::process::geteuid().as_raw());
    same_user.then_some(peer.pid)
}

/// Returns whether that process is the parent of this one.
pub(crate) fn is_parent(pid: u32) -> bool {
    parent() == pid
}

fn parent() -> u32 {
    // A parent outside of this pid namespace has the pid 0.
    rustix::process::getppid().map_or(0, |parent| parent.as_raw_nonzero().get().cast_unsigned())
}

/// The process that made a socket's other end.
struct Peer {
    pid: u32,
    /// `None` where the system does not report it for pairs of sockets.
    user: Option<u32>,
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn peer(socket: BorrowedFd<'_>) -> Option<Peer> {
    let mut found = libc::ucred {
        pid: -1,
        uid: u32::MAX,
        gid: u32::MAX,
    };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `found` is valid for writes of `len` bytes, and any bytes are a valid ucred; only it and `len` are written.
    let asked = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &raw mut len,
        )
    };
    let complete = asked == 0 && len as usize == size_of::<libc::ucred>();
    // A socket of another family reports no process: the pid is -1, or the user does not exist.
    (complete && found.uid != u32::MAX).then_some(Peer {
        pid: u32::try_from(found.pid).ok()?,
        user: Some(found.uid),
    })
}

#[cfg(target_vendor = "apple")]
fn peer(socket: BorrowedFd<'_>) -> Option<Peer> {
    let mut pid: libc::pid_t = -1;
    let mut len = size_of::<libc::pid_t>() as libc::socklen_t;
    // SAFETY: `pid` is valid for writes of `len` bytes, and any bytes are a valid pid; only it and `len` are written.
    let asked = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_LOCAL,
            libc::LOCAL_PEERPID,
            (&raw mut pid).cast(),
            &raw mut len,
        )
    };
    // The system does not report the user for a pair of sockets. It is the same one: `is_privileged` is checked first, and the
    // parent of a process that gained no privileges has the same user.
    (asked == 0).then_some(Peer {
        pid: u32::try_from(pid).ok()?,
        user: None,
    })
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn peer(_socket: BorrowedFd<'_>) -> Option<Peer> {
    None
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_peer_of_a_socket_pair_is_its_maker() {
        let (one, _other) = UnixStream::pair().expect("a pair");
        let peer = peer_of_our_user(one.as_fd());
        assert_eq!(peer, Some(std::process::id()));
        assert!(!is_parent(std::process::id()));
    }

    #[test]
    fn a_test_process_is_not_privileged() {
        assert!(!is_privileged());
    }
}
