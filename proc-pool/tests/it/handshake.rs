//! How a process recognises that it is a worker, and its leader: forged leaders, other versions, programs with elevated
//! privileges.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::support::{IsolatedTest, TempDir, builder, is_isolated, set_effective_group, test_name, watchdog};

const PROGRAM: &str = env!("CARGO_BIN_EXE_proc-pool-test-worker");
/// The exit code of the worker program if it is not started as a worker.
const NOT_A_WORKER: i32 = 2;
/// The exit code of a worker whose leader has ended.
const ORPHANED: i32 = 70;
/// The exit code of a worker that would reject its leader's handshake at each attempt.
const REJECTED: i32 = 72;

/// Returns the greeting of a leader of this version, followed by an invalid handshake.
fn greeting(version: &str) -> Vec<u8> {
    let mut bytes = b"proc-pool worker".to_vec();
    bytes.extend_from_slice(version.as_bytes());
    bytes.resize(48, 0);
    bytes.extend_from_slice(&40u64.to_le_bytes());
    bytes.extend_from_slice(&0u64.to_le_bytes());
    bytes.resize(48 + 16 + 40, 0xff);
    bytes
}

/// Returns the test's end of a pair of sockets, and the other end, from which `bytes` can be read.
fn socket(bytes: &[u8]) -> (UnixStream, OwnedFd) {
    let (mut ours, theirs) = UnixStream::pair().expect("a pair of sockets can be created");
    ours.write_all(bytes).expect("the socket has room");
    (ours, theirs.into())
}

/// Returns the number of bytes that can still be read from the socket, at most 4096.
fn unread(socket: &OwnedFd) -> usize {
    let mut bytes = [0; 4096];
    let flags = rustix::net::RecvFlags::DONTWAIT | rustix::net::RecvFlags::PEEK;
    rustix::net::recv(socket, &mut bytes, flags).map_or(0, |read| read.0)
}

/// Starts the worker program at the other end of a socket from which it can read `bytes`. Returns its exit code and
/// all that it wrote to the socket.
fn answer_to(bytes: &[u8]) -> (Option<i32>, String) {
    let (mut ours, theirs) = socket(bytes);
    let status = Command::new(PROGRAM).stdin(theirs).status();
    let mut answer = Vec::new();
    // A process that leaves bytes unread resets the connection.
    let _ = ours.read_to_end(&mut answer);
    let code = status.expect("the program can be started").code();
    (code, String::from_utf8_lossy(&answer).into_owned())
}

#[test]
fn leader_of_another_version_is_rejected_with_both_versions() {
    let _watchdog = watchdog(60);
    let (code, answer) = answer_to(&greeting("0.0.0-other"));
    let expected = "its leader 0.0.0-other; build both with the same version";
    assert!(answer.starts_with('F') && answer.contains(expected), "{answer}");
    assert_eq!(code, Some(REJECTED));
}

#[test]
fn invalid_handshake_is_reported_and_ends_the_worker() {
    let _watchdog = watchdog(60);
    let (code, answer) = answer_to(&greeting(env!("CARGO_PKG_VERSION")));
    // The worker has introduced itself before that.
    assert!(answer.starts_with("IF"), "{answer}");
    assert_eq!(code, Some(REJECTED));
}

#[test]
fn greeting_of_a_process_other_than_the_parent_is_not_read() {
    let _watchdog = watchdog(60);
    let (_ours, theirs) = socket(&greeting(env!("CARGO_PKG_VERSION")));
    let kept = theirs.try_clone().expect("the descriptor can be duplicated");
    let before = unread(&kept);
    // The shell is the parent: it runs another command afterwards.
    let status = Command::new("/bin/sh")
        .args(["-c", "\"$0\"; exit $?", PROGRAM])
        .stdin(theirs)
        .status();
    assert_eq!(status.expect("the program can be started").code(), Some(ORPHANED));
    assert_eq!(unread(&kept), before);
}

