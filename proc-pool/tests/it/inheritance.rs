//! Inheritance: workers have the standard streams of their leader, and no other descriptor.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};

use proc_pool::{Builder, Inherited, Workers};

use crate::support::{IsolatedTest, is_isolated, kill_workers, pool, run_one, test_name, watchdog};

/// Whether a pool sets this variable: a thread limit, or its level of nesting.
fn is_set_by_pools(name: &str) -> bool {
    name.ends_with("_THREADS") || name == "PROC_POOL_NESTING"
}

/// Returns this process's descriptors, with the files to which they lead, and its environment.
fn inherited((): ()) -> (BTreeMap<i32, String>, BTreeMap<String, String>) {
    let entries = std::fs::read_dir("/proc/self/fd")
        .expect("/proc is readable")
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
fn worker_inherits_only_its_standard_streams() {
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    // Descriptors without close-on-exec, as C libraries open them.
    let secret = std::env::temp_dir().join("secret");
    std::fs::write(&secret, "secret").expect("the file can be written");
    let file = std::fs::File::open(&secret).expect("the file can be opened");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port can be bound");
    let (pipe, _other) = std::io::pipe().expect("a pipe can be created");
    for fd in [file.as_fd(), listener.as_fd(), pipe.as_fd()] {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).expect("the flags can be changed");
    }
    let leaked: Vec<String> = [file.as_raw_fd(), listener.as_raw_fd(), pipe.as_raw_fd()]
        .iter()
        .map(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).expect("the descriptor is open"))
        .map(|target| target.to_string_lossy().into_owned())
        .collect();
    let listed = |builder: Builder| {
        let pool = builder
            .workers(Workers::Count(2))
            .build_op(inherited)
            .expect("the pool starts");
        let first: Vec<_> = pool
            .map([(); 4])
            .map(|found| found.expect("no task fails"))
            .collect();
        // And the same of the processes that replace these.
        kill_workers(&pool);
        let second = pool.map([(); 4]).map(|found| found.expect("no task was running"));
        first.into_iter().chain(second).collect::<Vec<_>>()
    };
    for (files, environment) in listed(Builder::new()) {
        for target in files.values() {
            assert!(!leaked.contains(target), "{files:?}");
        }
        // Its standard streams, its connection, and the directory that it reads this list from.
        let expected = |(fd, target): &(&i32, &String)| {
            **fd <= 2 || target.starts_with("socket:") || target.ends_with("/fd")
        };
        let others: Vec<_> = files.iter().filter(|it| !expected(it)).collect();
        assert!(
            others
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
        assert!(new.iter().all(|name| is_set_by_pools(name)), "{new:?}");
    }
    for (files, _) in listed(Builder::new().inherited(Inherited::Everything)) {
        let targets: Vec<&String> = files.values().collect();
        assert!(leaked.iter().all(|leaked| targets.contains(&leaked)), "{files:?}");
    }
    for (_, environment) in listed(Builder::new().env_clear()) {
        let theirs: Vec<&String> = environment.keys().collect();
        assert!(theirs.iter().all(|name| is_set_by_pools(name)), "{theirs:?}");
    }
    std::fs::remove_file(secret).expect("the file can be removed");
}

#[test]
fn standard_input_of_a_worker_is_empty() {
    let _watchdog = watchdog(60);
    let pool = pool(1, |(): ()| {
        std::io::read_to_string(std::io::stdin()).expect("standard input is readable")
    });
    assert_eq!(run_one(&pool, ()), "");
}

/// A program that inherits its standard input from a worker.
#[test]
fn standard_input_of_a_workers_child_is_empty() {
    let _watchdog = watchdog(60);
    let pool = pool(1, |(): ()| {
        let child = Command::new("/bin/sh")
            .args(["-c", "cat; ls -l /proc/self/fd | wc -l"])
            .stdin(Stdio::inherit())
            .output();
        String::from_utf8(child.expect("the shell can be started").stdout).expect("the output is UTF-8")
    });
    let printed = run_one(&pool, ());
    // A heading, three streams, and the directory itself.
    assert_eq!(printed.trim(), "5", "{printed}");
}
