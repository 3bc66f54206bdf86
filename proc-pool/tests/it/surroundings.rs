//! What workers find around them: variables, directory, thread limits at every depth.

use std::path::PathBuf;

use proc_pool::{Builder, Pool, PoolError, Threads, Workers};

use crate::support::{Alone, Dir, is_alone, test_name, watchdog};

fn variable(name: String) -> Option<String> {
    std::env::var(name).ok()
}

fn get(pool: &Pool<String, Option<String>>, name: &str) -> Option<String> {
    pool.map([name.to_owned()])
        .next()
        .expect("one")
        .expect("no task fails")
}

fn one() -> Builder {
    Builder::new().workers(Workers::Count(1))
}

#[test]
fn variables_that_are_kept_from_workers() {
    if !is_alone() {
        return Alone::new(&test_name!())
            .env("IT_ONE", "1")
            .env("IT_TWO", "2")
            .env("MKL_NUM_THREADS", "7")
            .run();
    }
    let _watchdog = watchdog(60);
    let pool = one()
        .env_remove("IT_ONE")
        .env_remove("OMP_NUM_THREADS")
        .env("IT_TWO", "3")
        .env_remove("IT_TWO")
        .build_op(variable)
        .expect("it starts");
    for name in ["IT_ONE", "IT_TWO", "OMP_NUM_THREADS"] {
        assert_eq!(get(&pool, name), None, "{name}");
    }
    let pool = one()
        .env("IT_TWO", "3")
        .env_clear()
        .env("IT_ONE", "4")
        .build_op(variable)
        .expect("it starts");
    for (name, value) in [("IT_ONE", Some("4")), ("IT_TWO", None), ("PATH", None)] {
        assert_eq!(get(&pool, name).as_deref(), value, "{name}");
    }
    // With the user's limit gone, there is the pool's.
    assert_eq!(get(&pool, "MKL_NUM_THREADS"), get(&pool, "OMP_NUM_THREADS"));
    assert!(get(&pool, "MKL_NUM_THREADS").is_some_and(|limit| limit.parse().is_ok_and(|n: usize| n > 0)));
}

#[test]
fn a_directory_of_their_own() {
    let _watchdog = watchdog(60);
    let here = || std::env::current_dir().expect("it exists");
    let dir = Dir::new();
    let mut path = dir.path().to_owned();
    if cfg!(unix) {
        // The one that it really is: it may be found through a link.
        path = std::fs::canonicalize(path).expect("it exists");
    }
    for (builder, expected) in [(one(), here()), (one().current_dir(&path), path.clone())] {
        let pool = builder.build_op(|(): ()| std::env::current_dir().ok());
        let found: Option<PathBuf> = pool
            .expect("it starts")
            .map([()])
            .next()
            .expect("one")
            .expect("no task fails");
        assert_eq!(found, Some(expected));
    }
    let file = path.join("file");
    std::fs::write(&file, "").expect("it can be written");
    for bad in [file, path.join("missing")] {
        match one().current_dir(&bad).build_op(|n: u64| n) {
            Err(PoolError::CurrentDir { dir, .. }) => assert_eq!(dir, bad),
            other => panic!("{other:?}"),
        }
    }
}

/// What a worker, and a worker of that worker, find: limit, number of cores that are theirs, and the user's limit.
type Found = (Option<String>, usize, Option<String>);

fn find() -> Found {
    let cores = Workers::All.resolve().expect("there are some").get();
    let limit = |name: &str| variable(name.to_owned());
    (limit("OMP_NUM_THREADS"), cores, limit("MKL_NUM_THREADS"))
}

fn find_both(workers: usize) -> Result<(Found, Found), String> {
    let builder = Builder::new().workers(Workers::Count(workers));
    let pool = builder.build_op(|(): ()| find()).map_err(|e| e.to_string())?;
    let inner = pool.map([()]).next().ok_or("no output")?;
    Ok((find(), inner.map_err(|e| e.to_string())?))
}

#[test]
fn thread_limits_by_level() {
    if !is_alone() {
        return Alone::new(&test_name!()).env("MKL_NUM_THREADS", "7").run();
    }
    let _watchdog = watchdog(100);
    let cores = std::thread::available_parallelism().expect("it is known").get();
    let text = |limit: usize| Some(limit.to_string());
    let at_most = |limit: usize| limit.min(cores);
    let half = (cores / 2).max(1);
    for (levels, outer, inner) in [
        (vec![], (text(cores), cores), (text(half), half)),
        (vec![Threads::Count(6)], (text(6), at_most(6)), {
            let share = (at_most(6) / 2).max(1);
            (text(share), share)
        }),
        (
            vec![Threads::Count(1), Threads::Count(3)],
            (text(1), 1),
            (text(3), at_most(3)),
        ),
        (
            vec![Threads::Unlimited, Threads::Share],
            (None, cores),
            (text(half), half),
        ),
        (
            vec![Threads::Share, Threads::Unlimited],
            (text(cores), cores),
            (None, cores),
        ),
    ] {
        let builder = one().threads_by_level(levels.clone());
        let pool = builder.build_op(find_both).expect("it starts");
        let found = pool.map([2]).next().expect("one").expect("no task fails");
        let found = found.expect("the inner pool works");
        let user = text(7);
        assert_eq!(found.0, (outer.0, outer.1, user.clone()), "{levels:?}");
        assert_eq!(found.1, (inner.0, inner.1, user), "{levels:?}");
    }
    let none = one().threads(Threads::Count(0)).build_op(|n: u64| n);
    assert!(matches!(none, Err(PoolError::ThreadCount)));
}
