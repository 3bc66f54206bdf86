//! What workers find around them, and leaders that have little room.

use std::path::Path;
use std::time::Duration;

use proc_pool::{Builder, Fault, Pool, PoolError, Workers};

use crate::support::{Alone, Dir, has_children, is_alone, open_files, pool, signal, test_name, watchdog};

fn variable(name: String) -> Option<String> {
    std::env::var(name).ok()
}

fn get(pool: &Pool<String, Option<String>>, name: &str) -> Option<String> {
    pool.map([name.to_owned()])
        .next()
        .expect("one")
        .expect("no task fails")
}

#[test]
fn variables_and_thread_limits() {
    if !is_alone() {
        return Alone::new(&test_name!())
            .env("MKL_NUM_THREADS", "7")
            .env("IT_INHERITED", "yes")
            .run();
    }
    let _watchdog = watchdog(60);
    let cores = std::thread::available_parallelism().expect("it is known").get();
    let pool = Builder::new()
        .workers(Workers::Count(2))
        .env("IT_OWN", "a=b")
        .env("RAYON_NUM_THREADS", "5")
        .build_op(variable)
        .expect("the pool starts");
    let share = (cores / 2).max(1).to_string();
    for (name, value) in [
        ("IT_OWN", Some("a=b")),
        ("IT_INHERITED", Some("yes")),
        ("OMP_NUM_THREADS", Some(&*share)),
        ("OPENBLAS_NUM_THREADS", Some(&*share)),
        ("RAYON_NUM_THREADS", Some("5")),
        ("MKL_NUM_THREADS", Some("7")),
    ] {
        assert_eq!(get(&pool, name).as_deref(), value, "{name}");
    }
    assert_eq!(variable("IT_OWN".into()), None);
}

#[test]
fn standard_input_is_empty() {
    let _watchdog = watchdog(60);
    let pool = pool(1, |(): ()| {
        std::io::read_to_string(std::io::stdin()).expect("it is readable")
    });
    assert_eq!(pool.map([()]).next().expect("one").expect("no task fails"), "");
}

/// The inode that runs, whatever happened to its path.
#[test]
fn the_executable_may_be_replaced_while_it_runs() {
    if !is_alone() {
        let dir = Dir::new();
        let program = dir.path().join("it");
        std::fs::copy(std::env::current_exe().expect("it has a path"), &program).expect("it can be copied");
        for replace in ["removed", "replaced"] {
            let copy = dir.path().join(replace);
            std::fs::copy(&program, &copy).expect("it can be copied");
            Alone::with_program(&test_name!(), &copy)
                .env("IT_REPLACE", replace)
                .run();
        }
        return;
    }
    let _watchdog = watchdog(60);
    let pool = pool(2, |n: u64| n);
    let program = std::env::current_exe().expect("it has a path");
    std::fs::remove_file(&program).expect("it can be removed");
    if std::env::var("IT_REPLACE").as_deref() == Ok("replaced") {
        std::fs::write(&program, "#!/bin/false\n").expect("it can be written");
    }
    pool.bytes()
        .pids()
        .iter()
        .for_each(|(_, pid)| signal(*pid, rustix::process::Signal::KILL));
    assert_eq!(pool.map(0..10).filter(Result::is_ok).count(), 10);
    drop(pool);
    let another = crate::support::pool(1, |n: u64| n + 1);
    assert_eq!(another.map([1]).next().expect("one").expect("no task fails"), 2);
}

/// A backup, a container's build or `touch` changes the times of the file, which say nothing about what is in it.
#[test]
fn workers_start_from_an_executable_that_was_touched() {
    if !is_alone() {
        let dir = Dir::new();
        let program = dir.path().join("it");
        std::fs::copy(std::env::current_exe().expect("it has a path"), &program).expect("it can be copied");
        return Alone::with_program(&test_name!(), &program).run();
    }
    let _watchdog = watchdog(60);
    let pool = pool(2, |n: u64| n);
    let program = std::env::current_exe().expect("it has a path");
    let file = std::fs::File::open(&program).expect("it is readable");
    for time in [std::time::SystemTime::UNIX_EPOCH, std::time::SystemTime::now()] {
        file.set_modified(time).expect("it is ours");
        pool.bytes()
            .pids()
            .iter()
            .for_each(|(_, pid)| signal(*pid, rustix::process::Signal::KILL));
        assert_eq!(pool.map(0..10).filter(Result::is_ok).count(), 10);
    }
    drop(pool);
    let another = crate::support::pool(1, |n: u64| n + 1);
    assert_eq!(another.map([1]).next().expect("one").expect("no task fails"), 2);
}