#[test]
fn standard_input_without_a_greeting_is_not_read() {
    let _watchdog = watchdog(60);
    for bytes in [
        &b""[..],
        b"proc-pool worke",
        b"GET / HTTP/1.1\r\n\r\n GET / HTTP/1.1\r\n GET / HTTP/1.1\r\n",
    ] {
        let (_ours, theirs) = socket(bytes);
        let kept = theirs.try_clone().expect("the descriptor can be duplicated");
        let status = Command::new(PROGRAM).stdin(theirs).status();
        assert_eq!(
            status.expect("the program can be started").code(),
            Some(NOT_A_WORKER)
        );
        assert_eq!(unread(&kept), bytes.len());
    }
    let (reader, mut writer) = std::io::pipe().expect("a pipe can be created");
    writer.write_all(&greeting("x")).expect("the pipe has room");
    let status = Command::new(PROGRAM).stdin(reader).status();
    assert_eq!(
        status.expect("the program can be started").code(),
        Some(NOT_A_WORKER)
    );
}

/// In earlier versions, a variable named a socket which the worker removed.
#[test]
fn variables_do_not_make_a_process_a_worker() {
    let _watchdog = watchdog(60);
    let dir = TempDir::new();
    let server = dir.path().join("socket");
    for name in ["socket", "proc-pool", "other"] {
        std::fs::write(dir.path().join(name), "mine").expect("the file can be written");
    }
    let ticket = format!(
        "{},{},{:032x},{}",
        env!("CARGO_PKG_VERSION"),
        std::process::id(),
        7,
        server.display()
    );
    let status = Command::new(PROGRAM)
        .env("PROC_POOL_WORKER", ticket)
        .stdin(Stdio::null())
        .status();
    assert_eq!(
        status.expect("the program can be started").code(),
        Some(NOT_A_WORKER)
    );
    assert_eq!(dir.entries().len(), 3);
}

/// A user without privileges starts a program that has some, and pretends to be its leader.
#[test]
fn program_with_elevated_privileges_is_never_a_worker() {
    const OTHER_USER: u32 = 65534;
    let _watchdog = watchdog(60);
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: only root can make a set-user-ID program of another user");
    }
    let dir = TempDir::new();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("the mode can be changed");
    for mode in [0o4755, 0o2755] {
        let program = dir.path().join(format!("privileged-{mode:o}"));
        std::fs::copy(PROGRAM, &program).expect("the program can be copied");
        std::fs::set_permissions(&program, PermissionsExt::from_mode(mode)).expect("the mode can be changed");
        let (_ours, theirs) = socket(&greeting(env!("CARGO_PKG_VERSION")));
        let kept = theirs.try_clone().expect("the descriptor can be duplicated");
        let before = unread(&kept);
        let child = Command::new(&program)
            .uid(OTHER_USER)
            .gid(OTHER_USER)
            .stdin(theirs)
            .env("PROC_POOL_WORKER", "1,1,1,/tmp/x")
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(e) => return println!("skipped: it cannot be executed as another user: {e}"),
        };
        let status = child.wait().expect("the child can be waited for");
        assert_eq!(status.code(), Some(NOT_A_WORKER), "{mode:o}");
        assert_eq!(unread(&kept), before, "{mode:o}");
    }
    // Without privileges, the same program reads the greeting.
    assert_eq!(answer_to(&greeting("0.0.0-other")).0, Some(REJECTED));
}

/// The workers would have the privileges, too.
#[test]
fn leader_with_elevated_privileges_is_refused_a_pool() {
    let _watchdog = watchdog(120);
    if !is_isolated() {
        return match rustix::process::geteuid().is_root() {
            true => IsolatedTest::new(&test_name!()).run(),
            false => println!("skipped: only root can give up one of its ids"),
        };
    }
    set_effective_group(65534);
    let refused = builder(1).build_op(|n: u64| n);
    let error = refused.expect_err("the effective group is another one");
    assert!(matches!(error, proc_pool::PoolError::Privileged), "{error}");
    assert!(error.to_string().contains("setresgid"), "{error}");
}
