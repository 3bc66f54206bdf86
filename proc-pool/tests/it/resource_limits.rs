//! Pools with few resources: open files, processor time, memory of a cgroup.

use std::path::{Path, PathBuf};
use std::time::Duration;

use proc_pool::{ExitCause, Fault, PoolError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::support::{
    IsolatedTest, builder, hang, has_children, is_isolated, kill, open_files, pool, test_name, watchdog,
};

/// With any limit, the pool either works or reports why it cannot start.
#[test]
fn pool_starts_or_reports_why_with_few_open_files() {
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).run();
    }
    let _watchdog = watchdog(100);
    let limits = getrlimit(Resource::Nofile);
    drop(pool(1, |n: u64| n));
    let files = open_files();
    let (mut started, mut refused) = (0, 0);
    for more in [1, 3, 5, 7, 9, 11, 13, 15, 17, 20, 24, 30] {
        let few = Rlimit {
            current: Some((files + more) as u64),
            ..limits
        };
        setrlimit(Resource::Nofile, few).expect("a limit can be lowered");
        let pool = builder(2)
            .start_timeout(Duration::from_secs(5))
            .build_op(|n: u64| n);
        match pool {
            Ok(pool) => {
                started += 1;
                let results = pool.map(0..20).collect::<Vec<_>>();
                assert!(results.iter().all(Result::is_ok), "{results:?}");
            }
            Err(PoolError::Os { .. } | PoolError::Start { .. }) => refused += 1,
            Err(other) => panic!("{more}: {other}"),
        }
        setrlimit(Resource::Nofile, limits).expect("the limit can be restored");
        assert!(!has_children());
    }
    assert!(started > 0 && refused > 0, "{started} {refused}");
    assert_eq!(pool(2, |n: u64| n).map(0..10).filter(Result::is_ok).count(), 10);
}

/// Large payloads are sent through memory that the pool has created at its start.
#[test]
fn large_payloads_need_no_new_file() {
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    let pool = pool(1, |bytes: Vec<u8>| bytes);
    let limits = getrlimit(Resource::Nofile);
    assert_eq!(pool.map([vec![]]).filter(Result::is_ok).count(), 1);
    // All descriptors below 3 are in use.
    let few = Rlimit {
        current: Some(3),
        ..limits
    };
    setrlimit(Resource::Nofile, few).expect("a limit can be lowered");
    let results: Vec<_> = pool
        .map([vec![1; 10], vec![2; 10_000_000], vec![3; 10]])
        .collect();
    setrlimit(Resource::Nofile, limits).expect("the limit can be restored");
    let lens = results.iter().map(|result| result.as_ref().map(Vec::len).ok());
    assert!(lens.eq([Some(10), Some(10_000_000), Some(10)]));
}

/// Limits this process to `count` open files.
/// The memory that a pool maps is a small part of the address space that a limit leaves, and large payloads cross nevertheless.
#[test]
fn most_of_a_limited_address_space_is_left() {
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    let remaining = || shm_buffers::limits::address_space().map(|space| space.remaining);
    let unlimited = getrlimit(Resource::As);
    let limited = |current| Rlimit {
        current: Some(current),
        ..unlimited
    };
    setrlimit(Resource::As, limited(1 << 40)).expect("a limit can be lowered");
    let used = (1 << 40) - remaining().expect("there is a limit");
    setrlimit(Resource::As, limited(used + (2 << 30))).expect("a limit can be lowered");
    let pool = pool(8, |numbers: Vec<f32>| shm_buffers::Buffer::from(numbers));
    let left = remaining().expect("there is a limit");
    assert!(left > (2 << 30) - (512 << 20), "{left} bytes are left");
    for output in pool.map((0..16).map(|_| vec![0.5; 3 << 20])) {
        assert!(*output.expect("the task succeeds") == *vec![0.5; 3 << 20]);
    }
}

fn limit_open_files(count: u64) {
    let few = Rlimit {
        current: Some(count),
        maximum: Some(count),
    };
    setrlimit(Resource::Nofile, few).expect("a limit can be lowered");
}

fn double_or_die(bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() == 7 {
        std::process::abort();
    }
    bytes.repeat(2)
}

/// Two workers, with deaths and large payloads.
#[test]
fn sixty_four_open_files_are_enough() {
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    limit_open_files(64);
    let pool = pool(2, double_or_die);
    for _ in 0..5 {
        let tasks = [vec![1; 10], vec![2; 7], vec![3; 100_000], vec![4; 200_000]];
        assert_eq!(pool.map(tasks).filter(Result::is_ok).count(), 3);
    }
}

#[test]
fn more_workers_than_open_files_allow_are_an_error() {
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    limit_open_files(64);
    let pool = builder(60)
        .start_timeout(Duration::from_secs(20))
        .build_op(double_or_die);
    let Err(error) = pool else {
        panic!("60 workers started with 64 files")
    };
    let expected = matches!(error, PoolError::Os { .. } | PoolError::Start { .. });
    assert!(expected, "{error:?}");
    assert!(!has_children());
}

/// A cgroup of one controller that this test creates, and removes at its end.
struct Cgroup(PathBuf);

/// The directory of the cgroup that the isolated test joins.
const CGROUP: &str = "IT_CGROUP";