/// A pool makes nothing there: no socket, no directory.
#[test]
fn any_temporary_directory_will_do() {
    if !is_alone() {
        let test = test_name!();
        let dir = Dir::new();
        let long = dir.path().join("d".repeat(200));
        std::fs::create_dir(&long).expect("it can be made");
        use std::os::unix::ffi::OsStrExt;
        let strange = dir.path().join(std::ffi::OsStr::from_bytes(b"\xff"));
        std::fs::create_dir(&strange).expect("it can be made");
        for it in [&*long, &*strange, Path::new("/proc"), &dir.path().join("missing")] {
            Alone::new(&test).env("TMPDIR", it).run();
        }
        for empty in [long, strange] {
            assert_eq!(std::fs::read_dir(empty).expect("it is readable").count(), 0);
        }
        return;
    }
    let _watchdog = watchdog(60);
    let pool = pool(2, |n: u64| if n == 5 { std::process::exit(1) } else { n });
    assert_eq!(pool.map(0..10).filter(Result::is_ok).count(), 9);
}

/// Whatever the limit is, the pool starts or says why not.
#[test]
fn few_open_files() {
    if !is_alone() {
        return Alone::new(&test_name!()).run();
    }
    let _watchdog = watchdog(100);
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    drop(pool(1, |n: u64| n));
    let files = open_files();
    let (mut started, mut refused) = (0, 0);
    for more in [1, 3, 5, 7, 9, 11, 13, 15, 17, 20, 24, 30] {
        let few = rustix::process::Rlimit {
            current: Some((files + more) as u64),
            ..limits
        };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, few).expect("less is allowed");
        let pool = Builder::new()
            .workers(Workers::Count(2))
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
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limits).expect("as before");
        assert!(!has_children());
    }
    assert!(started > 0 && refused > 0, "{started} {refused}");
    assert_eq!(pool(2, |n: u64| n).map(0..10).filter(Result::is_ok).count(), 10);
}

/// Large payloads go through memory that exists already.
#[test]
fn large_payloads_need_no_file() {
    if !is_alone() {
        return Alone::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    let pool = pool(1, |bytes: Vec<u8>| bytes);
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    assert_eq!(pool.map([vec![]]).filter(Result::is_ok).count(), 1);
    // Every number below is taken.
    let few = rustix::process::Rlimit {
        current: Some(3),
        ..limits
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, few).expect("less is allowed");
    let results: Vec<_> = pool
        .map([vec![1; 10], vec![2; 10_000_000], vec![3; 10]])
        .collect();
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limits).expect("as before");
    let lens = results.iter().map(|result| result.as_ref().map(Vec::len).ok());
    assert!(lens.eq([Some(10), Some(10_000_000), Some(10)]));
}

