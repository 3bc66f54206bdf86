//! Leaders under unusual conditions: without terminal or variables, with a deadly SIGPIPE, in namespaces, not dumpable,
//! after giving up privileges, started through the dynamic loader.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use proc_pool::{BoxError, EntryPoint, Worker, WorkerContext};
use rustix::process::DumpableBehavior;
use shm_buffers::{Backing, Segment, SegmentHandle, SegmentMut};

use crate::support::{
    IsolatedTest, become_user, builder, is_isolated, kill_workers, pool, reset_sigpipe, test_name, watchdog,
};

/// Command line tools reset SIGPIPE to its default to end quietly with their reader. A worker's death must not raise it.
#[test]
fn worker_deaths_do_not_raise_sigpipe() {
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    reset_sigpipe();
    let pool = pool(2, |n: u64| if n % 5 == 4 { std::process::exit(1) } else { n });
    for _ in 0..10 {
        assert_eq!(pool.map(0..50).filter(Result::is_err).count(), 10);
        kill_workers(&pool);
        assert_eq!(pool.map(0..3).filter(Result::is_ok).count(), 3);
    }
}

/// Without `HOME`, `PATH` and other variables that are usually set.
#[test]
fn pool_works_with_few_variables() {
    if !is_isolated() {
        let mut alone = IsolatedTest::new(&test_name!());
        for name in ["HOME", "USER", "PATH", "LANG", "SHELL", "TERM"] {
            alone = alone.env_remove(name);
        }
        return alone.run();
    }
    let _watchdog = watchdog(60);
    assert!(std::env::var_os("HOME").is_none());
    let pool = pool(2, |n: u64| if n == 5 { panic!("as asked") } else { n });
    assert_eq!(pool.map(0..10).filter(Result::is_ok).count(), 9);
    pool.shutdown(Duration::from_secs(20)).expect("the pool works");
}

/// In a session without a terminal, and at a terminal without capabilities.
#[test]
fn pool_works_without_a_terminal_and_at_a_dumb_one() {
    if !is_isolated() {
        IsolatedTest::new(&test_name!()).env("TERM", "dumb").run();
        return IsolatedTest::new(&test_name!()).env("IT_NO_TERMINAL", "1").run();
    }
    let _watchdog = watchdog(60);
    if std::env::var_os("IT_NO_TERMINAL").is_some() {
        // It fails if this process leads its group already, which happens only in a session without a terminal.
        let _ = rustix::process::setsid();
        assert!(std::fs::File::open("/dev/tty").is_err());
    }
    let pool = pool(2, |n: u64| if n == 5 { std::process::exit(1) } else { n });
    assert_eq!(pool.map(0..10).filter(Result::is_ok).count(), 9);
    pool.shutdown(Duration::from_secs(20)).expect("the pool works");
}

/// A worker that reads a segment of its leader.
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

/// Runs a pool whose workers attach a segment, kills the workers, and uses their replacements.
fn pool_with_a_segment_works() {
    let mut segment = SegmentMut::create(&Backing::Anonymous, 100).expect("the segment can be created");
    segment.fill(1);
    let segment = segment.freeze().expect("the segment can be sealed");
    let handle = segment.handle().expect("this process owns the segment");
    let builder = builder(2).start_timeout(Duration::from_secs(20));
    let pool = builder
        .build(EntryPoint::worker::<Sum>(()), &handle)
        .expect("the pool starts");
    // The pool keeps the segment for workers that start later.
    drop(segment);
    for _ in 0..3 {
        let sums: Vec<u64> = pool
            .map(0..10)
            .map(|sum| sum.expect("no task was running"))
            .collect();
        assert!(sums.iter().copied().eq(100..110));
        kill_workers(&pool);
    }
}

/// Workers cannot reach the leader's files and memory through `/proc`.
#[test]
fn pool_works_in_a_process_that_is_not_dumpable() {
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    let behaviour = DumpableBehavior::NotDumpable;
    rustix::process::set_dumpable_behavior(behaviour).expect("Linux has this call");
    pool_with_a_segment_works();
    let pool = pool(2, |bytes: Vec<u8>| bytes);
    for len in [40_000, 1 << 20, 10 << 20] {
        let echoed = pool.map([vec![1; len], vec![2; len], vec![3; len]]);
        let echoed = echoed.map(|bytes| bytes.expect("no task fails"));
        assert!(echoed.eq([vec![1; len], vec![2; len], vec![3; len]]), "{len}");
    }
}

#[test]
fn pool_works_after_giving_up_privileges() {
    if !is_isolated() {
        return match rustix::process::geteuid().is_root() {
            true => IsolatedTest::new(&test_name!()).run(),
            false => println!("skipped: only root can become another user"),
        };
    }
    let _watchdog = watchdog(60);
    let program = std::fs::File::open("/proc/self/exe").expect("the program can be opened");
    let readable = program
        .metadata()
        .is_ok_and(|meta| meta.permissions().mode() & 0o005 == 0o005);
    let reachable = std::env::current_exe().is_ok_and(|path| {
        path.ancestors().skip(1).all(|dir| {
            dir.metadata()
                .is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0)
        })
    });
    become_user(65534);
    if !(readable && reachable) {
        return println!("skipped: another user may not execute this program");
    }
    pool_with_a_segment_works();
}

/// The leader is the first process of a namespace, with its own `/proc` or that of another namespace.
#[test]
fn pool_works_in_a_pid_namespace() {
    if is_isolated() {
        let _watchdog = watchdog(60);
        return pool_with_a_segment_works();
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
            true => IsolatedTest::new(&test_name!()).wrapped_in(wrapper).run(),
            false => println!("skipped: `{}` is not permitted here", wrapper.join(" ")),
        }
    }
}

/// `ld-linux.so ./program`: the process's executable is the dynamic loader.
#[test]
fn pool_works_when_started_through_the_dynamic_loader() {
    if is_isolated() {
        let _watchdog = watchdog(60);
        std::env::set_current_dir("/").expect("the directory exists");
        return pool_with_a_segment_works();
    }
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc is readable");
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
        Some(loader) => IsolatedTest::new(&test_name!()).wrapped_in(&[loader]).run(),
        None => println!("skipped: this program has no loader"),
    }
}
