//! How a worker recognises itself and its leader, and what it inherits: forged leaders, programs with privileges, and
//! leaders under unusual conditions.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use proc_pool::{BoxError, Builder, Inherited, Worker, WorkerContext, Workers};
use shm_buffers::{Backing, Segment, SegmentHandle, SegmentMut};

use crate::support::{Alone, Dir, is_alone, kill, pool, test_name, watchdog};

const PROGRAM: &str = env!("CARGO_BIN_EXE_proc-pool-test-worker");
/// What the worker program ends with when it is none.
const NOT_A_WORKER: i32 = 2;
/// What a worker ends with that has no leader.
const ORPHANED: i32 = 70;

/// What a leader of some version sends first, and an introduction that nothing good can come of.
fn greeting(version: &str) -> Vec<u8> {
    let mut bytes = b"proc-pool worker".to_vec();
    bytes.extend_from_slice(version.as_bytes());
    bytes.resize(48, 0);
    bytes.extend_from_slice(&40u64.to_le_bytes());
    bytes.extend_from_slice(&0u64.to_le_bytes());
    bytes.resize(48 + 16 + 40, 0xff);
    bytes
}

/// A socket that holds `bytes`, and its other end.
fn socket(bytes: &[u8]) -> (UnixStream, OwnedFd) {
    let (mut ours, theirs) = UnixStream::pair().expect("a pair");
    ours.write_all(bytes).expect("there is room");
    (ours, theirs.into())
}

/// How many bytes of `of` were not read by the process at the other end.
fn unread(of: &OwnedFd) -> usize {
    let mut bytes = [0; 4096];
    let flags = rustix::net::RecvFlags::DONTWAIT | rustix::net::RecvFlags::PEEK;
    rustix::net::recv(of, &mut bytes, flags).map_or(0, |read| read.0)
}