/// Programs that want to end quietly with their reader set SIGPIPE to its default; a dying worker must not count.
#[test]
fn a_leader_with_deadly_sigpipe() {
    if !is_alone() {
        return Alone::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    crate::crash::reset_sigpipe();
    let pool = pool(2, |n: u64| if n % 5 == 4 { std::process::exit(1) } else { n });
    for _ in 0..10 {
        assert_eq!(pool.map(0..50).filter(Result::is_err).count(), 10);
        pool.bytes()
            .pids()
            .iter()
            .for_each(|(_, pid)| signal(*pid, rustix::process::Signal::KILL));
        assert_eq!(pool.map(0..3).filter(Result::is_ok).count(), 3);
    }
}

/// This process may open so many files, for everything.
fn limit_open_files(count: u64) {
    let few = rustix::process::Rlimit {
        current: Some(count),
        maximum: Some(count),
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, few).expect("less is allowed");
}

fn double_or_die(bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() == 7 {
        std::process::abort();
    }
    bytes.repeat(2)
}

/// Two workers, deaths, and large payloads.
#[test]
fn sixty_four_open_files() {
    if !is_alone() {
        return Alone::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    limit_open_files(64);
    let pool = pool(2, double_or_die);
    for _ in 0..5 {
        let tasks = [vec![1; 10], vec![2; 7], vec![3; 100_000], vec![4; 200_000]];
        assert_eq!(pool.map(tasks).filter(Result::is_ok).count(), 3);
    }
}

/// That is an error, and nothing is left.
#[test]
fn more_workers_than_open_files_allow() {
    if !is_alone() {
        return Alone::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    limit_open_files(64);
    let builder = Builder::new().workers(Workers::Count(60));
    let pool = builder
        .start_timeout(Duration::from_secs(20))
        .build_op(double_or_die);
    let Err(error) = pool else {
        panic!("60 workers have about one file each")
    };
    let expected = matches!(error, PoolError::Os { .. } | PoolError::Start { .. });
    assert!(expected, "{error:?}");
    assert!(!has_children());
}

/// Neither a home, nor a terminal, nor anything else that is usually there.
#[test]
fn next_to_no_environment() {
    if !is_alone() {
        let mut alone = Alone::new(&test_name!());
        for name in ["HOME", "USER", "PATH", "LANG", "SHELL", "TERM"] {
            alone = alone.env_remove(name);
        }
        return alone.run();
    }
    let _watchdog = watchdog(60);
    assert!(std::env::var_os("HOME").is_none());
    let pool = pool(2, |n: u64| if n == 5 { panic!("as asked") } else { n });
    assert_eq!(pool.map(0..10).filter(Result::is_ok).count(), 9);
    pool.shutdown(Duration::from_secs(20)).expect("it did not fail");
}

/// A session without a terminal, and one that says that its terminal can do nothing.
#[test]
fn no_terminal_and_a_dumb_one() {
    if !is_alone() {
        Alone::new(&test_name!()).env("TERM", "dumb").run();
        return Alone::new(&test_name!()).env("IT_NO_TERMINAL", "1").run();
    }
    let _watchdog = watchdog(60);
    if std::env::var_os("IT_NO_TERMINAL").is_some() {
        // It fails for who leads a group already, and then there is a session without one at most.
        let _ = rustix::process::setsid();
        assert!(std::fs::File::open("/dev/tty").is_err());
    }
    let pool = pool(2, |n: u64| if n == 5 { std::process::exit(1) } else { n });
    assert_eq!(pool.map(0..10).filter(Result::is_ok).count(), 9);
    pool.shutdown(Duration::from_secs(20)).expect("it did not fail");
}

/// A directory of control groups of this test's own, of one controller, removed at its end; the reason why there is
/// none.
struct Group(std::path::PathBuf);

impl Group {
    fn new(controller: &str) -> Result<Self, String> {
        let name = format!("proc-pool-test-{}", std::process::id());
        // Version 1 has a tree for each controller, version 2 has one for all of them.
        let one = Path::new("/sys/fs/cgroup").join(controller);
        let tree = if one.is_dir() {
            one
        } else {
            "/sys/fs/cgroup".into()
        };
        let group = tree.join(name);
        std::fs::create_dir(&group).map_err(|e| format!("no group below {}: {e}", tree.display()))?;
        Ok(Self(group))
    }

    /// Sets the first of the files that is there.
    fn set(&self, files: [(&str, String); 2]) -> Result<(), String> {
        let mut there = files.iter().filter(|(file, _)| self.0.join(file).exists());
        let (file, value) = there.next().ok_or("its controller is not there")?;
        std::fs::write(self.0.join(file), value).map_err(|e| format!("{file} can't be set: {e}"))
    }

    fn procs(&self) -> std::path::PathBuf {
        self.0.join("cgroup.procs")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel lets go of those that have just ended a moment later.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("{} is left", self.0.display());
    }
}

/// Puts this process into the group that the environment names, its workers with it.
fn join_group() {
    let procs = std::env::var_os(GROUP).expect("it is told");
    std::fs::write(procs, std::process::id().to_string()).expect("a process may join");
}

const GROUP: &str = "IT_GROUP";

/// Half a core for leader and workers together: slower, and nothing else.
#[test]
fn half_a_core() {
    if !is_alone() {
        let group = Group::new("cpu").and_then(|group| {
            let period = 100_000;
            group.set([
                ("cpu.cfs_quota_us", (period / 2).to_string()),
                ("cpu.max", format!("{} {period}", period / 2)),
            ])?;
            Ok(group)
        });
        return match group {
            Ok(group) => Alone::new(&test_name!()).env(GROUP, group.procs()).run(),
            Err(why) => println!("skipped: {why}"),
        };
    }
    let _watchdog = watchdog(100);
    join_group();
    let builder = Builder::new().workers(Workers::Count(3));
    let op = |n: u64| if n % 100 == 50 { std::process::abort() } else { n };
    let pool = builder.build_op(op).expect("the pool starts");
    assert_eq!(pool.map(0..500).filter(Result::is_ok).count(), 495);
    assert_eq!(pool.map_unordered(0..500).filter(Result::is_err).count(), 5);
    let stats = pool.shutdown(Duration::from_secs(50)).expect("it did not fail");
    assert_eq!((stats.submitted, stats.faulted, stats.deaths), (1000, 10, 10));
}

/// Of all that they may have together, a task takes more: its worker ends of that, and nobody else.
#[test]
fn a_memory_limit_of_the_group() {
    const MODEL: usize = 64 << 20;
    if !is_alone() {
        let group = Group::new("memory").and_then(|group| {
            let limit = (MODEL * 12 / 10).to_string();
            group.set([("memory.limit_in_bytes", limit.clone()), ("memory.max", limit)])?;
            Ok(group)
        });
        return match group {
            Ok(group) => Alone::new(&test_name!()).env(GROUP, group.procs()).run(),
            Err(why) => println!("skipped: {why}"),
        };
    }
    let _watchdog = watchdog(100);
    let touch = |bytes: usize| {
        let mut memory = vec![0u8; bytes];
        memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        std::hint::black_box(&memory).len()
    };
    join_group();
    let pool = pool(1, touch);
    // A model's worth, again and again, fits; twice that does not, but the leader is small and stays.
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