impl Cgroup {
    /// Creates a cgroup and sets the first of the files that exists: each version of cgroups has one of them.
    /// Returns why this is not possible here.
    fn new(controller: &str, limits: [(&str, String); 2]) -> Result<Self, String> {
        // Version 1 has a tree for each controller, version 2 has one for all of them.
        let of_controller = Path::new("/sys/fs/cgroup").join(controller);
        let tree = if of_controller.is_dir() {
            of_controller
        } else {
            "/sys/fs/cgroup".into()
        };
        let group = tree.join(format!("proc-pool-test-{}", std::process::id()));
        std::fs::create_dir(&group).map_err(|e| format!("no cgroup below {}: {e}", tree.display()))?;
        let group = Self(group);
        let mut existing = limits.iter().filter(|(file, _)| group.0.join(file).exists());
        let (file, value) = existing.next().ok_or("the controller is not enabled")?;
        std::fs::write(group.0.join(file), value).map_err(|e| format!("{file} cannot be set: {e}"))?;
        Ok(group)
    }

    fn with_memory(bytes: usize) -> Result<Self, String> {
        let limit = bytes.to_string();
        Self::new(
            "memory",
            [("memory.limit_in_bytes", limit.clone()), ("memory.max", limit)],
        )
    }

    fn with_half_a_core() -> Result<Self, String> {
        let period = 100_000;
        let quota = period / 2;
        Self::new(
            "cpu",
            [
                ("cpu.cfs_quota_us", quota.to_string()),
                ("cpu.max", format!("{quota} {period}")),
            ],
        )
    }

    /// Moves this process, and the workers that it starts later, into the cgroup of [`CGROUP`].
    fn join() {
        let group = std::env::var_os(CGROUP).expect("the test sets the cgroup");
        let procs = Path::new(&group).join("cgroup.procs");
        std::fs::write(procs, std::process::id().to_string()).expect("a process may join the cgroup");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel removes processes from their cgroup a moment after they have ended.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("{} cannot be removed", self.0.display());
    }
}

/// Runs the test again, to join this cgroup; or prints why it is skipped.
fn run_in(group: Result<Cgroup, String>, test: &str) {
    match group {
        Ok(group) => IsolatedTest::new(test).env(CGROUP, &group.0).run(),
        Err(why) => println!("skipped: {why}"),
    }
}

/// Leader and workers share half a core: they are slower, and nothing else changes.
#[test]
fn half_a_core_is_enough() {
    if !is_isolated() {
        return run_in(Cgroup::with_half_a_core(), &test_name!());
    }
    let _watchdog = watchdog(100);
    Cgroup::join();
    let op = |n: u64| if n % 100 == 50 { std::process::abort() } else { n };
    let pool = pool(3, op);
    assert_eq!(pool.map(0..500).filter(Result::is_ok).count(), 495);
    assert_eq!(pool.map_unordered(0..500).filter(Result::is_err).count(), 5);
    let stats = pool.shutdown(Duration::from_secs(50)).expect("the pool works");
    assert_eq!((stats.submitted, stats.failed, stats.deaths), (1000, 10, 10));
}

const MIB: usize = 1 << 20;

/// A task needs more memory than the cgroup has: its worker dies, and no other process.
#[test]
fn cgroups_memory_limit_ends_only_the_worker_that_exceeds_it() {
    const MODEL: usize = 64 * MIB;
    if !is_isolated() {
        return run_in(Cgroup::with_memory(MODEL * 12 / 10), &test_name!());
    }
    let _watchdog = watchdog(100);
    let touch = |bytes: usize| {
        let mut memory = vec![0u8; bytes];
        memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        std::hint::black_box(&memory).len()
    };
    Cgroup::join();
    let pool = pool(1, touch);
    // The memory of a model fits, again and again; twice that does not.
    let tasks = [1000, MODEL * 3 / 4, 1000, 2 * MODEL, 1000, MODEL * 3 / 4];
    let results: Vec<_> = pool.map(tasks).collect();
    for (task, result) in tasks.iter().zip(&results) {
        match result {
            Ok(bytes) => assert!(bytes == task && *task < MODEL, "{bytes} of {task}"),
            Err(error) => {
                assert_eq!(*task, 2 * MODEL, "{error}");
                assert!(matches!(error.fault, Fault::WorkerDied { .. }), "{error}");
                println!("{error}");
            }
        }
    }
    assert_eq!(results.iter().filter(|result| result.is_err()).count(), 1);
}

#[derive(Serialize, Deserialize)]
enum Task {
    Return,
    /// Allocate until the kernel kills this process.
    AllocateAll,
    /// Die by SIGKILL for another reason.
    KillSelf,
}

fn run(task: Task) {
    match task {
        Task::Return => {}
        Task::AllocateAll => {
            let mut hoard = Vec::new();
            loop {
                hoard.push(std::hint::black_box(vec![1u8; MIB]));
            }
        }
        Task::KillSelf => {
            kill(std::process::id());
            hang()
        }
    }
}

#[test]
fn oom_kill_is_distinguished_from_other_kills() {
    let _watchdog = watchdog(120);
    if !is_isolated() {
        return run_in(Cgroup::with_memory(96 * MIB), &test_name!());
    }
    Cgroup::join();
    let pool = pool(2, run);
    for round in 0..2 {
        for (is_oom_kill, fatal) in [(true, Task::AllocateAll), (false, Task::KillSelf)] {
            let results: Vec<_> = pool.map([Task::Return, fatal, Task::Return]).collect();
            assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
            let Err(Fault::WorkerDied { cause, .. }) = results[1].as_ref().map_err(|e| &e.fault) else {
                panic!("{results:?}")
            };
            match cause {
                ExitCause::OutOfMemory { cgroup: Some(name) } if is_oom_kill => {
                    assert!(name.contains("proc-pool-test"), "{name}");
                }
                ExitCause::Signal { number: 9, .. } if !is_oom_kill => {}
                _ => panic!("round {round}: {cause}"),
            }
        }
    }
}