/// Everything that the process says before it ends.
fn last_words(mut child: Child, mut socket: UnixStream) -> (Option<i32>, String) {
    let status = child.wait().expect("it is ours");
    let mut said = Vec::new();
    // With unread bytes at the other end, the end is an error.
    let _ = socket.read_to_end(&mut said);
    (status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn a_worker_of_another_version_reports_both_versions() {
    let _watchdog = watchdog(60);
    let (ours, theirs) = socket(&greeting("0.0.0-other"));
    let child = Command::new(PROGRAM)
        .stdin(theirs)
        .spawn()
        .expect("it can be started");
    let (status, said) = last_words(child, ours);
    let expected = "its leader 0.0.0-other; build both with the same version";
    assert!(said.starts_with('F') && said.contains(expected), "{said}");
    assert_eq!(status, Some(71));
}

#[test]
fn an_introduction_without_sense_is_reported_and_ends_the_worker() {
    let _watchdog = watchdog(60);
    let (ours, theirs) = socket(&greeting(env!("CARGO_PKG_VERSION")));
    let child = Command::new(PROGRAM)
        .stdin(theirs)
        .spawn()
        .expect("it can be started");
    let (status, said) = last_words(child, ours);
    assert!(said.starts_with('F'), "{said}");
    assert_eq!(status, Some(71));
}

#[test]
fn a_greeting_whose_sender_is_not_the_parent_ends_the_process_unread() {
    let _watchdog = watchdog(60);
    let (_ours, theirs) = socket(&greeting(env!("CARGO_PKG_VERSION")));
    let kept = theirs.try_clone().expect("there are files left");
    let before = unread(&kept);
    // The shell is the parent: it does something afterwards.
    let status = Command::new("/bin/sh")
        .args(["-c", "\"$0\"; exit $?", PROGRAM])
        .stdin(theirs)
        .status();
    assert_eq!(status.expect("it can be started").code(), Some(ORPHANED));
    assert_eq!(unread(&kept), before);
}

#[test]
fn sockets_and_pipes_that_hold_something_else_are_left_alone() {
    let _watchdog = watchdog(60);
    for bytes in [
        &b""[..],
        b"proc-pool worke",
        b"GET / HTTP/1.1\r\n\r\n GET / HTTP/1.1\r\n GET / HTTP/1.1\r\n",
    ] {
        let (_ours, theirs) = socket(bytes);
        let kept = theirs.try_clone().expect("there are files left");
        let status = Command::new(PROGRAM).stdin(theirs).status();
        assert_eq!(status.expect("it can be started").code(), Some(NOT_A_WORKER));
        assert_eq!(unread(&kept), bytes.len());
    }
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    writer.write_all(&greeting("x")).expect("there is room");
    let status = Command::new(PROGRAM).stdin(reader).status();
    assert_eq!(status.expect("it can be started").code(), Some(NOT_A_WORKER));
}

/// The environment of a worker of an earlier version named a socket, which was removed.
#[test]
fn a_ticket_in_the_environment_has_no_effect() {
    let _watchdog = watchdog(60);
    let dir = Dir::new();
    let server = dir.path().join("socket");
    for name in ["socket", "proc-pool", "other"] {
        std::fs::write(dir.path().join(name), "mine").expect("it can be written");
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
    assert_eq!(status.expect("it can be started").code(), Some(NOT_A_WORKER));
    assert_eq!(dir.entries().len(), 3);
}

/// A user without privileges starts a program that has them, and offers to be its leader.
#[test]
fn a_program_with_elevated_privileges_is_never_a_worker() {
    const OTHER_USER: u32 = 65534;
    let _watchdog = watchdog(60);
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: only root can make a set-user-ID program of another user");
    }
    let dir = Dir::new();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("it is ours");
    for mode in [0o4755, 0o2755] {
        let program = dir.path().join(format!("privileged-{mode:o}"));
        std::fs::copy(PROGRAM, &program).expect("it can be copied");
        std::fs::set_permissions(&program, PermissionsExt::from_mode(mode)).expect("it is ours");
        let (_ours, theirs) = socket(&greeting(env!("CARGO_PKG_VERSION")));
        let kept = theirs.try_clone().expect("there are files left");
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
        let status = child.wait().expect("it is ours");
        assert_eq!(status.code(), Some(NOT_A_WORKER), "{mode:o}");
        assert_eq!(unread(&kept), before, "{mode:o}");
    }
    // A program that keeps its real user is the same program without privileges: it listens.
    let (ours, theirs) = socket(&greeting("0.0.0-other"));
    let child = Command::new(PROGRAM)
        .stdin(theirs)
        .spawn()
        .expect("it can be started");
    assert_eq!(last_words(child, ours).0, Some(71));
}

/// Its workers would have them, too.
#[test]
fn a_leader_with_elevated_privileges_is_refused_a_pool() {
    let _watchdog = watchdog(120);
    if !is_alone() {
        return match rustix::process::geteuid().is_root() {
            true => Alone::new(&test_name!()).run(),
            false => println!("skipped: only root can give up one of its ids"),
        };
    }
    crate::crash::set_effective_group(65534);
    let refused = Builder::new().workers(Workers::Count(1)).build_op(|n: u64| n);
    let error = refused.expect_err("it has another effective group");
    assert!(matches!(error, proc_pool::PoolError::Privileged), "{error}");
    assert!(error.to_string().contains("setresgid"), "{error}");
}

/// Whether a pool sets this variable: limits of threads, and how deep it is nested.
fn is_of_pools(name: &str) -> bool {
    name.ends_with("_THREADS") || name == "PROC_POOL_NESTING"
}

/// What the worker finds: its descriptors with what they lead to, and its environment.
fn found((): ()) -> (BTreeMap<i32, String>, BTreeMap<String, String>) {
    let entries = std::fs::read_dir("/proc/self/fd")
        .expect("it is readable")
        .flatten();
    let number = |entry: &std::fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    let target = |entry: &std::fs::DirEntry| {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        target.to_string_lossy().into_owned()
    };
    let files = entries
        .filter_map(|entry| Some((number(&entry)?, target(&entry))))
        .collect();
    (files, std::env::vars().collect())
}

#[test]
fn a_worker_inherits_its_streams_and_nothing_else() {
    if !is_alone() {
        return Alone::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    // As a C library opens them: without close-on-exec.
    let secret = std::env::temp_dir().join("secret");
    std::fs::write(&secret, "secret").expect("it can be written");
    let file = std::fs::File::open(&secret).expect("it is there");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("it can be bound");
    let (pipe, _other) = std::io::pipe().expect("a pipe");
    for fd in [file.as_fd(), listener.as_fd(), pipe.as_fd()] {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).expect("it is open");
    }
    let leaked: Vec<String> = [file.as_raw_fd(), listener.as_raw_fd(), pipe.as_raw_fd()]
        .iter()
        .map(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).expect("it is open"))
        .map(|target| target.to_string_lossy().into_owned())
        .collect();
    let listed = |builder: Builder| {
        let pool = builder
            .workers(Workers::Count(2))
            .build_op(found)
            .expect("it starts");
        let first: Vec<_> = pool
            .map([(); 4])
            .map(|found| found.expect("no task fails"))
            .collect();
        // Those that replace them are no different.
        pool.bytes().pids().iter().for_each(|(_, pid)| kill(*pid));
        let second = pool.map([(); 4]).map(|found| found.expect("no task was running"));
        first.into_iter().chain(second).collect::<Vec<_>>()
    };
    for (files, environment) in listed(Builder::new()) {
        for target in files.values() {
            assert!(!leaked.contains(target), "{files:?}");
        }
        // Its streams, its connection, and what it reads this list from.
        let meant = |(fd, target): &(&i32, &String)| {
            **fd <= 2 || target.starts_with("socket:") || target.ends_with("/fd")
        };
        let strange: Vec<_> = files.iter().filter(|it| !meant(it)).collect();
        assert!(
            strange
                .iter()
                .all(|(_, target)| target.starts_with("/memfd:shm-buffers")),
            "{files:?}"
        );
        assert_eq!(
            files
                .values()
                .filter(|target| target.starts_with("socket:"))
                .count(),
            1,
            "{files:?}"
        );
        assert_eq!(files[&0], "/dev/null");
        let ours: BTreeMap<String, String> = std::env::vars().collect();
        let new: Vec<&String> = environment
            .keys()
            .filter(|name| !ours.contains_key(*name))
            .collect();
        assert!(new.iter().all(|name| is_of_pools(name)), "{new:?}");
    }
    for (files, _) in listed(Builder::new().inherited(Inherited::Everything)) {
        let targets: Vec<&String> = files.values().collect();
        assert!(leaked.iter().all(|leaked| targets.contains(&leaked)), "{files:?}");
    }
    for (_, environment) in listed(Builder::new().env_clear()) {
        let theirs: Vec<&String> = environment.keys().collect();
        assert!(theirs.iter().all(|name| is_of_pools(name)), "{theirs:?}");
    }
    std::fs::remove_file(secret).expect("it is ours");
}

/// Whatever other users may do in the temporary directory, there is nothing of a pool's to do it to.
#[test]
fn nothing_of_a_pool_has_a_name() {
    if !is_alone() {
        return Alone::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    rustix::process::umask(rustix::fs::Mode::empty());
    let tmp = std::env::temp_dir();
    std::fs::set_permissions(&tmp, PermissionsExt::from_mode(0o777)).expect("it is ours");
    // Ordinary files of the user's own that are named as a pool's once were.
    let own = tmp.join(".tmpABCDEF");
    std::fs::create_dir(&own).expect("it can be made");
    for name in ["proc-pool", "socket"] {
        std::fs::write(own.join(name), "mine").expect("it can be written");
    }
    let names = |tmp: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(tmp).expect("it is readable").flatten();
        let named = entries.map(|entry| entry.path().display().to_string());
        let sockets = std::fs::read_to_string("/proc/net/unix").expect("it is readable");
        let within = tmp.display().to_string();
        let sockets = sockets
            .lines()
            .filter(|line| line.contains(&within))
            .map(str::to_owned);
        named.chain(sockets).collect()
    };
    let before = names(&tmp);
    assert_eq!(before.len(), 1);
    let builder = Builder::new().workers(Workers::Count(2));
    let pool = builder.build_op(|tmp: String| {
        let entries = std::fs::read_dir(tmp).expect("it is readable");
        entries.count()
    });
    let pool = pool.expect("it starts");
    for _ in 0..3 {
        let seen = pool.map([tmp.to_str().expect("it is UTF-8").to_owned()]);
        assert!(
            seen.map(|seen| seen.expect("no task fails"))
                .all(|seen| seen == 1)
        );
        assert_eq!(names(&tmp), before);
        pool.bytes().pids().iter().for_each(|(_, pid)| kill(*pid));
    }
    drop(pool);
    assert_eq!(std::fs::read(own.join("socket")).expect("it is there"), b"mine");
    assert_eq!(
        std::fs::read(own.join("proc-pool")).expect("it is there"),
        b"mine"
    );
    std::fs::remove_dir_all(own).expect("it is ours");
}

/// A worker made from what lies in a segment of its leader.
struct Sum(Segment);

impl Worker for Sum {
    type Op = ();
    type Init = SegmentHandle;
    type Task = u64;
    type Output = u64;

    fn start(_: &mut WorkerContext, (): (), handle: SegmentHandle) -> Result<Self, BoxError> {
        Ok(Self(Segment::attach(&handle)?))
    }

    fn run(&mut self, task: u64) -> u64 {
        task + self.0.iter().map(|byte| u64::from(*byte)).sum::<u64>()
    }
}

/// Builds a pool of two that attach a segment, loses both workers, and uses the ones that replace them.
fn works_with_a_segment() {
    let mut segment = SegmentMut::create(&Backing::Anonymous, 100).expect("there is room");
    segment.fill(1);
    let segment = segment.freeze().expect("it can be sealed");
    let handle = segment.handle().expect("it is its owner");
    let builder = Builder::new()
        .workers(Workers::Count(2))
        .start_timeout(Duration::from_secs(20));
    let pool = builder.build::<Sum>((), &handle).expect("it starts");
    // The pool keeps what its workers need.
    drop(segment);
    for _ in 0..3 {
        let sums: Vec<u64> = pool
            .map(0..10)
            .map(|sum| sum.expect("no task was running"))
            .collect();
        assert!(sums.iter().copied().eq(100..110));
        pool.bytes().pids().iter().for_each(|(_, pid)| kill(*pid));
    }
}

/// Its files and memory can't be reached through `/proc`.
#[test]
fn a_leader_that_is_not_dumpable() {
    if !is_alone() {
        return Alone::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    let behaviour = rustix::process::DumpableBehavior::NotDumpable;
    rustix::process::set_dumpable_behavior(behaviour).expect("it is Linux");
    works_with_a_segment();
    let pool = crate::support::pool(2, |bytes: Vec<u8>| bytes);
    for len in [40_000, 1 << 20, 10 << 20] {
        let echoed = pool.map([vec![1; len], vec![2; len], vec![3; len]]);
        let echoed = echoed.map(|bytes| bytes.expect("no task fails"));
        assert!(echoed.eq([vec![1; len], vec![2; len], vec![3; len]]), "{len}");
    }
}

#[test]
fn a_leader_that_gave_its_privileges_up() {
    if !is_alone() {
        return match rustix::process::geteuid().is_root() {
            true => Alone::new(&test_name!()).run(),
            false => println!("skipped: only root can become another user"),
        };
    }
    let _watchdog = watchdog(60);
    let program = std::fs::File::open("/proc/self/exe").expect("it runs");
    let readable = program
        .metadata()
        .is_ok_and(|meta| meta.permissions().mode() & 0o005 == 0o005);
    let reachable = std::env::current_exe().is_ok_and(|path| {
        path.ancestors().skip(1).all(|dir| {
            dir.metadata()
                .is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0)
        })
    });
    crate::crash::become_user(65534);
    if !(readable && reachable) {
        return println!("skipped: another user may not execute this program");
    }
    works_with_a_segment();
}

/// The leader is the first process of a namespace, with a `/proc` of its own or that of another one.
#[test]
fn a_leader_in_a_pid_namespace() {
    if is_alone() {
        let _watchdog = watchdog(60);
        return works_with_a_segment();
    }
    for wrapper in [
        &["unshare", "--pid", "--fork", "--mount-proc"][..],
        &["unshare", "--pid", "--fork"],
        &["unshare", "--pid", "--fork", "--user", "--map-root-user"],
    ] {
        let works = Command::new(wrapper[0])
            .args(&wrapper[1..])
            .arg("true")
            .stderr(Stdio::null())
            .status();
        match works.is_ok_and(|status| status.success()) {
            true => Alone::new(&test_name!()).through(wrapper).run(),
            false => println!("skipped: `{}` may not be done here", wrapper.join(" ")),
        }
    }
}

/// `ld-linux.so ./program`: the process's executable is the loader's.
#[test]
fn a_leader_that_was_started_through_its_loader() {
    if is_alone() {
        let _watchdog = watchdog(60);
        std::env::set_current_dir("/").expect("it is a directory");
        return works_with_a_segment();
    }
    let maps = std::fs::read_to_string("/proc/self/maps").expect("it is readable");
    let is_loader = |path: &&str| {
        Path::new(path)
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("ld-"))
    };
    match maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .find(is_loader)
    {
        Some(loader) => Alone::new(&test_name!()).through(&[loader]).run(),
        None => println!("skipped: this program has no loader"),
    }
}

