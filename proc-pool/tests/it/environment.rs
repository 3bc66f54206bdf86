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
        // The ticket is not for children of the worker.
        ("PROC_POOL_WORKER", None),
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

#[test]
fn temporary_directories_that_will_not_do() {
    if !is_alone() {
        let test = test_name!();
        let dir = Dir::new();
        let long = dir.path().join("d".repeat(100));
        std::fs::create_dir(&long).expect("it can be made");
        use std::os::unix::ffi::OsStrExt;
        let strange = dir.path().join(std::ffi::OsStr::from_bytes(b"\xff"));
        std::fs::create_dir(&strange).expect("it can be made");
        for bad in [&*long, &*strange, Path::new("/proc"), &dir.path().join("missing")] {
            Alone::new(&test).env("TMPDIR", bad).run();
        }
        return;
    }
    let _watchdog = watchdog(60);
    let Err(error) = Builder::new().workers(Workers::Count(2)).build_op(|n: u64| n) else {
        panic!("it started")
    };
    let PoolError::TempDir { dir, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(*dir, std::env::temp_dir());
    assert!(error.to_string().contains("set TMPDIR"), "{error}");
}

/// The longest that will do, does.
#[test]
fn a_long_temporary_directory() {
    if !is_alone() {
        let dir = Dir::new();
        let len = 107 - 18 - dir.path().as_os_str().len() - 1;
        let long = dir.path().join("d".repeat(len));
        std::fs::create_dir(&long).expect("it can be made");
        Alone::new(&test_name!()).env("TMPDIR", &long).run();
        return assert_eq!(std::fs::read_dir(long).expect("it is readable").count(), 0);
    }
    let _watchdog = watchdog(60);
    assert_eq!(pool(2, |n: u64| n).map(0..10).filter(Result::is_ok).count(), 10);
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
            Err(PoolError::Os { .. } | PoolError::Start { .. } | PoolError::TempDir { .. }) => refused += 1,
            Err(other) => panic!("{more}: {other}"),
        }
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limits).expect("as before");
        assert!(!has_children());
    }
    assert!(started > 0 && refused > 0, "{started} {refused}");
    assert_eq!(pool(2, |n: u64| n).map(0..10).filter(Result::is_ok).count(), 10);
}

/// Large payloads need files: without any left, they are errors of their tasks.
#[test]
fn no_file_for_a_large_payload() {
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
    let results: Vec<_> = pool.map([vec![1; 10], vec![2; 100_000], vec![3; 10]]).collect();
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limits).expect("as before");
    assert!(results[0].is_ok() && results[2].is_ok());
    let fault = results[1].as_ref().err().map(|error| &error.fault);
    assert!(matches!(fault, Some(Fault::Task(_))), "{fault:?}");
    assert_eq!(pool.map([vec![1; 100_000]]).filter(Result::is_ok).count(), 1);
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
