//! The environment of workers: variables, working directory, thread limits at every level of nesting.

use std::path::PathBuf;

use proc_pool::{NativeThreads, Pool, PoolError, Workers};

use crate::support::{IsolatedTest, TempDir, builder, is_isolated, run_one, test_name, watchdog};

fn variable(name: String) -> Option<String> {
    std::env::var(name).ok()
}

/// Returns the value that a variable has in the workers.
fn get(pool: &Pool<String, Option<String>>, name: &str) -> Option<String> {
    run_one(pool, name.to_owned())
}

#[cfg(target_os = "linux")]
#[test]
fn variables_and_thread_limits_reach_workers() {
    if !is_isolated() {
        return IsolatedTest::new(&test_name!())
            .env("MKL_NUM_THREADS", "7")
            .env("IT_INHERITED", "yes")
            .run();
    }
    let _watchdog = watchdog(60);
    let cores = std::thread::available_parallelism()
        .expect("the number of cores is known")
        .get();
    let pool = builder(2)
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
fn removed_variables_do_not_reach_workers() {
    if !is_isolated() {
        return IsolatedTest::new(&test_name!())
            .env("IT_ONE", "1")
            .env("IT_TWO", "2")
            .env("MKL_NUM_THREADS", "7")
            .run();
    }
    let _watchdog = watchdog(60);
    let pool = builder(1)
        .env_remove("IT_ONE")
        .env_remove("OMP_NUM_THREADS")
        .env("IT_TWO", "3")
        .env_remove("IT_TWO")
        .build_op(variable)
        .expect("the pool starts");
    for name in ["IT_ONE", "IT_TWO", "OMP_NUM_THREADS"] {
        assert_eq!(get(&pool, name), None, "{name}");
    }
    let pool = builder(1)
        .env("IT_TWO", "3")
        .env_clear()
        .env("IT_ONE", "4")
        .build_op(variable)
        .expect("the pool starts");
    for (name, value) in [("IT_ONE", Some("4")), ("IT_TWO", None), ("PATH", None)] {
        assert_eq!(get(&pool, name).as_deref(), value, "{name}");
    }
    // Without the user's limit, the pool sets its own.
    assert_eq!(get(&pool, "MKL_NUM_THREADS"), get(&pool, "OMP_NUM_THREADS"));
    assert!(get(&pool, "MKL_NUM_THREADS").is_some_and(|limit| limit.parse().is_ok_and(|n: usize| n > 0)));
}

#[test]
fn workers_start_in_the_configured_directory() {
    let _watchdog = watchdog(60);
    let here = || std::env::current_dir().expect("the directory exists");
    let dir = TempDir::new();
    let mut path = dir.path().to_owned();
    if cfg!(unix) {
        // The temporary directory may be reached through a symbolic link.
        path = std::fs::canonicalize(path).expect("the directory exists");
    }
    for (builder, expected) in [
        (builder(1), here()),
        (builder(1).current_dir(&path), path.clone()),
    ] {
        let pool = builder.build_op(|(): ()| std::env::current_dir().ok());
        let found: Option<PathBuf> = run_one(&pool.expect("the pool starts"), ());
        assert_eq!(found, Some(expected));
    }
    let file = path.join("file");
    std::fs::write(&file, "").expect("the file can be written");
    for bad in [file, path.join("missing")] {
        match builder(1).current_dir(&bad).build_op(|n: u64| n) {
            Err(PoolError::CurrentDir { dir, .. }) => assert_eq!(dir, bad),
            other => panic!("{other:?}"),
        }
    }
}

/// The environment of a worker: the pool's thread limit, the number of its cores, and the user's thread limit.
type Found = (Option<String>, usize, Option<String>);

fn find() -> Found {
    let cores = Workers::All
        .resolve()
        .expect("the number of cores is known")
        .get();
    let limit = |name: &str| variable(name.to_owned());
    (limit("OMP_NUM_THREADS"), cores, limit("MKL_NUM_THREADS"))
}

/// Returns what this worker finds, and what a worker of a pool within it finds.
fn find_both(workers: usize) -> Result<(Found, Found), String> {
    let pool = builder(workers)
        .build_op(|(): ()| find())
        .map_err(|e| e.to_string())?;
    let inner = pool.map([()]).next().ok_or("no output")?;
    Ok((find(), inner.map_err(|e| e.to_string())?))
}

#[test]
fn thread_limits_follow_the_level_of_nesting() {
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).env("MKL_NUM_THREADS", "7").run();
    }
    let _watchdog = watchdog(100);
    let cores = std::thread::available_parallelism()
        .expect("the number of cores is known")
        .get();
    let text = |limit: usize| Some(limit.to_string());
    let at_most = |limit: usize| limit.min(cores);
    let half = (cores / 2).max(1);
    for (levels, outer, inner) in [
        (vec![], (text(cores), cores), (text(half), half)),
        (vec![NativeThreads::Count(6)], (text(6), at_most(6)), {
            let share = (at_most(6) / 2).max(1);
            (text(share), share)
        }),
        (
            vec![NativeThreads::Count(1), NativeThreads::Count(3)],
            (text(1), 1),
            (text(3), at_most(3)),
        ),
        (
            vec![NativeThreads::Unlimited, NativeThreads::Share],
            (None, cores),
            (text(half), half),
        ),
        (
            vec![NativeThreads::Share, NativeThreads::Unlimited],
            (text(cores), cores),
            (None, cores),
        ),
    ] {
        let builder = builder(1).native_threads_by_level(levels.clone());
        let pool = builder.build_op(find_both).expect("the pool starts");
        let found = run_one(&pool, 2);
        let found = found.expect("the inner pool works");
        let user = text(7);
        assert_eq!(found.0, (outer.0, outer.1, user.clone()), "{levels:?}");
        assert_eq!(found.1, (inner.0, inner.1, user), "{levels:?}");
    }
    let none = builder(1)
        .native_threads(NativeThreads::Count(0))
        .build_op(|n: u64| n);
    assert!(matches!(none, Err(PoolError::ThreadCount)));
}