/// The worker program and the working directory are those that the pool was built with, whatever their paths lead to later.
#[test]
fn replacements_are_started_from_what_was_found_first() {
    if !is_alone() {
        return Alone::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    let dir = Dir::new();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("data")).expect("it can be made");
    std::fs::copy(PROGRAM, at("worker")).expect("it can be copied");
    std::env::set_current_dir(dir.path()).expect("it is a directory");
    let builder = || Builder::new().workers(Workers::Count(1)).current_dir("data");
    let program = builder()
        .build_named::<u64, u64, _>("worker", "square", &())
        .expect("it starts");
    let own = builder()
        .build_op(|(): ()| std::fs::read_to_string("here").ok())
        .expect("it starts");
    std::fs::write(at("data/here"), "found").expect("it can be written");
    std::fs::rename(at("data"), at("moved")).expect("it can be renamed");
    std::fs::create_dir(at("data")).expect("it can be made");
    std::fs::remove_file(at("worker")).expect("it can be removed");
    std::fs::write(at("worker"), "no program").expect("it can be written");
    std::env::set_current_dir("/").expect("it is a directory");
    for _ in 0..3 {
        assert_eq!(
            program
                .map([3])
                .next()
                .expect("one")
                .expect("no task was running"),
            9
        );
        let here = own.map([()]).next().expect("one").expect("no task was running");
        assert_eq!(here.as_deref(), Some("found"));
        for pids in [program.bytes().pids(), own.bytes().pids()] {
            pids.iter().for_each(|(_, pid)| kill(*pid));
        }
    }
}

/// A program that has a worker's standard input and does not know what to do with it.
#[test]
fn a_child_of_a_worker_finds_an_empty_standard_input() {
    let _watchdog = watchdog(60);
    let pool = pool(1, |(): ()| {
        let child = Command::new("/bin/sh")
            .args(["-c", "cat; ls -l /proc/self/fd | wc -l"])
            .stdin(Stdio::inherit())
            .output();
        String::from_utf8(child.expect("it can be started").stdout).expect("it is UTF-8")
    });
    let said = pool.map([()]).next().expect("one").expect("no task fails");
    // A heading, three streams, and the directory itself.
    assert_eq!(said.trim(), "5", "{said}");
}
